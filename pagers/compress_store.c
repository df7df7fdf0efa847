/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The log of blobs: see compress_store.h.
 *
 *	free --> open --> closed --> free
 *	          young: new blobs
 *	          aged: blobs that cleaning copies
 *
 * One free segment is always left for cleaning, which takes one at most before it frees one.  A segment
 * of which seven eighths live is not worth it: cleaning eight of those frees one, and what cannot be used
 * at the end of a segment is less than that, so cleaning comes to an end.
 *
 * Bins sort the closed segments by how much of them lives, so that the emptiest is found at once.
 */

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>

#include "compress_store.h"
#include "kern/assert.h"
#include "kern/slab.h"
#include "kern/sys.h"

#define SEGMENT_SIZE	(64u << 10)
#define BINS		8u
#define CLEAN_BINS	7u		/* less than seven eighths */
#define KEEP		16u		/* free segments that keep their memory */

struct segment {
	TAILQ_ENTRY(segment) order;	/* in `free', or in `age', the oldest first */
	TAILQ_ENTRY(segment) bin;	/* closed ones */
	uint32_t fill;			/* bytes, from the start */
	uint32_t live;			/* ... of blobs that are not free */
	uint32_t pins;
	enum { FREE, OPEN, CLOSED } state;
	bool touched;			/* has, or may have, memory of the kernel's */
};

TAILQ_HEAD(segment_list, segment);

struct kmutex compress_lock;

static struct {
	char *base;			/* constant */
	struct segment *segment;	/* constant; an array */
	uint32_t n;			/* constant */
	uint32_t nfree, ntouched;	/* segments in `free'; of them touched ones, which come first */
	struct segment_list free, age, bin[BINS + 1];
	struct segment *young, *aged;	/* open, or null */
	uint64_t used;			/* bytes of live blobs */
} cs;

static struct segment *
segment_of(const struct blob *b)
{
	return &cs.segment[(size_t)((const char *)b - cs.base) / SEGMENT_SIZE];
}

static char *
segment_base(const struct segment *s)
{
	return cs.base + (size_t)(s - cs.segment) * SEGMENT_SIZE;
}

static uint32_t
padded(uint32_t len)
{
	return (len + 7) & ~7u;
}

static uint32_t
blob_size(uint32_t len)
{
	return (uint32_t)sizeof(struct blob) + padded(len);
}

static uint32_t
bin_of(const struct segment *s)
{
	return s->live / (SEGMENT_SIZE / BINS);
}

/* A closed, empty segment that nobody looks at is free. */
static bool
free_if_empty(struct segment *s)
{
	if (s->state != CLOSED || s->live != 0 || s->pins != 0)
		return false;
	TAILQ_REMOVE(&cs.bin[0], s, bin);
	TAILQ_REMOVE(&cs.age, s, order);
	TAILQ_INSERT_HEAD(&cs.free, s, order);
	s->state = FREE;
	s->fill = 0;
	cs.nfree++;
	cs.ntouched++;
	return true;
}

/* => one is free */
static struct segment *
segment_open(void)
{
	struct segment *s = TAILQ_FIRST(&cs.free);

	TAILQ_REMOVE(&cs.free, s, order);
	cs.nfree--;
	cs.ntouched -= s->touched;
	s->touched = true;
	s->state = OPEN;
	return s;
}

static void
segment_close(struct segment *s)
{
	if (s == NULL)
		return;
	s->state = CLOSED;
	TAILQ_INSERT_TAIL(&cs.bin[bin_of(s)], s, bin);
	(void)free_if_empty(s);
}

static void
add_live(struct segment *s, int32_t by)
{
	uint32_t before = bin_of(s);

	s->live += (uint32_t)by;
	cs.used += (uint64_t)(int64_t)by;
	if (s->state == CLOSED && bin_of(s) != before) {
		TAILQ_REMOVE(&cs.bin[before], s, bin);
		TAILQ_INSERT_TAIL(&cs.bin[bin_of(s)], s, bin);
	}
	(void)free_if_empty(s);
}

static bool
has_room(const struct segment *s, uint32_t size)
{
	return s != NULL && size <= SEGMENT_SIZE - s->fill;
}

/* => has_room() */
static struct blob *
append(struct segment *s, uint16_t len)
{
	struct blob *b = (struct blob *)(void *)(segment_base(s) + s->fill);

	b->leaf = NULL;
	b->len = len;
	s->fill += blob_size(len);
	add_live(s, (int32_t)blob_size(len));
	return b;
}

