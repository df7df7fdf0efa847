/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The PLT gate: wrappers of those functions of libc that take the program's memory to the kernel.
 *
 * All there is on i386, and on a libc that we cannot rewrite; elsewhere they do nothing but call the next.
 * The next is libc's own function, so that it stays a cancellation point and keeps its errno.  What libc
 * does by itself passes by; most of it is with memory that libc has allocated, which is not managed then (libcs.c).
 * gate_plt_calls.c has those that are more than a system call.  The rest, a program's own instructions and memory
 * of the program's that printf() hands on, is what this gate leaves open.
 */

#undef _FILE_OFFSET_BITS	/* each function by its own name, the short ones and those with 64 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gate_plt.h"
#include "signals_impl.h"

#define EXPORT	__attribute__((__visibility__("default")))

bool gate_plt;

void
gate_plt_install(void)
{
	gate_plt = true;
}

struct gate_record *
gate_plt_open(uintptr_t sp)
{
	if (!signals_thread_ready)
		signals_thread_start();
	if (gate_thread.depth != 0)
		gate_thread_tidy(sp);
	return gate_record_open(sp);
}

void
gate_plt_close(struct gate_record *r)
{
	int error = errno;

	if (r != NULL)
		gate_record_close(r);
	errno = error;
}

/* Pin what a call will use, as the table of x86_64 has it for the call of that name. */
static void
plt_pieces(struct gate_record *r, const struct gate_desc *d, long a, long b, long c, long e, long f, long g)
{
	const struct gate_call call = { .arg = { a, b, c, e, f, g } };

	if (r != NULL)
		gate_pieces(r, &call, d);
}

#define N		{ ARG_NONE, 0, 0, 0 }
#define R(n)		{ ARG_FIXED, 0, 0, n }
#define W(n)		{ ARG_FIXED, 1, 0, n }
#define RL(a)		{ ARG_COUNT, 0, a, 1 }
#define WL(a)		{ ARG_COUNT, 1, a, 1 }
#define WN(a, n)	{ ARG_COUNT, 1, a, n }
#define S		{ ARG_STRING, 0, 0, 0 }
#define RV(a)		{ ARG_IOVEC, 0, a, 0 }
#define WV(a)		{ ARG_IOVEC, 1, a, 0 }
#define RMSG		{ ARG_MSG, 0, 0, 0 }
#define WMSG		{ ARG_MSG, 1, 0, 0 }
#define WB(a)		{ ARG_BUFLEN, 1, a, 0 }
#define FDS		{ ARG_FDSET, 1, 0, 0 }

/*
 * A wrapper.  params and args as in C; longs: the six arguments of plt_pieces(); then what each of them is.
 */
