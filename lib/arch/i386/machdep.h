/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef MACHDEP_H
#define MACHDEP_H

/*
 * i386: what the processor says about a fault, and a window onto frames.
 *
 * Address space is scarce: the window is a few slots of 64 KB, each mapped
 * onto the frames that somebody needs at the moment.  A copy holds two at
 * once; so that copies cannot wait for each other's second slot in a circle,
 * the slots are two pools: sources, and targets, and who holds a target waits
 * for nothing.
 */

#include <signal.h>
#include <sys/uio.h>
#include <ucontext.h>

#include "kern/types.h"

#define MACHDEP_FRAME_SPACE	((uint64_t)1 << 25)	/* frames: 128 GiB of offsets */
#define MACHDEP_ADDRESS_SPACE	((uint64_t)1 << 29)	/* bytes of the default task */
#define MACHDEP_WINDOW_PAGES	16			/* frames that window_map() maps at once */

/* What kind of access faulted: VM_PROT_READ, WRITE or EXECUTE; NONE if it was no page fault. */
vm_prot_t machdep_fault_type(const siginfo_t *, const ucontext_t *);

enum window_kind { WINDOW_SOURCE, WINDOW_TARGET };

int window_init(int fd, uint64_t npages);
/* Frames from first to end lie in another file.  write: some are to be written.  => the window is there.  0 or -errno */
int window_part(int fd, vm_pfn_t first, vm_pfn_t end, bool write);
void window_fini(void);
void window_forked(void);	/* in a forked child: it must not see the frames */

/*
 * => npages is at most MACHDEP_WINDOW_PAGES; the thread holds at most one window
 *    of each kind, and takes the source first.
 * => waits for a free slot; cannot fail.
 */
void *window_map(enum window_kind, vm_pfn_t pfn, uint32_t npages);
void window_unmap(void *);

/*
 * A view: frames that need not be in a row, as memory for as long as a transfer lasts.  Views have slots
 * of their own, as a transfer may take long.
 * => how many pieces, at most n; or -errno.  n is at most MACHDEP_VIEW_PAGES.
 * => waits for a free slot: who has a view open must not wait for another one
 */
#define MACHDEP_VIEW_PAGES	64
#define MACHDEP_VIEWS		24			/* that may be open at once without waiting */

struct window_view { char *base; };

int window_view_open(struct window_view *, const vm_pfn_t *, uint32_t n, struct iovec *);
void window_view_close(struct window_view *);

#endif
