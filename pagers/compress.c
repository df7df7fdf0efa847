/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The compressing pager.
 *
 * A page of it is nowhere (NONE), or in one place:
 *
 *	                 put                          put
 *	      +----------------------- NONE -----------------------+
 *	      |                         |                          |
 *	      v                         v put                      v
 *	    SAME			BLOB ----- make_room ----> BEHIND
 *	    a word		     in the store	    in the pager behind
 *
 * put() first forgets what it had, for it is older than the frame: if it fails after that, the page is
 * NONE, and stays modified in its frame.  dispose() leads to NONE, move() to the same place in another pager.
 *
 * Locks: compress_lock (S), a leaf, guards all tables and the store; it is never held while the pager behind is
 * called.  A page that is being got or put is busy, and its object is not merged, so nobody else
 * asks for it, disposes of it, or moves it then.  The exception is make_room(), which takes pages
 * that nobody has made busy.  It marks them LEAVING:
 *
 *	LEAVING and disposed of, moved, or put again	their copy behind is out of date: make_room() disposes
 *							of it when it has been written, before it clears the mark
 *	LEAVING and to be put behind, or moved there	waits for, or is refused by, the mark: never are two
 *							writes of one page under way behind us
 *	LEAVING and its pager destroyed			who clears its last mark, ends it
 *
 * The bytes of a leaving blob stay: its segment is pinned.
 */

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "compress.h"
#include "compress_store.h"
#include "kern/assert.h"
#include "kern/event.h"
#include "kern/probe.h"
#include "kern/radix.h"
#include "kern/slab.h"
#include "machdep.h"
#include "physmem.h"
#include "vm_meter.h"
#include "vm_page.h"

#define COMPRESSED_MAX	(int)(PAGE_SIZE * 3 / 4)	/* what is larger is not worth it */
#define CONTEXTS	4u		/* threads that compress at once */
#define LEAVE_MAX	16u		/* pages that leave in one write */
#define LEAVE_TRIES	8		/* segments of nothing but damaged pages, in a row */
#define LEAVE_SHARE	32u		/* ... one frame in so many, at most */

enum { NONE, SAME, BLOB, BEHIND, KIND = 3, LEAVING = 4 };

struct compress_pager {
	struct vm_pager pager;
	struct radix leaves;		/* S: page / LEAF_PAGES to its leaf */
	struct vm_pager *behind;	/* S; null until needed, then constant */
	uint32_t leaving;		/* S: writes of make_room() under way */
	bool dead;			/* S: destroyed, but for those */
};

struct context {
	struct kmutex lock;		/* RANK_COMPRESSOR */
	unsigned char out[COMPRESSED_MAX];
	_Alignas(8) unsigned char state[];
};

static struct {
	uint64_t limit;			/* constant; 0: there is no store */
	vm_default_pager_alloc *behind;	/* constant */
	struct slab pagers, leaves;
	struct context *context[CONTEXTS];	/* constant */
	uint64_t blobs, same;		/* S: pages of these kinds */
	bool making_room;		/* S: by one thread at a time; channel of all waits here */
	struct vm_page frame[LEAVE_MAX];	/* its: where blobs are unpacked; no object's */
	uint32_t nframes;		/* constant */
} cp;

static struct compress_pager *
of(struct vm_pager *p)
{
	return container_of(p, struct compress_pager, pager);
}

static void
lock(void)
{
	kmutex_lock(&compress_lock);
}

static void
unlock(void)
{
	kmutex_unlock(&compress_lock);
}

/* Wait until make_room() has got on.  => locked; unlocked in between */
static void
wait_for_room(void)
{
	uint32_t ticket = event_prepare(&cp.making_room);

	unlock();
	PROBE("compress: waiting");
	(void)event_wait(&cp.making_room, ticket, EVENT_FOREVER);
	lock();
}

/*
 * The tables.  => locked
 */

static struct compress_leaf *
leaf_find(const struct compress_pager *p, uint64_t page)
{
	return radix_lookup(&p->leaves, (uint32_t)(page / LEAF_PAGES));
}

/* Null: no memory. */
static struct compress_leaf *
leaf_make(struct compress_pager *p, uint64_t page)
{
	struct compress_leaf *leaf = leaf_find(p, page);

	if (leaf != NULL)
		return leaf;
	leaf = slab_alloc(&cp.leaves);
	if (leaf == NULL)
		return NULL;
	leaf->pager = p;
	leaf->first = page - page % LEAF_PAGES;
	if (radix_insert(&p->leaves, (uint32_t)(page / LEAF_PAGES), leaf) != 0) {
		slab_free(&cp.leaves, leaf);
		return NULL;
	}
	return leaf;
}