#define LONGS(a, b, c, d, e, f)	(long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)
#define WRAP(type, name, params, args, longs, ...)				\
	EXPORT type								\
	name params								\
	{									\
		static const struct gate_desc desc = { #name, 0, { __VA_ARGS__ } };	\
		static type (*next) params;					\
		struct gate_record *r;						\
		type result;							\
										\
		if (next == NULL)						\
			next = (type (*) params)dlsym(RTLD_NEXT, #name);	\
		if (!gate_plt)							\
			return next args;					\
		r = gate_plt_open((uintptr_t)__builtin_frame_address(0));							\
		plt_pieces(r, &desc, longs);					\
		result = next args;						\
		gate_plt_close(r);							\
		return result;							\
	}

/*
 * Transfers of more than can be held at once, as gate_chunk.c has them: in pieces.  Of what is no file a piece that
 * was read is an answer, and messages are one piece.
 */
static ssize_t
plt_transfer(int fd, char *p, size_t n, bool write, ssize_t (*piece)(int, char *, size_t, uint64_t, uint64_t),
    uint64_t offset)
{
	size_t most = gate_ops.pin_max != 0 ? gate_ops.pin_max : n, done = 0, k;
	struct gate_record *r;
	bool file = true;
	struct stat st = { 0 };
	ssize_t got;

	if (n > most) {
		file = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
		if (!file && S_ISSOCK(st.st_mode))
			most = n;
	}
	do {
		k = n - done < most ? n - done : most;
		r = gate_plt_open((uintptr_t)__builtin_frame_address(0));
		if (r != NULL)
			(void)gate_piece(r, p + done, k, write);
		got = piece(fd, p + done, k, offset, done);
		gate_plt_close(r);
		if (got < 0)
			return done > 0 ? (ssize_t)done : got;
		done += (size_t)got;
	} while (got > 0 && (size_t)got == k && done < n && (file || !write));
	return (ssize_t)done;
}

#define TRANSFER(name, params, args, next_params, next_args, writes, offset)	\
	static ssize_t (*next_##name) next_params;				\
	static ssize_t								\
	piece_##name(int fd, char *p, size_t n, uint64_t o, uint64_t done)	\
	{									\
		(void)o;							\
		(void)done;							\
		return next_##name next_args;					\
	}									\
	EXPORT ssize_t								\
	name params								\
	{									\
		if (next_##name == NULL)					\
			next_##name = (ssize_t (*) next_params)dlsym(RTLD_NEXT, #name);	\
		if (!gate_plt)							\
			return next_##name args;				\
		return plt_transfer(fd, (char *)(uintptr_t)p, n, writes, piece_##name, (uint64_t)(offset));	\
	}
TRANSFER(read, (int fd, void *p, size_t n), (fd, p, n), (int, void *, size_t), (fd, p, n), true, 0)
TRANSFER(write, (int fd, const void *p, size_t n), (fd, p, n), (int, const void *, size_t), (fd, p, n), false, 0)
TRANSFER(pread, (int fd, void *p, size_t n, off_t o), (fd, p, n, o), (int, void *, size_t, off_t),
    (fd, p, n, (off_t)(o + done)), true, o)
TRANSFER(pwrite, (int fd, const void *p, size_t n, off_t o), (fd, p, n, o), (int, const void *, size_t, off_t),
    (fd, p, n, (off_t)(o + done)), false, o)
TRANSFER(pread64, (int fd, void *p, size_t n, off64_t o), (fd, p, n, o), (int, void *, size_t, off64_t),
    (fd, p, n, (off64_t)(o + done)), true, o)
TRANSFER(pwrite64, (int fd, const void *p, size_t n, off64_t o), (fd, p, n, o), (int, const void *, size_t, off64_t),
    (fd, p, n, (off64_t)(o + done)), false, o)
WRAP(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), LONGS(fd, v, n, 0, 0, 0), N, WV(2))
WRAP(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), LONGS(fd, v, n, 0, 0, 0), N, RV(2))
WRAP(ssize_t, preadv, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o),
    LONGS(fd, v, n, 0, 0, 0), N, WV(2))
WRAP(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o),
    LONGS(fd, v, n, 0, 0, 0), N, RV(2))
WRAP(ssize_t, preadv64, (int fd, const struct iovec *v, int n, off64_t o), (fd, v, n, o),
    LONGS(fd, v, n, 0, 0, 0), N, WV(2))
WRAP(ssize_t, pwritev64, (int fd, const struct iovec *v, int n, off64_t o), (fd, v, n, o),
    LONGS(fd, v, n, 0, 0, 0), N, RV(2))
WRAP(ssize_t, getrandom, (void *p, size_t n, unsigned f), (p, n, f), LONGS(p, n, 0, 0, 0, 0), WL(1))
WRAP(ssize_t, recv, (int fd, void *p, size_t n, int f), (fd, p, n, f), LONGS(fd, p, n, 0, 0, 0), N, WL(2))
WRAP(ssize_t, send, (int fd, const void *p, size_t n, int f), (fd, p, n, f), LONGS(fd, p, n, 0, 0, 0), N, RL(2))
WRAP(ssize_t, recvfrom, (int fd, void *restrict p, size_t n, int f, struct sockaddr *restrict a,
    socklen_t *restrict l), (fd, p, n, f, a, l), LONGS(fd, p, n, f, a, l), N, WL(2), N, N, WB(5), W(4))
WRAP(ssize_t, sendto, (int fd, const void *p, size_t n, int f, const struct sockaddr *a, socklen_t l),
    (fd, p, n, f, a, l), LONGS(fd, p, n, f, a, l), N, RL(2), N, N, RL(5))
WRAP(char *, getcwd, (char *p, size_t n), (p, n), LONGS(p, n, 0, 0, 0, 0), WL(1))
WRAP(ssize_t, readlinkat, (int d, const char *restrict p, char *restrict b, size_t n), (d, p, b, n),
    LONGS(d, p, b, n, 0, 0), N, S, WL(3))
WRAP(int, nanosleep, (const struct timespec *t, struct timespec *u), (t, u), LONGS(t, u, 0, 0, 0, 0), R(16), W(16))
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *m, int f), (fd, m, f), LONGS(fd, m, f, 0, 0, 0), N, WMSG)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f), LONGS(fd, m, f, 0, 0, 0), N, RMSG)
WRAP(int, accept, (int fd, struct sockaddr *restrict a, socklen_t *restrict l), (fd, a, l),
    LONGS(fd, a, l, 0, 0, 0), N, WB(2), W(4))
