<?php
// Read your own writes with PHP's PDO: write on the primary, read on replicas.
//
//   php php_pdo.php "$PRIMARY" "$REPLICA1" "$REPLICA2"
//
// COUNT, TOKEN and GUARD in the environment are explained in README.md.
// Run with PHP 8.2 and its pdo_pgsql.

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

    // A server that is down is an error when it is asked, not before.
    private function connection(int $which): PDO
    {
        if (!isset($this->open[$which])) {
            $url = parse_url($this->nodes[$which]);
            $this->open[$which] = new PDO(
                "pgsql:host=$url[host];port=$url[port];dbname=" . substr($url['path'], 1),
                $url['user'], $url['pass'] ?? null,
                [PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_TIMEOUT => 2,
                 PDO::PGSQL_ATTR_DISABLE_PREPARES => true]  // one message, not two
            );
        }
        return $this->open[$which];
    }

    // The first column of the first row, and the SQLSTATE or ''.
    private function query(int $which, string $sql, array $params): array
    {
        try {
            $statement = $this->connection($which)->prepare($sql);
            $statement->execute($params);
            return [$statement->fetchColumn(), ''];
        } catch (PDOException $e) {
            // "HY000" is a connection that has broken, "08006" one that was not made
            $code = $e->errorInfo[0] ?? '08000';
            $code = $code === 'HY000' ? '08000' : $code;
            if (preg_match('/^(08|57P)/', $code))
                unset($this->open[$which]);
            return [null, $code];
        }
    }

    public function write(string $sql, bool $keep): int
    {
        [$value, $code] = $this->query(0, $sql, []);
        if ($code !== '')
            throw new Exception("cannot write: $code");
        // PDO does not show what the server has reported, so it is asked, on the same
        // connection.  (Not through a pooler in transaction mode.)
        if ($keep) {
            [$token, $code] = $this->query(0, 'SELECT ryw_token()', []);
            if ($code !== '')
                throw new Exception("written, but the token is not known: $code");
            $this->tokens = merge($this->tokens, $token ?? '');
        }
        return (int) $value;
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
    $written = $db->write('UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version',
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