static unsigned
kind_of(const struct compress_pager *p, uint64_t page)
{
	const struct compress_leaf *leaf = leaf_find(p, page);

	return leaf != NULL ? leaf->kind[page % LEAF_PAGES] & KIND : NONE;
}

static void
set_kind(struct compress_leaf *leaf, uint32_t i, unsigned kind)
{
	unsigned old = leaf->kind[i] & KIND;

	cp.blobs += (uint64_t)((kind == BLOB) - (old == BLOB));
	cp.same += (uint64_t)((kind == SAME) - (old == SAME));
	leaf->kind[i] = (uint8_t)((leaf->kind[i] & LEAVING) | kind);
}

/* The page becomes NONE.  => true: it is still behind us, to be disposed of there */
static bool
forget(struct compress_leaf *leaf, uint32_t i)
{
	unsigned old = leaf->kind[i] & KIND;

	if (old == BLOB)
		blob_free(leaf->at[i].blob);
	set_kind(leaf, i, NONE);
	return old == BEHIND;
}

static bool
is_leaving(const struct compress_pager *p, uint64_t page, uint32_t n)
{
	for (; n > 0; n--, page++) {
		const struct compress_leaf *leaf = leaf_find(p, page);

		if (leaf != NULL && (leaf->kind[page % LEAF_PAGES] & LEAVING))
			return true;
	}
	return false;
}

/* The pager behind, made if need be; null: there is none.  => not locked; p is not dead */
static struct vm_pager *
behind(struct compress_pager *p)
{
	struct vm_pager *b, *spare = NULL;

	lock();
	b = p->behind;
	unlock();
	if (b != NULL || cp.behind == NULL || (spare = cp.behind(p->pager.npages)) == NULL)
		return b;
	lock();
	if (p->behind == NULL) {
		p->behind = spare;
		spare = NULL;
	}
	b = p->behind;
	unlock();
	if (spare != NULL)
		handle_put(&spare->handle);
	return b;
}

/*
 * Bytes
 */

static bool
all_same(const void *page)
{
	const char *p = page;

	return memcmp(p, p + sizeof(uint64_t), PAGE_SIZE - sizeof(uint64_t)) == 0;
}

static bool
unpack(const struct blob *b, vm_pfn_t pfn)
{
	void *w = window_map(WINDOW_TARGET, pfn, 1);
	bool ok = blob_is_intact(b);

	if (ok && b->len == PAGE_SIZE)
		memcpy(w, b->bytes, PAGE_SIZE);
	else if (ok)
		ok = LZ4_decompress_safe((const char *)b->bytes, w, b->len, (int)PAGE_SIZE) == (int)PAGE_SIZE;
	window_unmap(w);
	if (!ok)
		vm_count(v_compress_errors);
	return ok;
}

static void
fill_same(uint64_t word, vm_pfn_t pfn)
{
	uint64_t *w = window_map(WINDOW_TARGET, pfn, 1);

	for (size_t i = 0; i < PAGE_SIZE / sizeof(word); i++)
		w[i] = word;
	window_unmap(w);
}

/* Any context will do; one that is free is better. */
static struct context *
context_get(void)
{
	unsigned first = vm_meter_shard();

	for (unsigned i = 0; i < CONTEXTS; i++)
		if (kmutex_trylock(&cp.context[(first + i) % CONTEXTS]->lock))
			return cp.context[(first + i) % CONTEXTS];
	kmutex_lock(&cp.context[first % CONTEXTS]->lock);
	return cp.context[first % CONTEXTS];
}

enum kept {
	KEPT,
	RAW,			/* it does not compress, and can go behind */
	NO_ROOM,		/* the store is full */
	NO_MEMORY		/* for the tables */
};

/* => the page is in leaf at i, where it is NONE */
static enum kept
keep_blob(struct compress_leaf *leaf, uint32_t i, const void *page)
{
	struct context *c = context_get();
	struct blob *b;
	int len;

	len = LZ4_compress_fast_extState(c->state, page, (char *)c->out, (int)PAGE_SIZE, COMPRESSED_MAX, 1);
	if (len <= 0 && cp.behind != NULL) {
		kmutex_unlock(&c->lock);
		return RAW;
	}
	lock();
	b = blob_alloc((uint16_t)(len > 0 ? len : (int)PAGE_SIZE));
	unlock();
	if (b != NULL)
		blob_fill(b, len > 0 ? c->out : page);
	kmutex_unlock(&c->lock);
	if (b == NULL)
		return NO_ROOM;
	lock();
	blob_publish(b, leaf, i);
	set_kind(leaf, i, BLOB);
	blob_unpin(b);
	unlock();
	return KEPT;
}