WRAP(int, accept4, (int fd, struct sockaddr *restrict a, socklen_t *restrict l, int f), (fd, a, l, f),
    LONGS(fd, a, l, 0, 0, 0), N, WB(2), W(4))
WRAP(int, connect, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l), LONGS(fd, a, l, 0, 0, 0), N, RL(2))
WRAP(int, bind, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l), LONGS(fd, a, l, 0, 0, 0), N, RL(2))
WRAP(int, getsockname, (int fd, struct sockaddr *restrict a, socklen_t *restrict l), (fd, a, l),
    LONGS(fd, a, l, 0, 0, 0), N, WB(2), W(4))
WRAP(int, getpeername, (int fd, struct sockaddr *restrict a, socklen_t *restrict l), (fd, a, l),
    LONGS(fd, a, l, 0, 0, 0), N, WB(2), W(4))
WRAP(int, getsockopt, (int fd, int v, int o, void *restrict p, socklen_t *restrict l), (fd, v, o, p, l),
    LONGS(fd, v, o, p, l, 0), N, N, N, WB(4), W(4))
WRAP(int, socketpair, (int d, int t, int p, int fd[2]), (d, t, p, fd), LONGS(d, t, p, fd, 0, 0), N, N, N, W(8))
WRAP(int, pipe, (int fd[2]), (fd), LONGS(fd, 0, 0, 0, 0, 0), W(8))
WRAP(int, pipe2, (int fd[2], int f), (fd, f), LONGS(fd, 0, 0, 0, 0, 0), W(8))
WRAP(int, poll, (struct pollfd *p, nfds_t n, int t), (p, n, t), LONGS(p, n, t, 0, 0, 0), WN(1, 8))
WRAP(int, select, (int n, fd_set *restrict a, fd_set *restrict b, fd_set *restrict c, struct timeval *restrict t),
    (n, a, b, c, t), LONGS(n, a, b, c, t, 0), N, FDS, FDS, FDS, W(sizeof(struct timeval)))
WRAP(int, epoll_wait, (int fd, struct epoll_event *e, int n, int t), (fd, e, n, t),
    LONGS(fd, e, n, t, 0, 0), N, WN(2, 12))
WRAP(int, epoll_ctl, (int fd, int op, int f, struct epoll_event *e), (fd, op, f, e),
    LONGS(fd, op, f, e, 0, 0), N, N, N, R(12))
WRAP(pid_t, waitpid, (pid_t pid, int *s, int o), (pid, s, o), LONGS(pid, s, o, 0, 0, 0), N, W(4))
WRAP(pid_t, wait4, (pid_t pid, int *s, int o, struct rusage *u), (pid, s, o, u), LONGS(pid, s, o, u, 0, 0),
    N, W(4), N, W(144))
