/*-------------------------------------------------------------------------
 *
 * compat.c
 *	  The client's socket, without the headers that its declaration wants.
 *
 * libpq-be.h includes the GSSAPI headers where the server was built with
 * GSSAPI, and distributions do not install those with the server's own.  The
 * socket is the first member of struct Port, ahead of all that depends on
 * such options; nothing else of the struct may be touched in this file.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#undef ENABLE_GSS

#include "libpq/libpq-be.h"
#include "miscadmin.h"

#include "compat.h"

StaticAssertDecl(offsetof(Port, sock) == 0,
				 "the socket must come before what depends on options");

/* The client's socket, or PGINVALID_SOCKET in a process without a client. */
pgsocket
ryw_compat_client_socket(void)
{
	return MyProcPort == NULL ? PGINVALID_SOCKET : MyProcPort->sock;
}
