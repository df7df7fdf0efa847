/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VMFAULT_H
#define VMFAULT_H

/*
 * vmfault: Mach virtual memory as a library.
 *
 * A process hands address ranges to vmfault; from then on a page fault in
 * them is answered in the process itself, by the fault algorithm of Mach and
 * 4.4BSD running in a SIGSEGV handler.  That makes snapshots, copies and
 * views of gigabytes cheap: nothing is copied until it is written.
 *
 * Conventions
 *
 *   - A function returns 0 (or a count, where it says so) on success and a
 *     negative errno on failure; on failure nothing has changed, and what the
 *     arguments point to is untouched, except where a function says otherwise.
 *   - Addresses and sizes are in bytes and must be multiples of VMF_PAGE_SIZE,
 *     except where "any alignment" is said.  A size of zero, a range that
 *     wraps around, an unknown flag or a null pointer is -EINVAL.
 *   - "Managed" means: inside the address range of a task of this library.
 *     A range that is not managed, or not mapped from end to end, is -EFAULT.
 *   - Tasks, pagers and snapshots are named by handles, not by pointers.  A
 *     handle that was released, or never given out, is -EBADF, always.
 *   - Before vmf_init() and after vmf_fini() every call returns -ENODEV.
 *   - -ENOMEM: no address space, no memory for the library's own bookkeeping,
 *     or (where page frames are needed at once) the budget is used up.
 *   - MT-safe: every function may be called by any number of threads at any
 *     time.  None is async-signal-safe unless it says so: a handler that
 *     interrupted the same thread inside the library would wait for itself
 *     were it not that the library blocks all signals while it holds a lock;
 *     so calling from a handler is safe, but it may take long.
 *   - Touching managed memory is safe everywhere, in signal handlers too, as long as
 *     SIGSEGV and SIGBUS are not blocked there: the kernel ends a process whose fault it
 *     cannot deliver.
 *   - errno is never changed.
 *
 * Errors in a touch.  What the kernel would do for its own memory, vmfault
 * does for the managed: SIGSEGV/SEGV_MAPERR where nothing is mapped,
 * SIGSEGV/SEGV_ACCERR where the protection forbids it, SIGBUS/BUS_ADRERR
 * where a pager failed or lies beyond its end, and SIGBUS/BUS_OBJERR, with a
 * message on standard error, when the budget of frames is used up and nothing
 * can be paged out.  si_addr is the address that was touched.
 *
 * fork().  The child has the memory as it was, a copy of it, and all of the library: see vmf_fork().  exec(),
 * posix_spawn() and vfork() are not affected.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define VMF_VERSION_MAJOR	0
#define VMF_VERSION_MINOR	1
#define VMF_VERSION_PATCH	0

#define VMF_PAGE_SIZE		4096u

#if defined(__GNUC__)
#define VMF_API __attribute__((__visibility__("default")))
#else
#define VMF_API
#endif

/* Handles.  0 is never a valid one. */
typedef uint64_t vmf_task_t;		/* an address range with a map of its own */
typedef uint64_t vmf_pager_t;		/* a source of pages */
typedef uint64_t vmf_snapshot_t;	/* the contents of ranges at an instant */

/* The task that vmf_init() makes; good wherever a vmf_task_t is asked for. */
#define VMF_TASK_DEFAULT	UINT64_C(1)

/* Protections; the values of PROT_READ, PROT_WRITE and PROT_EXEC. */
#define VMF_PROT_NONE		0
#define VMF_PROT_READ		1
#define VMF_PROT_WRITE		2	/* a writable page is readable too */
#define VMF_PROT_EXECUTE	4
#define VMF_PROT_DEFAULT	(VMF_PROT_READ | VMF_PROT_WRITE)
#define VMF_PROT_ALL		(VMF_PROT_READ | VMF_PROT_WRITE | VMF_PROT_EXECUTE)

/*
 * Lifecycle
 */

struct vmf_config {
	size_t size;		/* sizeof(struct vmf_config); VMF_CONFIG_INIT sets it */
	uint64_t memory;	/* budget: bytes of resident page frames at most;
				   0: what the machine has; UINT64_MAX: no bound.  Then fresh
				   memory is entered 2 MB at a time, and the kernel has memory
				   for what of it is touched */
	uint64_t address_space;	/* bytes of address space of the default task; 0: 1 TiB,
				   512 MiB on a 32-bit machine, less where that is refused */
	uint32_t mappings;	/* kernel mappings used at most (vm.max_map_count is the
				   process's limit); 0: most of what is left of the limit */
	uint32_t flags;		/* VMF_CONFIG_* */

