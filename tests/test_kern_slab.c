/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/slab.c: items are zeroed, aligned and apart, memory is used again,
 * counted and given back, and misuse is found.
 */

#include "kern/slab.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "kern/assert.h"
#include "kern/sys.h"
#include "kern/types.h"
#include "test_kern.h"

#define ITEMS	3000
#define THREADS	4

static struct slab slab;
static uint64_t before;
static _Atomic int failures;

static const struct {
	size_t size, align;
} shapes[] = {
	{ 1, 1 }, { 8, 8 }, { 24, 8 }, { 40, 64 }, { 64, 64 }, { 100, 4 }, { 520, 8 }, { 5000, 16 },
	{ 100000, 64 },
};

static void
setup(void)
{
	before = kmem_bytes();
}

/* All of it is back. */
static void
teardown(void)
{
	ck_assert_uint_eq(kmem_bytes(), before);
}

static bool
is_filled(const unsigned char *p, size_t size, unsigned char with)
{
	for (size_t i = 0; i < size; i++)
		if (p[i] != with)
			return (false);
	return (true);
}

START_TEST(items_are_zeroed_aligned_and_apart)
{
	size_t size = shapes[_i].size, n = MIN((size_t)ITEMS, (8u << 20) / size);
	unsigned char **p = calloc(n, sizeof(*p));
	uint64_t seed = (uint64_t)_i + 1;

	slab_init(&slab, "shapes", size, shapes[_i].align);
	must(slab.bytes == 0);
	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < n; i++) {
			if (p[i] != NULL)
				continue;
			must((p[i] = slab_alloc(&slab)) != NULL);
			must((uintptr_t)p[i] % shapes[_i].align == 0);
			must(is_filled(p[i], size, 0));
			memset(p[i], (int)(i % 255 + 1), size);
		}
		must(slab.used == n);
		for (size_t i = 0; i < n; i++) {
			must(is_filled(p[i], size, (unsigned char)(i % 255 + 1)));
			if (rng(&seed) % 2 == 0) {
				slab_free(&slab, p[i]);
				p[i] = NULL;
			}
		}
	}
	for (size_t i = 0; i < n; i++)
		if (p[i] != NULL)
			slab_free(&slab, p[i]);
	must(slab.used == 0);
	slab_fini(&slab);
	free(p);
}
END_TEST

START_TEST(freed_items_are_used_again)
{
	void *p[100];
	uint64_t bytes;

	slab_init(&slab, "again", 1000, 8);
	for (int i = 0; i < 100; i++)
		must((p[i] = slab_alloc(&slab)) != NULL);
	bytes = slab.bytes;
	must(kmem_bytes() == before + bytes);
	for (int round = 0; round < 1000; round++) {
		slab_free(&slab, p[round % 100]);
		ck_assert_ptr_nonnull(p[round % 100] = slab_alloc(&slab));
	}
	must(slab.bytes == bytes);
	for (int i = 0; i < 100; i++)
		slab_free(&slab, p[i]);
	slab_fini(&slab);
}
END_TEST

/* What one item costs, and what many items cost over their own size. */
START_TEST(small_use_is_small_and_large_use_is_dense)
{
	void **list = NULL, **p;

	slab_init(&slab, "growth", 64, 64);
	must((list = slab_alloc(&slab)) != NULL);
	ck_assert_uint_le(slab.bytes, 64 << 10);
	for (int i = 0; i < 200000; i++) {
		must((p = slab_alloc(&slab)) != NULL);
		*p = list;
		list = p;
	}
	ck_assert_uint_le(slab.bytes, slab.used * 64 + (2 << 20) + (1 << 14));
	for (; list != NULL; list = p) {
		p = *list;
		slab_free(&slab, list);
	}
	slab_fini(&slab);
	must(slab.bytes == 0);
	must((list = slab_alloc(&slab)) != NULL);	/* and it can start again */
	slab_free(&slab, list);
	slab_fini(&slab);
}
END_TEST

static int
refuse(enum sys_call which)
{
	return (which == SYS_CALL_MMAP ? -ENOMEM : 0);
}

START_TEST(no_memory_is_null_and_passes)
{
	void *first, *p;

	slab_init(&slab, "refused", 32, 8);
	sys_inject = refuse;
	ck_assert_ptr_null(kmem_alloc(1));
	ck_assert_ptr_null(slab_alloc(&slab));
	ck_assert_ptr_null(slab_alloc(&slab));
	ck_assert_uint_eq(slab.used, 0);
	ck_assert_uint_eq(kmem_bytes(), before);
	sys_inject = NULL;
	ck_assert_ptr_nonnull(first = slab_alloc(&slab));
	sys_inject = refuse;
	ck_assert_ptr_nonnull(p = slab_alloc(&slab));	/* there is a chunk now */
	slab_free(&slab, p);
	slab_free(&slab, first);
	slab_fini(&slab);
}
END_TEST

START_TEST(kmem_is_whole_zeroed_pages)
{
	unsigned char *p = kmem_alloc(5000), *q = kmem_alloc(1);

	ck_assert(p != NULL && q != NULL);
	ck_assert_uint_eq((uintptr_t)p % PAGE_SIZE, 0);
	ck_assert_uint_eq(kmem_bytes(), before + 3 * PAGE_SIZE);
	ck_assert(is_filled(p, 2 * PAGE_SIZE, 0));
	memset(p, 1, 2 * PAGE_SIZE);
	kmem_free(p, 5000);
	kmem_free(q, 1);
	ck_assert_ptr_null(kmem_alloc(SIZE_MAX));
	ck_assert_ptr_null(kmem_alloc(SIZE_MAX - 64 * PAGE_SIZE));
}
END_TEST