/* Keep a page in memory, if that can be. */
static enum kept
keep(struct compress_pager *p, uint64_t page, const struct vm_page *m)
{
	uint32_t i = (uint32_t)(page % LEAF_PAGES);
	enum kept result = KEPT;
	struct compress_leaf *leaf;
	bool was_behind;
	uint64_t *w;

	lock();
	leaf = leaf_make(p, page);
	was_behind = leaf != NULL && forget(leaf, i);
	unlock();
	if (leaf == NULL)
		return NO_MEMORY;
	/* Before the page is anywhere else: make_room() could bring it there again. */
	if (was_behind)
		vm_pager_dispose(p->behind, page, 1);

	w = window_map(WINDOW_SOURCE, m->pfn, 1);
	if (all_same(w)) {
		lock();
		leaf->at[i].word = *w;
		set_kind(leaf, i, SAME);
		unlock();
	} else {
		result = keep_blob(leaf, i, w);
	}
	window_unmap(w);
	return result;
}

/*
 * Making room: the blobs of the oldest segment go behind
 */

/* Pages of one pager in a row, as they lie in a segment. */
struct leavers {
	struct compress_pager *pager;
	uint64_t page;			/* the first one */
	uint32_t n;
	struct blob *blob[LEAVE_MAX];
};

/* From blob b on.  Marks them.  => locked */
static void
leavers_gather(struct leavers *l, const struct segment *s, struct blob *b)
{
	*l = (struct leavers){ .pager = b->leaf->pager, .page = b->leaf->first + b->page };
	for (; b != NULL && l->n < cp.nframes; b = segment_next(s, b)) {
		if (b->leaf->pager != l->pager || b->leaf->first + b->page != l->page + l->n)
			break;
		KASSERT(!(b->leaf->kind[b->page] & LEAVING));
		b->leaf->kind[b->page] |= LEAVING;
		l->blob[l->n++] = b;
	}
	l->pager->leaving++;
}

/* Those that are still the same are now behind us; of the others nothing shall be.  => not locked */
static void
leavers_left(struct leavers *l, uint32_t done)
{
	uint32_t stale = 0;		/* a bit for each */

	PROBE("compress: written behind");
	lock();
	for (uint32_t k = 0; k < done; k++) {
		struct compress_leaf *leaf = leaf_find(l->pager, l->page + k);
		uint32_t i = (uint32_t)((l->page + k) % LEAF_PAGES);

		if ((leaf->kind[i] & KIND) == BLOB && leaf->at[i].blob == l->blob[k]) {
			(void)forget(leaf, i);
			set_kind(leaf, i, BEHIND);
			vm_count(v_compress_evicted);
		} else {
			stale |= 1u << k;
		}
	}
	unlock();
	for (uint32_t k = 0; k < done; k++)
		if (stale & 1u << k)
			vm_pager_dispose(l->pager->behind, l->page + k, 1);
}

static void pager_end(struct compress_pager *);

/* Take the marks away.  => not locked */
static void
leavers_release(struct leavers *l)
{
	bool end;

	lock();
	for (uint32_t k = 0; k < l->n; k++)
		leaf_find(l->pager, l->page + k)->kind[(l->page + k) % LEAF_PAGES] &= KIND;
	end = --l->pager->leaving == 0 && l->pager->dead;
	unlock();
	if (end)
		pager_end(l->pager);
	event_wake(&cp.making_room);
}

/* => the number of pages that are behind us now; *damaged: the next one cannot be unpacked.  => not locked */
static uint32_t
leavers_write(struct leavers *l, bool *damaged)
{
	struct vm_pager *to = behind(l->pager);
	struct vm_page *m[LEAVE_MAX];
	uint32_t n = 0, done = 0;

	if (to == NULL)
		return 0;
	for (; n < l->n && unpack(l->blob[n], cp.frame[n].pfn); n++)
		m[n] = &cp.frame[n];
	*damaged = n == 0;
	PROBE("compress: leaving");
	/* Not through the wrapper: who asked for room is told of his own page, and that is counted. */
	if (n > 0)
		(void)to->ops->put(to, l->page, m, n, &done);
	leavers_left(l, done);
	return done;
}