	/* since 0.2 */
	const char *swap_file;	/* where anonymous memory goes when frames are short: a file or
				   block device, whose contents are lost, or a directory, for a
				   file there that has no name; null: one in $TMPDIR, or /var/tmp */
	uint64_t swap_size;	/* bytes of it at most; 0: the size of the file or device that is
				   given, and if none is, no swap */
	uint64_t compress_size;	/* bytes of memory, beside the budget, for compressed pages, in front
				   of swap or instead of it; 0: none; 1 MB at least */
};

#define VMF_CONFIG_INIT		{ sizeof(struct vmf_config), 0, 0, 0, 0, 0, 0, 0 }
#define VMF_CONFIG_QUIET	1u	/* no messages on standard error */
#define VMF_CONFIG_IO_URING	2u	/* io_uring, or vmf_init() fails; else it is used if it can be */
#define VMF_CONFIG_IO_SYSCALLS	4u	/* no io_uring: threads with preadv() and pwritev() */
#define VMF_CONFIG_SWAP_DIRECT	8u	/* swap with O_DIRECT, past the kernel's page cache */

/*
 * Start the library: reserve address space, make the frame pool and take
 * SIGSEGV and SIGBUS (the handlers found are called for faults that are not
 * ours).  config may be null for the defaults.
 *
 * -EALREADY	it is running
 * -EINVAL	config->size is unknown, a flag is unknown, memory is less than
 *		64 pages, or mappings is less than 64; both VMF_CONFIG_IO_* are set; there is less than 64
 *		pages of swap, or less than 1 MB for compressed pages; swap_file is neither a file, nor a
 *		block device, nor a directory
 * -ENOMEM	the address space or the frame pool was refused
 * -EMFILE	no descriptor left (also -ENFILE)
 * -EPERM	swap_file can be read by others than its owner
 * -EBUSY	swap_file is in use
 * and what open() says of swap_file, and io_uring_setup() with VMF_CONFIG_IO_URING
 */
VMF_API int vmf_init(const struct vmf_config *config);

/*
 * End the library: every range, view, snapshot and pager goes, addresses and
 * frames go back to the kernel, the signal actions found at vmf_init() are
 * restored where ours still stand.  No other thread may be inside the library
 * or touch managed memory.
 *
 * -EDEADLK	called from a pager's callback
 */
VMF_API int vmf_fini(void);

/*
 * Change the budget, as vmf_config.memory sets it, while the library runs.  A larger one holds at
 * once.  For a smaller one the pages that are too many are paged out first, which takes as long as their
 * pagers take; meanwhile nobody gets a new frame.  If it cannot be reached, because too much is wired,
 * or swap is full, or pagers fail, the budget stays what it was; what was paged out stays
 * paged out.
 *
 * -EINVAL	bytes is less than 64 pages, and not 0
 * -ENOMEM	so little memory cannot be reached; the budget is what it was
 * -EDEADLK	called from a pager's callback
 */
VMF_API int vmf_set_memory(uint64_t bytes);

/* "0.1.0", the version of the library that runs.  Never fails. */
VMF_API const char *vmf_version(void);

/*
 * Tasks: a task is an address range [base, base + size) with a map of its
 * own (Mach's task, without its threads).  Ranges of tasks do not overlap,
 * every thread can touch all of them.
 */

/* Make an empty task of size bytes of address space. */
VMF_API int vmf_task_create(size_t size, vmf_task_t *task);

/*
 * Make a task that is to the given one what a child of fork() is to its
 * parent: at the same offset from its base it has shared, copied or no
 * memory, as the inheritance of each region says (Mach's vm_map_fork).
 * Copies are copy-on-write.  The cut is one instant, as with snapshots.
 *
 * -ENOMEM	also: no frames to copy wired pages
 */
VMF_API int vmf_task_fork(vmf_task_t parent, vmf_task_t *child);

