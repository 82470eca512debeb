# shellcheck shell=bash
#
# servers.sh - throw-away servers, for scripts that show or measure something:
# a folder of their own, a primary, replicas of it, and an end that leaves
# nothing behind.  To be sourced by a bash script under "set -u".
#
# Run by root, everything runs as user postgres, since PostgreSQL refuses root;
# run by anybody else, as that user.  The servers listen on a socket inside
# their folder, which only that user may enter, and where $listen says so also
# on a TCP address, with a password made for this run.
#
# What the caller sets before the first call
#   what       its name: used in messages, as user name and as database
#   NODES      the nodes, in the order in which they are stopped; one is
#              "primary"
#   listen     a TCP address, or nothing
#   PG_CONFIG  the pg_config of the PostgreSQL to use
#   program    its name in messages, where that is not $what
#   die_status the exit status of die, where that is not 2
#
# Functions, in the order in which they are called: servers_begin, check_tools,
# make_folder, write_stop_script, pick_ports, create_primary, start_node,
# copy_to, configure_node, await_streaming, servers_end.
#
# A primary with replicas that lag is made of them by lagging-replica/ryw-lab.

dir=''			# everything lives in here
stop=''			# the script that stops and removes it
drop=()			# the command that gives up root, if we are root
children=()		# background jobs to end when interrupted
declare -A port_of	# node -> port
bin=''			# where the server's programs are
password=''
version=''		# of the server, for titles

# ---------- terminal ----------

tty=''
if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
	tty=1
