<?php
// Read your own writes with Doctrine's DBAL: write on the primary, read on replicas.
//
//   php doctrine.php "$PRIMARY" "$REPLICA1" "$REPLICA2"
//
// COUNT, TOKEN and GUARD in the environment are explained in README.md.
// Run with PHP 8.2 and DBAL 3.6.1, driver pgsql.  An EntityManager has such a connection
// too: EntityManager::getConnection().

use Doctrine\DBAL\Connection;
use Doctrine\DBAL\DriverManager;

require 'Doctrine/DBAL/autoload.php';  // Debian; elsewhere vendor/autoload.php

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

    // Connects when it is asked, so a server that is down is an error not before.
    private function connection(int $which): Connection
    {
        $url = parse_url($this->nodes[$which]);
        return $this->open[$which] ??= DriverManager::getConnection([
            'driver' => 'pgsql', 'host' => $url['host'], 'port' => $url['port'],
            'user' => $url['user'], 'password' => $url['pass'] ?? '',
            'dbname' => substr($url['path'], 1)]);
    }

    // The first column of the first row, and the SQLSTATE or ''.
    private function query(int $which, string $sql, array $params): array
    {
        try {
            return [$this->connection($which)->fetchOne($sql, $params), ''];
        } catch (Doctrine\DBAL\Exception\DriverException $e) {
            $code = $e->getSQLState() ?? '08000';  // a connection that has broken, or none
            if (preg_match('/^(08|57P)/', $code))
                $this->connection($which)->close();
            return [null, $code];
        }
    }

    // All writes of the block, which returns a number, as one transaction.
    public function write(Closure $block, bool $keep): int
    {
        $conn = $this->connection(0);
        $value = $conn->transactional($block);
        // No round trip: it comes with the reply to the commit.  But DBAL has not read
        // that reply to its end, where the token is: here it would be the one before.
        if ($keep) {
            $native = $conn->getNativeConnection();
            while (pg_get_result($native))
                ;
            $token = pg_parameter_status($native, 'ryw.token');
            $this->tokens = merge($this->tokens, $token ?: '');
        }
        return $value;
    }

    // The query has to end with its conditions: the guard is one more.
    public function read(string $sql, int $turn): int
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
            [$value, $code] = $this->query($which, "$sql AND ryw_require(?, ?)",
                [$this->tokens, min($left, WAIT)]);
            if ($code === '') {
                $this->onPrimary += $which === 0 ? 1 : 0;
                return (int) $value;
            }
            fwrite(STDERR, "$code on node $which\n");
            if ($code === 'RY002') {
                [$current, $error] = $this->query(0, 'SELECT ryw_current_token()', []);
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
        fn (Connection $conn) => $conn->fetchOne(
            'UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version'),
        getenv('GUARD') !== 'off');
    do {
        try {
            $seen = $db->read('SELECT version FROM profiles WHERE id = 1', $turn);
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