/*
 * fork(), with the managed memory of all tasks.  The child has it at the same addresses, as the inheritance of
 * each region says: what is shared both see when either writes, a copy is the child's own, and nothing is nothing.
 * Views, snapshots, wired memory, protections and advice are there as well, and so is all of the library.  The cut is one
 * instant: while the fork is made other threads that touch managed memory wait, so the child never has what
 * one of them wrote later without what it wrote before.  What another thread holds with vmf_fault_in() the
 * child does not hold.
 *
 * The cost does not grow with memory: frames are shared until either process writes, who then gets another
 * frame.  As long as a child lives, or who it forked in turn, and has not called exec, frames that it
 * sees are not freed: they do not count towards the limit when the parent needs them no more
 * (frames_superseded in struct vmf_stats), so that a process with a limit can take up to twice its memory, as it would
 * with the kernel's fork().  What is in swap is copied.
 *
 * A plain fork() is the same but for errors: where this one fails, the child of that has none of the memory (a touch
 * raises SIGSEGV, calls return -ENODEV), and a line on standard error says so.
 *
 * Pagers whose callbacks are the program's (vmf_pager_create()) do not come along: a page that only such a pager has raises
 * SIGBUS in the child when its deadline has passed.  Files mapped with vmf_map_file() are seen by parent and child
 * each through pages of its own.
 *
 * Returns 0 in the child, in the parent the child's process id, or
 *
 * -EAGAIN	no descriptors are left, or no process can be made
 * -ENOMEM	there is no memory for the child's tables, or for what it is to share
 * -ENODEV	the library does not run
 *
 * After an error there is no child, and nothing has changed; SIGCHLD may have been raised.
 */
VMF_API pid_t vmf_fork(void);

/*
 * Unmap all that the task has and give its addresses back.
 *
 * -EPERM	task is VMF_TASK_DEFAULT
 */
VMF_API int vmf_task_destroy(vmf_task_t task);

/* Where a task's addresses are; either pointer may be null. */
VMF_API int vmf_task_range(vmf_task_t task, void **base, size_t *size);

/*
 * Memory
 */

#define VMF_FIXED	1u	/* at *addr exactly, or -EEXIST where a page of it is taken */

/*
 * Allocate zero-filled memory, readable and writable, copied to a forked
 * task.  Where it lies is returned in *addr; without VMF_FIXED what *addr
 * held does not matter.
 *
 * -EEXIST	VMF_FIXED, and something is mapped there
 * -EFAULT	VMF_FIXED, and the range is not the task's
 * -ENOMEM	no room in the task's address range
 * -EBADF	no such task
 */
VMF_API int vmf_allocate(vmf_task_t task, void **addr, size_t size, unsigned flags);

#define VMF_MAP_SHARED	2u	/* writes go to the pager's object, all mappings see them */
#define VMF_MAP_PRIVATE	4u	/* writes are copy-on-write, the pager never sees them */

/*
 * Map [offset, offset + size) of a pager's object.  Exactly one of
 * VMF_MAP_SHARED and VMF_MAP_PRIVATE; prot is VMF_PROT_* or'ed together and
 * is the maximum protection too, but a private mapping may always be made
 * writable later.
 *
 * As vmf_allocate(), and
 * -EBADF	no such task or pager
 * -EINVAL	the range does not fit the object's size rounded up to pages
 * -EACCES	VMF_MAP_SHARED and VMF_PROT_WRITE of a pager without put()
 */
VMF_API int vmf_map(vmf_task_t task, void **addr, size_t size, unsigned flags,
    vmf_pager_t pager, uint64_t offset, int prot);

#define VMF_MAP_DIRECT	8u	/* past the kernel's page cache (O_DIRECT) */
#define VMF_FILE_MAX	(((uint64_t)UINT32_MAX - 1) * VMF_PAGE_SIZE)	/* 16 TiB, nearly */

/*
 * Map [offset, offset + size) of the regular file that fd is open on; fd may be closed afterwards.
 * Exactly one of VMF_MAP_SHARED and VMF_MAP_PRIVATE.  All shared mappings of a file, whatever
 * descriptors they were made with, are the same memory.  The range may reach past the end of the file:
 * there a touch raises SIGBUS/BUS_ADRERR, until the file has grown; the rest of its last page reads as
 * zeros, and is never written to the file.  A file that is cut short under a mapping makes the
 * same of its pages, as soon as the library notices: at the next fault there, or at vmf_sync().  What
 * others write() to the file is seen in pages that are not in memory; VMF_ADVICE_DONTNEED drops those that are.
 *
 * Writes to a shared mapping reach the file by vmf_sync(), when memory is short, or when the last
 * mapping goes.  Pages that cannot be written then stay in memory, until they can be, until the file
 * is mapped again, or until vmf_fini(), which tries once more.
 *
 * VMF_MAP_DIRECT: pages of this file are read and written with O_DIRECT from now on.  prot is the
 * protection; a shared mapping may be made writable later if fd is open for writing.
 *
 * As vmf_allocate(), and
 * -EBADF	no such task; or fd is not open
 * -EACCES	no regular file, or not open for reading; or VMF_MAP_SHARED and VMF_PROT_WRITE, and not
 *		open for both
 * -EINVAL	also: VMF_MAP_DIRECT, and the file system cannot
 * -EOVERFLOW	offset + size is more than VMF_FILE_MAX
 * -EMFILE	no descriptor left for the library's own (also -ENFILE)
 */
