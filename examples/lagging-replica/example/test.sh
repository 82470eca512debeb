#!/bin/sh
#
# test.sh - the tests of profiles.sh.  Nothing in them is about replicas.
#
# Usage, each with "ryw-lab run --lag 1s --" in front:
#	  env ONE_SERVER=yes ./test.sh		reads go to the primary, too: all pass
#	  ./test.sh							reads go to a replica that is late
#	  env TOKENS=yes ./test.sh			the same, and each read waits for its write
#
# Exit status: the number of tests that failed.

PRIMARY_URL=${RYW_PRIMARY_URL:?run this with ryw-lab run}
REPLICA_URL=$RYW_REPLICA1_URL
[ "${ONE_SERVER:-}" != yes ] || REPLICA_URL=$PRIMARY_URL

# shellcheck source=examples/lagging-replica/example/profiles.sh
. "$(dirname -- "$0")/profiles.sh"

tests=0 failed=0

is()			# what there is, what there should be, name
{
	tests=$((tests + 1))
	if [ "$1" = "$2" ]; then
		echo "ok $tests - $3"
	else
		echo "not ok $tests - $3: '$1' instead of '$2'"
		failed=$((failed + 1))
	fi
}

# The tests begin when the fixtures are on every server.
write "DROP TABLE IF EXISTS profiles;
	CREATE TABLE profiles (id int PRIMARY KEY, name text CHECK (name <> ''));
	INSERT INTO profiles VALUES (1, 'Dora'), (2, 'Emil'), (3, 'Finn')" &&
	fetch "SELECT ryw_require('$token', 60000)" >/dev/null || exit 99

add_user 4 Gina
is "$(name_of 4)" Gina 'a new user is found'

rename_user 1 Diana
is "$(name_of 1)" Diana 'a new name is shown'

delete_user 2
is "$(name_of 2)" '' 'a user who has left is not found'

add_user 5 Hugo
is "$(number_of_users)" 4 'users are counted'

rename_user 3 Anna
is "$(first_user)" Anna 'the list is in order'

if add_user 6 ''; then answer=taken; else answer=refused; fi
is "$answer" refused 'a user without a name is refused'

echo "1..$tests"
exit $failed
