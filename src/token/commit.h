/*-------------------------------------------------------------------------
 *
 * commit.h
 *	  The token of this session's last commit, and sending it to the client.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_COMMIT_H
#define RYW_COMMIT_H

#include "access/xlogdefs.h"

extern void ryw_commit_install(void);
extern void ryw_commit_note_statement(void);
extern const char *ryw_commit_show_token(void);
extern void ryw_commit_expect_prepared(bool expected);
extern void ryw_commit_forget(void);
extern uint32 ryw_commit_required_tag(TimeLineID tli);

#endif							/* RYW_COMMIT_H */