/* => pages left; *refused: the pager behind takes no more.  => not locked; the segment is pinned */
static bool
segment_leave(const struct segment *s, bool *refused)
{
	struct blob *b = NULL;
	bool progress = false;
	struct leavers l;

	for (;;) {
		bool damaged = false;
		uint32_t done;

		lock();
		b = segment_next(s, b);
		if (b != NULL)
			leavers_gather(&l, s, b);
		unlock();
		if (b == NULL)
			return progress;
		done = leavers_write(&l, &damaged);
		b = l.blob[done != 0 ? done - 1 : 0];
		leavers_release(&l);
		progress |= done != 0;
		*refused = done == 0 && !damaged;
		if (*refused)
			return progress;
	}
}

/* => not locked.  => false: nothing is to be had */
static bool
make_room(void)
{
	bool progress = false, refused = cp.behind == NULL;
	struct segment *s;

	lock();
	if (cp.making_room) {
		wait_for_room();
		unlock();
		return true;
	}
	cp.making_room = true;
	for (int n = 0; n < LEAVE_TRIES && !progress && !refused && (s = store_oldest()) != NULL; n++) {
		segment_pin(s);
		unlock();
		progress = segment_leave(s, &refused);
		lock();
		/* What is left in it was moved, or is damaged, or is not wanted behind: others first. */
		segment_make_young(s);
		segment_unpin(s);
	}
	cp.making_room = false;
	unlock();
	event_wake(&cp.making_room);
	return progress;
}

/*
 * Operations
 */

/* Pages that do not compress.  => they are NONE */
static enum vm_pager_result
put_behind(struct compress_pager *p, uint64_t page, struct vm_page **m, uint32_t n, uint32_t *done)
{
	struct vm_pager *to = behind(p);
	enum vm_pager_result r;

	*done = 0;
	if (to == NULL)
		return VM_PAGER_AGAIN;		/* no memory for it */
	lock();
	while (is_leaving(p, page, n))
		wait_for_room();
	unlock();
	r = to->ops->put(to, page, m, n, done);		/* the caller of our put is the one who counts */
	lock();
	for (uint32_t k = 0; k < *done; k++)
		set_kind(leaf_find(p, page + k), (uint32_t)((page + k) % LEAF_PAGES), BEHIND);
	unlock();
	vm_count_n(v_incompressible, *done);
	return r;
}

static enum vm_pager_result
compress_put(struct vm_pager *pager, uint64_t page, struct vm_page **m, uint32_t n, uint32_t *done)
{
	struct compress_pager *p = of(pager);
	enum vm_pager_result r = VM_PAGER_OK;
	uint32_t i = 0, raw, some;

	while (r == VM_PAGER_OK && *done < n) {
		enum kept kept = KEPT;

		/* Those that go behind go together. */
		for (raw = 0; i < n; i++, raw++) {
			kept = keep(p, page + i, m[i]);
			if (kept != RAW)
				break;
		}
		if (raw != 0) {
			r = put_behind(p, page + *done, m + *done, raw, &some);
			*done += some;
			if (some < raw)
				break;
		}
		if (i == n)
			break;
		if (kept == KEPT) {
			++*done;
			++i;
		} else if (r == VM_PAGER_OK && (kept == NO_MEMORY || !make_room())) {
			r = VM_PAGER_AGAIN;
		}
	}
	return *done != 0 ? VM_PAGER_OK : r;
}

/* The first page is behind us: it and those after it that are.  => not locked */
static enum vm_pager_result
get_behind(struct compress_pager *p, uint64_t page, struct vm_page **m, uint32_t n, uint32_t *done)
{
	enum vm_pager_result r;
	uint32_t k = 1;

	lock();
	while (k < n && kind_of(p, page + k) == BEHIND)
		k++;
	unlock();
	r = p->behind->ops->get(p->behind, page, m, k, done);
	/* We know that it is there. */
	return r == VM_PAGER_FAIL || r == VM_PAGER_BAD ? VM_PAGER_ERROR : r;
}

