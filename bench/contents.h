/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BENCH_CONTENTS_H
#define BENCH_CONTENTS_H

/*
 * What bench_snapshot and bench_stall fill memory with: the first word of a page says when it was last
 * written, counted from base(); the others follow from the page's number.
 */

#include <stddef.h>
#include <stdint.h>

#include "bench.h"

#define WORDS	(BENCH_PAGE / sizeof(uint64_t))

static inline uint64_t
base(uint64_t page)
{
	page = (page + 1) * UINT64_C(0xbf58476d1ce4e5b9);
	return (page ^ page >> 31);
}

static inline uint64_t
word(uint64_t page, size_t i)
{
	return (base(page) * (2 * i + 1));
}

static inline volatile uint64_t *
page_at(void *mem, uint64_t page)
{
	return ((volatile uint64_t *)(void *)((unsigned char *)mem + page * BENCH_PAGE));
}

/* None of them written yet. */
static inline void
fill_pages(void *mem, uint64_t pages)
{
	for (uint64_t p = 0; p < pages; p++) {
		volatile uint64_t *w = page_at(mem, p);

		w[0] = base(p);
		for (size_t i = 1; i < WORDS; i++)
			w[i] = word(p, i);
	}
}

#endif
