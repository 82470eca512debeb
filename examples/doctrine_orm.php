<?php
// Read your own writes with Doctrine's ORM: entities saved on the primary, read on replicas.
//
//   php doctrine_orm.php "$PRIMARY" "$REPLICA1" "$REPLICA2"
//
// Each node has an EntityManager.  Mind its identity map: find() of an entity that it has is
// answered from there, without the database, however old.  So Database says clear() before a
// read; without it the second read of a replica is the first one again, behind any wait.
//
// COUNT, TOKEN and GUARD in the environment are explained in README.md.
// Run with PHP 8.2, ORM 2.14.1 and DBAL 3.6.1, driver pgsql.

use Doctrine\DBAL\DriverManager;
use Doctrine\ORM\Configuration;
use Doctrine\ORM\EntityManager;
use Doctrine\ORM\Mapping as ORM;
use Doctrine\ORM\Mapping\Driver\AttributeDriver;

require 'Doctrine/ORM/autoload.php';  // Debian; elsewhere vendor/autoload.php

#[ORM\Entity, ORM\Table(name: 'profiles')]
class Profile
{
    #[ORM\Id, ORM\Column]
    public int $id;
    #[ORM\Column]
    public string $name;
    #[ORM\Column]
    public int $version;
}

const WAIT = 300;        // milliseconds on one node
const DEADLINE = 2000;   // for one read, over all nodes

class TokenLost extends Exception {}

// The tokens of one user: what the next request gets from a cookie.
// Same timeline and tag: the greater LSN, as a number.  Else both, joined by a dot.
function merge(string $set, string $token): string
{
    $kept = $set === '' ? [] : explode('.', $set);
    if (!preg_match('/^[0-9A-F]+-[0-9A-F]+-[0-9A-F]+$/', $token))
        return $set;
    [$tli, $lsn, $tag] = explode('-', $token);
    foreach ($kept as $i => $old) {
        [$tli2, $lsn2, $tag2] = explode('-', $old);
        if ($tli === $tli2 && $tag === $tag2) {
            if (hexdec($lsn) > hexdec($lsn2))
                $kept[$i] = $token;
            return implode('.', $kept);
        }
    }
    $kept[] = $token;
    return implode('.', array_slice($kept, -8));  // the first is the oldest
}

class Database
{
    public int $fallbacks = 0;
    public int $onPrimary = 0;
    public string $tokens;
    private array $open = [];

    // The first of the nodes is the primary.
    public function __construct(private array $nodes, string $tokens)
    {
        $this->tokens = $tokens;
    }

    // Made when it is asked for, so a server that is down is an error not before.
    private function manager(int $which): EntityManager
    {
        // One that has seen an error in flush() is closed for good; its connection is not.
        if (isset($this->open[$which]) && !$this->open[$which]->isOpen())
            $this->open[$which] = new EntityManager(
                $this->open[$which]->getConnection(), $this->configuration());
        $url = parse_url($this->nodes[$which]);
        return $this->open[$which] ??= new EntityManager(DriverManager::getConnection([
            'driver' => 'pgsql', 'host' => $url['host'], 'port' => $url['port'],
            'user' => $url['user'], 'password' => $url['pass'] ?? '',
            'dbname' => substr($url['path'], 1)]), $this->configuration());
    }

    private function configuration(): Configuration
    {
        $configuration = new Configuration();
        $configuration->setMetadataDriverImpl(new AttributeDriver([]));
        $configuration->setProxyDir(sys_get_temp_dir());
        $configuration->setProxyNamespace('Proxies');
        return $configuration;
    }

    // What the block returns, and the SQLSTATE or ''.
    private function on(int $which, Closure $block): array
    {
        try {
            return [$block($this->manager($which)), ''];
        } catch (Doctrine\DBAL\Exception\DriverException $e) {
            return [null, $this->broken($which, $e)];
        }
    }

    private function broken(int $which, Doctrine\DBAL\Exception\DriverException $e): string
    {
        $code = $e->getSQLState() ?? '08000';  // a connection that has broken, or none
        if (preg_match('/^(08|57P)/', $code)) {
            $this->open[$which]->getConnection()->close();
            unset($this->open[$which]);
        }
        return $code;
    }

