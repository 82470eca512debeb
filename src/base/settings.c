/*-------------------------------------------------------------------------
 *
 * settings.c
 *	  The configuration parameters, in one table.
 *
 * Nothing here raises in an assign hook; values are checked when they are
 * given.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/parallel.h"
#include "miscadmin.h"
#include "utils/guc.h"

#include "base/address.h"
#include "base/settings.h"

#define WAIT_TIMEOUT_DEFAULT	250
#define MAX_WAIT_DEFAULT		10000
#define MAX_WAITERS_AUTO		(-1)
#define SAMPLE_DEFAULT			100
#define LAG_WINDOW_DEFAULT		(5 * 60 * 1000)
#define LAG_WINDOW_MIN			1000
#define MAX_KEYS_MAX			(64 * 1024 * 1024)
#define DAY						(24 * 60 * 60 * 1000)

int			ryw_setting_wait_timeout = WAIT_TIMEOUT_DEFAULT;
int			ryw_setting_max_wait = MAX_WAIT_DEFAULT;
int			ryw_setting_max_waiters = MAX_WAITERS_AUTO;
int			ryw_setting_report_token = RYW_REPORT_COMMIT;
bool		ryw_setting_require_token = false;
int			ryw_setting_max_staleness = -1;
int			ryw_setting_log_min_wait = -1;
int			ryw_setting_max_keys = RYW_MAX_KEYS_DEFAULT;
char	   *ryw_setting_key;

int			ryw_setting_heartbeat_interval = RYW_HEARTBEAT_DEFAULT;
int			ryw_setting_sample_interval = SAMPLE_DEFAULT;
int			ryw_setting_lag_window = LAG_WINDOW_DEFAULT;
char	   *ryw_setting_node_name;
char	   *ryw_setting_node_address;
char	   *ryw_setting_zone;

static char *token_value;		/* unused: the show hook knows the token */
static char *wait_for_value;

static bool accept_wait_for;
static bool waits_possible;		/* preloaded */

static const struct config_enum_entry report_token_options[] = {
	{"off", RYW_REPORT_OFF, false},
	{"commit", RYW_REPORT_COMMIT, false},
	{"always", RYW_REPORT_ALWAYS, false},
	{NULL, 0, false}
};

/*
 * A value of ryw.wait_for stands for a wait that has happened, so it is taken
 * only from a SET statement, which waits first.  A parallel worker copies
 * what its leader has.
 */
static bool
check_wait_for(char **newval, void **extra pg_attribute_unused(),
			   GucSource source pg_attribute_unused())
{
	if (**newval == '\0' || accept_wait_for || InitializingParallelWorker)
		return true;

	if (!waits_possible)
	{
		GUC_check_errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
		GUC_check_errmsg("ryw is not in shared_preload_libraries");
		GUC_check_errhint("Add ryw to shared_preload_libraries and restart the server.");
		return false;
	}

	GUC_check_errmsg("parameter \"ryw.wait_for\" can only be given by a SET statement");
	GUC_check_errdetail("No wait could happen where it was given.");
	GUC_check_errhint("Use SET ryw.wait_for = 'token' or SET LOCAL ryw.wait_for = 'token'.");
	return false;
}

/* Where clients find this node: it is shown to those who look for one. */
static bool
check_node_address(char **newval, void **extra pg_attribute_unused(),
				   GucSource source pg_attribute_unused())
{
	char		host[RYW_HOST_SIZE];
	uint16		port;

	if (ryw_address_parse(*newval, host, &port))
		return true;
	GUC_check_errdetail("It must be \"host\" or \"host:port\", with a host of at most %d characters"
						" out of letters, digits and . _ - : / %%.", RYW_HOST_SIZE - 1);
	GUC_check_errhint("Write an address of IPv6 with a port as [address]:port.");
	return false;
}

static bool
check_zone(char **newval, void **extra pg_attribute_unused(),
		   GucSource source pg_attribute_unused())
{
	if (ryw_address_is_zone(*newval))
		return true;
	GUC_check_errdetail("A zone has at most %d characters, all of them printable ASCII.",
						RYW_ZONE_SIZE - 1);
	return false;
}

/* Nothing would keep to it without preloading.  A binary upgrade only copies it. */
static bool
check_max_staleness(int *newval, void **extra pg_attribute_unused(),
					GucSource source pg_attribute_unused())
{
	if (*newval < 0 || waits_possible || IsBinaryUpgrade)
		return true;
	GUC_check_errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE);
	GUC_check_errmsg("ryw is not in shared_preload_libraries");
	GUC_check_errhint("Add ryw to shared_preload_libraries and restart the server.");
	return false;
}

