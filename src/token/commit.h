/*-------------------------------------------------------------------------
 *
 * commit.h
 *	  The token of this session's last commit, and sending it to the client.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RYW_COMMIT_H
#define RYW_COMMIT_H

extern void ryw_commit_install(void);
extern void ryw_commit_note_statement(void);
extern const char *ryw_commit_show_token(void);
extern void ryw_commit_expect_prepared(bool expected);
extern void ryw_commit_forget(void);

#endif							/* RYW_COMMIT_H */
