/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Items of one size, cut from chunks.
 *
 *	chunk:	| header | item | item | item | never used ...  |
 *	          64 bytes              bump ^         bump_end ^
 *
 * An item comes from the list of freed ones, or else from where the newest
 * chunk was never used, or else a chunk is added: 64 KB, then 256 KB, then
 * 1 MB, then 2 MB ever after, in huge pages (arena.c), so that a small program stays
 * small and a large one makes few mappings.
 * A fresh chunk is zeroed by the kernel and takes memory as it is touched; only items that were used before need to be cleared here.
 *
 * Poison (assertions of level 2): the first word of a freed item is the link
 * of the list, the rest is filled with a byte.  Who finds another byte when
 * the item is given out has found a write after free; who finds nothing but
 * that byte when it is freed has a reason to look for it in the list.
 */

#include "kern/slab.h"

#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "kern/arena.h"
#include "kern/assert.h"
#include "kern/sys.h"
#include "kern/types.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN	1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN	1
#endif
#endif

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#define asan_hide(p, n)	ASAN_POISON_MEMORY_REGION(p, n)
#define asan_show(p, n)	ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define asan_hide(p, n)	((void)0)
#define asan_show(p, n)	((void)0)
#endif

#define CHUNK_HEADER	64
#define CHUNK_FIRST	(64u << 10)
#define CHUNK_MAX	(1u << 20)	/* of small pages */
#define HUGE_FROM	(1u << 20)	/* bytes of a slab: what is small stays so */
#define SPARES		16

struct chunk {
	struct chunk *next;
	size_t size;
};

struct item {
	struct item *next;
	unsigned char rest[];
};

static _Atomic size_t kmem_total;

/*
 * Single pages that were freed: what a call needs for its own time costs no system calls then.  They do not
 * count as taken.
 */
static void *_Atomic spare[SPARES];

#if VMF_ASSERTIONS >= 2
#define POISON		0xd5
#define poison(p)	memset(p, POISON, PAGE_SIZE)

static void
check_poison(const unsigned char *p)
{
	for (size_t i = 0; i < PAGE_SIZE; i++)
		if (p[i] != POISON)
			kpanic("page %p was written after it was freed, at offset %zu: 0x%x",
			    (const void *)p, i, p[i]);
}

static void
check_not_spare(const void *p)
{
	for (size_t i = 0; i < SPARES; i++)
		if (atomic_load(&spare[i]) == p)
			kpanic("page %p is freed twice", p);
}
#else
#define poison(p)		((void)0)
#define check_poison(p)		((void)0)
#define check_not_spare(p)	((void)0)
#endif

static void *
spare_take(void)
{
	void *p = NULL;

	for (size_t i = 0; i < SPARES && p == NULL; i++)
		if (atomic_load_explicit(&spare[i], memory_order_relaxed) != NULL)
			p = atomic_exchange_explicit(&spare[i], NULL, memory_order_acquire);
	if (p != NULL) {
		asan_show(p, PAGE_SIZE);
		check_poison(p);
		memset(p, 0, PAGE_SIZE);
	}
	return (p);
}

/* => false: there are enough */
static bool
spare_give(void *p)
{
	check_not_spare(p);
	poison(p);
	asan_hide(p, PAGE_SIZE);
	for (size_t i = 0; i < SPARES; i++) {
		void *none = NULL;

		if (atomic_compare_exchange_strong_explicit(&spare[i], &none, p, memory_order_release,
		    memory_order_relaxed))
			return (true);
	}
	asan_show(p, PAGE_SIZE);
	return (false);
}

void
kmem_trim(void)
{
	for (size_t i = 0; i < SPARES; i++) {
		void *p = atomic_exchange_explicit(&spare[i], NULL, memory_order_acquire);

		if (p == NULL)
			continue;
		asan_show(p, PAGE_SIZE);
		(void)sys_munmap(p, PAGE_SIZE);
	}
}