static enum vm_pager_result
compress_get(struct vm_pager *pager, uint64_t page, struct vm_page **m, uint32_t n, uint32_t *done)
{
	struct compress_pager *p = of(pager);
	bool ok = true;

	for (; ok && *done < n; *done += ok) {
		struct compress_leaf *leaf;
		uint32_t i = (uint32_t)((page + *done) % LEAF_PAGES);
		struct blob *b = NULL;
		uint64_t word = 0;
		unsigned kind;

		lock();
		leaf = leaf_find(p, page + *done);
		kind = leaf != NULL ? leaf->kind[i] & KIND : NONE;
		if (kind == SAME)
			word = leaf->at[i].word;
		if (kind == BLOB)
			blob_pin(b = leaf->at[i].blob);
		unlock();

		switch (kind) {
		case SAME:
			fill_same(word, m[*done]->pfn);
			break;
		case BLOB:
			PROBE("compress: unpacking");
			ok = unpack(b, m[*done]->pfn);
			lock();
			blob_unpin(b);
			unlock();
			break;
		case BEHIND:
			if (*done == 0)
				return get_behind(p, page, m, n, done);
			return VM_PAGER_OK;
		default:
			return *done != 0 ? VM_PAGER_OK : VM_PAGER_FAIL;
		}
	}
	return *done != 0 ? VM_PAGER_OK : VM_PAGER_ERROR;
}

static bool
compress_has_page(struct vm_pager *pager, uint64_t page)
{
	unsigned kind;

	lock();
	kind = kind_of(of(pager), page);
	unlock();
	return kind != NONE;
}

/* The pages of one leaf at a time. */
static void
compress_dispose(struct vm_pager *pager, uint64_t page, uint64_t n)
{
	struct compress_pager *p = of(pager);
	uint64_t end = MIN(page + n, pager->npages);
	struct compress_leaf *leaf;
	uint32_t at = (uint32_t)(page / LEAF_PAGES);

	for (; page < end; at++) {
		uint64_t first = 0, stale = 0;	/* a bit for each page that is behind us */

		lock();
		leaf = radix_next(&p->leaves, &at);
		if (leaf != NULL) {
			first = leaf->first;
			for (uint64_t i = MAX(page, first); i < MIN(end, first + LEAF_PAGES); i++)
				if (forget(leaf, (uint32_t)(i - first)))
					stale |= UINT64_C(1) << (i - first);
		}
		unlock();
		if (leaf == NULL)
			break;
		page = first + LEAF_PAGES;
		while (stale != 0) {
			uint32_t lo = (uint32_t)__builtin_ctzll(stale), run = 1;

			while (lo + run < LEAF_PAGES && (stale >> (lo + run) & 1))
				run++;
			vm_pager_dispose(p->behind, first + lo, run);
			stale &= run + lo == LEAF_PAGES ? 0 : ~UINT64_C(0) << (lo + run);
		}
	}
	store_trim();
}

/* => the page of src is BEHIND, ours is NONE */
static bool
move_behind(struct compress_pager *p, uint64_t page, struct compress_pager *src, uint64_t src_page)
{
	struct vm_pager *to = behind(p), *from = src->behind;
	bool busy;

	lock();
	busy = is_leaving(p, page, 1);
	unlock();
	return to != NULL && !busy && from->ops == to->ops && to->ops->move != NULL &&
	    to->ops->move(to, page, from, src_page);
}

static bool
compress_move(struct vm_pager *pager, uint64_t page, struct vm_pager *src, uint64_t src_page)
{
	uint32_t i = (uint32_t)(page % LEAF_PAGES), k = (uint32_t)(src_page % LEAF_PAGES);
	struct compress_leaf *leaf, *old;
	unsigned kind;

	lock();
	leaf = leaf_make(of(pager), page);
	old = leaf_find(of(src), src_page);
	kind = old->kind[k] & KIND;
	KASSERT(kind != NONE && kind_of(of(pager), page) == NONE);
	if (leaf != NULL && kind == BEHIND) {
		unlock();
		if (!move_behind(of(pager), page, of(src), src_page))
			return false;
		lock();
	}
	if (leaf != NULL) {
		if (kind == SAME)
			leaf->at[i].word = old->at[k].word;
		else if (kind == BLOB)
			blob_publish(old->at[k].blob, leaf, i);
		set_kind(old, k, NONE);
		set_kind(leaf, i, kind);
	}
	unlock();
	return leaf != NULL;
}

static const struct vm_pager_ops compress_ops = {
	.name = "compress",
	.get = compress_get,
	.put = compress_put,
	.has_page = compress_has_page,
	.dispose = compress_dispose,
	.move = compress_move,
	.queryable = true,
};

/*
 * Beginning and end
 */

