/*-------------------------------------------------------------------------
 *
 * settings.h
 *	  The configuration parameters.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_SETTINGS_H
#define RYW_SETTINGS_H

typedef enum RywReportToken
{
	RYW_REPORT_OFF,				/* send nothing */
	RYW_REPORT_COMMIT,			/* send the token of each commit */
	RYW_REPORT_ALWAYS			/* and the position after reads */
} RywReportToken;

/* The parameter that carries the token to the client. */
#define RYW_TOKEN_SETTING	"ryw.token"

extern int	ryw_setting_wait_timeout;	/* milliseconds */
extern int	ryw_setting_max_wait;	/* milliseconds */
extern int	ryw_setting_max_waiters;	/* -1: half of max_connections */
extern int	ryw_setting_report_token;	/* RywReportToken */
extern bool ryw_setting_require_token;	/* NULL and '' are errors */
extern int	ryw_setting_max_staleness;	/* milliseconds; -1: off */
extern int	ryw_setting_log_min_wait;	/* milliseconds; -1: never */

extern int	ryw_setting_heartbeat_interval; /* milliseconds; 0: off */
extern int	ryw_setting_sample_interval;	/* milliseconds */
extern int	ryw_setting_lag_window; /* milliseconds */
extern char *ryw_setting_node_name;

#define RYW_HEARTBEAT_DEFAULT	1000	/* milliseconds */
#define RYW_SAMPLE_MIN			10

extern void ryw_settings_define(bool preloaded, const char *(*show_token) (void));
extern void ryw_settings_accept_wait_for(bool accept);
extern int	ryw_settings_waiter_limit(void);


#endif							/* RYW_SETTINGS_H */
