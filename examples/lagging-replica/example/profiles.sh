# shellcheck shell=sh
#
# profiles.sh - an application: it writes profiles on the primary and reads them
# from a replica.  With TOKENS=yes each read waits for the writes that went
# before; that is the whole difference.
#
# Environment: PRIMARY_URL, REPLICA_URL, TOKENS.

token=''

# Writes, and keeps the token of the commit.
write()			# statement
{
	token=$(psql "$PRIMARY_URL" -XqAt -v ON_ERROR_STOP=1 -c "$1" \
		-c 'SELECT ryw_token()' 2>/dev/null)
}

# Goes into a read's WHERE.
guard()
{
	if [ "${TOKENS:-}" = yes ]; then
		echo "ryw_require('$token', 5000)"
	else
		echo true
	fi
}

fetch()			# query
{
	psql "$REPLICA_URL" -XqAt -c "$1"
}

add_user()		# id, name
{
	write "INSERT INTO profiles VALUES ($1, '$2')"
}

rename_user()	# id, name
{
	write "UPDATE profiles SET name = '$2' WHERE id = $1"
}

delete_user()	# id
{
	write "DELETE FROM profiles WHERE id = $1"
}

name_of()		# id
{
	fetch "SELECT name FROM profiles WHERE id = $1 AND $(guard)"
}

number_of_users()
{
	fetch "SELECT count(*) FROM profiles WHERE $(guard)"
}

first_user()	# by name
{
	fetch "SELECT name FROM profiles WHERE $(guard) ORDER BY name LIMIT 1"
}
