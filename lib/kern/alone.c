/* SPDX-License-Identifier: BSD-2-Clause */

#include <dirent.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>

#include "kern/alone.h"
#include "kern/sys.h"

#define TASKS		"/proc/self/task"
#define DIR_LINKS	2		/* that any directory has */
#define PF_IO_WORKER	0x10		/* in the kernel's include/linux/sched.h since 5.12; shown in stat */

static _Atomic int ours;
static __thread bool mine __attribute__((__tls_model__("initial-exec")));	/* this thread is one of them */

bool
alone_is_ours(void)
{
	return mine;
}

static void *
begin(void *fn)
{
	void *(*run)(void *);

	memcpy(&run, &fn, sizeof(run));
	mine = true;
	return run(NULL);
}

int
alone_thread(pthread_t *thread, void *(*fn)(void *))
{
	sys_sigset_t old;
	void *arg;
	int error;

	memcpy(&arg, &fn, sizeof(arg));
	sys_block(&old);		/* it is born with the mask of who makes it */
	error = pthread_create(thread, NULL, begin, arg);
	sys_setmask(&old);
	atomic_fetch_add(&ours, error == 0);
	return -error;
}

void
alone_join(pthread_t thread)
{
	(void)pthread_join(thread, NULL);
	atomic_fetch_sub(&ours, 1);
}

void
alone_forked(void)
{
	atomic_store(&ours, 0);
}

/* The number of threads by the links of their directory; 0: unknown. */
static uint32_t
threads(void)
{
	struct sys_stat st;

	return sys_stat_path(TASKS, &st) == 0 && st.links > DIR_LINKS ? st.links - DIR_LINKS : 0;
}

/* Is it one of the kernel's?  /proc/self/task/TID/stat: "TID (name) state", five numbers, and flags. */
static bool
is_io_worker(int dir, const char *tid)
{
	char path[32], text[256];
	size_t len = strlen(tid);
	uint32_t flags = 0;
	const char *p;
	int64_t n;
	int fd;

	if (len + sizeof("/stat") > sizeof(path))
		return false;
	memcpy(path, tid, len);
	memcpy(path + len, "/stat", sizeof("/stat"));
	fd = sys_openat(dir, path, O_RDONLY);
	if (fd < 0)
		return false;
	n = sys_read(fd, text, sizeof(text) - 1);
	(void)sys_close(fd);
	if (n <= 0)
		return false;
	text[n] = '\0';
	/* A name may have anything in it, parentheses too. */
	for (p = text + n; p > text && *p != ')'; p--)
		continue;
	for (unsigned fields = 0; *p != '\0' && fields < 7; p++)
		fields += *p == ' ';
	for (; *p >= '0' && *p <= '9'; p++)
		flags = flags * 10 + (uint32_t)(*p - '0');
	return (flags & PF_IO_WORKER) != 0;
}

/* Are there just so many that are none of the kernel's?  It does not look further than it must. */
static bool
are(uint32_t want)
{
	_Alignas(struct dirent64) char buf[1024];
	uint32_t found = 0;
	int64_t n = 0;
	int dir = sys_open(TASKS, O_RDONLY | O_DIRECTORY);

	if (dir < 0)
		return false;
	while (found <= want && (n = sys_getdents(dir, buf, sizeof(buf))) > 0) {
		const struct dirent64 *d;

		for (int64_t at = 0; at < n && found <= want; at += d->d_reclen) {
			d = (const struct dirent64 *)(const void *)(buf + at);
			found += d->d_name[0] != '.' && !is_io_worker(dir, d->d_name);
		}
	}
	(void)sys_close(dir);
	return n >= 0 && found == want;
}

bool
alone_but(unsigned n)
{
	uint32_t want = (uint32_t)atomic_load(&ours) + n + 1, have = threads();

	return have == want || (have > want && are(want));
}

bool
alone(void)
{
	return threads() == (uint32_t)atomic_load(&ours) + 1;
}
