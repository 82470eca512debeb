/*-------------------------------------------------------------------------
 *
 * faulty.c
 *	  Files and memory that fail on demand, for LD_PRELOAD.
 *
 * The file that RYW_FAULTS names is mapped by every process of the server, and
 * written by the test (t/lib/RywFaults.pm): which paths fail, in which calls and
 * with which errno, and after how many allocations of which process memory runs
 * out.  Nothing fails while it is all zero.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

enum
{
	CALL_OPEN = 1, CALL_READ = 2, CALL_WRITE = 4, CALL_FSYNC = 8
};

/* As RywFaults.pm packs it. */
typedef struct Faults
{
	/* of paths that contain pattern; none while calls is 0 */
	volatile int32_t calls;
	volatile int32_t error;
	char		pattern[120];
	volatile int32_t paths_failed;

	/* of the allocations of a process; none while pid is 0 */
	volatile int32_t pid;
	volatile int32_t allocations_left;
	volatile int32_t allocations_failed;
	volatile int32_t allocations_seen;
} Faults;

static Faults *faults;

extern void *__libc_malloc(size_t size);
extern void *__libc_realloc(void *pointer, size_t size);
extern void *__libc_calloc(size_t n, size_t size);

__attribute__((constructor)) static void
map_faults(void)
{
	const char *name = getenv("RYW_FAULTS");
	int			fd = name == NULL ? -1 : open(name, O_RDWR);
	void	   *page;

	if (fd < 0)
		return;
	page = mmap(NULL, sizeof(Faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (page != MAP_FAILED)
		faults = page;
}

/* ---- paths ---- */

static int
path_fails(int call, const char *path)
{
	if (strstr(path, faults->pattern) == NULL)
		return 0;
	(void) call;
	faults->paths_failed++;
	errno = faults->error;
	return 1;
}

static int
is_faulty(int call)
{
	return faults != NULL && (faults->calls & call) != 0;
}

static int
fd_fails(int call, int fd)
{
	char		link[64];
	char		path[4096];
	ssize_t		length;

	if (!is_faulty(call))
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	length = readlink(link, path, sizeof(path) - 1);
	if (length < 0)
		return 0;
	path[length] = '\0';
	return path_fails(call, path);
}

#define NEXT(name) \
	static __typeof__(name) *next = NULL; \
	if (next == NULL) \
		next = (__typeof__(name) *) dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
int name(const char *path, int flags, ...) \
{ \
	va_list		args; \
	mode_t		mode = 0; \
	NEXT(name); \
	va_start(args, flags); \
	if (flags & (O_CREAT | O_TMPFILE)) \
		mode = va_arg(args, mode_t); \
	va_end(args); \
	if (is_faulty(CALL_OPEN) && path_fails(CALL_OPEN, path)) \
		return -1; \
	return next(path, flags, mode); \
}

#define OPEN_2(name) \
int name(const char *path, int flags); \
int name(const char *path, int flags) \
{ \
	NEXT(name); \
	if (is_faulty(CALL_OPEN) && path_fails(CALL_OPEN, path)) \
		return -1; \
	return next(path, flags); \
}

OPEN(open)
OPEN(open64)
OPEN_2(__open_2)
OPEN_2(__open64_2)

ssize_t
read(int fd, void *buffer, size_t size)
{
	NEXT(read);
	return fd_fails(CALL_READ, fd) ? -1 : next(fd, buffer, size);
}

ssize_t
__read_chk(int fd, void *buffer, size_t size, size_t room);

ssize_t
__read_chk(int fd, void *buffer, size_t size, size_t room)
{
	NEXT(__read_chk);
	return fd_fails(CALL_READ, fd) ? -1 : next(fd, buffer, size, room);
}

/* A disk that fills up takes a part first. */
ssize_t
write(int fd, const void *buffer, size_t size)
{
	NEXT(write);
	if (fd_fails(CALL_WRITE, fd))
	{
		if (size < 2 || faults->error != ENOSPC)
			return -1;
		size /= 2;
	}
	return next(fd, buffer, size);
}

#define PWRITE(name, Buffer, Offset) \
ssize_t name(int fd, Buffer buffer, size_t size, Offset offset) \
{ \
	NEXT(name); \
	return fd_fails(CALL_WRITE, fd) ? -1 : next(fd, buffer, size, offset); \
}

PWRITE(pwrite, const void *, off_t)
PWRITE(pwrite64, const void *, off64_t)

#define PWRITEV(name, Offset) \
ssize_t name(int fd, const struct iovec *parts, int n, Offset offset) \
{ \
	NEXT(name); \
	return fd_fails(CALL_WRITE, fd) ? -1 : next(fd, parts, n, offset); \
}

PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)

int
fsync(int fd)
{
	NEXT(fsync);
	return fd_fails(CALL_FSYNC, fd) ? -1 : next(fd);
}

/* ---- memory ---- */

static int
allocation_fails(void)
{
	if (faults == NULL || faults->pid == 0 || faults->pid != getpid())
		return 0;
	faults->allocations_seen++;
	if (faults->allocations_left-- > 0)
		return 0;
	faults->allocations_failed++;
	errno = ENOMEM;
	return 1;
}

void *
malloc(size_t size)
{
	return allocation_fails() ? NULL : __libc_malloc(size);
}

void *
realloc(void *pointer, size_t size)
{
	return allocation_fails() ? NULL : __libc_realloc(pointer, size);
}

void *
calloc(size_t n, size_t size)
{
	return allocation_fails() ? NULL : __libc_calloc(n, size);
}