/* The parameters that are whole numbers. */
static const struct
{
	const char *name;
	const char *short_desc;
	const char *long_desc;
	int		   *variable;
	int			boot_value;
	int			min;
	int			max;
	GucContext	context;
	int			flags;
}			integer_settings[] =
{
	{
		"ryw.wait_timeout",
		"Sets how long to wait for a token when the call does not say.",
		"Zero looks once, without waiting.",
		&ryw_setting_wait_timeout, WAIT_TIMEOUT_DEFAULT, 0, INT_MAX,
		PGC_USERSET, GUC_UNIT_MS
	},
	{
		"ryw.max_wait",
		"Sets the longest wait; longer requests are cut to it.",
		NULL,
		&ryw_setting_max_wait, MAX_WAIT_DEFAULT, 0, INT_MAX,
		PGC_SUSET, GUC_UNIT_MS
	},
	{
		"ryw.max_waiters",
		"Sets how many sessions may wait at the same time.",
		"-1 means half of max_connections.",
		&ryw_setting_max_waiters, MAX_WAITERS_AUTO, MAX_WAITERS_AUTO, INT_MAX,
		PGC_SUSET, 0
	},
	{
		"ryw.log_min_wait",
		"Sets the time from which on a wait is logged.",
		"Zero logs every wait that did not end at once, -1 none.",
		&ryw_setting_log_min_wait, -1, -1, INT_MAX,
		PGC_SUSET, GUC_UNIT_MS
	},
	{
		"ryw.max_keys",
		"Sets how many keys are remembered with their last commit.",
		"0 turns keys off.",
		&ryw_setting_max_keys, RYW_MAX_KEYS_DEFAULT, 0, MAX_KEYS_MAX,
		PGC_POSTMASTER, 0
	},
	{
		"ryw.heartbeat_interval",
		"Sets how often the primary writes its picture of the cluster into WAL.",
		"0 turns it off.",
		&ryw_setting_heartbeat_interval, RYW_HEARTBEAT_DEFAULT, 0, DAY,
		PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"ryw.sample_interval",
		"Sets how often lag is measured.",
		NULL,
		&ryw_setting_sample_interval, SAMPLE_DEFAULT, RYW_SAMPLE_MIN, DAY,
		PGC_SIGHUP, GUC_UNIT_MS
	},
	{
		"ryw.lag_window",
		"Sets the time that percentiles of lag are taken over.",
		NULL,
		&ryw_setting_lag_window, LAG_WINDOW_DEFAULT, LAG_WINDOW_MIN, DAY,
		PGC_SIGHUP, GUC_UNIT_MS
	}
};

/* A server that runs already refuses parameters that only a start can set. */
static GucContext
possible_context(GucContext context)
{
	if (context == PGC_POSTMASTER && !process_shared_preload_libraries_in_progress)
		return PGC_SIGHUP;
	return context;
}

/*
 * Define every parameter.  Without preloading there is no shared memory and
 * no wait; the parameters exist all the same, so that giving one is answered
 * by their own checks instead of being stored as an unknown placeholder.
 */
void
ryw_settings_define(bool preloaded, const char *(*show_token) (void))
{
	waits_possible = preloaded;

	for (int i = 0; i < (int) lengthof(integer_settings); i++)
		DefineCustomIntVariable(integer_settings[i].name,
								integer_settings[i].short_desc,
								integer_settings[i].long_desc,
								integer_settings[i].variable,
								integer_settings[i].boot_value,
								integer_settings[i].min,
								integer_settings[i].max,
								possible_context(integer_settings[i].context),
								integer_settings[i].flags,
								NULL, NULL, NULL);
	DefineCustomStringVariable(RYW_TOKEN_SETTING,
							   "Token of this session's last commit.",
							   "Sent by the server with the reply to the commit.",
							   &token_value, "",
							   PGC_INTERNAL,
							   GUC_REPORT | GUC_NOT_IN_SAMPLE |
							   GUC_DISALLOW_IN_FILE | GUC_NO_RESET_ALL,
							   NULL, NULL, show_token);
	DefineCustomEnumVariable("ryw.report_token",
							 "Selects what is reported to the client in ryw.token.",
							 "off: nothing; commit: the token of each commit; "
							 "always: also the position after transactions that only read.",
							 &ryw_setting_report_token, RYW_REPORT_COMMIT,
							 report_token_options,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("ryw.require_token",
							 "Makes a wait without a token an error.",
							 "Off: there is nothing to wait for where the token is NULL or empty.",
							 &ryw_setting_require_token, false,
							 PGC_USERSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("ryw.max_staleness",
							"Sets how old the data may be that a statement reads on a replica.",
							"-1 means of any age.",
							&ryw_setting_max_staleness, -1, -1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							check_max_staleness, NULL, NULL);
	DefineCustomStringVariable("ryw.wait_for",
							   "Waits for a token, by SET alone.",
							   NULL,
							   &wait_for_value, "",
							   PGC_USERSET,
							   GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							   check_wait_for, NULL, NULL);
	DefineCustomStringVariable("ryw.key",
							   "Sets the key that each commit of a write touches.",
							   "Empty means none.",
							   &ryw_setting_key, "",
							   PGC_USERSET,
							   GUC_NOT_IN_SAMPLE,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("ryw.node_name",
							   "Sets the name of this node in ryw_lag while it is the primary.",
							   "Empty means cluster_name, else the name in primary_conninfo.",
							   &ryw_setting_node_name, "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);

	DefineCustomStringVariable("ryw.node_address",
							   "Sets where clients find this node, for ryw_nodes().",
							   "As host or host:port.",
							   &ryw_setting_node_address, "",
							   PGC_SIGHUP, 0,
							   check_node_address, NULL, NULL);
	DefineCustomStringVariable("ryw.zone",
							   "Sets the zone that this node is in, for ryw_nodes().",
							   NULL,
							   &ryw_setting_zone, "",
							   PGC_SIGHUP, 0,
							   check_zone, NULL, NULL);

	if (preloaded)
		MarkGUCPrefixReserved("ryw");
}

/* Let the next value of ryw.wait_for pass: a SET statement has waited. */
void
ryw_settings_accept_wait_for(bool accept)
{
	accept_wait_for = accept;
}

/* How many sessions may wait at the same time. */
int
ryw_settings_waiter_limit(void)
{
	if (ryw_setting_max_waiters == MAX_WAITERS_AUTO)
		return Max(MaxConnections / 2, 1);
	return ryw_setting_max_waiters;
}