/* Copy what lives in the emptiest segment together with what was cleaned before.  false: not worth it. */
static bool
clean(void)
{
	struct segment *s = NULL;
	struct blob *b, *copy;

	for (uint32_t i = 0; i < CLEAN_BINS && s == NULL; i++)
		TAILQ_FOREACH(s, &cs.bin[i], bin)
			if (s->pins == 0)
				break;
	if (s == NULL)
		return false;
	segment_pin(s);
	for (b = segment_next(s, NULL); b != NULL; b = segment_next(s, b)) {
		if (!has_room(cs.aged, blob_size(b->len))) {
			segment_close(cs.aged);
			cs.aged = segment_open();
			TAILQ_INSERT_BEFORE(s, cs.aged, order);
		}
		copy = append(cs.aged, b->len);
		memcpy(copy->bytes, b->bytes, padded(b->len));
		copy->sum = b->sum;
		blob_publish(copy, b->leaf, b->page);
		blob_free(b);
	}
	segment_unpin(s);
	return true;
}

struct blob *
blob_alloc(uint16_t len)
{
	struct blob *b;

	KASSERT(kmutex_held(&compress_lock) && len > 0 && len <= BLOB_MAX);
	while (!has_room(cs.young, blob_size(len))) {
		if (cs.nfree > 1) {
			segment_close(cs.young);
			cs.young = segment_open();
			TAILQ_INSERT_TAIL(&cs.age, cs.young, order);
		} else if (clean()) {
			kmutex_unlock(&compress_lock);	/* enough for now: others may want it */
			kmutex_lock(&compress_lock);
		} else {
			return NULL;
		}
	}
	b = append(cs.young, len);
	blob_pin(b);
	return b;
}

void
blob_publish(struct blob *b, struct compress_leaf *leaf, uint32_t page)
{
	b->leaf = leaf;
	b->page = (uint16_t)page;
	leaf->at[page].blob = b;
}

void
blob_free(struct blob *b)
{
	b->leaf = NULL;
	add_live(segment_of(b), -(int32_t)blob_size(b->len));
}

void
segment_pin(struct segment *s)
{
	s->pins++;
}

void
segment_unpin(struct segment *s)
{
	KASSERT(s->pins > 0);
	s->pins--;
	(void)free_if_empty(s);
}

void
blob_pin(struct blob *b)
{
	segment_pin(segment_of(b));
}

void
blob_unpin(struct blob *b)
{
	segment_unpin(segment_of(b));
}

struct segment *
store_oldest(void)
{
	struct segment *s;

	TAILQ_FOREACH(s, &cs.age, order)
		if (s->live != 0 && s != cs.young)
			break;
	if (s != NULL && s == cs.aged) {
		cs.aged = NULL;
		segment_close(s);
	}
	return s;
}

void
segment_make_young(struct segment *s)
{
	if (s->state != CLOSED)
		return;
	TAILQ_REMOVE(&cs.age, s, order);
	TAILQ_INSERT_TAIL(&cs.age, s, order);
}

struct blob *
segment_next(const struct segment *s, const struct blob *b)
{
	char *at = segment_base(s), *end = at + s->fill;

	if (b != NULL)
		at = (char *)(uintptr_t)b + blob_size(b->len);
	for (; at < end; at += blob_size(((struct blob *)(void *)at)->len))
		if (((struct blob *)(void *)at)->leaf != NULL)
			return (struct blob *)(void *)at;
	return NULL;
}

/*
 * Any one wrong word changes the sum: each step is a bijection of the lane, and of the word.  Two lanes,
 * so that their multiplications overlap.
 */
static uint32_t
checksum(const struct blob *b)
{
	const uint64_t *w = (const uint64_t *)(const void *)b->bytes;
	uint64_t even = b->len, odd = 0;
	uint32_t n = padded(b->len) / sizeof(*w), i;

	for (i = 0; i + 1 < n; i += 2) {
		even = (even ^ w[i]) * UINT64_C(0x9e3779b97f4a7c15);
		even ^= even >> 32;
		odd = (odd ^ w[i + 1]) * UINT64_C(0xd6e8feb86659fd93);
		odd ^= odd >> 32;
	}
	if (i < n)
		even = (even ^ w[i]) * UINT64_C(0x9e3779b97f4a7c15);
	even = (even ^ odd >> 29 ^ odd << 35) * UINT64_C(0xbf58476d1ce4e5b9);
	return (uint32_t)(even ^ even >> 32);
}

void
blob_fill(struct blob *b, const void *bytes)
{
	memcpy(b->bytes, bytes, b->len);
	memset(b->bytes + b->len, 0, padded(b->len) - b->len);
	b->sum = checksum(b);
}

bool
blob_is_intact(const struct blob *b)
{
	return b->sum == checksum(b);
}