VMF_API int vmf_map_file(vmf_task_t task, void **addr, size_t size, unsigned flags, int fd,
    uint64_t offset, int prot);

#define VMF_SYNC_ASYNC	1u	/* do not wait for the disk */

/*
 * Write what was modified in shared mappings of files and users' pagers in the range.  When it returns
 * 0, every byte of the range that was written before the call is on disk (fdatasync(2)); with
 * VMF_SYNC_ASYNC it is with the kernel: it survives this process, not the machine.  Anonymous and
 * private memory in the range is passed over.
 *
 * -EIO, -ENOSPC, -EDQUOT ...	a page could not be written, or not made safe.  It stays in memory,
 *		modified, and will be tried again; all others were written.
 */
VMF_API int vmf_sync(void *addr, size_t size, unsigned flags);

/*
 * Remove what is mapped in the range; its addresses may be given out again.
 * Holes in it are allowed, and so is wired memory.  Snapshots of it stay as they are.
 *
 * -EFAULT	the range is not managed
 * -EBUSY	a page in it is held by vmf_fault_in()
 */
VMF_API int vmf_unmap(void *addr, size_t size);

/*
 * Change the protection.  VMF_PROT_WRITE implies VMF_PROT_READ.
 *
 * -EACCES	more than the maximum protection allows
 * -EBUSY	it would take rights away, and a page of the range is held by vmf_fault_in()
 */
VMF_API int vmf_protect(void *addr, size_t size, int prot);

/* Lower the maximum protection, and with it the protection.  -EBUSY as vmf_protect(). */
VMF_API int vmf_protect_max(void *addr, size_t size, int prot);

enum vmf_inherit {
	VMF_INHERIT_SHARE = 0,	/* parent and child see each other's writes */
	VMF_INHERIT_COPY = 1,	/* the child has a copy (the default) */
	VMF_INHERIT_NONE = 2	/* the child has nothing there */
};

/* Say what vmf_task_fork() gives to the child task, and fork() to the child process. */
VMF_API int vmf_inherit(void *addr, size_t size, enum vmf_inherit inheritance);

enum vmf_advice {
	VMF_ADVICE_NORMAL = 0,		/* adapt to what is seen */
	VMF_ADVICE_RANDOM = 1,		/* no neighbours: fault single pages */
	VMF_ADVICE_SEQUENTIAL = 2,	/* large clusters at once; what was passed is dropped first */
	/* These are done at once, and not kept: */
	VMF_ADVICE_WILLNEED = 3,	/* begin to read what is not in memory */
	VMF_ADVICE_DONTNEED = 4,
	VMF_ADVICE_FREE = 5,
	VMF_ADVICE_COLD = 6		/* if pages must leave, these first */
};

/*
 * Say how the range will be touched.  Advice changes speed, never contents, but for two:
 *
 * VMF_ADVICE_DONTNEED	Private memory is new again: anonymous memory reads as zeros, a private
 *			mapping of a file or pager shows what that holds now.  Of shared memory pages that are
 *			not modified leave, and are read again when they are touched; nothing is lost.
 * VMF_ADVICE_FREE	Each page of private anonymous memory may, at any time until it is
 *			next written, become zeros; until then it has its contents.  Never does an
 *			older content show.  Elsewhere nothing happens.
 *
 * Copies and snapshots of the memory keep what they have.
 *
 * -EBUSY	VMF_ADVICE_DONTNEED: a page of the range is wired, or held by vmf_fault_in()
 * -ENOMEM	VMF_ADVICE_DONTNEED: also when a part of the range is done
 */
VMF_API int vmf_advise(void *addr, size_t size, enum vmf_advice advice);

/*
 * Wire: make every page of the range resident and mapped with all that its
 * protection allows, and keep it so: no fault is taken there until the
 * matching vmf_unwire().  Wirings nest.  Copies and snapshots of wired memory
 * are made at once, by copying.
 *
 * -EAGAIN	the budget of frames does not allow it; nothing stays wired
 * -EIO		a pager failed, or ends before the range; nothing stays wired
 * -EACCES	the range has a page without access
 * -EINVAL	vmf_unwire(): a page of the range is not wired
 */
VMF_API int vmf_wire(void *addr, size_t size);
VMF_API int vmf_unwire(void *addr, size_t size);