void *
kmem_alloc(size_t size)
{
	void *p;

	size = round_page(size);
	if (size == 0)		/* it wrapped around */
		return (NULL);
	p = size == PAGE_SIZE ? spare_take() : NULL;
	if (p == NULL) {
		p = sys_mmap(NULL, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (sys_is_err(p))
			return (NULL);
	}
	atomic_fetch_add_explicit(&kmem_total, size, memory_order_acquire);
	return (p);
}

/*
 * Where the kernel cannot split a mapping for want of one, the memory stays, and counted.
 *
 * The kernel orders an munmap() before an mmap() that gets the same addresses.  The sanitizers do not
 * know that; the counter's order tells them.
 */
void
kmem_free(void *p, size_t size)
{
	size = round_page(size);
	atomic_fetch_sub_explicit(&kmem_total, size, memory_order_release);
	if (size == PAGE_SIZE && spare_give(p))
		return;
	if (sys_munmap(p, size) != 0)
		atomic_fetch_add_explicit(&kmem_total, size, memory_order_relaxed);
}

uint64_t
kmem_bytes(void)
{
	return (atomic_load_explicit(&kmem_total, memory_order_relaxed));
}

#if VMF_ASSERTIONS >= 2
/* Where a freed item was written to, after its link; or its size. */
static size_t
damage(const struct slab *s, const struct item *it)
{
	size_t i = 0;

	while (i < s->size - sizeof(*it) && it->rest[i] == POISON)
		i++;
	return (i + sizeof(*it));
}

static bool
is_item(const struct slab *s, const struct item *it)
{
	const char *p = (const char *)it;
	const struct chunk *c;

	for (c = s->chunks; c != NULL; c = c->next)
		if (p >= (const char *)c + CHUNK_HEADER && p < (const char *)c + c->size)
			return ((size_t)(p - (const char *)c - CHUNK_HEADER) % s->size == 0);
	return (false);
}

static bool
is_free(const struct slab *s, const struct item *it)
{
	const struct item *f;

	for (f = s->free; f != NULL && f != it; f = f->next)
		;
	return (f != NULL);
}

static void
check_alloc(const struct slab *s, const struct item *it)
{
	size_t at = damage(s, it);

	if (at < s->size)
		kpanic("slab %s: item %p was written after it was freed, at offset %zu: 0x%x", s->name,
		    (const void *)it, at, *((const unsigned char *)it + at));
}

static void
check_free(const struct slab *s, struct item *it)
{
	if (!is_item(s, it))
		kpanic("slab %s: %p is not an item", s->name, (void *)it);
	if (s->size > sizeof(*it)) {
		if (damage(s, it) == s->size && is_free(s, it))
			kpanic("slab %s: item %p is freed twice", s->name, (void *)it);
		memset(it->rest, POISON, s->size - sizeof(*it));
	}
}
#else
#define check_alloc(s, it)	((void)0)
#define check_free(s, it)	((void)0)
#endif

void
slab_init(struct slab *s, const char *name, size_t size, size_t align)
{
	KASSERT(size > 0 && align > 0 && align <= 64 && (align & (align - 1)) == 0);
	align = MAX(align, _Alignof(struct item));
	size = (MAX(size, sizeof(struct item)) + align - 1) & ~(align - 1);
	KASSERT(size <= CHUNK_MAX);

	memset(s, 0, sizeof(*s));
	kmutex_init(&s->lock, RANK_SLAB);
	s->name = name;
	s->size = (uint32_t)size;
	s->chunk = (uint32_t)round_page(MAX(CHUNK_FIRST, CHUNK_HEADER + 8 * size));
}

/* => the slab is locked; what was left of the newest chunk is smaller than an item. */
static bool
slab_grow(struct slab *s)
{
	struct chunk *c = s->chunk == ARENA_CHUNK ? arena_alloc() : NULL;
	size_t size = c != NULL ? ARENA_CHUNK : MIN(s->chunk, CHUNK_MAX);

	if (c != NULL)
		atomic_fetch_add_explicit(&kmem_total, size, memory_order_relaxed);
	else
		c = kmem_alloc(size);
	if (c == NULL)
		return (false);
	c->next = s->chunks;
	c->size = size;
	s->chunks = c;
	s->bytes += size;
	s->bump = (char *)c + CHUNK_HEADER;
	s->bump_end = (char *)c + size;
	asan_hide(s->bump, (size_t)(s->bump_end - s->bump));
	s->chunk = s->chunk < CHUNK_MAX ? MIN(4 * s->chunk, CHUNK_MAX) : s->bytes < HUGE_FROM ? CHUNK_MAX : (uint32_t)ARENA_CHUNK;
	return (true);
}

void *
slab_alloc(struct slab *s)
{
	struct item *it;
	bool used;

	kmutex_lock(&s->lock);
	it = s->free;
	used = it != NULL;
	if (used) {
		asan_show(it, s->size);
		s->free = it->next;
	} else {
		if ((size_t)(s->bump_end - s->bump) < s->size && !slab_grow(s)) {
			kmutex_unlock(&s->lock);
			return (NULL);
		}
		it = (void *)s->bump;
		asan_show(it, s->size);
		s->bump += s->size;
	}
	s->used++;
	kmutex_unlock(&s->lock);

	if (used) {
		check_alloc(s, it);
		memset(it, 0, s->size);
	}
	return (it);
}

void
slab_free(struct slab *s, void *p)
{
	struct item *it = p;

	kmutex_lock(&s->lock);
	KASSERT(s->used > 0);
	check_free(s, it);
	it->next = s->free;
	s->free = it;
	s->used--;
	asan_hide(it->rest, s->size - sizeof(*it));
	kmutex_unlock(&s->lock);
}

void
slab_fini(struct slab *s)
{
	struct chunk *c, *next;
	size_t size;

	KASSERT(s->used == 0);
	for (c = s->chunks; c != NULL; c = next) {
		next = c->next;
		asan_show(c, c->size);
		size = c->size;
		if (arena_free(c))
			atomic_fetch_sub_explicit(&kmem_total, size, memory_order_relaxed);
		else
			kmem_free(c, size);
	}
	s->chunks = s->free = NULL;
	s->bump = s->bump_end = NULL;
	s->bytes = 0;
}
