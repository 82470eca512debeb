# Plain PGXS: `make` builds the extension, `make install` installs it.
# `make help` lists the rest.

# Asked for by hand (make PG_CONFIG=..., or the environment)?  Then nothing
# here installs a server of its own.
RYW_PG_CONFIG_GIVEN := $(if $(filter undefined default,$(origin PG_CONFIG)),,yes)

# pg_config is in the PATH on most systems; else the newest of Debian's.
ifndef PG_CONFIG
PG_CONFIG := $(or $(shell command -v pg_config 2>/dev/null),$(shell \
	ls -d /usr/lib/postgresql/*/bin/pg_config 2>/dev/null | sort -V | tail -n 1),pg_config)
endif

# The control file is the one place that knows the version.
RYW_VERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" ryw.control)

EXTENSION = ryw
MODULE_big = ryw
PGFILEDESC = "ryw - read your own writes on replicas"
OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
DATA = $(sort $(wildcard sql/ryw--*.sql))

# PostgreSQL's headers are not clean under -Wextra: they are system headers.
PG_CPPFLAGS = -Isrc -DRYW_VERSION='"$(RYW_VERSION)"' \
	-isystem $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)
PG_CFLAGS = -Wall -Wextra

# libpq takes primary_conninfo apart
PG_CPPFLAGS += -isystem $(shell $(PG_CONFIG) --includedir 2>/dev/null)
SHLIB_LINK += -L$(shell $(PG_CONFIG) --libdir 2>/dev/null) -lpq

# `make installcheck` tests what is installed, on servers of its own, as any
# user but root.  pg_regress wants folders named sql, specs and expected:
# .regress has links of those names.
REGRESS = $(patsubst sql_tests/%.sql,%,$(sort $(wildcard sql_tests/*.sql)))
ISOLATION = $(patsubst sql_tests/isolation/%.spec,%,\
	$(sort $(wildcard sql_tests/isolation/*.spec)))
REGRESS_PREP = .regress
ENCODING = UTF8
NO_LOCALE = 1
REGRESS_OPTS = --inputdir=.regress --temp-instance=tmp_check \
	--temp-config=sql_tests/server.conf
ISOLATION_OPTS = --inputdir=.regress/isolation --temp-instance=tmp_check_iso \
	--temp-config=sql_tests/server.conf --load-extension=ryw

# Those of lag and session take longest, and begin first.
TAP_TESTS = 1
PROVE_TESTS = $(if $(RYW_CLIENTS),$(sort $(wildcard t/clients/*.pl)),\
	$(foreach folder,lag session wait failover guard package,$(sort $(wildcard t/$(folder)/*.pl)))\
	$(sort $(wildcard t/model/*.pl t/clients/bench_smoke.pl t/clients/pooler.pl t/soak/judging.pl)))

EXTRA_CLEAN = .build-stamp .build-stamp.new .regress

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(wildcard $(PGXS)),)
include $(PGXS)
PG_PROVE_FLAGS += -I '$(CURDIR)/t/lib' -j $(JOBS)
# Tests ask it; make hands on what was given to it, but no default.
installcheck: export PG_CONFIG := $(PG_CONFIG)
else
all install uninstall installcheck clean:
	@echo "$(PG_CONFIG) names no server development files: run 'make deps'," >&2
	@echo "or give the right pg_config: make PG_CONFIG=/path/to/pg_config" >&2
	@exit 1
endif

# PGXS tracks no headers, and objects built for another server are stale.
$(OBJS) $(OBJS:.o=.bc): $(wildcard src/*/*.h) ryw.control Makefile .build-stamp

.build-stamp: ryw-force
	@{ $(PG_CONFIG) --version; $(PG_CONFIG) --includedir-server; } >$@.new 2>/dev/null; \
	if cmp -s $@.new $@; then rm -f $@.new; else mv -f $@.new $@; fi

.regress: ryw-force
	@if [ "$$(id -u)" = 0 ]; then \
		echo 'installcheck starts servers, which PostgreSQL refuses root' >&2; exit 1; fi
	@if [ ! -e '$(pkglibdir)/ryw$(DLSUFFIX)' ]; then \
		echo 'ryw is not installed in $(pkglibdir): make install comes first' >&2; exit 1; fi
	@rm -rf $@ && mkdir -p $@/isolation
	@ln -s ../sql_tests $@/sql && ln -s ../expected $@/expected
	@ln -s ../../sql_tests/isolation $@/isolation/specs
	@ln -s ../../expected/isolation $@/isolation/expected

# ---- everything below is the project's own; each target works on a bare
# machine, so none of it needs PGXS to be there when make starts.

JOBS ?= 2
RYW_ENV = RYW_PG_CONFIG='$(if $(RYW_PG_CONFIG_GIVEN),$(PG_CONFIG))' \
	JOBS='$(JOBS)' TESTS='$(TESTS)' KEEP='$(KEEP)'

deps:
	@$(RYW_ENV) .ci/deps

test:
	@$(RYW_ENV) .ci/run-tests

# From outside: packages for applications, poolers, balancers, the lab.
test-clients:
	@$(RYW_ENV) RYW_CLIENTS=1 TESTS='$(or $(TESTS),tap)' .ci/run-tests

# The same tests, on a server built from source with assertions; with
# RYW_COVERAGE=1 also which lines of src/ they execute.
test-assert:
	@$(RYW_ENV) .ci/test-assert

# Switchovers and failovers by Patroni, under load; RYW_SEED=n replays a run.
test-ha:
	@$(RYW_ENV) t/ha/run

# The tests under the sanitizers and valgrind; MEMORY=valgrind selects.
test-memory:
	@$(RYW_ENV) MEMORY='$(MEMORY)' .ci/test-memory

# Load, and everything that goes wrong in production, for so many minutes; then
# failovers, and a history of them that is judged.  READS and FAILOVERS: that alone.
soak:
	@$(RYW_ENV) MINUTES='$(MINUTES)' READS='$(READS)' FAILOVERS='$(FAILOVERS)' \
		ASYNC='$(ASYNC)' HISTORY='$(HISTORY)' MAJOR='$(MAJOR)' t/soak/run

# The same tests on other majors, in chroots; MAJORS='17 19' selects.
test-majors:
	@$(RYW_ENV) MAJORS='$(MAJORS)' .ci/test-majors

# The archive for PGXN and the Debian packages, in chroots; SUITE=trixie selects.
test-packages:
	@SUITE='$(SUITE)' KEEP='$(KEEP)' .ci/test-packages

# What PGXN takes: the last commit, in a folder of the name that it asks for.
DIST = ryw-$(RYW_DISTVERSION).zip
RYW_DISTVERSION := $(shell sed -n '0,/"version"/s/.*"version": *"\(.*\)".*/\1/p' META.json)
dist:
	git archive --format=zip --prefix='ryw-$(RYW_DISTVERSION)/' -o '$(DIST)' HEAD

# Faults put in on purpose, which the tests must notice; takes half an hour.
mutants:
	@.ci/mutants

# Random input for the parsers, RUNS inputs each; needs clang's fuzzer.
fuzz:
	@RUNS='$(RUNS)' .ci/fuzz

lint:
	@$(RYW_ENV) TESTS='structure lint' .ci/run-tests

# After a change of types in src/.
typedefs:
	@$(MAKE) -s print-typedefs >typedefs.list.new && mv -f typedefs.list.new typedefs.list

print-typedefs:
	@ctags -x --c-kinds=gstu --_xformat=%N $(wildcard src/*.[ch] src/*/*.[ch]) | \
		grep -v ^__anon | LC_ALL=C sort -u

# What the scripts in .ci ask: the pg_config that this Makefile uses.
pg-config-path:
	@echo '$(PG_CONFIG)'

# And the tests that there are, as TESTS names them.
tap-tests:
	@echo $(PROVE_TESTS:t/%.pl=%)

demo: deps
	@$(RYW_ENV) .ci/build-install
	@$(RYW_ENV) examples/demo/run

# Every way to read one's own write, side by side; MAJOR=19 on PostgreSQL 19.
bench: deps
	@$(RYW_ENV) MAJOR='$(MAJOR)' MEASURES='$(MEASURES)' ROUNDS='$(ROUNDS)' \
		WORK='$(WORK)' bench/start

# Instructions of the commit path and of replay, counted by valgrind.
bench-instructions: deps
	@$(RYW_ENV) bench/instructions

help:
	@echo 'make                 build the extension'
	@echo 'make install         install it (as root, or with sudo)'
	@echo 'make demo            a primary and two replicas, on the terminal; KEEP=1 leaves them up'
	@echo 'make installcheck    the tests alone, of what is installed; not as root'
	@echo 'make test            every test; TESTS="guard wait/basic lint" selects, JOBS=n runs n at a time'
	@echo 'make test-clients    applications: drivers, packages, poolers, balancers, replicas that lag'
	@echo 'make test-assert     the same on a server built with assertions; RYW_COVERAGE=1 prints coverage'
	@echo 'make test-ha         failovers by Patroni, under a write load'
	@echo 'make test-memory     under the address and undefined behaviour sanitizers, and valgrind'
	@echo 'make soak            load, kills, pauses, restarts; MINUTES=n (5), RYW_SEED=n replays a run'
	@echo '                     READS=n FAILOVERS=n: a judged history, see docs/guarantees.md; MAJOR=19'
	@echo 'make test-majors     the same on 15, 17, 18 and 19, as far as they can be had (root)'
	@echo 'make test-packages   Debian packages: built, installed, updated, removed (root); SUITE=trixie'
	@echo 'make dist            the archive for PGXN'
	@echo 'make bench           ryw beside its rivals; MAJOR=19, MEASURES="way:0 mixed:8", ROUNDS=n'
	@echo 'make bench-instructions  what commit and replay cost, in instructions (valgrind)'
	@echo 'make mutants         faults that the tests must notice'
	@echo 'make fuzz            random input for the parsers; RUNS=10000000 inputs each'
	@echo 'make lint            structure checks, warnings of gcc and clang, cppcheck'
	@echo 'make typedefs        write typedefs.list for pgindent'
	@echo 'make deps            install what building and testing need'
	@echo 'PG_CONFIG=path       which PostgreSQL; default: pg_config in the PATH'

.PHONY: deps test test-clients test-assert test-ha test-memory soak test-majors test-packages dist mutants fuzz lint typedefs print-typedefs \
	pg-config-path tap-tests demo bench bench-instructions help ryw-force