    // All that the block does to entities, as one transaction.
    public function write(Closure $block, bool $keep): mixed
    {
        try {
            $em = $this->manager(0);
            $em->clear();
            $before = $this->token($em);
            $value = $em->wrapInTransaction($block);
            $token = $this->token($em);
            // No round trip: it comes with the reply to the commit.  But where no entity has
            // changed the ORM writes nothing, and none comes: as when a request is retried.
            // What it has found here may be on no replica yet, so the primary is asked.
            if ($keep && $token === $before)
                $token = $em->getConnection()->fetchOne('SELECT ryw_current_token()');
            if ($keep)
                $this->tokens = merge($this->tokens, $token);
            return $value;
        } catch (Doctrine\DBAL\Exception\DriverException $e) {
            $this->broken(0, $e);
            throw $e;
        }
    }

    // DBAL has not read the reply to its end, where the token is: here it would be the one before.
    private function token(EntityManager $em): string
    {
        $native = $em->getConnection()->getNativeConnection();
        while (pg_get_result($native))
            ;
        return pg_parameter_status($native, 'ryw.token') ?: '';
    }

    // Whatever the block reads is right, lazy loading too: it is behind the wait on its node.
    public function read(Closure $block, int $turn): mixed
    {
        $deadline = hrtime(true) / 1e6 + DEADLINE;
        $last = count($this->nodes) - 1;
        $i = 0;
        $again = false;
        while (true) {
            // replicas first, each time another one; the primary at last
            $which = $i === $last ? 0 : 1 + ($turn + $i) % $last;
            $left = (int) ($deadline - hrtime(true) / 1e6);
            if ($left <= 0)
                throw new Exception('no answer in time');
            [$value, $code] = $this->on($which, function (EntityManager $em) use ($block, $left) {
                $em->clear();
                $em->getConnection()->fetchOne('SELECT ryw_require(?, ?)',
                    [$this->tokens, min($left, WAIT)]);
                return $block($em);
            });
            if ($code === '') {
                $this->onPrimary += $which === 0 ? 1 : 0;
                return $value;
            }
            fwrite(STDERR, "$code on node $which\n");
            if ($code === 'RY002') {
                [$current, $error] = $this->on(0,
                    fn ($em) => $em->getConnection()->fetchOne('SELECT ryw_current_token()'));
                if ($error !== '')
                    throw new Exception("no primary: $error");
                $this->tokens = $current;
                throw new TokenLost();
            }
            $once = $code === 'RY004' || $code === '40001';
            if ($code === 'RY003' && $i < $last)
                $i = $last;              // a node astray?  The primary knows
            elseif ($code === 'RY003')
                $this->tokens = '';      // of another cluster: dropped
            elseif ($once && !$again)
                $again = true;
            elseif ($i === $last)
                throw new Exception("cannot read: $code");
            elseif ($once)
                $i = $last;
            elseif (preg_match('/^(RY00[156]|08...|57P..)$/', $code))
                $i++;
            else
                throw new Exception("cannot read: $code");
            $this->fallbacks++;
        }
    }
}

$db = new Database(array_slice($argv, 1), getenv('TOKEN') ?: '');
$times = (int) (getenv('COUNT') ?: 1);
$stale = $lost = 0;
for ($turn = 0; $turn < $times; $turn++) {
    $written = $db->write(
        fn (EntityManager $em) => ++$em->find(Profile::class, 1)->version,
        getenv('GUARD') !== 'off');
    do {
        try {
            $seen = $db->read(
                fn (EntityManager $em) => $em->find(Profile::class, 1)->version, $turn);
        } catch (TokenLost) {
            $seen = null;
            $lost++;
            print "token lost: a write of yours is gone\n";
        }
    } while ($seen === null);
    $stale += $seen < $written ? 1 : 0;
}
print "$times written, $stale stale, $lost lost, $db->onPrimary on the primary, "
    . "$db->fallbacks fallbacks, token $db->tokens\n";
