/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/radix.c against a plain array: the indices are a sorted pool with
 * dense runs around every power of 64, and both ends of the range.
 */

#include "kern/radix.h"

#include <errno.h>
#include <stdbool.h>

#include "kern/assert.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "kern/types.h"
#include "test_kern.h"

#define POOL_MAX	4096

static uint32_t pool[POOL_MAX];		/* ascending, no two alike */
static void *entry[POOL_MAX];		/* what the tree has there */
static size_t pool_size;
static struct radix tree;
static uint64_t seed;

static int
compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return ((x > y) - (x < y));
}

static void
setup(void)
{
	size_t n = 0, i;

	seed = 42;
	for (int shift = 0; shift <= 30; shift += 6)
		for (uint32_t d = 0; d < 100; d++)
			pool[n++] = (UINT32_C(1) << shift) + d - 50;
	for (uint32_t d = 0; d < 200; d++) {
		pool[n++] = d;
		pool[n++] = UINT32_MAX - d;
	}
	while (n < POOL_MAX)
		pool[n++] = (uint32_t)rng(&seed);
	qsort(pool, n, sizeof(pool[0]), compare);
	for (i = pool_size = 0; i < n; i++)
		if (i == 0 || pool[i] != pool[pool_size - 1])
			pool[pool_size++] = pool[i];
	ck_assert_uint_eq(pool[0], 0);
	ck_assert_uint_eq(pool[pool_size - 1], UINT32_MAX);
	radix_sysinit();
}

static void
teardown(void)
{
	sys_inject = NULL;
	for (size_t i = 0; i < pool_size; i++)
		ck_assert_ptr_eq(radix_remove(&tree, pool[i]), entry[i]);
	ck_assert_ptr_null(tree.root);
	ck_assert_uint_eq(tree.count, 0);
	ck_assert_uint_eq(tree.height, 0);
	radix_sysfini();		/* panics where a node was leaked */
	ck_assert_uint_eq(kmem_bytes(), 0);
}

/* The whole tree is what the array says, and no higher than it must be. */
static void
compare_all(void)
{
	uint32_t at = 0, count = 0, height = 0, max = 0;

	for (size_t i = 0; i < pool_size; i++) {
		must(radix_lookup(&tree, pool[i]) == entry[i]);
		if (entry[i] == NULL)
			continue;
		must(radix_next(&tree, &at) == entry[i]);
		must(at == pool[i]);
		max = at++;
		count++;
	}
	/* After the last one: at wraps to 0 where that was UINT32_MAX. */
	if (count > 0 && at != 0)
		must(radix_next(&tree, &at) == NULL);
	must(tree.count == count);
	for (; count > 0 && (height == 0 || (uint64_t)max >> (6 * height) != 0); height++)
		;
	must(tree.height == height);
}

/* => the entry at or after any index, by the array. */
static void *
next_by_array(uint32_t *index)
{
	for (size_t i = 0; i < pool_size; i++)
		if (pool[i] >= *index && entry[i] != NULL) {
			*index = pool[i];
			return (entry[i]);
		}
	return (NULL);
}

static void
random_op(unsigned fill)
{
	size_t i = rng(&seed) % pool_size;
	uint32_t a, b;
	void *p;

	if (rng(&seed) % 100 < fill) {
		if (entry[i] == NULL) {
			p = (void *)(uintptr_t)(rng(&seed) | 1);
			must(radix_insert(&tree, pool[i], p) == 0);
			entry[i] = p;
		}
	} else {
		must(radix_remove(&tree, pool[i]) == entry[i]);
		entry[i] = NULL;
	}
	if (rng(&seed) % 16 == 0) {
		a = b = rng(&seed) % 2 == 0 ? pool[i] : (uint32_t)rng(&seed);
		must(radix_next(&tree, &a) == next_by_array(&b));
		must(a == b);
	}
}

START_TEST(random_operations_match_an_array)
{
	static const unsigned fill[] = { 50, 5, 95, 20, 80, 2 };

	for (size_t phase = 0; phase < nitems(fill); phase++)
		for (int i = 0; i < 10000; i++) {
			random_op(fill[phase]);
			if (i % 500 == 0)
				compare_all();
		}
}
END_TEST

START_TEST(one_entry_anywhere)
{
	uint32_t at;

	for (size_t i = 0; i < pool_size; i++) {
		must(radix_insert(&tree, pool[i], &tree) == 0);
		must(radix_lookup(&tree, pool[i]) == &tree);
		must(radix_lookup(&tree, pool[i] ^ 1) == NULL);
		must(radix_lookup(&tree, pool[i] ^ UINT32_C(0x80000000)) == NULL);
		at = 0;
		must(radix_next(&tree, &at) == &tree);
		must(at == pool[i]);
		must(radix_next(&tree, &at) == &tree);
		must(at == pool[i]);
		if (at++ != UINT32_MAX)
			must(radix_next(&tree, &at) == NULL);
		must(radix_remove(&tree, pool[i] ^ 1) == NULL);
		must(radix_remove(&tree, pool[i]) == &tree);
		must(radix_remove(&tree, pool[i]) == NULL);
		must(tree.height == 0);
	}
}
END_TEST

START_TEST(next_of_none_leaves_the_index)
{
	uint32_t at = 77;

	ck_assert_ptr_null(radix_next(&tree, &at));
	ck_assert_uint_eq(at, 77);
	ck_assert_int_eq(radix_insert(&tree, 76, &tree), 0);
	ck_assert_ptr_null(radix_next(&tree, &at));
	ck_assert_uint_eq(at, 77);
	ck_assert_ptr_eq(radix_remove(&tree, 76), &tree);
}
END_TEST

