/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * guest WORD...: a program that uses memory, more than it is given, does to itself what the words say, and goes on: it
 * uses memory, forks a child that does, makes a thread that does.  What it prints is the same whether it is managed or
 * not.  97: a word could not be carried out; 98: it is not known.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE	((size_t)8 << 20)
#define NOBODY	65534

/* Fill it, and look whether it is what it was filled with. */
static bool
use(char *p, uint32_t key)
{
	uint32_t x = key, y;

	for (size_t i = 0; i < SIZE; i += sizeof(x), x = x * 1664525 + 1013904223)
		memcpy(p + i, &x, sizeof(x));
	x = key;
	for (size_t i = 0; i < SIZE; i += sizeof(x), x = x * 1664525 + 1013904223) {
		memcpy(&y, p + i, sizeof(y));
		if (x != y)
			return false;
	}
	return true;
}

static bool
go_to_chroot(void)
{
	char path[] = "/tmp/vmfault-XXXXXX";
	bool good = mkdtemp(path) != NULL && chmod(path, 0755) == 0 && chdir(path) == 0 && rmdir(path) == 0;

	/* It is empty, and stays so: it is not there any more. */
	return good && chroot(".") == 0;
}

static bool
become_nobody(void)
{
	return setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0;
}

static bool
close_each(void)
{
	for (int fd = 3; fd < 70000; fd++)
		close(fd);
	return true;
}

static bool
close_range_of_all(void)
{
	return syscall(SYS_close_range, 3u, ~0u, 0u) == 0;
}

/* In the parent's place, which waits and ends as we do. */
static void
be_a_child(void)
{
	int status;
	pid_t pid = fork();

	if (pid != 0) {
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			_exit(97);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
	}
}

static bool
daemonize(void)
{
	be_a_child();
	if (setsid() < 0)
		return false;
	be_a_child();
	umask(0);
	return chdir("/") == 0 && close_each();
}

static bool
be_first_in_a_namespace(void)
{
	if (unshare(CLONE_NEWPID) != 0)
		return false;
	be_a_child();
	return getpid() == 1;
}

static bool
unshare_mounts(void)
{
	return unshare(CLONE_NEWNS) == 0;
}

/* What is set is read back. */
static bool
limit(int resource, rlim_t n)
{
	struct rlimit l = { n, n }, m;

	return setrlimit(resource, &l) == 0 && getrlimit(resource, &m) == 0 && m.rlim_cur == n && m.rlim_max == n;
}

static bool
limit_address_space(void)
{
	return limit(RLIMIT_AS, (rlim_t)1 << 30);
}

static bool
limit_files(void)
{
	return limit(RLIMIT_FSIZE, 1 << 20);
}

static bool
limit_descriptors(void)
{
	return limit(RLIMIT_NOFILE, 16);
}

static bool
limit_locked_memory(void)
{
	return limit(RLIMIT_MEMLOCK, 0);
}

/* EPERM for some calls, from now on. */
static bool
refuse(const int *calls, unsigned n)
{
	struct sock_filter f[16];
	struct sock_fprog prog = { 0, f };

	f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (unsigned i = 0; i < n; i++) {
		f[prog.len++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i], 0, 1);
		f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
	}
	f[prog.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) == 0;
}

static bool
refuse_rings(void)
{
	return refuse((const int[]){ 425, 426, 427 }, 3);
}

static bool
refuse_mprotect(void)
{
	return refuse((const int[]){ SYS_mprotect }, 1);
}

static bool
refuse_mremap(void)
{
	return refuse((const int[]){ SYS_mremap }, 1);
}

static bool
refuse_memfd_create(void)
{
	return refuse((const int[]){ SYS_memfd_create }, 1);
}

static bool
refuse_madvise(void)
{
	return refuse((const int[]){ SYS_madvise }, 1);
}