fi
# shellcheck disable=SC2034 # for those who source this
bold='' plain=''
# shellcheck disable=SC2034
if [ -n "$tty" ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\033[1m' plain=$'\033[0m'
fi

# What is being done now: drawn over on a terminal, a line each elsewhere.
step()
{
	if [ -n "$tty" ]; then
		printf '\r\033[K   %s ...' "$1"
	else
		printf '   %s ...\n' "$1"
	fi
}

step_done()
{
	if [ -n "$tty" ]; then
		printf '\r\033[K'
	fi
	printf '   %s\n' "$1"
}

die()
{
	[ -n "$tty" ] && printf '\n'
	printf "${program:-${what:-servers}}: %s\n" "$@" >&2
	exit "${die_status:-2}"
}

# ---------- clean-up ----------

# Ends background jobs: after each signal they have five seconds.  Not with
# "wait", which has been seen to hang when the script was just waiting as the
# signal came.
# shellcheck disable=SC2317
end_children()	# signals
{
	local signal

	for signal; do
		[ "${#children[@]}" -gt 0 ] || return 0
		[ "$signal" = none ] || kill "-$signal" "${children[@]}" 2>/dev/null
		for _ in $(seq 50); do
			kill -0 "${children[@]}" 2>/dev/null || children=()
			[ "${#children[@]}" -gt 0 ] || return 0
			sleep 0.1
		done
	done
}

# Runs whenever the script ends, however it ends.
# shellcheck disable=SC2317
clean_up()
{
	local status=$?

	trap - EXIT
	trap '' INT TERM HUP PIPE
	if [ "$status" -gt 128 ] && [ -n "$dir" ]; then
		printf '\n\n   Interrupted: stopping and removing everything.\n' \
			>&3 2>/dev/null
	fi
	end_children TERM KILL
	if [ -n "$stop" ]; then
		sh "$stop" >/dev/null || status=2
	elif [ -n "$dir" ]; then
		rm -rf -- "$dir"
	fi
	exit "$status"
}

# From here on the script cleans up after itself, and libpq's settings of the
# caller's lead nobody to another server.
servers_begin()
{
	local name

	for name in $(compgen -e PG); do
		[ "$name" = PG_CONFIG ] || unset "$name"
	done
	umask 077

	# For the farewell: a signal may come while standard output is redirected.
	exec 3>&1

	trap clean_up EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 141' PIPE
	trap 'exit 143' TERM
}

# Stops and removes everything; fails if that did.
servers_end()
{
	sh "$stop" >/dev/null || return
	stop='' dir=''
}

# Waits for a background job.  Unlike a command in the foreground, that can be
# interrupted, so a signal is answered at once.
await()
{
	wait "$1"
}

# ---------- servers ----------

# Runs a command as the user who owns the servers.
as_owner_untimed()
{
	(cd "$dir" && exec 3>&- "${drop[@]}" env HOME="$dir" LC_ALL=C "$@")
}

# The same; nothing may take a minute.
as_owner()
{
	as_owner_untimed timeout --foreground -k 5 60 "$@"
}

show_log_and_die()
{
	printf '\n' >&2
	tail -n 20 "$2" >&2
	die "$1"
}

# Picks a port on which nobody answers on 127.0.0.1, below the range that the
# kernel gives to outgoing connections.
pick_port()		# node
{
	local port

	while :; do
		port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
		case " ${port_of[*]} " in *" $port "*) continue ;; esac
		(: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue
		port_of[$1]=$port
		return
	done
}

pick_ports()
{
	local node

	for node in $NODES; do
		pick_port "$node"
	done
}

# By the socket, which asks for no password.
conninfo()		# node
{
	printf 'host=%s port=%s user=%s dbname=%s connect_timeout=10' \
		"$dir" "${port_of[$1]}" "$what" "$what"
}

# Root gives way to user postgres.
choose_owner()
{
	[ "$(id -u)" = 0 ] || return 0
	id postgres >/dev/null 2>&1 ||
		die "there is no user postgres to run the servers as"
	drop=(setpriv --reuid=postgres --regid=postgres --init-groups)
}

check_tools()
{
	bin=$("$PG_CONFIG" --bindir) ||
		die "cannot run $PG_CONFIG: set PG_CONFIG to your PostgreSQL's pg_config"
	version=$("$PG_CONFIG" --version)
	[ -x "$bin/initdb" ] ||
		die "$bin has no initdb: the PostgreSQL server is not installed"
	[ -e "$("$PG_CONFIG" --sharedir)/extension/ryw.control" ] ||
		die "ryw is not installed in $version ($PG_CONFIG): make && sudo make install"
	choose_owner
	version=${version%% (*}
}

make_folder()
{
	local base

	base=$(cd "${TMPDIR:-/tmp}" && pwd -P) || die "no folder ${TMPDIR:-/tmp}"
	# its owner must get there, a socket's path may have some 100 bytes, and
	# nobody should have to quote it
	if [ "${#base}" -gt 70 ] || [[ $base == *[!A-Za-z0-9/._-]* ]] ||
		! "${drop[@]}" test -x "$base"; then
		base=/tmp
	fi
	dir=$(mktemp -d "$base/ryw-$what.XXXXXX") || die "mktemp failed"
	# the password is for TCP alone; in the folder only its owner gets in
	password=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
	printf '%s\n' "$password" >"$dir/password"
	printf '*:*:*:*:%s\n' "$password" >"$dir/pgpass"
}

# From here on whatever happens is undone by this script, now or later.
write_stop_script()
{
	cat >"$dir/stop" <<END
#!/bin/sh
# Stops the servers that were started for "$what" and removes their folder.
trap '' INT TERM HUP
dir=$dir
guard=\$(cat "\$dir/guard" 2>/dev/null)
stop_all()
{
	for node in $NODES; do
		[ -e "\$dir/\$node/postmaster.pid" ] || continue
		for mode in fast immediate; do
			${drop[*]} "$bin/pg_ctl" stop -s -D "\$dir/\$node" -m \$mode -t 15 &&
				break
		done
	done
	cd / && rm -rf "\$dir" && echo "stopped and removed: \$dir"
	status=\$?
	# who would have called this later (ryw-lab); it may be calling now
	if [ -n "\$guard" ] && [ "\$guard" != \$\$ ] &&
		grep -aqsF "\$dir" "/proc/\$guard/cmdline"; then
		kill -9 "\$guard"
	fi
	exit \$status
}
cd "\$dir" || exit
stop_all
END
	stop=$dir/stop
	if [ "${#drop[@]}" -gt 0 ]; then
		chown -R postgres:postgres "$dir"
	fi
}

# If somebody has taken its port since that was picked, on another one.
start_node()	# node
{
	for _ in 1 2 3; do
		as_owner "$bin/pg_ctl" start -s -w -t 30 -D "$dir/$1" \
			-l "$dir/$1.log" >/dev/null 2>&1 && return
		grep -q 'could not bind' "$dir/$1.log" || break
		pick_port "$1"
		configure_node "$1" </dev/null
	done
	show_log_and_die "$1 did not start" "$dir/$1.log"
}

query()			# node, statement
{
	as_owner "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -d "$(conninfo "$1")" \
		-c "$2"
}

# Appends standard input to a node's settings.
configure_node()	# node
{
	{
		printf "\ncluster_name = '%s'\nport = %s\n" "$1" "${port_of[$1]}"
		cat
	} >>"$dir/$1/postgresql.conf"
}

# Makes the primary and the database; its settings come on standard input.
create_primary()
{
	step "creating the primary"
	as_owner "$bin/initdb" --no-sync --username="$what" --encoding=UTF8 \
		--no-locale --auth-local=trust --auth-host=scram-sha-256 \
		--pwfile="$dir/password" "$dir/primary" >"$dir/initdb.log" 2>&1 ||
		show_log_and_die "initdb failed" "$dir/initdb.log"

	cat >>"$dir/primary/postgresql.conf" <<END

shared_preload_libraries = 'ryw'
listen_addresses = '${listen:-}'
unix_socket_directories = '$dir'
END
	configure_node primary
	step "starting the primary"
	start_node primary
	as_owner "$bin/createdb" -h "$dir" -p "${port_of[primary]}" -U "$what" \
		"$what" || die "cannot create the database"
}

copy_to()		# node
{
	as_owner "$bin/pg_basebackup" --no-sync -R -c fast -X stream \
		-d "$(conninfo primary) application_name=$1" -D "$dir/$1" \
		>"$dir/$1.copy.log" 2>&1
}

await_streaming()	# how many replicas
{
	for _ in $(seq 100); do
		[ "$(query primary "SELECT count(*) FROM pg_stat_replication
			WHERE state = 'streaming'")" = "$1" ] && return
		sleep 0.1
	done
	die "the replicas do not stream"
}
