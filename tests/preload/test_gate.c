/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The gate, call by call: each does with memory that is absent, read-only or half there what it does
 * with any other, and nothing is lost that a retry could not bring back.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../suite.h"
#include "gate.h"
#include "gate_fake.h"
#include "gate_impl.h"

static struct gate_info info;

static void
start(void)
{
	ck_assert_int_eq(fake_start(GATE_PATCH, 0, &info), 0);
}

/*
 * A buffer of n bytes in each of the states that memory may be in.  It lies across a page's end.
 */
enum state { ABSENT, READ_ONLY, SECOND_ABSENT, FIRST_ABSENT, STATES };

static char *
buffer(size_t n)
{
	char *p = fake_pages(n + 2 * FAKE_PAGE);

	memset(p, 0x5a, n + 2 * FAKE_PAGE);
	return p + FAKE_PAGE - (n < FAKE_PAGE ? n / 2 / 8 * 8 : 64);
}

static void
put_in(enum state state, void *p, size_t n)
{
	char *page = (char *)((uintptr_t)p & -(uintptr_t)FAKE_PAGE);

	switch (state) {
	case ABSENT:
		(void)fake_evict(p, n, false);
		break;
	case READ_ONLY:
		(void)fake_evict(p, n, true);
		break;
	case SECOND_ABSENT:
		(void)fake_evict(page + FAKE_PAGE, 1, false);
		break;
	default:
		(void)fake_evict(page, 1, false);
		break;
	}
}

#define EACH_STATE(s)	for (volatile enum state s = ABSENT; s < STATES; s++)

static int
scratch_file(const char *contents, size_t n)
{
	int fd = memfd_create("scratch", MFD_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, contents, n), (ssize_t)n);
	ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

START_TEST(libc_is_rewritten)
{
	ck_assert_int_eq(info.mode, GATE_PATCH);
#ifdef GATE_TRAPS_ONLY
	ck_assert_uint_eq(info.jumps, 0);
	ck_assert_uint_gt(info.traps, 300);
#else
	ck_assert_uint_gt(info.jumps, 300);
	ck_assert_uint_lt(info.traps, 60);
#endif
}
END_TEST

