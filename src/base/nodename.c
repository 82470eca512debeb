/*-------------------------------------------------------------------------
 *
 * nodename.c
 *	  What this node is called.
 *
 * A replica is known by the application_name that its WAL receiver shows
 * upstream, for that is what the primary puts into the picture.  libpq takes
 * primary_conninfo apart.  Every name is printable ASCII, as the server's own
 * are: it is shown in databases of any encoding.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogrecovery.h"
#include "libpq-fe.h"
#include "utils/guc.h"

#include "base/compat.h"
#include "base/settings.h"
#include "base/nodename.h"

/* What the server calls its WAL receiver when nothing else is given. */
#define DEFAULT_UPSTREAM_NAME	"walreceiver"

/*
 * Copy a parameter out of primary_conninfo, if it gives one; value has
 * RYW_NODE_NAME_SIZE bytes, or is NULL when only that matters.
 */
static bool
conninfo_parameter(const char *keyword, char *value)
{
	PQconninfoOption *options;
	bool		found = false;

	if (PrimaryConnInfo == NULL || PrimaryConnInfo[0] == '\0')
		return false;
	options = PQconninfoParse(PrimaryConnInfo, NULL);
	if (options == NULL)
		return false;

	for (PQconninfoOption *option = options; option->keyword; option++)
	{
		if (strcmp(option->keyword, keyword) == 0 &&
			option->val != NULL && option->val[0] != '\0')
		{
			if (value)
				ryw_compat_clean_name(value, option->val, RYW_NODE_NAME_SIZE);
			found = true;
		}
	}
	PQconninfoFree(options);
	return found;
}

static bool
name_in_conninfo(char *name)
{
	return conninfo_parameter("application_name", name);
}

/*
 * The name of this node: ryw.node_name, else cluster_name, else the name in
 * primary_conninfo; empty when there is none.  name has RYW_NODE_NAME_SIZE
 * bytes.
 */
void
ryw_nodename_here(char *name)
{
	name[0] = '\0';
	if (ryw_setting_node_name != NULL && ryw_setting_node_name[0] != '\0')
		ryw_compat_clean_name(name, ryw_setting_node_name, RYW_NODE_NAME_SIZE);
	else if (cluster_name[0] != '\0')
		strlcpy(name, cluster_name, RYW_NODE_NAME_SIZE);
	else
		(void) name_in_conninfo(name);
}

/* The name that upstream knows this replica by, chosen as the server does. */
void
ryw_nodename_upstream(char *name)
{
	if (name_in_conninfo(name))
		return;
	strlcpy(name, cluster_name[0] != '\0' ? cluster_name : DEFAULT_UPSTREAM_NAME,
			RYW_NODE_NAME_SIZE);
}

/* What this node is called in ryw_lag, as a primary or as a replica. */
void
ryw_nodename_now(char *name, bool is_primary)
{
	if (is_primary)
		ryw_nodename_here(name);
	else
		ryw_nodename_upstream(name);
}

/* Does primary_conninfo name a database to call functions in? */
bool
ryw_nodename_upstream_database(void)
{
	return conninfo_parameter("dbname", NULL);
}