WRAP(int, waitid, (idtype_t t, id_t id, siginfo_t *si, int o), (t, id, si, o), LONGS(t, id, si, o, 0, 0), N, N, W(128))
WRAP(int, stat, (const char *restrict p, struct stat *restrict st), (p, st), LONGS(p, st, 0, 0, 0, 0),
    S, W(sizeof(struct stat)))
WRAP(int, lstat, (const char *restrict p, struct stat *restrict st), (p, st), LONGS(p, st, 0, 0, 0, 0),
    S, W(sizeof(struct stat)))
WRAP(int, fstat, (int fd, struct stat *st), (fd, st), LONGS(fd, st, 0, 0, 0, 0), N, W(sizeof(struct stat)))
WRAP(int, fstatat, (int fd, const char *restrict p, struct stat *restrict st, int f), (fd, p, st, f),
    LONGS(fd, p, st, f, 0, 0), N, S, W(sizeof(struct stat)))
WRAP(int, stat64, (const char *restrict p, struct stat64 *restrict st), (p, st), LONGS(p, st, 0, 0, 0, 0),
    S, W(sizeof(struct stat64)))
WRAP(int, lstat64, (const char *restrict p, struct stat64 *restrict st), (p, st), LONGS(p, st, 0, 0, 0, 0),
    S, W(sizeof(struct stat64)))
WRAP(int, fstat64, (int fd, struct stat64 *st), (fd, st), LONGS(fd, st, 0, 0, 0, 0), N, W(sizeof(struct stat64)))
WRAP(int, fstatat64, (int fd, const char *restrict p, struct stat64 *restrict st, int f), (fd, p, st, f),
    LONGS(fd, p, st, f, 0, 0), N, S, W(sizeof(struct stat64)))
WRAP(int, access, (const char *p, int m), (p, m), LONGS(p, m, 0, 0, 0, 0), S)
WRAP(ssize_t, readlink, (const char *restrict p, char *restrict b, size_t n), (p, b, n),
    LONGS(p, b, n, 0, 0, 0), S, WL(2))
WRAP(int, mkdir, (const char *p, mode_t m), (p, m), LONGS(p, m, 0, 0, 0, 0), S)
WRAP(int, rmdir, (const char *p), (p), LONGS(p, 0, 0, 0, 0, 0), S)
WRAP(int, unlink, (const char *p), (p), LONGS(p, 0, 0, 0, 0, 0), S)
WRAP(int, chdir, (const char *p), (p), LONGS(p, 0, 0, 0, 0, 0), S)
WRAP(int, chmod, (const char *p, mode_t m), (p, m), LONGS(p, m, 0, 0, 0, 0), S)
WRAP(int, rename, (const char *a, const char *b), (a, b), LONGS(a, b, 0, 0, 0, 0), S, S)
WRAP(int, link, (const char *a, const char *b), (a, b), LONGS(a, b, 0, 0, 0, 0), S, S)
WRAP(int, symlink, (const char *a, const char *b), (a, b), LONGS(a, b, 0, 0, 0, 0), S, S)

/*
 * open and its kin take a mode only if they make something.
 */