static void *
worker(void *arg)
{
	unsigned char *p[64] = { NULL }, self = (unsigned char)(uintptr_t)arg;
	uint64_t seed = self;

	for (int i = 0; i < 20000; i++) {
		size_t k = rng(&seed) % nitems(p);

		if (p[k] == NULL) {
			p[k] = slab_alloc(&slab);
			if (p[k] == NULL || !is_filled(p[k], 48, 0))
				failures++;
			else
				memset(p[k], self, 48);
		} else {
			if (!is_filled(p[k], 48, self))
				failures++;
			slab_free(&slab, p[k]);
			p[k] = NULL;
		}
	}
	for (size_t k = 0; k < nitems(p); k++)
		if (p[k] != NULL)
			slab_free(&slab, p[k]);
	return (NULL);
}

START_TEST(threads_get_different_items)
{
	pthread_t t[THREADS];

	slab_init(&slab, "threads", 48, 8);
	for (uintptr_t i = 0; i < THREADS; i++)
		t[i] = spawn(worker, (void *)(i + 1));
	for (int i = 0; i < THREADS; i++)
		join(t[i]);
	ck_assert_int_eq(failures, 0);
	slab_fini(&slab);
}
END_TEST

static void
free_inside(void)
{
	char *p = slab_alloc(&slab);

	slab_free(&slab, p + 8);
}

static void
free_foreign(void)
{
	static char mine[64];

	(void)slab_alloc(&slab);
	slab_free(&slab, mine);
}

static void
fini_with_items(void)
{
	(void)slab_alloc(&slab);
	slab_fini(&slab);
}

#ifndef WITH_ASAN
static void
free_twice(void)
{
	char *p = slab_alloc(&slab), *q = slab_alloc(&slab);

	slab_free(&slab, p);
	if (q != NULL)
		slab_free(&slab, p);
}

static void
write_after_free(void)
{
	char *p = slab_alloc(&slab);

	slab_free(&slab, p);
	p[63] = 1;
	(void)slab_alloc(&slab);
}
#endif

/* Pages that were freed are given out again without a system call, zeroed; until they are given back. */
START_TEST(freed_pages_are_kept_for_a_while)
{
	unsigned char *p[64], *q;
	unsigned n;

	for (n = 0; n < nitems(p); n++) {
		p[n] = kmem_alloc(PAGE_SIZE);
		memset(p[n], 0xff, PAGE_SIZE);
	}
	while (n-- > 0)
		kmem_free(p[n], PAGE_SIZE);
	sys_inject = refuse;
	for (n = 0; n < nitems(p) && (p[n] = kmem_alloc(1)) != NULL; n++)
		ck_assert(is_filled(p[n], PAGE_SIZE, 0));
	ck_assert_uint_gt(n, 4);
	ck_assert_uint_lt(n, nitems(p));
	ck_assert_uint_eq(kmem_bytes(), before + n * PAGE_SIZE);
	sys_inject = NULL;
	while (n-- > 0)
		kmem_free(p[n], PAGE_SIZE);
	kmem_trim();
	sys_inject = refuse;
	ck_assert_ptr_null(kmem_alloc(PAGE_SIZE));
	sys_inject = NULL;
	q = kmem_alloc(PAGE_SIZE);
	ck_assert(is_filled(q, PAGE_SIZE, 0));
	kmem_free(q, PAGE_SIZE);
}
END_TEST

#ifndef WITH_ASAN
static void
write_page_after_free(void)
{
	unsigned char *p = kmem_alloc(PAGE_SIZE);

	kmem_free(p, PAGE_SIZE);
	p[100] = 1;
	(void)kmem_alloc(PAGE_SIZE);
}

static void
free_page_twice(void)
{
	void *p = kmem_alloc(PAGE_SIZE);

	kmem_free(p, PAGE_SIZE);
	kmem_free(p, PAGE_SIZE);
}
#endif

START_TEST(misuse_panics)
{
	slab_init(&slab, "misused", 64, 8);
	ck_assert_panics(free_inside, "misused", "not an item");
	ck_assert_panics(free_foreign, "misused", "not an item");
	ck_assert_panics(fini_with_items, "slab.c", "used == 0");
#ifndef WITH_ASAN		/* which finds these itself, with more to say */
	ck_assert_panics(free_twice, "misused", "freed twice");
	ck_assert_panics(write_after_free, "misused", "after it was freed");
	ck_assert_panics(write_page_after_free, "page", "after it was freed");
	ck_assert_panics(free_page_twice, "page", "freed twice");
#endif
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/slab");
	TCase *tc = tcase_create("slab");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, items_are_zeroed_aligned_and_apart, 0, nitems(shapes));
	tcase_add_test(tc, freed_items_are_used_again);
	tcase_add_test(tc, small_use_is_small_and_large_use_is_dense);
	tcase_add_test(tc, no_memory_is_null_and_passes);
	tcase_add_test(tc, kmem_is_whole_zeroed_pages);
	tcase_add_test(tc, freed_pages_are_kept_for_a_while);
	tcase_add_test(tc, threads_get_different_items);
	suite_add_tcase(s, tc);
	tc = tcase_create("misuse");
	tcase_add_test(tc, misuse_panics);
	suite_add_tcase(s, tc);
	return (run_suite(s));
}
