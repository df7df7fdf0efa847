/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Numbers of a process under the shim, live and at its end.
 *
 * The end may come anywhere: in exit(), in a bare exit_group() that the gate saw, in a signal handler of
 * the program's.  So the file is put together in memory of our own and written by system calls, with nothing
 * of libc's that takes a lock.  Whoever reads it never sees half: it is written beside its place, and
 * moved there; but for what is no regular file, which is written to.
 */

#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmfault.h"

struct stats_counters stats_counters;

static const struct vmf_counter published[] = {
#define X(name) { #name, &stats_counters.name },
	STATS_COUNTERS(X)
#undef X
};
#define NCOUNTERS	(sizeof(published) / sizeof(published[0]))

static const char *file;		/* null: none */
static bool silent;
static int pid;				/* whose numbers they are */
static uint64_t started;		/* nanoseconds */
static int error_fd = -1;		/* standard error as it was at the start, if that is the file: ... */
static dev_t error_dev;			/* ... programs close theirs before they end, and some close all */
static ino_t error_ino;
static bool written;			/* atomic */

/* A text that grows; what does not fit is left out, and full set. */
struct text {
	char *at, *end;
	bool full;
};

static void
put(struct text *t, const char *s, size_t len)
{
	if ((size_t)(t->end - t->at) < len) {
		t->full = true;
		return;
	}
	memcpy(t->at, s, len);
	t->at += len;
}

static void
put_string(struct text *t, const char *s)
{
	put(t, s, strlen(s));
}

static void
put_number(struct text *t, uint64_t n)
{
	char digits[20], *p = digits + sizeof(digits);

	do
		*--p = (char)('0' + n % 10);
	while ((n /= 10) != 0);
	put(t, p, (size_t)(digits + sizeof(digits) - p));
}

/* Any bytes as a JSON string: what is not plain ASCII as if it were Latin-1. */
static void
put_quoted(struct text *t, const char *s)
{
	static const char hex[] = "0123456789abcdef";

	put(t, "\"", 1);
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < ' ' || c > '~' || c == '"' || c == '\\') {
			const char u[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

			put(t, u, sizeof(u));
		} else {
			put(t, s, 1);
		}
	}
	put(t, "\"", 1);
}

static void
put_member(struct text *t, const char *name, uint64_t n, bool first)
{
	put_string(t, first ? "\n    \"" : ",\n    \"");
	put_string(t, name);
	put(t, "\": ", 3);
	put_number(t, n);
}

static uint64_t
now(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The name of the program, as ps shows it. */
static void
put_command(struct text *t)
{
	char comm[32] = "";
	long fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/comm", O_RDONLY | O_CLOEXEC), n = 0;

	if (fd >= 0) {
		n = syscall(SYS_read, fd, comm, sizeof(comm) - 1);
		(void)syscall(SYS_close, fd);
	}
	comm[n > 0 ? n - 1 : 0] = '\0';
	put_quoted(t, comm);
}

static void
put_all(struct text *t)
{
	struct vmf_stats s = { .size = sizeof(s) };
	const uint64_t *value = &s.v_vm_faults;
	const char *name;

	put_string(t, "{\n  \"vmfault\": ");
	put_quoted(t, vmf_version());
	put_string(t, ",\n  \"pid\": ");
	put_number(t, (uint64_t)pid);
	put_string(t, ",\n  \"command\": ");
	put_command(t);
	put_string(t, ",\n  \"milliseconds\": ");
	put_number(t, (now() - started) / 1000000);
	put_string(t, ",\n  \"counters\": {");
	(void)vmf_statistics(&s);
	for (size_t i = 0; (name = vmf_statistics_name(i)) != NULL; i++)
		put_member(t, name, value[i], i == 0);
	for (size_t i = 0; i < NCOUNTERS; i++)
		put_member(t, published[i].name, __atomic_load_n(published[i].value, __ATOMIC_RELAXED), false);
	put_string(t, "\n  }\n}\n");
}

/* => what could not be written was said */
static void
complain(const char *path, const char *why)
{
	char line[PATH_MAX + 64];
	struct text t = { line, line + sizeof(line), false };

	if (silent)
		return;
	put_string(&t, "vmfault: ");
	put_string(&t, path);
	put_string(&t, why);
	(void)!syscall(SYS_write, STDERR_FILENO, line, t.at - line);
}

static bool
write_all(long fd, const char *p, size_t len)
{
	while (len > 0) {
		long n = syscall(SYS_write, fd, p, len);

		if (n < 0 && errno != EINTR)
			return false;
		if (n > 0) {
			p += n;
			len -= (size_t)n;
		}
	}
	return true;
}

/* %p is the process id, %% a percent sign; anything else is itself. */
static void
put_path(struct text *t, const char *pattern)
{
	for (const char *p = pattern; *p != '\0'; p++) {
		if (p[0] == '%' && p[1] == 'p')
			put_number(t, (uint64_t)pid);
		else
			put(t, p, 1);
		if (p[0] == '%' && (p[1] == 'p' || p[1] == '%'))
			p++;
	}
}

/*
 * Is it something that must stay what it is: a device, a pipe, or a name of a descriptor (/dev/stderr is a link to one)?
 * Any other link may be somebody's trap.
 */
static bool
is_special(const char *path)
{
	static const char descriptors[] = "/proc/self/fd/";
	char target[sizeof(descriptors)];
	struct stat st;

	if (lstat(path, &st) != 0 || S_ISREG(st.st_mode))
		return false;
	return !S_ISLNK(st.st_mode) || (readlink(path, target, sizeof(target)) == (ssize_t)sizeof(target) &&
	    memcmp(target, descriptors, sizeof(descriptors) - 1) == 0);
}

/* A pipe that nobody reads is not waited for. */
static bool
write_special(const char *path, const struct text *text, const char *from)
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	bool ok = fd >= 0 && write_all(fd, from, (size_t)(text->at - from));

	if (fd >= 0)
		(void)syscall(SYS_close, fd);
	return ok;
}