START_TEST(files_are_read_and_written_whole)
{
	static char data[3 * FAKE_PAGE];
	size_t n = sizeof(data);
	int fd;

	for (size_t i = 0; i < n; i++)
		data[i] = (char)(i * 7 + i / 256);
	fd = scratch_file(data, n);
	EACH_STATE(s) {
		char *p = buffer(n);
		struct iovec v[2] = { { p, 100 }, { p + 100, n - 100 } };

		put_in(s, p, n);
		ck_assert_int_eq(pread(fd, p, n, 0), (ssize_t)n);
		ck_assert_int_eq(memcmp(p, data, n), 0);
		memset(p, 0, n);
		put_in(s, p, n);
		ck_assert_int_eq(lseek(fd, 0, SEEK_SET), 0);
		ck_assert_int_eq(readv(fd, v, 2), (ssize_t)n);
		ck_assert_int_eq(memcmp(p, data, n), 0);
		put_in(s, p, n);
		ck_assert_int_eq(pwrite(fd, p, n, 0), (ssize_t)n);
		put_in(s, p, n);
		ck_assert_int_eq(pwritev(fd, v, 2, 0), (ssize_t)n);
		ck_assert_int_eq(pread(fd, p, n, 0), (ssize_t)n);
		ck_assert_int_eq(memcmp(p, data, n), 0);
	}
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

/* The vector itself is managed, too. */
START_TEST(vectors_are_found)
{
	int fd = scratch_file("abcdefgh", 8);

	EACH_STATE(s) {
		char *p = buffer(64);
		struct iovec *v = (struct iovec *)(void *)buffer(2 * sizeof(*v));

		v[0] = (struct iovec){ p, 4 };
		v[1] = (struct iovec){ p + 4, 4 };
		put_in(s, p, 64);
		put_in(s, v, 2 * sizeof(*v));
		ck_assert_int_eq(preadv(fd, v, 2, 0), 8);
		ck_assert_mem_eq(p, "abcdefgh", 8);
	}
}
END_TEST

/* What read() of these brings is gone if it does not arrive. */
START_TEST(events_are_not_lost)
{
	EACH_STATE(s) {
		struct itimerspec soon = { .it_value = { 0, 1 } };
		uint64_t *v = (uint64_t *)(void *)buffer(8);
		struct signalfd_siginfo *si = (struct signalfd_siginfo *)(void *)buffer(sizeof(*si));
		struct inotify_event *ev = (struct inotify_event *)(void *)buffer(256);
		char name[] = "/tmp/gate-XXXXXX";
		sigset_t set;
		int fd;

		fd = eventfd(5, EFD_NONBLOCK);
		put_in(s, v, 8);
		ck_assert_int_eq(read(fd, v, 8), 8);
		ck_assert_uint_eq(*v, 5);
		close(fd);

		fd = timerfd_create(CLOCK_MONOTONIC, 0);
		ck_assert_int_eq(timerfd_settime(fd, 0, &soon, NULL), 0);
		put_in(s, v, 8);
		ck_assert_int_eq(read(fd, v, 8), 8);
		ck_assert_uint_eq(*v, 1);
		close(fd);

		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
		fd = signalfd(-1, &set, SFD_NONBLOCK);
		ck_assert_int_eq(raise(SIGUSR1), 0);
		put_in(s, si, sizeof(*si));
		ck_assert_int_eq(read(fd, si, sizeof(*si)), (ssize_t)sizeof(*si));
		ck_assert_uint_eq(si->ssi_signo, SIGUSR1);
		close(fd);

		ck_assert_ptr_nonnull(mkdtemp(name));
		fd = inotify_init1(IN_NONBLOCK);
		ck_assert_int_gt(inotify_add_watch(fd, name, IN_DELETE_SELF), 0);
		ck_assert_int_eq(rmdir(name), 0);
		put_in(s, ev, 256);
		ck_assert_int_ge(read(fd, ev, 256), (ssize_t)sizeof(*ev));
		ck_assert_uint_eq(ev->mask, IN_DELETE_SELF);
		close(fd);
	}
}
END_TEST

static void
message_is_kept(int type, enum state s)
{
	char text[] = "a message that must arrive whole";
	char *p = buffer(sizeof(text));
	int fd[2];

	ck_assert_int_eq(socketpair(AF_UNIX, type, 0, fd), 0);
	ck_assert_int_eq(send(fd[0], text, sizeof(text), 0), (ssize_t)sizeof(text));
	put_in(s, p, sizeof(text));
	ck_assert_int_eq(recv(fd[1], p, sizeof(text), MSG_DONTWAIT), (ssize_t)sizeof(text));
	ck_assert_mem_eq(p, text, sizeof(text));
	close(fd[0]);
	close(fd[1]);
}

START_TEST(messages_are_not_lost)
{
	EACH_STATE(s) {
		message_is_kept(SOCK_DGRAM, s);
		message_is_kept(SOCK_SEQPACKET, s);
		message_is_kept(SOCK_STREAM, s);
	}
}
END_TEST

static void
tcp_pair(int fd[2], struct sockaddr_in *peer, socklen_t *len)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(a);
	int l = socket(AF_INET, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(l, (void *)&a, n), 0);
	ck_assert_int_eq(listen(l, 1), 0);
	ck_assert_int_eq(getsockname(l, (void *)&a, &n), 0);
	fd[0] = socket(AF_INET, SOCK_STREAM, 0);
	ck_assert_int_eq(connect(fd[0], (void *)&a, n), 0);
	fd[1] = accept(l, (void *)peer, len);
	ck_assert_int_ge(fd[1], 0);
	close(l);
}

START_TEST(connections_and_urgent_data_are_not_lost)
{
	EACH_STATE(s) {
		struct sockaddr_in *peer = (struct sockaddr_in *)(void *)buffer(sizeof(*peer));
		socklen_t *len = (socklen_t *)(void *)buffer(sizeof(*len));
		char *p = buffer(1);
		int fd[2];

		*len = sizeof(*peer);
		put_in(s, peer, sizeof(*peer));
		put_in(s, len, sizeof(*len));
		tcp_pair(fd, peer, len);
		ck_assert_uint_eq(*len, sizeof(*peer));
		ck_assert_uint_eq(peer->sin_family, AF_INET);
		ck_assert_int_eq(send(fd[0], "!", 1, MSG_OOB), 1);
		put_in(s, p, 1);
		ck_assert_int_eq(recv(fd[1], p, 1, MSG_OOB), 1);
		ck_assert_int_eq(*p, '!');
		close(fd[0]);
		close(fd[1]);
	}
}
END_TEST

/* With a control buffer that is not there recvmsg() succeeds, and the descriptor is gone. */
START_TEST(descriptors_are_not_lost)
{
	EACH_STATE(s) {
		struct { struct msghdr m; struct iovec v; char data[8]; } *r;
		char *room = buffer(CMSG_SPACE(sizeof(int)));
		union { struct cmsghdr c; char room[CMSG_SPACE(sizeof(int))]; } control = { 0 };
		char x[] = "x";
		struct iovec v = { x, 1 };
		struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &control,
		    .msg_controllen = sizeof(control) };
		int fd[2], got;

		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd), 0);
		control.c = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
		    .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.c), &fd[0], sizeof(int));
		ck_assert_int_eq(sendmsg(fd[0], &m, 0), 1);
		r = (void *)buffer(sizeof(*r));
		memset(r, 0, sizeof(*r));
		r->v = (struct iovec){ r->data, 8 };
		r->m = (struct msghdr){ .msg_iov = &r->v, .msg_iovlen = 1, .msg_control = room,
		    .msg_controllen = CMSG_SPACE(sizeof(int)) };
		put_in(s, room, CMSG_SPACE(sizeof(int)));
		put_in(s, r, sizeof(*r));
		ck_assert_int_eq(recvmsg(fd[1], &r->m, 0), 1);
		ck_assert_int_eq(r->m.msg_flags & MSG_CTRUNC, 0);
		ck_assert_ptr_nonnull(CMSG_FIRSTHDR(&r->m));
		memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&r->m)), sizeof(got));
		ck_assert_int_ge(fcntl(got, F_GETFD), 0);
		close(got);
		close(fd[0]);
		close(fd[1]);
	}
}
END_TEST

