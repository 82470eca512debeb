<?php
// The application of README.md over one of examples/*.php, which is taken in as it stands:
//   php app.php RECIPE PRIMARY REPLICA...

$recipe = $argv[1];
putenv('COUNT=-1');  // what the recipe itself does: nothing
$argv = array_slice($argv, 1);
require $recipe;

$version = class_exists('Doctrine\DBAL\Connection', false) ? '' : ' ' . PHP_VERSION;
echo "ready$version\n";
for ($turn = 0; $line = fgets(STDIN); $turn++) {
    [$id, $op, $user, $tokens, $value] = explode(' ', trim($line));
    $db->tokens = $tokens === '-' ? '' : $tokens;
    $answer = 'ok';
    $seen = '-';
    $update = 'UPDATE profiles SET version = ' . (int) $value . ' WHERE id = ' . (int) $user
        . ' RETURNING version';
    try {
        if ($op === 'patch') {
            $what = match (basename($recipe)) {
                'doctrine.php' => fn ($conn) => $conn->fetchOne($update),
                'doctrine_orm.php' => function ($em) use ($user, $value, $turn) {
                    $profile = $em->find(Profile::class, (int) $user);
                    $profile->name = "Ann $turn";  // so that something has changed
                    return $profile->version = (int) $value;
                },
                default => $update
            };
            $seen = $db->write($what, true);
        } elseif ($op === 'idle' && class_exists('Profile', false)) {
            $seen = $db->write(fn ($em) => $em->find(Profile::class, (int) $user)->version, true);
        } elseif ($op === 'get' && class_exists('Profile', false)) {
            $seen = $db->read(fn ($em) => $em->find(Profile::class, (int) $user)->version, $turn);
        } elseif ($op === 'get') {
            $seen = $db->read('SELECT version FROM profiles WHERE id = ' . (int) $user, $turn);
        } elseif ($op === 'stats') {
            $seen = "$db->fallbacks/$db->onPrimary";
        } else {
            $answer = 'none';
        }
    } catch (TokenLost) {
        $answer = 'lost';
    } catch (Throwable $e) {
        $answer = 'error';
        $seen = preg_replace('/\s+/', '_', $e->getMessage());
    }
    echo "$id $answer $seen ", $db->tokens === '' ? '-' : $db->tokens, "\n";
}