void
store_trim(void)
{
	bool given = true;

	kmutex_lock(&compress_lock);
	while (given && cs.ntouched > KEEP) {
		struct segment *s = TAILQ_FIRST(&cs.free);

		TAILQ_REMOVE(&cs.free, s, order);
		cs.nfree--;
		cs.ntouched--;
		kmutex_unlock(&compress_lock);
		given = sys_madvise(segment_base(s), SEGMENT_SIZE, MADV_DONTNEED) == 0;
		kmutex_lock(&compress_lock);
		s->touched = !given;
		if (given)
			TAILQ_INSERT_TAIL(&cs.free, s, order);
		else
			TAILQ_INSERT_HEAD(&cs.free, s, order);
		cs.nfree++;
		cs.ntouched += s->touched;
	}
	kmutex_unlock(&compress_lock);
}

void
store_counts(struct store_counts *c)
{
	c->limit = (uint64_t)cs.n * SEGMENT_SIZE;
	c->resident = (uint64_t)(cs.n - cs.nfree + cs.ntouched) * SEGMENT_SIZE;
	c->used = cs.used;
}

/* Its pages are small, so that what is given back is given back, and the limit is one. */
int
store_init(uint64_t size)
{
	uint64_t n = size / SEGMENT_SIZE;
	void *p;

	memset(&cs, 0, sizeof(cs));
	kmutex_init(&compress_lock, RANK_COMPRESS);
	if (n > SIZE_MAX / SEGMENT_SIZE || n > UINT32_MAX)
		return -ENOMEM;
	p = sys_mmap(NULL, (size_t)n * SEGMENT_SIZE, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (sys_is_err(p))
		return -ENOMEM;
	(void)sys_madvise(p, (size_t)n * SEGMENT_SIZE, MADV_NOHUGEPAGE);
	cs.segment = kmem_alloc((size_t)n * sizeof(cs.segment[0]));
	if (cs.segment == NULL) {
		(void)sys_munmap(p, (size_t)n * SEGMENT_SIZE);
		return -ENOMEM;
	}
	cs.base = p;
	cs.n = cs.nfree = (uint32_t)n;
	TAILQ_INIT(&cs.free);
	TAILQ_INIT(&cs.age);
	for (uint32_t i = 0; i <= BINS; i++)
		TAILQ_INIT(&cs.bin[i]);
	for (uint32_t i = 0; i < cs.n; i++)
		TAILQ_INSERT_TAIL(&cs.free, &cs.segment[i], order);
	return 0;
}

void
store_fini(void)
{
	KASSERT(cs.used == 0);
	kmem_free(cs.segment, cs.n * sizeof(cs.segment[0]));
	(void)sys_munmap(cs.base, (size_t)cs.n * SEGMENT_SIZE);
	memset(&cs, 0, sizeof(cs));
}

#ifdef VMF_TESTING
static uint32_t
length(const struct segment_list *list)
{
	const struct segment *s;
	uint32_t n = 0;

	TAILQ_FOREACH(s, list, order)
		n++;
	return n;
}

uint64_t
store_audit(void)
{
	uint64_t used = 0, blobs = 0;
	uint32_t touched = 0;

	for (uint32_t i = 0; i < cs.n; i++) {
		const struct segment *s = &cs.segment[i];
		const struct blob *b;
		uint32_t owned = 0;

		KASSERT_ALWAYS(s->live <= s->fill && s->fill <= SEGMENT_SIZE);
		KASSERT_ALWAYS((s->state == OPEN) == (s == cs.young || s == cs.aged));
		KASSERT_ALWAYS(s->state != FREE || s->fill == 0);
		for (b = segment_next(s, NULL); b != NULL; b = segment_next(s, b)) {
			KASSERT_ALWAYS(b->page < LEAF_PAGES && b->leaf->at[b->page].blob == b);
			owned += blob_size(b->len);
			blobs++;
		}
		/* What is being filled has no owner yet, but a pin. */
		KASSERT_ALWAYS(owned == s->live || (owned < s->live && s->pins != 0));
		used += s->live;
		touched += s->state == FREE && s->touched;
	}
	KASSERT_ALWAYS(used == cs.used);
	KASSERT_ALWAYS(length(&cs.free) == cs.nfree && touched == cs.ntouched);
	KASSERT_ALWAYS(length(&cs.free) + length(&cs.age) == cs.n);
	return blobs;
}

struct blob *
store_any_blob(void)
{
	const struct segment *s;
	struct blob *b = NULL;

	TAILQ_FOREACH(s, &cs.age, order)
		if ((b = segment_next(s, NULL)) != NULL)
			break;
	return b;
}
#endif