/*
 * Copy [src, src + size) over [dst, dst + size), copy-on-write (Mach's
 * vm_copy).  Both ranges must be mapped, src readable and dst writable; they
 * may belong to different tasks.  Where dst is shared or wired its pages are
 * copied at once, as they are where pages of it are held by vmf_fault_in().  dst keeps its
 * protections and inheritance.
 *
 * -EINVAL	the ranges overlap
 * -EACCES	src is not readable or dst is not writable
 * -EIO, -ENOMEM	an immediate copy met a pager error, or the budget; pages
 *		before it may have been copied
 */
VMF_API int vmf_copy(void *dst, const void *src, size_t size);

/*
 * Move bytes between managed memory and a buffer of the caller's, with an
 * error where a touch would raise a signal.  Any alignment and size (0 is
 * allowed).  The buffer is touched like any memory: it may be managed too.
 * Bytes before an error may have been moved.
 *
 * -EFAULT	not managed, or not mapped
 * -EACCES	the protection forbids it
 * -EIO		the pager failed
 * -ENXIO	beyond the end of the pager's object
 * -ENOMEM	the budget of frames is used up
 */
VMF_API int vmf_read(const void *src, void *buf, size_t size);
VMF_API int vmf_write(void *dst, const void *buf, size_t size);

/*
 * For system calls.  The kernel raises no signal when a system call meets a
 * page that has not been faulted in: the call fails with EFAULT, or is cut
 * short.  Between vmf_fault_in() and vmf_fault_release() every page that the
 * range touches (any alignment) is resident and mapped for prot, whatever
 * other threads do.  Holds nest and should be short: a snapshot copies held
 * pages at once.
 *
 *	vmf_fault_in(buf, n, VMF_PROT_WRITE);
 *	got = read(fd, buf, n);
 *	vmf_fault_release(buf, n);
 *
 * Errors as vmf_read(); and vmf_fault_release() returns
 * -EINVAL	where the range is not held
 */
VMF_API int vmf_fault_in(const void *addr, size_t size, int prot);
VMF_API int vmf_fault_release(const void *addr, size_t size);

/*
 * Information
 */

struct vmf_region {
	void *addr;			/* first byte */
	size_t size;			/* in bytes */
	vmf_task_t task;
	int prot, max_prot;		/* VMF_PROT_* */
	enum vmf_inherit inheritance;
	enum vmf_advice advice;
	uint32_t wired;			/* wirings of the region */
	uint32_t shared;		/* 1: another region shares its pages */
	uint64_t offset;		/* in the object that backs it */
	uint32_t chain;			/* objects in its shadow chain; 0: never touched */
	uint32_t reserved;
};

/*
 * The region that contains addr (any alignment), or the next one of the same
 * task above it.
 *
 * -EFAULT	addr is not managed
 * -ENOENT	nothing is mapped there or above
 */
VMF_API int vmf_region(const void *addr, struct vmf_region *region);

/* Bits of vmf_page_info(). */
#define VMF_PAGE_RESIDENT	1u	/* has a frame */
#define VMF_PAGE_MAPPED		2u	/* a touch takes no fault */
#define VMF_PAGE_WRITABLE	4u	/* a write takes no fault */
#define VMF_PAGE_MODIFIED	8u	/* written, or writable, since it was last clean */
#define VMF_PAGE_WIRED		16u
#define VMF_PAGE_SHADOWED	32u	/* its frame belongs to an object further down */
#define VMF_PAGE_PAGED_OUT	64u	/* its pager has it */

/* One byte of VMF_PAGE_* for each page of the range into vec (size / VMF_PAGE_SIZE bytes). */
VMF_API int vmf_page_info(const void *addr, size_t size, unsigned char *vec);

/*
 * Counters since vmf_init() and gauges of now.  The names that begin with v_
 * are those of 4.4BSD's struct vmmeter.  New members come at the end;
 * size must be set to sizeof(struct vmf_stats) by the caller.
 */
struct vmf_stats {
	uint64_t size;

