/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The PLT gate, continued: functions that concern the shim itself (memory, descriptors, the end), those that run
 * programs, and those of stdio that give the program's own memory to the kernel.
 *
 * libc gets to these by other ways as well, for its own: they are in nobody's way then, as what libc allocates is not
 * managed there (libcs.c).
 */

#undef _FILE_OFFSET_BITS
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gate_plt.h"
#include "signals_impl.h"

#define EXPORT	__attribute__((__visibility__("default")))

#define NEXT(type, params, name)						\
	static type (*next) params;						\
	if (next == NULL)							\
		next = (type (*) params)dlsym(RTLD_NEXT, name)

/*
 * Calls that may be the shim's.
 */

static bool
is_the_shims(struct gate_call *call)
{
	int error = errno;
	bool done;

	if (!gate_plt || gate_ops.hook == NULL)
		return false;
	if (!signals_thread_ready)
		signals_thread_start();
	done = gate_ops.hook(call);
	errno = error;
	return done;
}

static long
result_of(const struct gate_call *call)
{
	if (call->result >= 0 || call->result < -4095)
		return call->result;
	errno = -(int)call->result;
	return -1;
}

#define HOOKED(type, name, params, args, nr, ...)				\
	EXPORT type								\
	name params								\
	{									\
		struct gate_call call = { nr, { __VA_ARGS__ }, 0, 0 };		\
		NEXT(type, params, #name);					\
										\
		return is_the_shims(&call) ? (type)result_of(&call) : next args;	\
	}

#ifdef SYS_mmap2
#define MMAP_SHIFT	12
#else
#define MMAP_SHIFT	0
#endif

HOOKED(void *, mmap, (void *p, size_t n, int prot, int flags, int fd, off_t o), (p, n, prot, flags, fd, o),
    GATE_MMAP, (long)p, (long)n, prot, flags, fd, (long)((unsigned long)o >> MMAP_SHIFT))
HOOKED(void *, mmap64, (void *p, size_t n, int prot, int flags, int fd, off64_t o), (p, n, prot, flags, fd, o),
    GATE_MMAP, (long)p, (long)n, prot, flags, fd, (long)((uint64_t)o >> MMAP_SHIFT))
HOOKED(int, munmap, (void *p, size_t n), (p, n), SYS_munmap, (long)p, (long)n)
HOOKED(int, mprotect, (void *p, size_t n, int prot), (p, n, prot), SYS_mprotect, (long)p, (long)n, prot)
HOOKED(int, madvise, (void *p, size_t n, int a), (p, n, a), SYS_madvise, (long)p, (long)n, a)
HOOKED(int, msync, (void *p, size_t n, int f), (p, n, f), SYS_msync, (long)p, (long)n, f)
HOOKED(int, mincore, (void *p, size_t n, unsigned char *v), (p, n, v), SYS_mincore, (long)p, (long)n, (long)v)
HOOKED(int, mlock, (const void *p, size_t n), (p, n), SYS_mlock, (long)p, (long)n)
HOOKED(int, mlock2, (const void *p, size_t n, unsigned f), (p, n, f), SYS_mlock2, (long)p, (long)n, (long)f)
HOOKED(int, munlock, (const void *p, size_t n), (p, n), SYS_munlock, (long)p, (long)n)
HOOKED(int, close, (int fd), (fd), SYS_close, fd)
HOOKED(int, dup2, (int fd, int to), (fd, to), SYS_dup2, fd, to)
HOOKED(int, dup3, (int fd, int to, int flags), (fd, to, flags), SYS_dup3, fd, to, flags)

EXPORT void *
mremap(void *p, size_t old, size_t n, int flags, ...)
{
	NEXT(void *, (void *, size_t, size_t, int, ...), "mremap");
	struct gate_call call = { SYS_mremap, { (long)p, (long)old, (long)n, flags }, 0, 0 };
	void *to = NULL;
	va_list ap;

	if (flags & ~MREMAP_MAYMOVE) {
		va_start(ap, flags);
		to = va_arg(ap, void *);
		va_end(ap);
	}
	call.arg[4] = (long)to;
	return is_the_shims(&call) ? (void *)result_of(&call) : next(p, old, n, flags, to);
}

EXPORT int
close_range(unsigned first, unsigned last, int flags)
{
	NEXT(int, (unsigned, unsigned, int), "close_range");
	struct gate_call call = { SYS_close_range, { (long)first, (long)last, flags }, 0, 0 };

	if (is_the_shims(&call))
		return (int)result_of(&call);
	if (next != NULL)
		return next(first, last, flags);
	call.result = gate_make(&call);
	return (int)result_of(&call);
}

EXPORT void
closefrom(int first)
{
	(void)close_range(first < 0 ? 0 : (unsigned)first, UINT_MAX, 0);
}

/* Some options would have the kernel keep pages. */
EXPORT int
setsockopt(int fd, int level, int option, const void *p, socklen_t n)
{
	NEXT(int, (int, int, int, const void *, socklen_t), "setsockopt");
	struct gate_call call = { SYS_setsockopt, { fd, level, option, (long)p, (long)n }, 0, 0 };
	struct gate_record *r;
	int result;

	if (!gate_plt)
		return next(fd, level, option, p, n);
	r = gate_plt_open((uintptr_t)__builtin_frame_address(0));
	if (r != NULL && p != NULL)
		(void)gate_piece(r, p, n, false);
	result = is_the_shims(&call) ? (int)result_of(&call) : next(fd, level, option, p, n);
	gate_plt_close(r);
	return result;
}

#define WRAP_EXIT(name)								\
	EXPORT __attribute__((__noreturn__)) void				\
	name(int status)							\
	{									\
		struct gate_call call = { SYS_exit_group, { status }, 0, 0 };	\
		NEXT(void, (int), #name);					\
										\
		(void)is_the_shims(&call);					\
		next(status);							\
		__builtin_unreachable();					\
	}
WRAP_EXIT(_exit)
WRAP_EXIT(_Exit)

/*
 * Programs.  Strings and vectors are held: with libc's own search, and in the child of vfork(), whose parent lets go of
 * them with its next call.
 */

static void
hold_string(struct gate_record *r, const char *s)
{
	static const struct gate_desc string = { "string", 0, { { ARG_STRING, 0, 0, 0 } } };
	const struct gate_call call = { .arg = { (long)s } };

	if (r != NULL && s != NULL)
		gate_pieces(r, &call, &string);
}

static void
hold_vector(struct gate_record *r, char *const v[])
{
	for (size_t i = 0; r != NULL && v != NULL; i++) {
		(void)gate_piece(r, &v[i], sizeof(v[i]), false);
		if (v[i] == NULL)
			break;
		hold_string(r, v[i]);
	}
}

static struct gate_record *
hold(const char *path, char *const argv[], char *const envp[])
{
	struct gate_record *r = gate_plt_open((uintptr_t)__builtin_frame_address(0));

	hold_string(r, path);
	hold_vector(r, argv);
	hold_vector(r, envp);
	return r;
}

EXPORT int
execve(const char *path, char *const argv[], char *const envp[])
{
	NEXT(int, (const char *, char *const[], char *const[]), "execve");
	struct gate_call call = { SYS_execve, { (long)path, (long)argv, (long)envp }, 0, 0 };

	if (!gate_plt)
		return next(path, argv, envp);
	gate_exec(&call);
	return (int)result_of(&call);
}

EXPORT int
execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int
execvpe(const char *file, char *const argv[], char *const envp[])
{
	NEXT(int, (const char *, char *const[], char *const[]), "execvpe");
	struct signals_exec state;
	struct gate_record *r;
	int result;

	if (!gate_plt)
		return next(file, argv, envp);
	r = hold(file, argv, envp);
	signals_exec_begin(&state);
	result = next(file, argv, envp);
	signals_exec_failed(&state);
	gate_plt_close(r);
	return result;
}

EXPORT int
execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

/* An argument list becomes a vector on the stack. */
enum list { LIST, LIST_PATH, LIST_ENV };

static int
exec_list(enum list kind, const char *path, const char *arg, va_list ap)
{
	char *const *envp = environ;
	size_t n = 1;
	va_list count;
	char **argv;

	va_copy(count, ap);
	for (const char *s = arg; s != NULL; n++)
		s = va_arg(count, const char *);
	va_end(count);
	argv = __builtin_alloca(n * sizeof(*argv));
	argv[0] = (char *)(uintptr_t)arg;
	for (size_t i = 1; i < n; i++)
		argv[i] = va_arg(ap, char *);
	if (kind == LIST_ENV)
		envp = va_arg(ap, char *const *);
	return (kind == LIST_PATH ? execvpe : execve)(path, argv, envp);
}

#define WRAP_LIST(name, kind)							\
	EXPORT int								\
	name(const char *path, const char *arg, ...)				\
	{									\
		va_list ap;							\
		int result;							\
										\
		va_start(ap, arg);						\
		result = exec_list(kind, path, arg, ap);			\
		va_end(ap);							\
		return result;							\
	}
WRAP_LIST(execl, LIST)
WRAP_LIST(execlp, LIST_PATH)
WRAP_LIST(execle, LIST_ENV)

/* What it opens and the names in its lists are libc's own, but for these. */
#define WRAP_SPAWN(name)							\
	EXPORT int								\
	name(pid_t *restrict pid, const char *restrict path, const posix_spawn_file_actions_t *restrict actions,	\
	    const posix_spawnattr_t *restrict attr, char *const argv[restrict], char *const envp[restrict])	\
	{									\
		NEXT(int, (pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,	\
		    char *const[], char *const[]), #name);			\
		struct gate_record *r;						\
		pid_t got = 0;							\
		int result;							\
										\
		if (!gate_plt)							\
			return next(pid, path, actions, attr, argv, envp);	\
		r = hold(path, argv, envp);					\
		if (r != NULL && actions != NULL)				\
			(void)gate_piece(r, actions, sizeof(*actions), false);	\
		if (r != NULL && attr != NULL)					\
			(void)gate_piece(r, attr, sizeof(*attr), false);	\
		result = next(&got, path, actions, attr, argv, envp);		\
		gate_plt_close(r);						\
		if (result == 0 && pid != NULL)					\
			*pid = got;						\
		return result;							\
	}
WRAP_SPAWN(posix_spawn)
WRAP_SPAWN(posix_spawnp)

/* A function that is given strings, and the environment where env is true. */
#define STRINGS(type, name, params, args, one, two, env)			\
	EXPORT type								\
	name params								\
	{									\
		NEXT(type, params, #name);					\
		struct gate_record *r;						\
		type result;							\
										\
		if (!gate_plt)							\
			return next args;					\
		r = hold(one, NULL, env ? environ : NULL);			\
		hold_string(r, two);						\
		result = next args;						\
		gate_plt_close(r);						\
		return result;							\
	}

STRINGS(int, system, (const char *s), (s), s, NULL, true)
STRINGS(FILE *, popen, (const char *s, const char *m), (s, m), s, NULL, true)
STRINGS(FILE *, fopen, (const char *restrict p, const char *restrict m), (p, m), p, NULL, false)
STRINGS(FILE *, fopen64, (const char *restrict p, const char *restrict m), (p, m), p, NULL, false)
STRINGS(FILE *, freopen, (const char *restrict p, const char *restrict m, FILE *restrict f), (p, m, f), p, NULL, false)
STRINGS(FILE *, freopen64, (const char *restrict p, const char *restrict m, FILE *restrict f), (p, m, f), p, NULL, false)
STRINGS(DIR *, opendir, (const char *p), (p), p, NULL, false)
STRINGS(char *, realpath, (const char *restrict p, char *restrict to), (p, to), p, NULL, false)
STRINGS(int, mkstemp, (char *p), (p), p, NULL, false)
STRINGS(int, mkstemp64, (char *p), (p), p, NULL, false)
STRINGS(char *, mkdtemp, (char *p), (p), p, NULL, false)
STRINGS(int, remove, (const char *p), (p), p, NULL, false)
STRINGS(int, chown, (const char *p, uid_t u, gid_t g), (p, u, g), p, NULL, false)
STRINGS(int, lchown, (const char *p, uid_t u, gid_t g), (p, u, g), p, NULL, false)
STRINGS(int, fchownat, (int d, const char *p, uid_t u, gid_t g, int f), (d, p, u, g, f), p, NULL, false)
STRINGS(int, fchmodat, (int d, const char *p, mode_t m, int f), (d, p, m, f), p, NULL, false)
STRINGS(int, faccessat, (int d, const char *p, int m, int f), (d, p, m, f), p, NULL, false)
STRINGS(int, mkdirat, (int d, const char *p, mode_t m), (d, p, m), p, NULL, false)
STRINGS(int, unlinkat, (int d, const char *p, int f), (d, p, f), p, NULL, false)
STRINGS(int, renameat, (int d, const char *p, int e, const char *q), (d, p, e, q), p, q, false)
STRINGS(int, linkat, (int d, const char *p, int e, const char *q, int f), (d, p, e, q, f), p, q, false)
STRINGS(int, symlinkat, (const char *p, int d, const char *q), (p, d, q), p, q, false)
STRINGS(int, truncate, (const char *p, off_t n), (p, n), p, NULL, false)
STRINGS(int, truncate64, (const char *p, off64_t n), (p, n), p, NULL, false)

/*
 * stdio.  A buffer of the program's goes to the kernel as it is where the file's own is too small for it; what is more
 * than can be held goes piece by piece.
 */

static size_t
transfer(size_t (*next)(void *, size_t, size_t, FILE *), void *p, size_t size, size_t n, FILE *f, bool write)
{
	size_t most = size != 0 && gate_ops.pin_max != 0 ? gate_ops.pin_max / size : n, done = 0, got = 0, k;
	struct gate_record *r;

	if (size == 0 || n > SIZE_MAX / size)
		return next(p, size, n, f);
	do {
		char *at = (char *)p + done * size;

		k = n - done < most || most == 0 ? n - done : most;
		r = gate_plt_open((uintptr_t)__builtin_frame_address(0));
		if (r != NULL)
			(void)gate_piece(r, at, k * size, write);
		got = next(at, size, k, f);
		gate_plt_close(r);
		done += got;
	} while (got == k && done < n);
	return done;
}

#define WRAP_TRANSFER(name, constness, writes)					\
	EXPORT size_t								\
	name(constness void *restrict p, size_t size, size_t n, FILE *restrict f)	\
	{									\
		NEXT(size_t, (void *, size_t, size_t, FILE *), #name);		\
										\
		return gate_plt ? transfer(next, (void *)(uintptr_t)p, size, n, f, writes) :	\
		    next((void *)(uintptr_t)p, size, n, f);			\
	}
#undef fread_unlocked		/* macros, where a compiler optimizes */
#undef fwrite_unlocked
#define NOTHING
WRAP_TRANSFER(fread, NOTHING, true)
WRAP_TRANSFER(fread_unlocked, NOTHING, true)
WRAP_TRANSFER(fwrite, const, false)
WRAP_TRANSFER(fwrite_unlocked, const, false)

#define WRAP_PUTS(name, params, args, s)					\
	EXPORT int								\
	name params								\
	{									\
		NEXT(int, params, #name);					\
		struct gate_record *r;						\
		int result;							\
										\
		if (!gate_plt)							\
			return next args;					\
		r = gate_plt_open((uintptr_t)__builtin_frame_address(0));	\
		if (r != NULL)							\
			(void)gate_piece(r, s, strlen(s), false);		\
		result = next args;						\
		gate_plt_close(r);						\
		return result;							\
	}
WRAP_PUTS(fputs, (const char *restrict s, FILE *restrict f), (s, f), s)
WRAP_PUTS(fputs_unlocked, (const char *restrict s, FILE *restrict f), (s, f), s)
WRAP_PUTS(puts, (const char *s), (s), s)