START_TEST(many_messages_arrive)
{
	EACH_STATE(s) {
		struct mmsghdr *m = (struct mmsghdr *)(void *)buffer(4 * sizeof(*m));
		struct iovec *v = (struct iovec *)(void *)buffer(4 * sizeof(*v));
		char *p = buffer(4 * 16);
		int fd[2];

		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fd), 0);
		memset(m, 0, 4 * sizeof(*m));
		for (int i = 0; i < 4; i++) {
			char c[2] = { (char)('a' + i), 0 };

			v[i] = (struct iovec){ p + 16 * i, 16 };
			m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
			ck_assert_int_eq(send(fd[0], c, 2, 0), 2);
		}
		put_in(s, m, 4 * sizeof(*m));
		put_in(s, v, 4 * sizeof(*v));
		put_in(s, p, 64);
		ck_assert_int_eq(recvmmsg(fd[1], m, 4, MSG_DONTWAIT, NULL), 4);
		for (int i = 0; i < 4; i++) {
			ck_assert_uint_eq(m[i].msg_len, 2);
			ck_assert_int_eq(p[16 * i], 'a' + i);
		}
		close(fd[0]);
		close(fd[1]);
	}
}
END_TEST

START_TEST(children_are_not_lost)
{
	EACH_STATE(s) {
		int *status = (int *)(void *)buffer(sizeof(*status));
		siginfo_t *si = (siginfo_t *)(void *)buffer(sizeof(*si));
		struct rusage *ru = (struct rusage *)(void *)buffer(sizeof(*ru));
		pid_t pid = fork();

		if (pid == 0)
			_exit(7);
		put_in(s, si, sizeof(*si));
		ck_assert_int_eq(waitid(P_PID, (id_t)pid, si, WEXITED | WNOWAIT), 0);
		ck_assert_int_eq(si->si_status, 7);
		put_in(s, status, sizeof(*status));
		put_in(s, ru, sizeof(*ru));
		ck_assert_int_eq(wait4(pid, status, 0, ru), pid);
		ck_assert_int_eq(WEXITSTATUS(*status), 7);
	}
}
END_TEST

START_TEST(errors_and_queues_are_not_lost)
{
	EACH_STATE(s) {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		    .sin_port = htons(1) };
		int *error = (int *)(void *)buffer(sizeof(*error));
		socklen_t *len = (socklen_t *)(void *)buffer(sizeof(*len));
		struct { long type; char text[16]; } *m, out = { 3, "queued" };
		struct pollfd pfd;
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), q;

		ck_assert_int_eq(connect(fd, (void *)&a, sizeof(a)), -1);
		if (errno == EINPROGRESS) {
			pfd = (struct pollfd){ fd, POLLOUT, 0 };
			ck_assert_int_eq(poll(&pfd, 1, 5000), 1);
			*len = sizeof(*error);
			put_in(s, error, sizeof(*error));
			put_in(s, len, sizeof(*len));
			ck_assert_int_eq(getsockopt(fd, SOL_SOCKET, SO_ERROR, error, len), 0);
			ck_assert_int_eq(*error, ECONNREFUSED);
		}
		close(fd);

		m = (void *)buffer(sizeof(*m));
		q = msgget(IPC_PRIVATE, 0600);
		ck_assert_int_ge(q, 0);
		ck_assert_int_eq(msgsnd(q, &out, sizeof(out.text), 0), 0);
		put_in(s, m, sizeof(*m));
		ck_assert_int_eq(msgrcv(q, m, sizeof(m->text), 0, IPC_NOWAIT), (ssize_t)sizeof(m->text));
		ck_assert_str_eq(m->text, "queued");
		put_in(s, m, sizeof(*m));
		ck_assert_int_eq(msgsnd(q, m, sizeof(m->text), 0), 0);
		ck_assert_int_eq(msgctl(q, IPC_RMID, NULL), 0);
	}
}
END_TEST