	/* counters */
	uint64_t v_vm_faults;		/* calls of vm_fault */
	uint64_t v_lookups;		/* object cache lookups */
	uint64_t v_hits;		/* object cache hits */
	uint64_t v_zfod;		/* pages zero-filled on demand */
	uint64_t v_cow_faults;		/* pages copied up on a write */
	uint64_t v_pushes;		/* pages pushed to a copy object */
	uint64_t v_pageins;		/* pages read from pagers */
	uint64_t v_pageouts;		/* pages written to pagers */
	uint64_t v_reactivated;		/* pages taken back from the inactive queue */
	uint64_t v_scan;		/* pages looked at by the pageout daemon */
	uint64_t v_swpin;		/* pageins of anonymous memory */
	uint64_t v_swpout;		/* pageouts of anonymous memory */
	uint64_t v_collapses;		/* shadow objects merged with their backing object */
	uint64_t v_bypasses;		/* backing objects bypassed */
	uint64_t v_clustered;		/* pages entered beside the one that faulted */
	uint64_t v_restarts;		/* faults that had to start again */
	uint64_t v_soft;		/* faults on pages that were resident */
	uint64_t v_intrans;		/* faults that waited for a busy page */
	uint64_t v_pager_errors;	/* I/O errors of pagers */
	uint64_t v_frame_waits;		/* faults that waited for a frame */
	uint64_t v_forgets;		/* mappings dropped for the mapping budget */
	uint64_t v_map_calls;		/* system calls that changed mappings */
	uint64_t v_snapshots;		/* snapshots taken */
	uint64_t v_rollbacks;		/* rollbacks */

	/* gauges, in pages unless said otherwise */
	uint64_t v_page_count;		/* budget */
	uint64_t v_free_count;		/* frames left of it; without a bound those that are not left
					   may have no memory yet */
	uint64_t v_active_count;
	uint64_t v_inactive_count;
	uint64_t v_wire_count;
	uint64_t v_dirty_free_count;	/* freed, not yet given back to the kernel */
	uint64_t mappings;		/* kernel mappings in use */
	uint64_t mappings_max;		/* budget of them */
	uint64_t objects;		/* VM objects */
	uint64_t entries;		/* map entries */
	uint64_t snapshots;		/* snapshots alive */
	uint64_t metadata;		/* bytes of memory for the library's own structures */

	/* since 0.2 */
	uint64_t swap_size;		/* gauge: pages that swap has room for */
	uint64_t swap_used;		/* gauge: pages of it in use */
	uint64_t swap_errors;		/* writes to swap that failed; what they were to write stayed in
					   memory, and is tried again elsewhere */
	uint64_t io_uring;		/* 1: pagers use io_uring; 0: system calls */
	uint64_t v_dfree;		/* pages freed by the pageout daemon */
	uint64_t v_refused;		/* pages that a pager did not take: they stayed, modified */
	uint64_t v_pdwakeups;		/* times that the pageout daemon was woken */
	uint64_t v_laundry_count;	/* gauge: pages that are being written */
	uint64_t v_readahead;		/* pages whose reading was started ahead of a reader */
	uint64_t v_readahead_hits;	/* ... that a reader wanted afterwards */
	uint64_t v_write_behind;	/* pages whose writing was started behind a sequential writer */
	uint64_t v_drop_behind;		/* pages dropped behind a sequential reader */
	uint64_t v_incompressible;	/* counter: pages that did not compress, and went on to swap */
	uint64_t v_compress_evicted;	/* counter: compressed pages that went on to swap for want of room */
	uint64_t v_compress_errors;	/* counter: compressed pages that were found damaged */
	uint64_t compress_pages;	/* gauge: compressed pages */
	uint64_t compress_same;		/* gauge: pages of equal words, which take no memory */
	uint64_t compress_used;		/* gauge: bytes of the compressed pages */
	uint64_t compress_resident;	/* gauge: bytes of memory taken for them */
	uint64_t compress_limit;	/* bytes that may be taken; 0: no compression */
	uint64_t v_parked;		/* counter: pages whose rights were taken all at once, by parking */
	uint64_t v_views;		/* counter: runs of pages (2 MB) that the kernel was left to copy on writes */
	uint64_t v_views_home;		/* counter: pages it had copied that were brought back */
	uint64_t v_views_dense;		/* counter: runs it was not left any longer, for too much was written */
	uint64_t v_dense;		/* counter: times that a good part of a run was pushed to a copy at once */
	uint64_t v_homed;		/* counter: pages brought back to their home frames, so that
					   fewer mappings hold them */
	uint64_t v_already;		/* counter: faults that another thread had resolved by then */
	uint64_t v_snapshot_ns;		/* counter: nanoseconds that snapshots took, all together ... */
	uint64_t snapshot_ns_max;	/* ... and the one that took longest */
	uint64_t v_forks;		/* counter: forks of this process that share its memory with the child */
	uint64_t v_fork_ns;		/* counter: nanoseconds for which other threads were kept out, all together ... */
	uint64_t v_fork_ns_max;		/* ... and the longest */
	uint64_t v_unfrozen;		/* counter: pages copied since a forked child sees their frames */
	uint64_t frames_frozen;		/* gauge: frames that forked children see, too; 0: there are none */
	uint64_t frames_private;	/* gauge: frames taken since the last fork, while there are such children */
	uint64_t frames_superseded;	/* gauge: frames that only such children see; they do not count as used */
};

