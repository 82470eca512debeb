# shellcheck shell=bash
#
# common.sh - what the scripts that run tests share; to be sourced at the top of
# a checkout.

passed=0
failed=0
skipped=0
rc=0			# of the last run_logged
child=			# what run_logged waits for
drop=()			# the command that gives up root, if we are root

if [ "$(id -u)" -eq 0 ]; then
	for name in ${RYW_TEST_USER:-} postgres nobody; do
		id -u "$name" >/dev/null 2>&1 || continue
		drop=(setpriv "--reuid=$name" "--regid=$(id -g "$name")" --init-groups
			env "USER=$name" "LOGNAME=$name")
		break
	done
fi

# Without build products: they may belong to another server.  And without history,
# but for what the tests of updates need of it.
copy_checkout()		# folder
{
	mkdir -p "$1" && { .ci/old-source "$1/.ryw-1.0.tar" 2>/dev/null || true; } &&
		tar -cf - --exclude=./.git --exclude='*.o' --exclude='*.bc' \
			--exclude='*.so' --exclude=./.build-stamp --exclude=./bench/results . |
		tar -xf - -C "$1" --no-same-owner
}

give_to_user()		# folder
{
	[ ${#drop[@]} -eq 0 ] || chown -hR "$name" "$1"
}

# The pg_config in use, as a path.
pg_config_path()
{
	command -v "$(make -s --no-print-directory \
		${RYW_PG_CONFIG:+PG_CONFIG="$RYW_PG_CONFIG"} pg-config-path)"
}

# Runs a command, its output shown and added to a file.  In the background, so
# that a signal reaches the traps at once.
run_logged()		# log, command...
{
	local log=$1 size
	shift
	touch "$log"
	size=$(stat -c %s "$log")
	"$@" </dev/null >>"$log" 2>&1 &
	child=$!
	tail -q -c "+$((size + 1))" -s 0.2 -f --pid="$child" "$log" &
	wait "$child"
	rc=$?
	child=
	wait
}

end_child()			# signal
{
	[ -n "$child" ] || return
	kill "-$1" "$child" 2>/dev/null
	wait "$child" 2>/dev/null
	child=
}

# Runs a command that ends with a line of totals, and adds them up; that line
# is left in $line.
count()				# log, command...
{
	local p f s _
	: >"$1"
	run_logged "$@"
	line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$1" | tail -n 1)
	if [ -z "$line" ]; then
		line="no totals, exit status $rc"
		echo "$line"
		failed=$((failed + 1))
		return 1
	fi
	read -r p _ f _ s _ <<<"$line"
	passed=$((passed + p))
	failed=$((failed + f))
	skipped=$((skipped + s))
	[ "$rc" -eq 0 ] || [ "$f" -gt 0 ] || failed=$((failed + 1))
	return "$rc"
}

# One test; what there is to say comes on standard input.
check()				# status, name
{
	if [ "$1" -eq 0 ]; then
		echo "ok - $2"
		passed=$((passed + 1))
	else
		echo "not ok - $2"
		sed 's/^/    /'
		failed=$((failed + 1))
	fi
}

skip()				# what, why
{
	echo "$1: skipped: $2"
	skipped=$((skipped + 1))
}

# Adds up the assertions of a test that run_logged has run.
count_tap()			# log
{
	local skips
	skips=$(grep -c '^ok.*# skip' "$1")
	skipped=$((skipped + skips))
	passed=$((passed + $(grep -c '^ok' "$1") - skips))
	failed=$((failed + $(grep -c '^not ok' "$1")))
	[ "$rc" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
}

# Runs a command whose last line is the path of what it has made, left in $path,
# or "skipped: REASON" with status 77.
obtain()			# what, command...
{
	local what=$1
	shift
	path=$("$@")
	rc=$?
	path=${path##*$'\n'}
	case $rc in
		0) return 0 ;;
		77) skip "$what" "${path#skipped: }" ;;
		124 | 137) skip "$what" 'it takes too long to make here' ;;
		*)
			check 1 "$what can be made" </dev/null
			;;
	esac
	return 1
}

# The last line of every script: fails if anything has, or nothing was done.
totals()
{
	echo "$passed passed, $failed failed, $skipped skipped"
	[ "$failed" -eq 0 ] && [ $((passed + skipped)) -gt 0 ]
	exit
}
