/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * System calls by number, through libc's syscall() and nothing else of it.
 *
 * libc's own wrappers are cancellation points, are interposed by sanitizers
 * and preloaded libraries, and set errno, which belongs to the code that a fault
 * interrupted.  syscall() does the last of these only, and only when it fails.
 *
 * Two machines.  Where they differ is the width of a long: i386 passes a
 * 64-bit offset as two words, low half first, and an mmap offset in pages.  A
 * time is a pair of longs on both; 32 bits are enough, since all of ours are
 * intervals or time since boot, and these calls exist on every kernel and in every
 * sandbox, which cannot be said of their 64-bit successors.
 *
 * A call that a signal interrupted before it did anything is made again.
 */

#include "kern/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "kern/assert.h"
#include "kern/types.h"

#ifdef __LP64__
#define OFF64(x)	(x)
#else
#define OFF64(x)	(uint32_t)(x), (uint32_t)((x) >> 32)
#endif

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL	0x0008u
#endif

#define NSEC_PER_SEC	1000000000

struct ktimespec {
	long sec, nsec;
};

#define CALL(...)	__extension__ ({			\
	int saved_errno = errno;				\
	long result = syscall(__VA_ARGS__);			\
	if (result == -1) {					\
		result = -errno;				\
		errno = saved_errno;				\
	}							\
	result;							\
})

#ifdef VMF_TESTING
int (*_Atomic sys_inject)(enum sys_call);

int
sys_injected(enum sys_call which)
{
	int (*hook)(enum sys_call) = sys_inject;

	return (hook != NULL ? hook(which) : 0);
}
#endif

/*
 * Our own descriptors: a bit for each.
 */

int sys_fd_base;
static _Atomic uint64_t owned[SYS_FDS_MAX / 64];

static void
own(int fd, bool yes)
{
	uint64_t bit = (uint64_t)1 << ((unsigned)fd % 64);

	if (fd < 0 || fd >= (int)SYS_FDS_MAX)
		return;
	if (yes)
		atomic_fetch_or(&owned[fd / 64], bit);
	else
		atomic_fetch_and(&owned[fd / 64], ~bit);
}

int
sys_own(int fd)
{
	int moved = fd >= 0 && fd < sys_fd_base ? (int)CALL(SYS_fcntl, fd, F_DUPFD_CLOEXEC, (long)sys_fd_base) : -1;

	if (moved >= 0) {
		(void)CALL(SYS_close, fd);
		fd = moved;
	}
	own(fd, true);
	return (fd);
}

bool
sys_owns(int fd)
{
	return (fd >= 0 && fd < (int)SYS_FDS_MAX && (atomic_load(&owned[fd / 64]) >> (fd % 64) & 1) != 0);
}

/* => what may be transferred, or a negative errno. */
static inline int64_t
inject_transfer(enum sys_call which, size_t len)
{
	int cut = sys_injected(which);

	if (cut < 0)
		return (cut);
	len = MIN(len, (size_t)SSIZE_MAX);
	return (int64_t)(cut > 0 ? MIN(len, (size_t)cut) : len);
}

void *
sys_mmap(void *addr, size_t len, int prot, int flags, int fd, uint64_t off)
{
	int e = sys_injected(SYS_CALL_MMAP);

	if (e < 0)
		return (void *)(intptr_t)e;
#ifdef __LP64__
	return (void *)CALL(SYS_mmap, addr, len, (long)prot, (long)flags, (long)fd, off);
#else
	KASSERT((off & PAGE_MASK) == 0 && off >> PAGE_SHIFT <= UINT32_MAX);
	return (void *)CALL(SYS_mmap2, addr, len, prot, flags, fd, (uint32_t)(off >> PAGE_SHIFT));
#endif
}

bool
sys_is_err(const void *p)
{
	return ((uintptr_t)p >= (uintptr_t)-4095);
}

int
sys_err(const void *p)
{
	KASSERT(sys_is_err(p));
	return (int)(intptr_t)p;
}

int
sys_munmap(void *addr, size_t len)
{
	int e = sys_injected(SYS_CALL_MUNMAP);

	return (e < 0 ? e : (int)CALL(SYS_munmap, addr, len));
}

int
sys_mprotect(void *addr, size_t len, int prot)
{
	int e = sys_injected(SYS_CALL_MPROTECT);

	return (e < 0 ? e : (int)CALL(SYS_mprotect, addr, len, (long)prot));
}