START_TEST(signals_that_are_waited_for_are_not_lost)
{
	EACH_STATE(s) {
		siginfo_t *si = (siginfo_t *)(void *)buffer(sizeof(*si));
		sigset_t *set = (sigset_t *)(void *)buffer(sizeof(*set));
		struct timespec *ts = (struct timespec *)(void *)buffer(sizeof(*ts));

		sigemptyset(set);
		sigaddset(set, SIGUSR2);
		ck_assert_int_eq(sigprocmask(SIG_BLOCK, set, NULL), 0);
		ck_assert_int_eq(raise(SIGUSR2), 0);
		*ts = (struct timespec){ 1, 0 };
		put_in(s, si, sizeof(*si));
		put_in(s, set, sizeof(*set));
		put_in(s, ts, sizeof(*ts));
		ck_assert_int_eq(sigtimedwait(set, si, ts), SIGUSR2);
		ck_assert_int_eq(si->si_pid, getpid());
	}
}
END_TEST

START_TEST(directories_are_listed_whole)
{
	EACH_STATE(s) {
		size_t n = 32768, total = 0, want = 0;
		char *p = buffer(n);
		DIR *dir = opendir("/usr/bin");
		int fd = open("/usr/bin", O_RDONLY | O_DIRECTORY);
		ssize_t got;

		while (readdir(dir) != NULL)
			want++;
		closedir(dir);
		for (;;) {
			put_in(s, p, n);
			got = getdents64(fd, p, n);
			ck_assert_int_ge(got, 0);
			if (got == 0)
				break;
			for (ssize_t i = 0; i < got; i += ((struct dirent64 *)(void *)(p + i))->d_reclen)
				total++;
		}
		ck_assert_uint_eq(total, want);
		close(fd);
	}
}
END_TEST

START_TEST(small_answers_arrive)
{
	EACH_STATE(s) {
		struct stat *st = (struct stat *)(void *)buffer(sizeof(*st));
		struct utsname *un = (struct utsname *)(void *)buffer(sizeof(*un));
		struct timespec *ts = (struct timespec *)(void *)buffer(sizeof(*ts));
		char *path = buffer(PATH_MAX), *out = buffer(PATH_MAX);
		int *n = (int *)(void *)buffer(sizeof(int)), fd[2];
		struct epoll_event *ev = (struct epoll_event *)(void *)buffer(2 * sizeof(*ev));
		struct pollfd *pfd = (struct pollfd *)(void *)buffer(sizeof(*pfd));
		struct flock *fl = (struct flock *)(void *)buffer(sizeof(*fl));
		fd_set *set = (fd_set *)(void *)buffer(sizeof(*set));
		int ep = epoll_create1(0);

		strcpy(path, "/proc/self/exe");
		put_in(s, path, PATH_MAX);
		put_in(s, st, sizeof(*st));
		ck_assert_int_eq(stat(path, st), 0);
		ck_assert(S_ISREG(st->st_mode));
		put_in(s, path, PATH_MAX);
		put_in(s, out, PATH_MAX);
		ck_assert_int_gt(readlink(path, out, PATH_MAX), 1);
		put_in(s, out, PATH_MAX);
		ck_assert_ptr_eq(getcwd(out, PATH_MAX), out);
		ck_assert_int_eq(out[0], '/');
		put_in(s, un, sizeof(*un));
		ck_assert_int_eq(uname(un), 0);
		put_in(s, ts, sizeof(*ts));
		ck_assert_int_eq(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, ts), 0);
		put_in(s, ts, sizeof(*ts));
		ck_assert_int_eq(clock_getres(CLOCK_THREAD_CPUTIME_ID, ts), 0);
		*ts = (struct timespec){ 0, 1000 };
		put_in(s, ts, sizeof(*ts));
		ck_assert_int_eq(nanosleep(ts, ts), 0);
		put_in(s, out, 256);
		ck_assert_int_eq(getrandom(out, 256, 0), 256);

		int *ends = (int *)(void *)buffer(2 * sizeof(int));
		put_in(s, ends, 8);
		ck_assert_int_eq(pipe(ends), 0);
		memcpy(fd, ends, sizeof(fd));
		ck_assert_int_eq(write(fd[1], "abc", 3), 3);
		put_in(s, n, sizeof(int));
		ck_assert_int_eq(ioctl(fd[0], FIONREAD, n), 0);
		ck_assert_int_eq(*n, 3);
		ev[0] = (struct epoll_event){ .events = EPOLLIN, .data.fd = 42 };
		put_in(s, ev, 2 * sizeof(*ev));
		ck_assert_int_eq(epoll_ctl(ep, EPOLL_CTL_ADD, fd[0], ev), 0);
		put_in(s, ev, 2 * sizeof(*ev));
		ck_assert_int_eq(epoll_wait(ep, ev, 2, 1000), 1);
		ck_assert_int_eq(ev[0].data.fd, 42);
		*pfd = (struct pollfd){ fd[0], POLLIN, 0 };
		put_in(s, pfd, sizeof(*pfd));
		ck_assert_int_eq(poll(pfd, 1, 1000), 1);
		ck_assert_int_eq(pfd->revents, POLLIN);
		FD_ZERO(set);
		FD_SET(fd[0], set);
		put_in(s, set, sizeof(*set));
		ck_assert_int_eq(select(fd[0] + 1, set, NULL, NULL, NULL), 1);
		ck_assert(FD_ISSET(fd[0], set));
		*fl = (struct flock){ .l_type = F_WRLCK, .l_whence = SEEK_SET };
		put_in(s, fl, sizeof(*fl));
		ck_assert_int_eq(fcntl(ep, F_GETLK, fl), 0);
		strcpy(out, "a name");
		put_in(s, out, 16);
		ck_assert_int_eq(prctl(PR_SET_NAME, out), 0);
		put_in(s, out, 16);
		ck_assert_int_eq(prctl(PR_GET_NAME, out), 0);
		ck_assert_str_eq(out, "a name");
		close(fd[0]);
		close(fd[1]);
		close(ep);
	}
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