/* -EINVAL	stats->size is not that of a known version */
VMF_API int vmf_statistics(struct vmf_stats *stats);

/*
 * The name of the i-th member of struct vmf_stats, not counting size: "v_vm_faults" for 0.  Null past the
 * last one that the library has.  Never fails, at any time; async-signal-safe.
 */
VMF_API const char *vmf_statistics_name(size_t i);

/* A number of the program's own, to be shown beside those of struct vmf_stats. */
struct vmf_counter {
	char name[24];			/* of letters, digits and _, with its end */
	const uint64_t *value;		/* aligned; not in managed memory */
};
#define VMF_COUNTERS_MAX	64

/*
 * Let others watch: from now on, until vmf_fini(), `vmfault stat' can read the statistics of this process,
 * and n counters of its own, which are read whenever somebody asks (n may be 0).  It costs nothing as
 * long as nobody does.  Who may read /proc/PID/fd of the process can ask: the same user, and root.  Takes
 * a descriptor, which must stay open.
 *
 * -EINVAL	more than VMF_COUNTERS_MAX, or a name or an address that is none
 * -EALREADY	it was called before
 * -ENOMEM	no memory (also -EMFILE, -ENFILE: no descriptor left)
 */
VMF_API int vmf_publish(const struct vmf_counter *counters, size_t n);

/*
 * Pagers of the user's own
 *
 * The callbacks run on threads of the library's, several at once if
 * several faults ask.  They may touch managed memory that does not
 * depend on the same pager, and call the library.  buf is private to the
 * call.  A callback that takes longer than the deadline makes the fault fail
 * with SIGBUS (or -EIO); what it returns later is thrown away.
 */

#define VMF_PAGER_HOLE	0	/* get: no page here; zeros, or what lies below */

struct vmf_pager_ops {
	size_t size;		/* sizeof(struct vmf_pager_ops) */

	/*
	 * Fill buf with up to len bytes (whole pages) from offset.  Return
	 * the number of bytes filled, VMF_PAGER_HOLE if the page at offset
	 * does not exist, or a negative errno: -ENXIO beyond the end, else an
	 * I/O error.  A short answer is fine: the rest of its last page is
	 * zeros, pages after that are asked for again when they are needed.
	 */
	int64_t (*get)(void *cookie, uint64_t offset, void *buf, size_t len);

	/*
	 * Take len bytes (whole pages) at offset.  Return len or less (the
	 * rest will be tried again later), or a negative errno.  Null: a
	 * read-only pager; its object can only be mapped private or without
	 * VMF_PROT_WRITE.
	 */
	int64_t (*put)(void *cookie, uint64_t offset, const void *buf, size_t len);

	/* 1 if the page at offset exists, 0 if not.  Null: every page does. */
	int (*has_page)(void *cookie, uint64_t offset);

	/* The pager is gone; cookie will not be used again.  May be null. */
	void (*terminate)(void *cookie);
};

/*
 * Make a pager of size bytes.  deadline is in milliseconds, 0 for 10,000.
 * *ops is copied.
 */
VMF_API int vmf_pager_create(const struct vmf_pager_ops *ops, void *cookie,
    uint64_t size, unsigned deadline, vmf_pager_t *pager);

/* Write modified pages of the object in [offset, offset + size) back with put().
 * -EIO	at least one page could not be written; it stays in memory, modified. */
VMF_API int vmf_pager_sync(vmf_pager_t pager, uint64_t offset, uint64_t size);

/* Drop the handle.  The pager lives on until its last mapping, copy and
 * snapshot are gone; then modified pages are put() and terminate() is called. */
VMF_API int vmf_pager_release(vmf_pager_t pager);

/*
 * Snapshots
 *
 * A snapshot holds the contents of one or several ranges at one instant,
 * which lies between the call and its return.  Whatever any thread wrote
 * before that instant is in it, nothing that was written after is; a thread
 * that writes during the call waits until it is over.  Memory that is wired
 * or held by vmf_fault_in() stays writable, so writes to it by other threads
 * during the call are in it as far as they had come: such pages are copied last, until a second
 * look finds them all as they were copied; pages that never hold still are taken as they come.
 *
 * What a snapshot costs later: the first write to each page copies it.
 */

