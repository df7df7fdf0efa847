/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef COMPRESS_FIXTURE_H
#define COMPRESS_FIXTURE_H

/*
 * What the tests of the compressing pager share: contents that compress as they are asked to, and a
 * store with pagers on it.
 *
 * The pages of one busy object are the frames that everything is put from and got into.  Behind
 * stands the test pager, or nothing.
 */

#include <errno.h>
#include <stdio.h>

#include "compress.h"
#include "compress_store.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"
#include "race.h"
#include "testpager.h"
#include "trap.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"

enum { FRAMES = 64, STORE = 1 << 20 };
enum content { ZEROS, WORD, TEXT, THIN, NOISE, CONTENTS };

static struct vm_object *frames;
static struct vm_page *frame[FRAMES];

#define COUNT(name)	vm_meter_read(VMC_##name)
/*
 * Contents
 */

/* A page that is told by its key, and compresses as it is asked to. */
static inline void
make(unsigned char *page, enum content content, uint64_t key)
{
	uint64_t word = mix(key, 1), state = key;
	size_t n;

	switch (content) {
	case ZEROS:
		memset(page, 0, PG);
		break;
	case WORD:
		for (size_t i = 0; i < PG; i += sizeof(word))
			memcpy(page + i, &word, sizeof(word));
		break;
	case TEXT:		/* about a half */
		for (size_t i = 0; i < PG; i += n) {
			char text[32];

			n = (size_t)snprintf(text, sizeof(text), "%u of %u, ",
			    (unsigned)(rng_next(&state) % 100000), (unsigned)(rng_next(&state) % 5000));
			n = MIN(n, PG - i);
			memcpy(page + i, text, n);
		}
		break;
	case THIN:		/* next to nothing, or something */
		memset(page, 7, PG);
		fill(page + key % 1000, 20 + key % 1500, key);
		break;
	default:
		fill(page, PG, key);
	}
}

static inline void
set_frame(unsigned i, enum content content, uint64_t key)
{
	void *w = window_map(WINDOW_TARGET, frame[i]->pfn, 1);

	make(w, content, key);
	window_unmap(w);
}

static inline bool
frame_is(unsigned i, enum content content, uint64_t key)
{
	void *w = window_map(WINDOW_SOURCE, frame[i]->pfn, 1);
	unsigned char want[VMF_PAGE_SIZE];
	bool same;

	make(want, content, key);
	same = memcmp(want, w, PG) == 0;
	window_unmap(w);
	return same;
}

/*
 * A pager
 */

static inline struct vm_pager *
behind_make(uint64_t npages)
{
	return &testpager_make(npages)->pager;
}

static inline void
open_store(size_t size, bool with_behind)
{
	sys_sigset_t old;

	testpager_reset();
	start((uint64_t)4096 * PG, 0);
	touch_install();
	trap_enter(&old);
	expect(compress_init(size, with_behind ? behind_make : NULL), 0);
	frames = vm_object_allocate(FRAMES, true);
	check(frames != NULL);
	vm_object_lock(frames);
	for (unsigned i = 0; i < FRAMES; i++) {
		frame[i] = vm_page_alloc(frames, i, PHYSMEM_ZERO);
		check(frame[i] != NULL);
	}
	vm_object_unlock(frames);
	trap_leave(&old);
}

static inline void
close_store(void)
{
	struct compress_counts c;
	sys_sigset_t old;

	probe_hook = NULL;
	sys_inject = NULL;
	daemon_rest();
	trap_enter(&old);
	compress_audit();
	compress_counts(&c);
	check(c.pages == 0 && c.same == 0 && c.used == 0);
	vm_object_lock(frames);
	for (unsigned i = 0; i < FRAMES; i++)
		vm_page_free(frame[i]);
	vm_object_unlock(frames);
	vm_object_deallocate(frames);
	compress_fini();
	trap_leave(&old);
	stop();
	check(testpager_counts.pagers == 0 && testpager_counts.pages == 0);
}

static inline struct vm_pager *
pager_make(uint64_t npages)
{
	struct vm_pager *p = compress_pager_make(npages);

	check(p != NULL);
	return p;
}

static inline enum vm_pager_result
put_frames(struct vm_pager *p, uint64_t page, unsigned first, uint32_t n, uint32_t *done)
{
	enum vm_pager_result r;
	sys_sigset_t old;

	trap_enter(&old);
	r = vm_pager_put(p, page, &frame[first], n, done);
	trap_leave(&old);
	return r;
}

static inline enum vm_pager_result
get_frames(struct vm_pager *p, uint64_t page, unsigned first, uint32_t n, uint32_t *done)
{
	enum vm_pager_result r;
	sys_sigset_t old;

	trap_enter(&old);
	r = vm_pager_get(p, page, &frame[first], n, done);
	trap_leave(&old);
	return r;
}

/* Put one page, through frame 0; get it, through frame 1. */
static inline enum vm_pager_result
put_one(struct vm_pager *p, uint64_t page, enum content content, uint64_t key)
{
	uint32_t done;

	set_frame(0, content, key);
	return put_frames(p, page, 0, 1, &done);
}

#define check_page(p, page, content, key)	check_page_at(p, page, content, key, __LINE__)

static inline void
check_page_at(struct vm_pager *p, uint64_t page, enum content content, uint64_t key, int line)
{
	enum vm_pager_result r;
	uint32_t done;

	set_frame(1, NOISE, 12345);
	r = get_frames(p, page, 1, 1, &done);
	if (r != VM_PAGER_OK || !frame_is(1, content, key))
		die("line %d: page %llu: result %d, or wrong bytes", line, (unsigned long long)page, r);
}

static inline void
dispose(struct vm_pager *p, uint64_t page, uint64_t n)
{
	sys_sigset_t old;

	trap_enter(&old);
	vm_pager_dispose(p, page, n);
	trap_leave(&old);
}

static inline bool
has_page(struct vm_pager *p, uint64_t page)
{
	sys_sigset_t old;
	bool has;

	trap_enter(&old);
	has = vm_pager_has_page(p, page);
	trap_leave(&old);
	return has;
}

static inline bool
move(struct vm_pager *p, uint64_t page, struct vm_pager *src, uint64_t src_page)
{
	sys_sigset_t old;
	bool moved;

	trap_enter(&old);
	moved = p->ops->move(p, page, src, src_page);
	trap_leave(&old);
	return moved;
}

static inline void
drop(struct vm_pager *p)
{
	sys_sigset_t old;

	trap_enter(&old);
	handle_put(&p->handle);
	trap_leave(&old);
}

static inline struct compress_counts
counts(void)
{
	struct compress_counts c;
	sys_sigset_t old;

	trap_enter(&old);
	compress_counts(&c);
	compress_audit();
	trap_leave(&old);
	return c;
}

/* Put text until the store is full.  => the pages that are in it */
static inline uint64_t
fill_store(struct vm_pager *p)
{
	uint64_t i;

	for (i = 0; testpager_counts.pages == 0; i++)
		if (put_one(p, i, TEXT, i) != VM_PAGER_OK)
			break;
	return i;
}

/* What a page of a pager ought to hold. */
struct known {
	bool there;
	enum content content;
	uint64_t key;
};

#endif