/* Standard input and output reach the kernel by libc's own instructions. */
START_TEST(stdio_works)
{
	EACH_STATE(s) {
		char *buf = buffer(8192), *line = NULL;
		size_t n = 0;
		FILE *f = tmpfile();

		ck_assert_int_eq(setvbuf(f, buf, _IOFBF, 8192), 0);
		for (int i = 0; i < 2000; i++) {
			put_in(s, buf, 8192);
			ck_assert_int_gt(fprintf(f, "line %d of many\n", i), 0);
		}
		rewind(f);
		for (int i = 0; i < 2000; i++) {
			char want[64];

			put_in(s, buf, 8192);
			ck_assert_int_gt(getline(&line, &n, f), 0);
			snprintf(want, sizeof(want), "line %d of many\n", i);
			ck_assert_str_eq(line, want);
		}
		free(line);
		fclose(f);
	}
}
END_TEST

START_TEST(programs_are_started)
{
	EACH_STATE(s) {
		static const char script[] = "test \"$1\" = arg && test \"$V\" = value && cat";
		char *path = buffer(16), *a = buffer(64), *b = buffer(16), *e = buffer(16), *file = buffer(16);
		char **argv = (char **)(void *)buffer(6 * sizeof(char *));
		char **envp = (char **)(void *)buffer(2 * sizeof(char *));
		posix_spawn_file_actions_t *fa = (void *)buffer(sizeof(*fa));
		int status;
		pid_t pid;

		strcpy(path, "/bin/sh");
		strcpy(a, script);
		strcpy(b, "arg");
		strcpy(e, "V=value");
		strcpy(file, "/dev/null");
		memcpy(argv, (const char *[]){ path, "-c", a, "sh", b, NULL }, 6 * sizeof(char *));
		memcpy(envp, (char *[]){ e, NULL }, 2 * sizeof(char *));
		ck_assert_int_eq(posix_spawn_file_actions_init(fa), 0);
		ck_assert_int_eq(posix_spawn_file_actions_addopen(fa, 0, file, O_RDONLY, 0), 0);
		put_in(s, path, 16);
		put_in(s, a, 64);
		put_in(s, b, 16);
		put_in(s, e, 16);
		put_in(s, file, 16);
		put_in(s, argv, 6 * sizeof(char *));
		put_in(s, envp, 2 * sizeof(char *));
		put_in(s, fa, sizeof(*fa));
		ck_assert_int_eq(posix_spawn(&pid, path, fa, NULL, argv, envp), 0);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);

		put_in(s, argv, 6 * sizeof(char *));
		pid = vfork();
		if (pid == 0) {
			(void)execve(path, argv, envp);
			_exit(127);
		}
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(status, 0);
	}
	(void)read(-1, NULL, 0);	/* the parent's next call lets go what the child copied */
	ck_assert_ptr_null(gate_thread.bounce);
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

START_TEST(a_failed_exec_says_why)
{
	char *path = buffer(16);

	strcpy(path, "/nonexistent");
	put_in(ABSENT, path, 16);
	ck_assert_int_eq(execl(path, path, (char *)NULL), -1);
	ck_assert_int_eq(errno, ENOENT);
	ck_assert_ptr_null(gate_thread.bounce);
}
END_TEST

/*
 * Bad pointers get the answer of any bad pointer.
 */