struct vmf_range {
	void *addr;
	size_t size;
};

/*
 * Take a snapshot of n ranges, of one task or several.  The ranges must be
 * readable, mapped, and not overlap.
 *
 * -EINVAL	n is 0 or ranges overlap
 * -EACCES	part of a range is not readable
 * -ENOMEM	also: no frames to copy the wired pages
 */
VMF_API int vmf_snapshot_create(const struct vmf_range *ranges, size_t n, vmf_snapshot_t *snapshot);

/*
 * Map [offset, offset + size) of range number `range` of a snapshot into a
 * task.  prot VMF_PROT_READ: a view of it.  With VMF_PROT_WRITE: writes are
 * copy-on-write, private to this mapping, never seen by the snapshot.  A view is
 * ordinary managed memory: it can be unmapped, copied, and be in a snapshot
 * itself.  Its maximum protection is VMF_PROT_ALL: a view of which parts are to be
 * written later can be made so by vmf_protect().  flags and *addr as in vmf_allocate().
 *
 * -EINVAL	no such range, or [offset, offset + size) is not inside it
 */
VMF_API int vmf_snapshot_map(vmf_snapshot_t snapshot, size_t range, size_t offset, size_t size,
    vmf_task_t task, void **addr, unsigned flags, int prot);

/* Read bytes of a snapshot without mapping it; any alignment.  Errors as vmf_read(), and
 * -EINVAL	no such range, or the bytes are not inside it */
VMF_API int vmf_snapshot_read(vmf_snapshot_t snapshot, size_t range, size_t offset, void *buf, size_t size);

/*
 * Make the ranges that the snapshot was taken of what they were then, at one
 * instant.  Costs what was written since.  The snapshot stays, as do all
 * others, and can be rolled back to again.  Protections and inheritance of the
 * ranges stay as they are now.
 *
 * Other threads see all of it or nothing.  Rolling back to the same snapshot again and again is
 * cheap: pages that are written each time stay writable, and take no more faults.
 *
 * -EFAULT	part of a range is not mapped any more
 * -EBUSY	part of a range is held by vmf_fault_in()
 * -ENOMEM	no frames to keep what other snapshots need; the ranges are as
 *		they were before the call
 * -EIO, -ENXIO	a page of the snapshot could not be read from its pager
 */
VMF_API int vmf_snapshot_rollback(vmf_snapshot_t snapshot);

struct vmf_extent {
	size_t offset;		/* from the start of the range */
	size_t size;
};

/*
 * Enumerate the pages of range number `range` whose bytes differ between
 * snapshot a and snapshot b, or, with b 0, between a and the memory now.  b must
 * be of the same range.  Starts at *cursor (0 at first), stores up to n
 * extents in order, advances *cursor, and returns how many were stored: 0
 * means the end.
 *
 * -EINVAL	no such range, the ranges of a and b differ, or n is 0
 * -EFAULT	b is 0 and part of the range is not mapped any more
 * -EIO, -ENXIO	a page could not be read from its pager
 */
VMF_API int vmf_snapshot_diff(vmf_snapshot_t a, vmf_snapshot_t b, size_t range, size_t *cursor,
    struct vmf_extent *extents, size_t n);

/* Release a snapshot, in any order.  Views of it stay. */
VMF_API int vmf_snapshot_release(vmf_snapshot_t snapshot);

/*
 * Threads and signals
 */

struct sigaction;

/*
 * A thread that runs on a stack in managed memory needs another stack for the
 * fault handler: give the calling thread an alternate signal stack of the
 * library's (sigaltstack).  It goes with the thread.  Not needed for
 * ordinary threads.  The part of the stack that is in use at the call, and at
 * the start of the thread, must be resident: vmf_wire() it.
 *
 * -EALREADY	the thread has an alternate stack
 * -EINVAL	vmf_thread_detach(): not attached
 */
VMF_API int vmf_thread_attach(void);
VMF_API int vmf_thread_detach(void);

/*
 * sigaction() for SIGSEGV and SIGBUS, after vmf_init(): the action is called for
 * faults that are not ours and for those that we turn into signals, with its
 * mask and flags.  A program that calls sigaction() itself for these must call
 * the handler it replaced for faults it does not know.  Signal-safe.
 *
 * -EINVAL	another signal
 */
VMF_API int vmf_sigaction(int signum, const struct sigaction *act, struct sigaction *oldact);

#ifdef __cplusplus
}
#endif

#endif /* VMFAULT_H */