/* Beside its place, then there. */
static bool
write_file(const char *path, const struct text *text, const char *from)
{
	char temp[PATH_MAX + 32];
	struct text t = { temp, temp + sizeof(temp) - 1, false };
	bool ok;
	long fd;

	if (is_special(path))
		return write_special(path, text, from);
	put_string(&t, path);
	put(&t, ".", 1);
	put_number(&t, (uint64_t)pid);
	*t.at = '\0';
	fd = syscall(SYS_openat, AT_FDCWD, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return false;
	ok = write_all(fd, from, (size_t)(text->at - from));
	(void)syscall(SYS_close, fd);
	ok = ok && syscall(SYS_renameat2, AT_FDCWD, temp, AT_FDCWD, path, 0) == 0;
	if (!ok)
		(void)syscall(SYS_unlinkat, AT_FDCWD, temp, 0);
	return ok;
}

void
stats_fork(uint64_t ns)
{
	uint64_t most = __atomic_load_n(&stats_counters.fork_ns_max, __ATOMIC_RELAXED);

	stats_count(forks);
	stats_add(fork_ns, ns);
	while (ns > most && !__atomic_compare_exchange_n(&stats_counters.fork_ns_max, &most, ns, true,
	    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		continue;
}

static bool
is_error_fd(void)
{
	struct stat st;

	return error_fd >= 0 && fstat(error_fd, &st) == 0 && st.st_dev == error_dev && st.st_ino == error_ino;
}

/* Keep standard error, far from the descriptors that programs count on.  A forked child has it already. */
static void
keep_error(void)
{
	struct stat st;

	if (is_error_fd() || fstat(STDERR_FILENO, &st) != 0)
		return;
	error_dev = st.st_dev;
	error_ino = st.st_ino;
	error_fd = -1;
	for (int least = 1000; error_fd < 0 && least > 0; least /= 10)
		error_fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, least);
}

void
stats_start(const char *to, int quiet)
{
	uint64_t sites = __atomic_load_n(&stats_counters.gate_sites, __ATOMIC_RELAXED);

	/* One by one: who watches may be reading them. */
#define X(name) stats_set(name, 0);
	STATS_COUNTERS(X)
#undef X
	stats_set(gate_sites, sites);
	file = to;
	silent = quiet;
	pid = (int)syscall(SYS_getpid);
	started = now();
	__atomic_store_n(&written, false, __ATOMIC_RELAXED);
	if (file != NULL && strcmp(file, "-") == 0)
		keep_error();
	/* Without it nobody can watch, which is no reason not to run. */
	(void)vmf_publish(published, NCOUNTERS);
}

void
stats_exit(void)
{
	/* Not on the stack, which may be a small one. */
	static char text[8192], path[PATH_MAX];
	struct text t = { text, text + sizeof(text), false }, p = { path, path + sizeof(path) - 1, false };
	int saved = errno;

	if (file == NULL || pid != (int)syscall(SYS_getpid) || __atomic_exchange_n(&written, true, __ATOMIC_RELAXED))
		return;
	put_all(&t);
	if (strcmp(file, "-") == 0) {
		if (is_error_fd())
			(void)write_all(error_fd, text, (size_t)(t.at - text));
	} else {
		put_path(&p, file);
		*p.at = '\0';
		if (p.full || t.full || !(is_special(path) ? write_special : write_file)(path, &t, text))
			complain(path, ": the statistics cannot be written\n");
	}
	errno = saved;
}