START_TEST(bad_pointers_are_efault)
{
	char *hole = mmap(NULL, FAKE_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *beyond = (char *)fake_pages(FAKE_PAGE) + (64u << 20);	/* managed, not mapped */
	char *p = buffer(FAKE_PAGE);
	int fd = scratch_file("abcd", 4), ends[2];
	struct iovec v = { beyond, 4 };

	for (int i = 0; i < 2; i++) {
		char *bad = i == 0 ? hole : beyond;

		if (i == 1)
			mprotect(bad, FAKE_PAGE, PROT_NONE);
		errno = 0;
		ck_assert_int_eq(pread(fd, bad, 4, 0), -1);
		ck_assert_int_eq(errno, EFAULT);
		ck_assert_int_eq(preadv(fd, (struct iovec *)(void *)bad, 2, 0), -1);
		ck_assert_int_eq(errno, EFAULT);
		ck_assert_int_eq(open(bad, O_RDONLY), -1);
		ck_assert_int_eq(errno, EFAULT);
		ck_assert_int_eq(recvmsg(fd, (struct msghdr *)(void *)bad, 0), -1);
		ck_assert_int_eq(syscall(SYS_rt_sigprocmask, SIG_BLOCK, bad, NULL, 8), -1);
		ck_assert_int_eq(errno, EFAULT);
		ck_assert_int_eq(syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, bad, 8), -1);
		ck_assert_int_eq(errno, EFAULT);
		ck_assert_int_eq(execl(bad, "x", (char *)NULL), -1);
		ck_assert_int_eq(errno, EFAULT);
	}
	ck_assert_int_eq(preadv(fd, &v, 1, 0), -1);
	ck_assert_int_eq(errno, EFAULT);
	/* More is asked for than there is memory: what there is to read fits. */
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(write(ends[1], "wxyz", 4), 4);
	(void)fake_evict(p, FAKE_PAGE, false);
	ck_assert_int_eq(read(ends[0], p, INT_MAX), 4);
	ck_assert_mem_eq(p, "wxyz", 4);
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

static void *
read_for_ever(void *arg)
{
	char **a = arg;

	(void)read(*(int *)(void *)a[0], a[1], 64);
	return NULL;
}

static void
wait_until_pinned(char *p)
{
	for (int i = 0; i < 5000 && !fake_pinned(p, 64); i++)
		usleep(1000);
	ck_assert(fake_pinned(p, 64));
	usleep(20000);
}

START_TEST(a_pinned_buffer_stays)
{
	char *p = buffer(64), text[64] = "it was there all the time";
	int ends[2];
	char *arg[] = { (char *)&ends[0], p };
	pthread_t t;

	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, read_for_ever, arg), 0);
	wait_until_pinned(p);
	ck_assert_uint_eq(fake_evict(p, 64, false), 0);
	ck_assert_int_eq(write(ends[1], text, 64), 64);
	ck_assert_int_eq(pthread_join(t, NULL), 0);
	ck_assert_mem_eq(p, text, 64);
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

static _Atomic int cleaned;

static void
clean(void *arg)
{
	cleaned++;
}

static void *
read_with_cleanup(void *arg)
{
	char **a = arg;
	int fd = *(int *)(void *)a[0];

	pthread_cleanup_push(clean, NULL);
	(void)read(fd, a[1], 64);
	pthread_cleanup_pop(0);
	return NULL;
}

/* C++ and -fexceptions have their cleanups run by the unwinder: it must find its way out of the gate. */
static void
clean_variable(int *p)
{
	cleaned += *p;
}

static void *
read_with_variable(void *arg)
{
	int ten __attribute__((__cleanup__(clean_variable), __unused__)) = 10;

	return read_with_cleanup(arg);
}

START_TEST(a_read_can_be_cancelled)
{
	static char plain[64];

	for (int i = 0; i < 2; i++) {
		char *p = i == 0 ? buffer(64) : plain;
		int ends[2];
		char *arg[] = { (char *)&ends[0], p };
		void *result;
		pthread_t t;

		cleaned = 0;
		ck_assert_int_eq(pipe(ends), 0);
		ck_assert_int_eq(pthread_create(&t, NULL, read_with_variable, arg), 0);
		if (i == 0)
			wait_until_pinned(p);
		fake_await_call(SYS_read, (unsigned long)ends[0]);
		ck_assert_int_eq(pthread_cancel(t), 0);
		ck_assert_int_eq(pthread_join(t, &result), 0);
		ck_assert_ptr_eq(result, PTHREAD_CANCELED);
		ck_assert_int_eq(cleaned, 11);
		ck_assert_uint_eq(fake_stats.pinned, 0);
		close(ends[0]);
		close(ends[1]);
	}
}
END_TEST

static sigjmp_buf out;

static void
jump(int sig)
{
	siglongjmp(out, 1);
}