/* Four entries, a thousand million apart: a walk that visits what is empty would not end. */
START_TEST(next_skips_what_is_empty)
{
	uint32_t at;

	for (uint32_t i = 0; i < 4; i++)
		must(radix_insert(&tree, i << 30 | 12345, &tree) == 0);
	for (int round = 0; round < 100000; round++) {
		at = 0;
		for (uint32_t i = 0; i < 4; i++, at++) {
			must(radix_next(&tree, &at) == &tree);
			if (at != (i << 30 | 12345))
				ck_abort_msg("found %#x", at);
		}
	}
	for (uint32_t i = 0; i < 4; i++)
		must(radix_remove(&tree, i << 30 | 12345) == &tree);
}
END_TEST

START_TEST(dense_tree_is_small)
{
	uint32_t pages = 1 << 18;

	for (uint32_t i = 0; i < pages; i++)
		must(radix_insert(&tree, i, &tree) == 0);
	/* 8.2 bytes a page on a machine of 64 bits, and the rest of a chunk. */
	ck_assert_uint_le(kmem_bytes(), pages * sizeof(void *) * 103 / 100 + (2 << 20));
	for (uint32_t i = 0; i < pages; i++)
		must(radix_remove(&tree, i) == &tree);
}
END_TEST

static int
refuse(enum sys_call which)
{
	return (which == SYS_CALL_MMAP ? -ENOMEM : 0);
}

/* With few nodes left an insertion fails at each of its steps sooner or later. */
START_TEST(insertion_without_memory_changes_nothing)
{
	struct radix_node *root;
	uint32_t height;
	int failed = 0, e;
	size_t i;

	for (int op = 0; op < 200; op++)
		random_op(60);
	sys_inject = refuse;
	for (int op = 0; op < 60000; op++) {
		/* Drift between nearly empty and as full as it goes. */
		bool grow = rng(&seed) % 100 < ((op / 3000) % 2 == 0 ? 80 : 20);

		i = rng(&seed) % pool_size;
		if (!grow) {
			must(radix_remove(&tree, pool[i]) == entry[i]);
			entry[i] = NULL;
		} else if (entry[i] == NULL) {
			root = tree.root;
			height = tree.height;
			e = radix_insert(&tree, pool[i], &pool[i]);
			if (e == 0) {
				entry[i] = &pool[i];
				continue;
			}
			must(e == -ENOMEM);
			must(tree.root == root);
			must(tree.height == height);
			if (failed++ % 50 == 0)
				compare_all();
		}
	}
	ck_assert_int_gt(failed, 100);
	compare_all();
}
END_TEST

START_TEST(tree_is_no_higher_than_it_must_be)
{
	ck_assert_int_eq(radix_insert(&tree, 5, &pool[5]), 0);
	for (int shift = 6; shift <= 30; shift += 6) {
		ck_assert_int_eq(radix_insert(&tree, UINT32_C(1) << shift, &tree), 0);
		ck_assert_uint_eq(tree.height, (uint32_t)shift / 6 + 1);
		ck_assert_ptr_eq(radix_lookup(&tree, 5), &pool[5]);
		ck_assert_ptr_eq(radix_remove(&tree, UINT32_C(1) << shift), &tree);
		ck_assert_uint_eq(tree.height, 1);
	}
	ck_assert_ptr_eq(radix_remove(&tree, 5), &pool[5]);
}
END_TEST

/* From height 1 the last index needs five roots and a path of five: nine are not enough. */
START_TEST(growth_without_memory_changes_nothing)
{
	struct radix filler = { .root = NULL };
	struct radix_node *root;
	uint32_t leaves = 0, available = 0;

	ck_assert_int_eq(radix_insert(&tree, 5, &tree), 0);
	root = tree.root;
	while (leaves < 30 || sys_inject != NULL) {
		if (radix_insert(&filler, leaves << 6, &filler) != 0)
			break;
		if (++leaves == 30)
			sys_inject = refuse;
	}
	for (; radix_insert(&tree, UINT32_MAX, &tree) != 0; available++) {
		must(tree.root == root && tree.height == 1 && tree.count == 1);
		must(radix_lookup(&tree, 5) == &tree);
		must(radix_lookup(&tree, UINT32_MAX) == NULL);
		must(radix_remove(&filler, --leaves << 6) == &filler);
	}
	/* A removal may free a node above the leaf too. */
	ck_assert_uint_ge(available, 9);
	ck_assert_uint_le(available, 10);
	ck_assert_ptr_eq(radix_remove(&tree, UINT32_MAX), &tree);
	ck_assert_ptr_eq(tree.root, root);
	ck_assert_ptr_eq(radix_remove(&tree, 5), &tree);
	while (leaves > 0)
		must(radix_remove(&filler, --leaves << 6) == &filler);
}
END_TEST

static void
insert_twice(void)
{
	if (radix_insert(&tree, 5, &tree) == 0)
		(void)radix_insert(&tree, 5, &tree);
}

START_TEST(insertion_over_another_panics)
{
	ck_assert_panics(insert_twice, "radix.c", "not so");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/radix");
	TCase *tc = tcase_create("radix");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, random_operations_match_an_array);
	tcase_add_test(tc, one_entry_anywhere);
	tcase_add_test(tc, next_of_none_leaves_the_index);
	tcase_add_test(tc, next_skips_what_is_empty);
	tcase_add_test(tc, dense_tree_is_small);
	tcase_add_test(tc, insertion_without_memory_changes_nothing);
	tcase_add_test(tc, tree_is_no_higher_than_it_must_be);
	tcase_add_test(tc, growth_without_memory_changes_nothing);
	tcase_add_test(tc, insertion_over_another_panics);
	suite_add_tcase(s, tc);
	return (run_suite(s));
}