/* The hard limit stays, so that this can be taken back. */
static bool
soft_limit_descriptors(rlim_t n)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) != 0)
		return false;
	l.rlim_cur = n < l.rlim_max ? n : l.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &l) == 0;
}

static bool
few_descriptors(void)
{
	return soft_limit_descriptors(4);
}

static bool
many_descriptors(void)
{
	return soft_limit_descriptors(RLIM_INFINITY);
}

/* The managing library's are seen here only. */
static int
count_descriptors(void)
{
	char path[32], to[64];
	int n = 0;

	for (int fd = 0; fd < 1100; fd++) {
		(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		n += readlink(path, to, sizeof(to)) >= 0;
	}
	return n;
}

/* How many of some forks fail, how, and whether that leaves anything. */
static bool
try_to_fork(void)
{
	int failed = 0, why = 0, before = count_descriptors();
	sigset_t mask, then;

	(void)pthread_sigmask(SIG_BLOCK, NULL, &mask);
	for (int i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid < 0) {
			failed++;
			why = errno;
		} else if (waitpid(pid, NULL, 0) != pid) {
			return false;
		}
	}
	(void)pthread_sigmask(SIG_BLOCK, NULL, &then);
	printf("forks %d %s\n", failed, strerror(why));
	return count_descriptors() == before && memcmp(&mask, &then, NSIG / 8) == 0;
}

static const struct {
	const char *name;
	bool (*fn)(void);
} words[] = {
	{ "chroot", go_to_chroot },
	{ "nobody", become_nobody },
	{ "close", close_each },
	{ "close-range", close_range_of_all },
	{ "daemon", daemonize },
	{ "pid-namespace", be_first_in_a_namespace },
	{ "mount-namespace", unshare_mounts },
	{ "limit-as", limit_address_space },
	{ "limit-fsize", limit_files },
	{ "limit-nofile", limit_descriptors },
	{ "limit-memlock", limit_locked_memory },
	{ "refuse-rings", refuse_rings },
	{ "refuse-mprotect", refuse_mprotect },
	{ "refuse-mremap", refuse_mremap },
	{ "refuse-memfd", refuse_memfd_create },
	{ "refuse-madvise", refuse_madvise },
	{ "few-descriptors", few_descriptors },
	{ "many-descriptors", many_descriptors },
	{ "try-to-fork", try_to_fork },
};

static void
carry_out(const char *word)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strcmp(word, words[i].name) == 0) {
			if (words[i].fn())
				return;
			perror(word);
			_exit(97);
		}
	_exit(98);
}

/* libc has to load something for pthread_exit(), while it can. */
static void *
work(void *p)
{
	pthread_exit(use(p, 4) ? p : NULL);
}

/* By then the first thread is gone; the process ends with this one. */
static void *
end(void *p)
{
	usleep(20000);
	(void)use(p, 5);
	return NULL;
}

int
main(int argc, char **argv)
{
	char *p = malloc(SIZE), *q = malloc(SIZE);
	pthread_t thread;
	void *result;
	int status;
	pid_t pid;

	if (!use(p, 1) || !use(q, 2) || pthread_create(&thread, NULL, work, q) != 0 ||
	    pthread_join(thread, &result) != 0)
		return 1;
	for (int i = 1; i < argc; i++)
		carry_out(argv[i]);
	printf("memory %d %d\n", use(p, 1), use(q, 2));
	(void)fflush(stdout);
	/* It goes and comes again. */
	free(q);
	q = malloc(SIZE);
	if (q == NULL || !use(q, 6))
		return 1;
	pid = fork();
	if (pid == 0)
		_exit(use(p, 3) ? 7 : 8);
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return 2;
	printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
	if (pthread_create(&thread, NULL, work, q) != 0 || pthread_join(thread, &result) != 0)
		return 3;
	printf("thread %d\n", result == q);
	(void)fflush(stdout);
	if (pthread_create(&thread, NULL, end, q) != 0)
		return 4;
	pthread_exit(NULL);
}