START_TEST(a_longjmp_out_of_a_call_lets_go)
{
	struct sigaction sa = { .sa_handler = jump };
	char *p = buffer(64);
	int ends[2];

	ck_assert_int_eq(sigaction(SIGALRM, &sa, NULL), 0);
	ck_assert_int_eq(pipe(ends), 0);
	for (int i = 0; i < 20; i++) {
		if (sigsetjmp(out, 1) == 0) {
			ualarm(2000, 0);
			(void)read(ends[0], p, 64);
			ck_abort();
		}
	}
	(void)write(-1, p, 1);
	ck_assert_uint_eq(gate_thread.depth, 0);
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

static void *frames[32];
static int nframes;

static void
trace(int sig)
{
	nframes = backtrace(frames, 32);
}

__attribute__((__noinline__)) static ssize_t
traced_read(int fd, char *p)
{
	ssize_t n = read(fd, p, 64);

	__asm__ volatile("" ::: "memory");
	return n;
}

START_TEST(a_handler_sees_who_made_the_call)
{
	struct sigaction sa = { .sa_handler = trace };
	static char plain[64];
	void *warm[2];
	int ends[2];

	(void)backtrace(warm, 2);
	ck_assert_int_eq(sigaction(SIGALRM, &sa, NULL), 0);
	ck_assert_int_eq(pipe(ends), 0);
	for (int i = 0; i < 2; i++) {
		bool found = false;

		ualarm(10000, 0);
		ck_assert_int_eq(traced_read(ends[0], i == 0 ? plain : buffer(64)), -1);
		for (int k = 0; k < nframes; k++)
			found |= (uintptr_t)frames[k] - (uintptr_t)traced_read < 64;
		ck_assert(found);
	}
}
END_TEST

static char *nested;
static int nested_fd;

static void
nest(int sig)
{
	(void)fake_evict(nested, 64, false);
	(void)pread(nested_fd, nested, 4, 0);
}

/* A handler makes calls of its own on top of one that waits; that one goes on, with its pins. */
START_TEST(calls_nest)
{
	struct sigaction sa = { .sa_handler = nest, .sa_flags = SA_RESTART };
	char *p = buffer(64);
	int ends[2];
	char *arg[] = { (char *)&ends[0], p };
	pthread_t t;

	nested = buffer(64);
	nested_fd = scratch_file("nest", 4);
	ck_assert_int_eq(sigaction(SIGUSR1, &sa, NULL), 0);
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(pthread_create(&t, NULL, read_for_ever, arg), 0);
	wait_until_pinned(p);
	for (int i = 0; i < 50; i++) {
		ck_assert_int_eq(pthread_kill(t, SIGUSR1), 0);
		usleep(500);
		ck_assert(fake_pinned(p, 64));
	}
	ck_assert_mem_eq(nested, "nest", 4);
	ck_assert_int_eq(write(ends[1], "done", 4), 4);
	ck_assert_int_eq(pthread_join(t, NULL), 0);
	ck_assert_mem_eq(p, "done", 4);
	ck_assert_uint_eq(fake_stats.pinned, 0);
}
END_TEST

START_TEST(interrupted_calls_say_so)
{
	struct sigaction sa = { .sa_handler = nest };
	char *p = buffer(64);
	struct timespec *ts = (struct timespec *)(void *)buffer(sizeof(*ts));
	int ends[2];

	nested = buffer(64);
	nested_fd = scratch_file("nest", 4);
	ck_assert_int_eq(sigaction(SIGALRM, &sa, NULL), 0);
	ck_assert_int_eq(pipe(ends), 0);
	ualarm(20000, 0);
	ck_assert_int_eq(read(ends[0], p, 64), -1);
	ck_assert_int_eq(errno, EINTR);
	*ts = (struct timespec){ 10, 0 };
	ualarm(20000, 0);
	put_in(ABSENT, ts, sizeof(*ts));
	ck_assert_int_eq(nanosleep(ts, ts), -1);
	ck_assert_int_eq(errno, EINTR);
	ck_assert_int_eq(ts->tv_sec, 9);
}
END_TEST

static _Atomic int woken;

static void *
futex_waiter(void *arg)
{
	while (*(_Atomic int *)arg == 0)
		if (syscall(SYS_futex, arg, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0) != 0 && errno != EAGAIN &&
		    errno != EINTR)
			return (void *)(intptr_t)errno;
	woken = 1;
	return NULL;
}

START_TEST(a_word_that_is_waited_for_is_not_pinned)
{
	_Atomic int *word = (_Atomic int *)(void *)fake_pages(FAKE_PAGE);
	void *result;
	pthread_t t;

	*word = 0;
	(void)fake_evict((void *)word, 4, false);
	ck_assert_int_eq(pthread_create(&t, NULL, futex_waiter, (void *)word), 0);
	fake_await_call(SYS_futex, (unsigned long)word);
	ck_assert_uint_eq(fake_stats.pinned, 0);
	(void)fake_evict((void *)word, 4, false);
	*word = 1;
	(void)fake_evict((void *)word, 4, false);
	ck_assert_int_eq(syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0), 1);
	ck_assert_int_eq(pthread_join(t, &result), 0);
	ck_assert_ptr_null(result);
}
END_TEST

/* Frames are short for a moment: what can be made again is. */
START_TEST(harmless_calls_are_made_again)
{
	char *path = buffer(16);
	struct stat *st = (struct stat *)(void *)buffer(sizeof(*st));

	strcpy(path, "/dev/null");
	put_in(ABSENT, path, 16);
	put_in(ABSENT, st, sizeof(*st));
	fake_refuse = 25;
	ck_assert_int_eq(stat(path, st), 0);
	ck_assert(S_ISCHR(st->st_mode));
}
END_TEST

