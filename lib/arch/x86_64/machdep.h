/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef MACHDEP_H
#define MACHDEP_H

/*
 * x86_64: what the processor says about a fault, and a window onto frames.
 *
 * The address space is large, so the window is the whole memfd, mapped once:
 * a frame is at window + pfn * PAGE_SIZE, always.
 */

#include <signal.h>
#include <sys/uio.h>
#include <ucontext.h>

#include "kern/types.h"

#define MACHDEP_FRAME_SPACE	((uint64_t)1 << 28)	/* frames: 1 TiB of offsets */
#define MACHDEP_ADDRESS_SPACE	((uint64_t)1 << 40)	/* bytes of the default task */
#define MACHDEP_WINDOW_PAGES	UINT32_MAX		/* frames that window_map() maps at once */

/* What kind of access faulted: VM_PROT_READ, WRITE or EXECUTE; NONE if it was no page fault. */
vm_prot_t machdep_fault_type(const siginfo_t *, const ucontext_t *);

enum window_kind { WINDOW_SOURCE, WINDOW_TARGET };	/* one pool serves both here */

int window_init(int fd, uint64_t npages);
/* Frames from first to end lie in another file.  write: some are to be written.  => the window is there.  0 or -errno */
int window_part(int fd, vm_pfn_t first, vm_pfn_t end, bool write);
void window_fini(void);
void window_forked(void);	/* in a forked child: it must not see the frames */

extern char *window_base;

static inline void *
window_map(enum window_kind kind, vm_pfn_t pfn, uint32_t npages)
{
	(void)kind;
	(void)npages;
	return window_base + ((size_t)pfn << PAGE_SHIFT);
}

static inline void
window_unmap(void *p)
{
	(void)p;
}

/*
 * A view: frames that need not be in a row, as memory for as long as a transfer lasts.
 * => how many pieces, at most n; or -errno.  n is at most MACHDEP_VIEW_PAGES.
 */
#define MACHDEP_VIEW_PAGES	64
#define MACHDEP_VIEWS		UINT32_MAX		/* that may be open at once without waiting */

struct window_view { char *base; };

static inline int
window_view_open(struct window_view *v, const vm_pfn_t *pfn, uint32_t n, struct iovec *iov)
{
	int pieces = 0;

	v->base = window_base;
	for (uint32_t i = 0; i < n; i++) {
		if (i == 0 || pfn[i] != pfn[i - 1] + 1)
			iov[pieces++] = (struct iovec){ v->base + ((size_t)pfn[i] << PAGE_SHIFT), 0 };
		iov[pieces - 1].iov_len += PAGE_SIZE;
	}
	return pieces;
}

static inline void
window_view_close(struct window_view *v)
{
	v->base = NULL;
}

#endif