#define WRAP_OPEN(name, before, args, path)					\
	EXPORT int								\
	name (before const char *p, int flags, ...)				\
	{									\
		static const struct gate_desc desc = { #name, 0, { S } };	\
		static int (*next) (before const char *, int, ...);		\
		struct gate_record *r;						\
		mode_t mode = 0;						\
		va_list ap;							\
		int result;							\
										\
		if (flags & (O_CREAT | __O_TMPFILE)) {				\
			va_start(ap, flags);					\
			mode = va_arg(ap, mode_t);				\
			va_end(ap);						\
		}								\
		if (next == NULL)						\
			next = (int (*) (before const char *, int, ...))dlsym(RTLD_NEXT, #name);	\
		if (!gate_plt)							\
			return next args;					\
		r = gate_plt_open((uintptr_t)__builtin_frame_address(0));							\
		plt_pieces(r, &desc, LONGS(path, 0, 0, 0, 0, 0));		\
		result = next args;						\
		gate_plt_close(r);							\
		return result;							\
	}
#define NOTHING
#define DIRECTORY	int dir,
WRAP_OPEN(open, NOTHING, (p, flags, mode), p)
WRAP_OPEN(open64, NOTHING, (p, flags, mode), p)
WRAP_OPEN(openat, DIRECTORY, (dir, p, flags, mode), p)
WRAP_OPEN(openat64, DIRECTORY, (dir, p, flags, mode), p)

/*
 * Signals: the same as the gate does with the calls themselves.
 */

static long
plt_signals(long nr, const void *a, const void *b, const void *c, long d)
{
	struct gate_call call = { nr, { (long)a, (long)b, (long)c, d }, 0,
	    (uintptr_t)__builtin_frame_address(0) };
	struct signals_call sc;

	if (!signals_thread_ready)
		signals_thread_start();
	if (!signals_begin(&call, &sc)) {
		call.result = gate_make(&call);
		signals_end(&call, &sc);
	}
	return call.result;
}

static int
plt_errno(long result)
{
	if (result >= 0)
		return (int)result;
	errno = -(int)result;
	return -1;
}

#define SIGNAL_NEXT(type, params, name)						\
	static type (*next) params;						\
	if (next == NULL)							\
		next = (type (*) params)dlsym(RTLD_NEXT, name)

EXPORT int
sigaction(int sig, const struct sigaction *restrict act, struct sigaction *restrict oldact)
{
	SIGNAL_NEXT(int, (int, const struct sigaction *, struct sigaction *), "sigaction");
	struct kaction new, old;
	long result;

	/* 32 and 33 are libc's. */
	if (!gate_plt || sig == 32 || sig == 33)
		return next(sig, act, oldact);
	if (act != NULL) {
		new = (struct kaction){ .handler = act->sa_handler, .flags = (unsigned)act->sa_flags };
		memcpy(&new.mask, &act->sa_mask, sizeof(new.mask));
		new.mask &= ~((kset)3 << 31);
	}
	result = plt_signals(SYS_rt_sigaction, (void *)(long)sig, act != NULL ? &new : NULL, &old, sizeof(kset));
	if (result == 0 && oldact != NULL) {
		*oldact = (struct sigaction){ .sa_handler = old.handler, .sa_flags = (int)old.flags };
		memcpy(&oldact->sa_mask, &old.mask, sizeof(old.mask));
	}
	return plt_errno(result);
}

EXPORT __sighandler_t
signal(int sig, __sighandler_t handler)
{
	SIGNAL_NEXT(__sighandler_t, (int, __sighandler_t), "signal");
	struct sigaction new = { .sa_handler = handler, .sa_flags = SA_RESTART }, old;

	if (!gate_plt)
		return next(sig, handler);
	(void)sigaddset(&new.sa_mask, sig);
	return sigaction(sig, &new, &old) == 0 ? old.sa_handler : SIG_ERR;
}

static long
plt_mask(int how, const sigset_t *set, sigset_t *old)
{
	kset mask;

	if (set != NULL) {
		memcpy(&mask, set, sizeof(mask));
		mask &= ~((kset)3 << 31);
	}
	if (old != NULL)
		memset(old, 0, sizeof(*old));
	return plt_signals(SYS_rt_sigprocmask, (void *)(long)how, set != NULL ? &mask : NULL, old, sizeof(kset));
}

EXPORT int
sigprocmask(int how, const sigset_t *restrict set, sigset_t *restrict old)
{
	SIGNAL_NEXT(int, (int, const sigset_t *, sigset_t *), "sigprocmask");

	return gate_plt ? plt_errno(plt_mask(how, set, old)) : next(how, set, old);
}

EXPORT int
pthread_sigmask(int how, const sigset_t *restrict set, sigset_t *restrict old)
{
	SIGNAL_NEXT(int, (int, const sigset_t *, sigset_t *), "pthread_sigmask");

	return gate_plt ? -(int)plt_mask(how, set, old) : next(how, set, old);
}

EXPORT int
sigaltstack(const stack_t *restrict new, stack_t *restrict old)
{
	SIGNAL_NEXT(int, (const stack_t *, stack_t *), "sigaltstack");

	return gate_plt ? plt_errno(plt_signals(SYS_sigaltstack, new, old, NULL, 0)) : next(new, old);
}

EXPORT int
sigpending(sigset_t *set)
{
	SIGNAL_NEXT(int, (sigset_t *), "sigpending");

	if (!gate_plt)
		return next(set);
	memset(set, 0, sizeof(*set));
	return plt_errno(plt_signals(SYS_rt_sigpending, set, (void *)sizeof(kset), NULL, 0));
}

/*
 * longjmp restores the mask with libc's own instructions, from what sigsetjmp had from the kernel, where
 * nothing of HIDDEN was blocked.
 */
#define WRAP_JUMP(name)								\
	EXPORT __attribute__((__noreturn__)) void				\
	name(struct __jmp_buf_tag env[1], int value)				\
	{									\
		SIGNAL_NEXT(void, (struct __jmp_buf_tag *, int), #name);	\
										\
		if (gate_plt && env->__mask_was_saved)				\
			signals_set_blocked(0);					\
		next(env, value);						\
		__builtin_unreachable();					\
	}

void __longjmp_chk(struct __jmp_buf_tag[1], int);	/* what _FORTIFY_SOURCE makes of it */
WRAP_JUMP(longjmp)
WRAP_JUMP(siglongjmp)
WRAP_JUMP(__longjmp_chk)

/* Those that wait with a mask: what the kernel may see of it. */
static const sigset_t *
visible(const sigset_t *set, sigset_t *copy)
{
	if (set == NULL)
		return NULL;
	*copy = *set;
	(void)sigdelset(copy, SIGSEGV);
	(void)sigdelset(copy, SIGBUS);
	return copy;
}

EXPORT int
sigsuspend(const sigset_t *set)
{
	SIGNAL_NEXT(int, (const sigset_t *), "sigsuspend");
	sigset_t copy;

	return next(gate_plt ? visible(set, &copy) : set);
}

#define WRAP_MASKED(name, params, args, args_visible, longs, ...)		\
	EXPORT int								\
	name params								\
	{									\
		static const struct gate_desc desc = { #name, 0, { __VA_ARGS__ } };	\
		SIGNAL_NEXT(int, params, #name);				\
		struct gate_record *r;						\
		sigset_t copy;							\
		int result;							\
										\
		if (!gate_plt)							\
			return next args;					\
		r = gate_plt_open((uintptr_t)__builtin_frame_address(0));							\
		plt_pieces(r, &desc, longs);					\
		result = next args_visible;					\
		gate_plt_close(r);							\
		return result;							\
	}

WRAP_MASKED(ppoll, (struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *s), (p, n, t, s),
    (p, n, t, visible(s, &copy)), LONGS(p, n, t, 0, 0, 0), WN(1, 8), N, R(sizeof(struct timespec)))
WRAP_MASKED(pselect, (int n, fd_set *restrict a, fd_set *restrict b, fd_set *restrict c,
    const struct timespec *restrict t, const sigset_t *restrict s), (n, a, b, c, t, s),
    (n, a, b, c, t, visible(s, &copy)), LONGS(n, a, b, c, t, 0), N, FDS, FDS, FDS, R(sizeof(struct timespec)))
WRAP_MASKED(epoll_pwait, (int fd, struct epoll_event *e, int n, int t, const sigset_t *s), (fd, e, n, t, s),
    (fd, e, n, t, visible(s, &copy)), LONGS(fd, e, n, t, 0, 0), N, WN(2, 12))