START_TEST(a_pipe_gets_contents_not_pages)
{
	char *p = fake_pages(FAKE_PAGE), got[8];
	struct iovec v = { p, 8 };
	int ends[2];

	ck_assert_int_eq(pipe(ends), 0);
	memcpy(p, "contents", 8);
	(void)fake_evict(p, 8, false);
	ck_assert_int_eq(vmsplice(ends[1], &v, 1, 0), 8);
	memcpy(p, "changed!", 8);
	ck_assert_int_eq(read(ends[0], got, 8), 8);
	ck_assert_mem_eq(got, "contents", 8);
}
END_TEST

START_TEST(rings_are_refused)
{
	char params[256] = { 0 };

	ck_assert_int_eq(syscall(SYS_io_uring_setup, 8, params), -1);
	ck_assert_int_eq(errno, ENOSYS);
}
END_TEST

/* Vector registers and the flags survive, as across a system call; and libc keeps values there. */
START_TEST(registers_survive)
{
	char *p = buffer(64);
	int fd = scratch_file("abcd", 4);
	long result, bad = 0;

	for (int i = 0; i < 3; i++) {
		double in = 1.5 + i, seen;
		register long offset __asm__("r8") = 0;

		(void)fake_evict(p, 64, false);
		__asm__ volatile("movsd %[in], %%xmm9\n\t"
		    "call syscall\n\t"
		    "movsd %%xmm9, %[seen]"
		    : "=a"(result), [seen] "=m"(seen)
		    : [in] "m"(in), "D"((long)SYS_pread64), "S"((long)fd), "d"(p), "c"(4L), "r"(offset)
		    : "r9", "r10", "r11", "memory", "xmm9", "cc");
		bad += seen != in || result != 4;
	}
	ck_assert_int_eq(bad, 0);
}
END_TEST

long __wrap_syscall(long nr, ...);

START_TEST(the_library_goes_around)
{
	char *p = buffer(64);
	int fd = scratch_file("abcd", 4);

	ck_assert_int_eq(__wrap_syscall(SYS_pread64, (long)fd, p, 4l, 0l), 4);
	put_in(ABSENT, p, 64);
	ck_assert_int_eq(__wrap_syscall(SYS_pread64, (long)fd, p, 4l, 0l), -1);
	ck_assert_int_eq(errno, EFAULT);
}
END_TEST

static int
on_other_stack(void *arg)
{
	return write(*(int *)arg, "clone", 5) == 5 ? 0 : 1;
}

START_TEST(clone_and_vfork_come_back)
{
	char *stack = malloc(65536);
	int ends[2], status;
	char got[8];
	pid_t pid;

	ck_assert_int_eq(pipe(ends), 0);
	pid = clone(on_other_stack, stack + 65536, CLONE_VM | CLONE_VFORK | SIGCHLD, &ends[1]);
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	ck_assert_int_eq(read(ends[0], got, 8), 5);
	for (int i = 0; i < 10; i++) {
		pid = vfork();
		if (pid == 0)
			_exit(i);
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_int_eq(WEXITSTATUS(status), i);
	}
	pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (pid == 0)
		_exit(write(ends[1], "x", 1) != 1);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

static Suite *
suite(void)
{
	Suite *s = suite_create("gate");
	TCase *tc = tcase_create("gate");

	tcase_add_checked_fixture(tc, start, NULL);
	tcase_add_test(tc, libc_is_rewritten);
	tcase_add_test(tc, files_are_read_and_written_whole);
	tcase_add_test(tc, vectors_are_found);
	tcase_add_test(tc, events_are_not_lost);
	tcase_add_test(tc, messages_are_not_lost);
	tcase_add_test(tc, connections_and_urgent_data_are_not_lost);
	tcase_add_test(tc, descriptors_are_not_lost);
	tcase_add_test(tc, many_messages_arrive);
	tcase_add_test(tc, children_are_not_lost);
	tcase_add_test(tc, errors_and_queues_are_not_lost);
	tcase_add_test(tc, signals_that_are_waited_for_are_not_lost);
	tcase_add_test(tc, directories_are_listed_whole);
	tcase_add_test(tc, small_answers_arrive);
	tcase_add_test(tc, stdio_works);
	tcase_add_test(tc, programs_are_started);
	tcase_add_test(tc, a_failed_exec_says_why);
	tcase_add_test(tc, bad_pointers_are_efault);
	tcase_add_test(tc, a_pinned_buffer_stays);
	tcase_add_test(tc, a_read_can_be_cancelled);
	tcase_add_test(tc, a_longjmp_out_of_a_call_lets_go);
	tcase_add_test(tc, a_handler_sees_who_made_the_call);
	tcase_add_test(tc, calls_nest);
	tcase_add_test(tc, interrupted_calls_say_so);
	tcase_add_test(tc, a_word_that_is_waited_for_is_not_pinned);
	tcase_add_test(tc, harmless_calls_are_made_again);
	tcase_add_test(tc, a_pipe_gets_contents_not_pages);
	tcase_add_test(tc, rings_are_refused);
	tcase_add_test(tc, registers_survive);
	tcase_add_test(tc, the_library_goes_around);
	tcase_add_test(tc, clone_and_vfork_come_back);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return run_suite(suite());
}