void *
sys_mremap(void *old, size_t oldlen, size_t newlen, int flags, void *new_addr)
{
	int e = sys_injected(SYS_CALL_MREMAP);

	return (void *)(e < 0 ? e : CALL(SYS_mremap, old, oldlen, newlen, (long)flags, new_addr));
}

int
sys_madvise(void *addr, size_t len, int advice)
{
	int e = sys_injected(SYS_CALL_MADVISE);

	return (e < 0 ? e : (int)CALL(SYS_madvise, addr, len, advice));
}

int
sys_mincore(void *addr, size_t len, unsigned char *there)
{
	return (int)CALL(SYS_mincore, addr, len, there);
}

/*
 * Not executable as a file, which says nothing about mappings of it: kernels
 * may insist (sysctl vm.memfd_noexec).  Those before 6.3 do not know the flag.
 */
int
sys_memfd(const char *name)
{
	long r = sys_injected(SYS_CALL_MEMFD);

	if (r < 0)
		return (int)r;
	r = CALL(SYS_memfd_create, name, MFD_CLOEXEC | MFD_NOEXEC_SEAL);
	if (r == -EINVAL)
		r = CALL(SYS_memfd_create, name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return (sys_own((int)r));
}

int64_t
sys_copy(void *to, const void *from, size_t n)
{
	struct iovec into = { to, n }, out_of = { (void *)(uintptr_t)from, n };

	return (CALL(SYS_process_vm_readv, sys_getpid(), &into, 1, &out_of, 1, 0));
}

int
sys_seal_write(int fd)
{
	return ((int)CALL(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_WRITE));
}

int
sys_ftruncate(int fd, uint64_t size)
{
	long r;

	do {
		r = sys_injected(SYS_CALL_FTRUNCATE);
		if (r >= 0)
#ifdef __LP64__
			r = CALL(SYS_ftruncate, fd, size);
#else
			r = CALL(SYS_ftruncate64, fd, OFF64(size));
#endif
	} while (r == -EINTR);
	return (int)r;
}

int
sys_punch(int fd, uint64_t off, uint64_t len)
{
	long r;

	do {
		r = sys_injected(SYS_CALL_FALLOCATE);
		if (r >= 0)
			r = CALL(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			    OFF64(off), OFF64(len));
	} while (r == -EINTR);
	return (int)r;
}

int
sys_flush_begin(int fd, uint64_t off, uint64_t len)
{
	return ((int)CALL(SYS_sync_file_range, fd, OFF64(off), OFF64(len), SYNC_FILE_RANGE_WRITE));
}

int64_t
sys_pread(int fd, void *buf, size_t len, uint64_t off)
{
	int64_t r;

	do {
		r = inject_transfer(SYS_CALL_PREAD, len);
		if (r >= 0)
			r = CALL(SYS_pread64, fd, buf, (size_t)r, OFF64(off));
	} while (r == -EINTR);
	return (r);
}

int64_t
sys_pwrite(int fd, const void *buf, size_t len, uint64_t off)
{
	int64_t r;

	do {
		r = inject_transfer(SYS_CALL_PWRITE, len);
		if (r >= 0)
			r = CALL(SYS_pwrite64, fd, buf, (size_t)r, OFF64(off));
	} while (r == -EINTR);
	return (r);
}

/* The first `len' bytes of the pieces, as pieces; how many. */
static uint32_t
cut_pieces(const struct iovec *iov, uint32_t n, size_t len, struct iovec *cut)
{
	uint32_t i;

	for (i = 0; i < n && len > 0; i++) {
		cut[i] = iov[i];
		cut[i].iov_len = MIN(cut[i].iov_len, len);
		len -= cut[i].iov_len;
	}
	return (i);
}

/* Both kernels take the offset as two longs; that of 64 bits ignores the second. */
static int64_t
transfer_pieces(enum sys_call which, long call, int fd, const struct iovec *iov, uint32_t n,
    uint64_t off)
{
	struct iovec cut[SYS_IOV_MAX];
	int64_t r;

	KASSERT(n <= SYS_IOV_MAX);
	do {
		r = inject_transfer(which, SIZE_MAX);
		if (r > 0 && r < SSIZE_MAX) {
			n = cut_pieces(iov, n, (size_t)r, cut);
			iov = cut;
		}
		if (r >= 0)
			r = CALL(call, fd, iov, (long)n, (long)off, (long)(off >> 32));
	} while (r == -EINTR);
	return (r);
}

int64_t
sys_preadv(int fd, const struct iovec *iov, uint32_t n, uint64_t off)
{
	return (transfer_pieces(SYS_CALL_PREADV, SYS_preadv, fd, iov, n, off));
}

int64_t
sys_pwritev(int fd, const struct iovec *iov, uint32_t n, uint64_t off)
{
	return (transfer_pieces(SYS_CALL_PWRITEV, SYS_pwritev, fd, iov, n, off));
}

int
sys_eventfd(void)
{
	int e = sys_injected(SYS_CALL_EVENTFD);

	return (e < 0 ? e : sys_own((int)CALL(SYS_eventfd2, 0, EFD_CLOEXEC)));
}

/* statx() looks the same on all machines; stat() has had four shapes. */
static int
do_stat(int fd, const char *path, int flags, struct sys_stat *st)
{
	struct statx x;
	long r;

	do {
		r = sys_injected(SYS_CALL_STAT);
		if (r >= 0)
			r = CALL(SYS_statx, fd, path, flags,
			    STATX_TYPE | STATX_MODE | STATX_INO | STATX_SIZE | STATX_NLINK, &x);
	} while (r == -EINTR);
	if (r == 0)
		*st = (struct sys_stat){ .dev = (uint64_t)x.stx_dev_major << 32 | x.stx_dev_minor,
		    .ino = x.stx_ino, .size = x.stx_size, .mode = x.stx_mode, .links = x.stx_nlink };
	return (int)r;
}

int
sys_stat(int fd, struct sys_stat *st)
{
	return do_stat(fd, "", AT_EMPTY_PATH, st);
}

int
sys_stat_path(const char *path, struct sys_stat *st)
{
	return do_stat(AT_FDCWD, path, 0, st);
}

int
sys_get_flags(int fd)
{
	int e = sys_injected(SYS_CALL_FCNTL);

	return (e < 0 ? e : (int)CALL(SYS_fcntl, fd, F_GETFL));
}

int
sys_dup(int fd)
{
	int e = sys_injected(SYS_CALL_FCNTL);

	return (e < 0 ? e : sys_own((int)CALL(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 0)));
}

int
sys_fdatasync(int fd)
{
	long r;

	do {
		r = sys_injected(SYS_CALL_FDATASYNC);
		if (r >= 0)
			r = CALL(SYS_fdatasync, fd);
	} while (r == -EINTR);
	return (int)r;
}

int
sys_open(const char *path, int flags)
{
	return sys_openat(AT_FDCWD, path, flags);
}

int
sys_openat(int dir, const char *path, int flags)
{
	long r;

	do {
		r = sys_injected(SYS_CALL_OPEN);
		if (r >= 0)
			r = CALL(SYS_openat, (long)dir, path, flags | O_CLOEXEC | O_LARGEFILE, 0600);
	} while (r == -EINTR);
	return (sys_own((int)r));
}

int64_t
sys_read(int fd, void *buf, size_t len)
{
	int64_t r;

	do {
		r = inject_transfer(SYS_CALL_READ, len);
		if (r >= 0)
			r = CALL(SYS_read, fd, buf, (size_t)r);
	} while (r == -EINTR);
	return (r);
}

int64_t
sys_write(int fd, const void *buf, size_t len)
{
	long r;

	do {
		r = CALL(SYS_write, fd, buf, len);
	} while (r == -EINTR);
	return (r);
}

/* Never made again: Linux has closed the descriptor, whatever it answers. */
int
sys_close(int fd)
{
	own(fd, false);
	return (int)CALL(SYS_close, fd);
}

static int64_t
seek(int fd, int64_t off, unsigned whence)
{
#ifdef __LP64__
	return (CALL(SYS_lseek, fd, off, (long)whence));
#else
	int64_t data;
	long r = CALL(SYS__llseek, fd, (uint32_t)((uint64_t)off >> 32), (uint32_t)off, &data,
	    whence);

	return (r < 0 ? r : data);
#endif
}

int64_t
sys_seek_data(int fd, int64_t off)
{
	return (seek(fd, off, SEEK_DATA));
}

int64_t
sys_seek_hole(int fd, int64_t off)
{
	return (seek(fd, off, SEEK_HOLE));
}

int
sys_pipe(int fd[2])
{
	int e = sys_injected(SYS_CALL_PIPE);

	if (e >= 0)
		e = (int)CALL(SYS_pipe2, fd, (long)O_CLOEXEC);
	for (int i = 0; i < 2 && e == 0; i++)
		fd[i] = sys_own(fd[i]);
	return (e);
}

int
sys_poll(struct pollfd *p, unsigned n, int timeout_ms)
{
	struct ktimespec ts = { timeout_ms / 1000, timeout_ms % 1000 * (NSEC_PER_SEC / 1000) };

	return (int)CALL(SYS_ppoll, p, n, timeout_ms < 0 ? NULL : &ts, NULL, 0L);
}

int64_t
sys_size(int fd)
{
	return (seek(fd, 0, SEEK_END));
}

int
sys_unlinkat(int dir, const char *path)
{
	return (int)CALL(SYS_unlinkat, (long)dir, path, 0L);
}

int
sys_lock(int fd)
{
	return (int)CALL(SYS_flock, fd, (long)(LOCK_EX | LOCK_NB));
}

void
sys_yield(void)
{
	(void)CALL(SYS_sched_yield);
}

static int
futex_wait(const _Atomic uint32_t *word, int op, uint32_t val, int64_t timeout_ns)
{
	struct ktimespec ts;

	if (timeout_ns < 0)
		return (int)CALL(SYS_futex, word, op, val, NULL);
	ts.sec = (long)MIN(timeout_ns / NSEC_PER_SEC, (int64_t)LONG_MAX);
	ts.nsec = (long)(timeout_ns % NSEC_PER_SEC);
	return (int)CALL(SYS_futex, word, op, val, &ts);
}

int
sys_futex_wait(const _Atomic uint32_t *word, uint32_t val, int64_t timeout_ns)
{
	return futex_wait(word, FUTEX_WAIT_PRIVATE, val, timeout_ns);
}

int
sys_futex_wake(const _Atomic uint32_t *word, int n)
{
	return (int)CALL(SYS_futex, word, FUTEX_WAKE_PRIVATE, n);
}

int
sys_futex_wait_shared(const _Atomic uint32_t *word, uint32_t val, int64_t timeout_ns)
{
	return futex_wait(word, FUTEX_WAIT, val, timeout_ns);
}

int
sys_futex_wake_shared(const _Atomic uint32_t *word, int n)
{
	return (int)CALL(SYS_futex, word, FUTEX_WAKE, n);
}

int
sys_gettid(void)
{
	return (int)CALL(SYS_gettid);
}

int
sys_getpid(void)
{
	return (int)CALL(SYS_getpid);
}

/* As the kernel sees it: the shim's programs are told something else. */
uint64_t
sys_file_limit(void)
{
	struct { uint64_t cur, max; } limit;

	return CALL(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 ? limit.cur : UINT64_MAX;
}

uint64_t
sys_clock(void)
{
	struct ktimespec ts;
	long r = CALL(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);

	KASSERT(r == 0);
	return ((uint64_t)ts.sec * NSEC_PER_SEC + (uint64_t)ts.nsec);
}

int
sys_raise_info(int sig, const siginfo_t *info)
{
	return (int)CALL(SYS_rt_tgsigqueueinfo, sys_getpid(), sys_gettid(), sig, info);
}

#define BIT(sig)	((sys_sigset_t)1 << ((sig) - 1))
/*
 * glibc's own: by it setuid() and its like change the identity of every thread, and wait for each; one that
 * blocks it, as a thread of ours would all its life, keeps them waiting for ever.
 */
#define SIGSETXID	33
#define SYNCHRONOUS	(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGILL) | BIT(SIGFPE) | BIT(SIGTRAP))

static __thread bool deaf __attribute__((__tls_model__("initial-exec")));

void
sys_block(sys_sigset_t *old)
{
	sys_sigset_t set = ~((deaf ? 0 : SYNCHRONOUS) | BIT(SIGSETXID));
	long r = CALL(SYS_rt_sigprocmask, SIG_SETMASK, &set, old, sizeof(set));

	KASSERT(r == 0);
}

void
sys_deafen(bool yes)
{
	sys_sigset_t old;

	deaf = yes;
	sys_block(&old);
}

void
sys_setmask(const sys_sigset_t *set)
{
	long r = CALL(SYS_rt_sigprocmask, SIG_SETMASK, set, NULL, sizeof(*set));

	KASSERT(r == 0);
}
