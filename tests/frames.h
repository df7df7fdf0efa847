/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef FRAMES_H
#define FRAMES_H

/*
 * The bytes of a page's frame, through the library's windows.
 */

#include "machdep.h"
#include "support.h"
#include "vm_page.h"

static inline void
frame_fill(struct vm_page *m, uint64_t key)
{
	void *p = window_map(WINDOW_TARGET, m->pfn, 1);

	fill(p, PG, key);
	window_unmap(p);
}

static inline void
frame_check(struct vm_page *m, uint64_t key)
{
	void *p = window_map(WINDOW_SOURCE, m->pfn, 1);

	check_fill(p, PG, key);
	window_unmap(p);
}

#endif
