/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The swap file.
 *
 * Best is a file without a name: it goes with the process, however that ends, and nobody else can open
 * it.  A file or device that is given is used as it is, from its second page on; what was in it is lost, and
 * what was in memory stays in it.  It must be for us alone, and a file for its owner's eyes only.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "kern/sys.h"
#include "kern/types.h"
#include "swap_impl.h"

#define NAME	"vmfault-swap-"

static int where = -1;			/* the directory that the next one will be in; no path of it may last */

/* A file in the directory that was never seen there; or only for a moment, where the file system knows no such. */
static int
open_unnamed(int dir, int flags)
{
	int fd = sys_openat(dir, ".", O_TMPFILE | O_RDWR | flags), error;
	char path[sizeof(NAME) + 16] = NAME;
	size_t len = sizeof(NAME) - 1;

	if (fd != -EOPNOTSUPP && fd != -EISDIR && fd != -ENOENT)
		return fd;
	for (uint64_t x = sys_clock() ^ (uint64_t)sys_getpid() << 40, i = 0; i < 16; i++, x >>= 4)
		path[len++] = "0123456789abcdef"[x & 15];
	path[len] = '\0';
	fd = sys_openat(dir, path, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDWR | flags);
	if (fd < 0)
		return fd;
	error = sys_unlinkat(dir, path);
	if (error != 0) {
		(void)sys_close(fd);
		return error;
	}
	return fd;
}

/* Is it fit for swap?  0 or -errno. */
static int
examine(int fd, const struct sys_stat *st)
{
	if (S_ISBLK(st->mode))
		return 0;		/* O_EXCL has seen to it that nobody else has it */
	if (!S_ISREG(st->mode))
		return -EINVAL;
	if ((st->mode & (S_IRWXG | S_IRWXO)) != 0)
		return -EPERM;
	return sys_lock(fd) == 0 ? 0 : -EBUSY;
}

static int
open_given(const char *path, int flags, uint64_t *size)
{
	struct sys_stat st;
	int64_t have;
	int fd, error;

	fd = sys_open(path, O_RDWR | O_EXCL | O_NOCTTY | flags);
	if (fd < 0)
		return fd;
	error = sys_stat(fd, &st);
	if (error == 0)
		error = examine(fd, &st);
	have = error == 0 ? sys_size(fd) : error;
	if (have >= 0) {
		/* A file grows, a device does not. */
		if (*size == 0 || (S_ISBLK(st.mode) && *size > (uint64_t)have))
			*size = (uint64_t)have;
		return fd;
	}
	(void)sys_close(fd);
	return (int)have;
}

static const char *
usual_place(void)
{
	const char *path = secure_getenv("TMPDIR");
	int fd = path != NULL && *path != '\0' ? sys_open(path, O_PATH | O_DIRECTORY) : -ENOENT;

	if (fd >= 0)
		(void)sys_close(fd);
	return fd >= 0 ? path : "/var/tmp";
}

int
swap_file_another(bool direct)
{
	return where >= 0 ? open_unnamed(where, direct ? O_DIRECT : 0) : -ENOENT;
}

void
swap_file_close(void)
{
	if (where >= 0)
		(void)sys_close(where);
	where = -1;
}

int
swap_file_open(const char *path, uint64_t *size, bool direct, bool *ours)
{
	int flags = direct ? O_DIRECT : 0, fd;

	where = sys_open(path != NULL ? path : usual_place(), O_PATH | O_DIRECTORY);
	*ours = where >= 0;
	if (*ours) {
		fd = *size != 0 ? open_unnamed(where, flags) : -EINVAL;
	} else {
		fd = open_given(path != NULL ? path : usual_place(), flags, size);
		where = sys_open(usual_place(), O_PATH | O_DIRECTORY);
	}
	/* Past this limit a write would raise SIGXFSZ. */
	*size = MIN(*size, sys_file_limit());
	if (fd >= 0 && *size >> PAGE_SHIFT < SWAP_LEAST) {
		(void)sys_close(fd);
		fd = -EINVAL;
	}
	if (fd < 0)
		swap_file_close();
	return fd;
}
