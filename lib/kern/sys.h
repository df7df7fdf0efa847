/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_SYS_H
#define KERN_SYS_H

/*
 * The system calls of the library, all of them: raw (no cancellation
 * points, no interceptors, errno untouched), results as negative errno, 64-bit
 * offsets on 32-bit machines.  Test builds (VMF_TESTING) can make any one fail or
 * be cut short: sys_inject is asked before each.
 */

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sys_call {
	SYS_CALL_MMAP, SYS_CALL_MUNMAP, SYS_CALL_MPROTECT, SYS_CALL_MREMAP, SYS_CALL_MADVISE,
	SYS_CALL_MEMFD, SYS_CALL_FTRUNCATE, SYS_CALL_FALLOCATE, SYS_CALL_PREAD, SYS_CALL_PWRITE,
	SYS_CALL_OPEN, SYS_CALL_READ, SYS_CALL_PREADV, SYS_CALL_PWRITEV, SYS_CALL_EVENTFD,
	SYS_CALL_URING_SETUP, SYS_CALL_STAT, SYS_CALL_FCNTL, SYS_CALL_FDATASYNC, SYS_CALL_PIPE, SYS_CALL_COUNT
};

#ifdef VMF_TESTING
/*
 * Test builds only: 0 lets the call through; a negative errno fails it with
 * that, uncalled; a positive n cuts a read or write to n bytes.  Null: nothing
 * is injected.  Called with whatever locks the caller holds; a call that is made
 * again because of an EINTR asks again.
 */
extern int (*_Atomic sys_inject)(enum sys_call);
/* For calls that are made elsewhere (io_uring): the answer of sys_inject, or 0. */
int sys_injected(enum sys_call);
#else
static inline int
sys_injected(enum sys_call which)
{
	(void)which;
	return 0;
}
#endif

/*
 * Descriptors that the library makes for itself are its own until it closes them.  Where somebody else might close
 * them, or put another in their place (the shim's programs do), they are moved to numbers from sys_fd_base on.  0:
 * they stay where they are.  Set before the library starts.
 */
#define SYS_FDS_MAX	65536u		/* larger numbers are not known to be ours */
extern int sys_fd_base;
int sys_own(int fd);			/* it is one; under what number.  A negative one is handed through */
bool sys_owns(int fd);			/* for who keeps others from it.  Signal-safe */

void *sys_mmap(void *addr, size_t len, int prot, int flags, int fd, uint64_t off);
bool sys_is_err(const void *);			/* of sys_mmap and sys_mremap */
int sys_err(const void *);			/* its negative errno */
int sys_munmap(void *, size_t);
int sys_mprotect(void *, size_t, int prot);
void *sys_mremap(void *old, size_t oldlen, size_t newlen, int flags, void *new_addr);
int sys_madvise(void *, size_t, int advice);
int sys_mincore(void *, size_t, unsigned char *);
int sys_memfd(const char *name);		/* close-on-exec; a descriptor, or negative errno */
int sys_seal_write(int fd);			/* of a memfd; -EBUSY: somebody has a writable, shared mapping of it */
int sys_ftruncate(int fd, uint64_t size);
int sys_punch(int fd, uint64_t off, uint64_t len);	/* fallocate: make a hole, keep the size */
/* memcpy() of memory of ours that may be inaccessible: -EFAULT then.  Bytes, or -errno */
int64_t sys_copy(void *to, const void *from, size_t);
int64_t sys_pread(int fd, void *, size_t, uint64_t off);
int64_t sys_pwrite(int fd, const void *, size_t, uint64_t off);
/* => at most SYS_IOV_MAX pieces */
#define SYS_IOV_MAX	64
struct iovec;
int64_t sys_preadv(int fd, const struct iovec *, uint32_t n, uint64_t off);
int64_t sys_pwritev(int fd, const struct iovec *, uint32_t n, uint64_t off);
int sys_open(const char *path, int flags);	/* close-on-exec is added; what is made is 0600 */
int sys_eventfd(void);				/* close-on-exec */
/* What is asked of a file that is open (statx). */
struct sys_stat {
	uint64_t dev, ino, size;
	uint32_t mode, links;
};
int sys_stat(int fd, struct sys_stat *);
int sys_stat_path(const char *, struct sys_stat *);
int sys_get_flags(int fd);			/* fcntl: F_GETFL */
int sys_dup(int fd);				/* close-on-exec */
/* Begin to write what is modified of the file; what becomes of that only sys_fdatasync() tells. */
int sys_flush_begin(int fd, uint64_t off, uint64_t len);
int sys_fdatasync(int fd);
int64_t sys_read(int fd, void *, size_t);
int64_t sys_write(int fd, const void *, size_t);
int sys_close(int fd);
/* Private futexes.  A negative timeout is for ever. */
int sys_futex_wait(const _Atomic uint32_t *, uint32_t val, int64_t timeout_ns);
int sys_futex_wake(const _Atomic uint32_t *, int n);
/* The same where other processes wait and wake, too. */
int sys_futex_wait_shared(const _Atomic uint32_t *, uint32_t val, int64_t timeout_ns);
int sys_futex_wake_shared(const _Atomic uint32_t *, int n);
int sys_openat(int dir, const char *path, int flags);
int sys_unlinkat(int dir, const char *path);
int sys_lock(int fd);				/* for us alone (flock); -EWOULDBLOCK: it is somebody's */
int64_t sys_size(int fd);			/* of a file or a block device (lseek, SEEK_END) */
/* Where the next data is, at off or after it (lseek, SEEK_DATA); -ENXIO: none. */
int64_t sys_seek_data(int fd, int64_t off);
int64_t sys_seek_hole(int fd, int64_t off);	/* ... and where it ends */
int sys_pipe(int fd[2]);			/* close-on-exec */
struct pollfd;
int sys_poll(struct pollfd *, unsigned n, int timeout_ms);
void sys_yield(void);
int sys_gettid(void);
int sys_getpid(void);
uint64_t sys_file_limit(void);			/* RLIMIT_FSIZE; UINT64_MAX: there is none */
uint64_t sys_clock(void);			/* monotonic nanoseconds */
/* Queue info to this very thread; any si_code is allowed there. */
int sys_raise_info(int sig, const siginfo_t *);

/*
 * Signal masks.  sys_block() blocks all but the synchronous signals (SEGV,
 * BUS, ILL, FPE, TRAP, and libc's for setuid()): a fault of ours is a bug and must be heard, not be a silent
 * kill.  The old mask goes to *old, a kernel sigset of 64 bits.  In a thread that is deaf it blocks these, too, but
 * for libc's.  sys_deafen(): the calling one is so from now on (or no more), with that mask.
 */
typedef uint64_t sys_sigset_t;
void sys_block(sys_sigset_t *old);
void sys_deafen(bool yes);
void sys_setmask(const sys_sigset_t *);

#endif