/* => dead, and all pages forgotten: nobody else knows it */
static void
pager_end(struct compress_pager *p)
{
	struct compress_leaf *leaf;
	uint32_t at = 0;

	for (; (leaf = radix_next(&p->leaves, &at)) != NULL; at++) {
		(void)radix_remove(&p->leaves, at);
		slab_free(&cp.leaves, leaf);
	}
	if (p->behind != NULL)
		handle_put(&p->behind->handle);
	slab_free(&cp.pagers, p);
}

/* The pager behind forgets its pages when it goes itself. */
static void
compress_destroy(struct handle *h)
{
	struct compress_pager *p = container_of(h, struct compress_pager, pager.handle);
	struct compress_leaf *leaf;
	uint32_t at = 0;
	bool end;

	do {
		lock();
		leaf = radix_next(&p->leaves, &at);
		for (uint32_t i = 0; leaf != NULL && i < LEAF_PAGES; i++)
			(void)forget(leaf, i);
		unlock();
		at++;
	} while (leaf != NULL);
	lock();
	p->dead = true;
	end = p->leaving == 0;
	unlock();
	if (end)
		pager_end(p);
	store_trim();
}

struct vm_pager *
compress_pager_make(uint64_t npages)
{
	struct compress_pager *p = slab_alloc(&cp.pagers);

	if (p == NULL)
		return NULL;
	atomic_init(&p->pager.handle.refs, 1);
	p->pager.handle.type = HANDLE_PAGER;
	p->pager.handle.destroy = compress_destroy;
	p->pager.ops = &compress_ops;
	p->pager.npages = npages;
	return &p->pager;
}

static bool
contexts_make(void)
{
	size_t size = sizeof(struct context) + (size_t)LZ4_sizeofState();

	for (unsigned i = 0; i < CONTEXTS; i++) {
		cp.context[i] = kmem_alloc(size);
		if (cp.context[i] == NULL)
			return false;
		kmutex_init(&cp.context[i]->lock, RANK_COMPRESSOR);
	}
	return true;
}

/* Frames to unpack into, for who makes room. */
static bool
frames_take(void)
{
	struct physmem_counts pc;

	physmem_counts(&pc);
	for (; cp.nframes < LEAVE_MAX && cp.nframes <= pc.budget / LEAVE_SHARE; cp.nframes++) {
		cp.frame[cp.nframes].flags = PG_BUSY;
		cp.frame[cp.nframes].pfn = physmem_alloc(0, PHYSMEM_OVERWRITE);
		if (cp.frame[cp.nframes].pfn == 0)
			return cp.nframes != 0;
	}
	return true;
}

int
compress_init(uint64_t size, vm_default_pager_alloc *behind_us)
{
	int error;

	if (size < COMPRESS_LEAST)
		return -EINVAL;
	memset(&cp, 0, sizeof(cp));
	slab_init(&cp.pagers, "compress_pager", sizeof(struct compress_pager), 8);
	slab_init(&cp.leaves, "compress_leaf", sizeof(struct compress_leaf), 8);
	cp.behind = behind_us;
	error = store_init(size);
	if (error != 0)
		return error;
	cp.limit = size;
	if (!contexts_make() || (cp.behind != NULL && !frames_take())) {
		compress_fini();
		return -ENOMEM;
	}
	return 0;
}

void
compress_fini(void)
{
	if (cp.limit == 0)
		return;
	KASSERT(!cp.making_room && cp.blobs == 0 && cp.same == 0);
	while (cp.nframes > 0)
		physmem_free(cp.frame[--cp.nframes].pfn);
	for (unsigned i = 0; i < CONTEXTS; i++)
		if (cp.context[i] != NULL)
			kmem_free(cp.context[i], sizeof(struct context) + (size_t)LZ4_sizeofState());
	store_fini();
	slab_fini(&cp.leaves);
	slab_fini(&cp.pagers);
	memset(&cp, 0, sizeof(cp));
}

void
compress_counts(struct compress_counts *c)
{
	struct store_counts s;

	*c = (struct compress_counts){ 0 };
	if (cp.limit == 0)
		return;
	lock();
	store_counts(&s);
	*c = (struct compress_counts){ s.limit, s.resident, s.used, cp.blobs, cp.same };
	unlock();
}

#ifdef VMF_TESTING
void
compress_audit(void)
{
	if (cp.limit == 0)
		return;
	lock();
	KASSERT_ALWAYS(!cp.making_room && store_audit() == cp.blobs);
	unlock();
}
#endif
