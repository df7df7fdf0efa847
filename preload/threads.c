/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The last thread.
 *
 * A process whose threads end one by one, the first one too, ends with the last: libc counts them, and calls
 * exit(0) in that.  It counts ours as well, which never end.  So when a thread of the program's is about to leave
 * we look whether it is the last, and call exit() in libc's place.
 *
 * /proc/self/task has them all, and alone.c knows how many of them are ours.  Of the others those do not count that
 * came by here and are not gone yet, which are written down; nor do those that the kernel puts to work for our ring: they
 * look like threads of the process (PF_IO_WORKER), come and go, and wait for nobody.
 *
 * /proc is held open, for a program that goes where there is none (chroot).  In a namespace that is younger than it
 * threads have other numbers there than they have for themselves.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "gate_impl.h"
#include "kern/alone.h"
#include "kern/sys.h"
#include "shim.h"
#include "signals_impl.h"

#define LEAVING_MAX	256
#define FLAGS		7		/* which word behind the name in /proc/PID/stat they are */
#define PF_IO_WORKER	0x10u		/* a flag */

static int proc = -1;			/* a descriptor of /proc */

static struct {
	_Atomic bool lock;		/* guards the rest */
	uint32_t n;
	struct {
		int tid, proc;		/* its number, and the one in /proc */
	} thread[LEAVING_MAX];
	int pid;			/* whose they are: a child has none of them */
} leaving;

static void
lock(void)
{
	while (atomic_exchange(&leaving.lock, true))
		(void)GATE_RAW(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

/* Strike out who is gone.  => locked */
static void
prune(int pid)
{
	uint32_t k = 0;

	for (uint32_t i = 0; i < leaving.n && leaving.pid == pid; i++)
		if (GATE_RAW(SYS_tgkill, pid, leaving.thread[i].tid, 0, 0, 0, 0) == 0)
			leaving.thread[k++] = leaving.thread[i];
	leaving.n = k;
	leaving.pid = pid;
}

void
threads_start(void)
{
	proc = sys_open("/proc", O_PATH | O_DIRECTORY);
}

/* Is it one of the kernel's?  1, 0; -ENOENT: it is gone; other errors */
static long
is_worker(const char *tid)
{
	static const char dir[] = "self/task/", file[] = "/stat";
	char path[sizeof(dir) + 16 + sizeof(file)], buf[256], *p;
	size_t n = strlen(tid);
	unsigned long flags;
	long fd, got;

	if (n > 16)
		return -EINVAL;
	memcpy(path, dir, sizeof(dir));
	memcpy(path + sizeof(dir) - 1, tid, n);
	memcpy(path + sizeof(dir) - 1 + n, file, sizeof(file));
	fd = GATE_RAW(SYS_openat, proc, path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return fd;
	got = GATE_RAW(SYS_read, fd, buf, sizeof(buf) - 1, 0, 0, 0);
	(void)GATE_RAW(SYS_close, fd, 0, 0, 0, 0, 0);
	if (got <= 0)
		return got == -ESRCH ? -ENOENT : got < 0 ? got : -EINVAL;
	buf[got] = '\0';
	p = strrchr(buf, ')');
	for (int i = 0; i < FLAGS && p != NULL; i++)
		p = strchr(p + 1, ' ');
	if (p == NULL)
		return -EINVAL;
	flags = strtoul(p + 1, NULL, 10);
	return (flags & PF_IO_WORKER) != 0;
}

static bool
is_leaving(int tid)
{
	uint32_t i = 0;

	while (i < leaving.n && leaving.thread[i].proc != tid)
		i++;
	return i < leaving.n;
}

/*
 * How many threads there are but for us, those who leave, and the kernel's; not much further than `enough'.
 * -errno: who knows.  => locked
 */
static int
others(int self, int enough)
{
	static _Alignas(struct dirent64) char buf[4096];
	long fd = GATE_RAW(SYS_openat, proc, "self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0), n = fd;
	int count = 0;

	while (n >= 0 && count <= enough && (n = GATE_RAW(SYS_getdents64, fd, buf, sizeof(buf), 0, 0, 0)) > 0)
		for (long i = 0; i < n && count <= enough; ) {
			const struct dirent64 *d = (const struct dirent64 *)(const void *)(buf + i);
			int tid = atoi(d->d_name);
			long worker = tid == 0 || tid == self || is_leaving(tid) ? 1 : is_worker(d->d_name);

			if (worker < 0 && worker != -ENOENT)
				n = worker;
			count += worker == 0;
			i += d->d_reclen;
		}
	if (fd >= 0)
		(void)GATE_RAW(SYS_close, fd, 0, 0, 0, 0, 0);
	return n < 0 ? (int)n : count;
}

/* The calling thread's number in /proc; 0: it has none. */
static int
number_in_proc(void)
{
	char link[64], *p;
	long n = GATE_RAW(SYS_readlinkat, proc, "thread-self", link, sizeof(link) - 1, 0, 0);

	if (n <= 0)
		return 0;
	link[n] = '\0';
	p = strrchr(link, '/');
	return p != NULL ? atoi(p + 1) : 0;
}

/* One of ours that has ended is counted until somebody has waited for it.  => locked */
static bool
is_last(int self)
{
	int ours, n;

	while (ours = alone_number(), n = others(self, ours), n >= 0 && n < ours)
		(void)GATE_RAW(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
	return n == ours;
}

void
threads_forked(void)
{
	atomic_store(&leaving.lock, false);
}

void
thread_leaves(int status)
{
	int pid = (int)GATE_RAW(SYS_getpid, 0, 0, 0, 0, 0, 0), self = number_in_proc();
	bool last;

	/* Ours end when the library wants that, or cannot use them; the program has others. */
	if (signals_guest() || alone_is_ours())
		return;
	lock();
	prune(pid);
	last = is_last(self);
	if (!last && leaving.n < LEAVING_MAX) {
		leaving.thread[leaving.n].tid = (int)GATE_RAW(SYS_gettid, 0, 0, 0, 0, 0, 0);
		leaving.thread[leaving.n++].proc = self;
	}
	atomic_store(&leaving.lock, false);
	if (last)
		exit(status);
}
