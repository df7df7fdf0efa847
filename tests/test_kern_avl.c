/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/avl.c against a sorted array, the tree walked after each operation.
 */

#include "kern/avl.h"

#include <stdbool.h>

#include "kern/types.h"
#include "test_kern.h"

#define NODES	300

static struct avl tree;
static struct avl_node nodes[NODES], *sorted[NODES];
static size_t count;
static uint64_t seed;

static void
setup(void)
{
	seed = 7;
}

/* => the place of the first node with a key not below. */
static size_t
place_of(uintptr_t key)
{
	size_t i = 0;

	while (i < count && sorted[i]->key < key)
		i++;
	return (i);
}

static void
insert(struct avl_node *n)
{
	size_t at = place_of(n->key);

	memmove(&sorted[at + 1], &sorted[at], (count - at) * sizeof(sorted[0]));
	sorted[at] = n;
	count++;
	avl_insert(&tree, n);
}

static void
take(struct avl_node *n)
{
	size_t at = place_of(n->key);

	memmove(&sorted[at], &sorted[at + 1], (count - at - 1) * sizeof(sorted[0]));
	count--;
	avl_remove(&tree, n);
}

static void
compare_finds(uintptr_t key)
{
	size_t at = place_of(key);
	bool exact = at < count && sorted[at]->key == key;

	must(avl_find_ge(&tree, key) == (at < count ? sorted[at] : NULL));
	ck_assert_ptr_eq(avl_find_le(&tree, key),
	    exact ? sorted[at] : at > 0 ? sorted[at - 1] : NULL);
}

static void
compare_order(void)
{
	must(avl_first(&tree) == (count > 0 ? sorted[0] : NULL));
	for (size_t i = 0; i < count; i++) {
		must(avl_next(sorted[i]) == (i + 1 < count ? sorted[i + 1] : NULL));
		must(avl_prev(sorted[i]) == (i > 0 ? sorted[i - 1] : NULL));
	}
}

/* Keys of a small range, so that neighbours meet, or of the whole. */
START_TEST(random_operations_match_a_sorted_array)
{
	static const unsigned fill[] = { 50, 90, 10, 70, 0 };
	uintptr_t mask = _i == 0 ? 1023 : UINTPTR_MAX, key;
	bool in[NODES] = { false };

	for (size_t phase = 0; phase < nitems(fill); phase++)
		for (int op = 0; op < 4000; op++) {
			size_t i = rng(&seed) % NODES;

			key = (uintptr_t)(rng(&seed) * 0x9e3779b97f4a7c15) & mask;
			if (in[i] && rng(&seed) % 100 >= fill[phase]) {
				take(&nodes[i]);
				memset(&nodes[i], 0xa5, sizeof(nodes[i]));
				in[i] = false;
			} else if (!in[i] && rng(&seed) % 100 < fill[phase]) {
				if (place_of(key) < count && sorted[place_of(key)]->key == key)
					continue;
				nodes[i].key = key;
				insert(&nodes[i]);
				in[i] = true;
			}
			if (!avl_is_valid(&tree))
				ck_abort_msg("invalid after operation %d of phase %zu", op, phase);
			compare_finds(key);
			compare_finds(key + 1);
			if (op % 64 == 0)
				compare_order();
		}
	compare_order();
}
END_TEST

START_TEST(extreme_keys)
{
	compare_finds(0);
	compare_finds(UINTPTR_MAX);
	ck_assert_ptr_null(avl_first(&tree));
	ck_assert(avl_is_valid(&tree));
	nodes[0].key = UINTPTR_MAX;
	nodes[1].key = 0;
	nodes[2].key = UINTPTR_MAX / 2 + 1;	/* negative, were it signed */
	for (int i = 0; i < 3; i++) {
		insert(&nodes[i]);
		ck_assert(avl_is_valid(&tree));
		for (int k = 0; k < 3; k++) {
			compare_finds(nodes[k].key - 1);
			compare_finds(nodes[k].key);
			compare_finds(nodes[k].key + 1);
		}
		compare_order();
	}
	for (int i = 0; i < 3; i++) {
		take(&nodes[i]);
		ck_assert(avl_is_valid(&tree));
		compare_order();
	}
	ck_assert_ptr_null(tree.root);
}
END_TEST

static int
height(const struct avl_node *n)
{
	return (n == NULL ? 0 : MAX(height(n->child[0]), height(n->child[1])) + 1);
}

START_TEST(ascending_and_descending_stay_flat)
{
	for (size_t i = 0; i < NODES; i++) {
		nodes[i].key = _i == 0 ? i : NODES - i;
		insert(&nodes[i]);
		ck_assert(avl_is_valid(&tree));
	}
	ck_assert_int_eq(height(tree.root), 9);
	for (size_t i = 0; i < NODES; i++) {
		take(&nodes[i]);
		ck_assert(avl_is_valid(&tree));
	}
}
END_TEST

START_TEST(walker_finds_damage)
{
	struct avl_node *n, *parent;

	for (size_t i = 0; i < 20; i++) {
		nodes[i].key = 10 * i;
		insert(&nodes[i]);
	}
	for (size_t i = 0; i < 20; i++) {
		n = &nodes[i];
		n->balance++;
		ck_assert(!avl_is_valid(&tree));
		n->balance--;
		n->key += 11;
		ck_assert(i == 19 || !avl_is_valid(&tree));
		n->key -= 11;
		parent = n->parent;
		n->parent = n;
		ck_assert(!avl_is_valid(&tree));
		n->parent = parent;
		ck_assert(avl_is_valid(&tree));
	}
	/* A balance that tells the truth about a tree that is too deep. */
	memset(&tree, 0, sizeof(tree));
	memset(nodes, 0, 3 * sizeof(nodes[0]));
	for (size_t i = 0; i < 3; i++) {
		nodes[i].key = i;
		nodes[i].balance = 2 - (int)i;
		nodes[i].child[1] = i < 2 ? &nodes[i + 1] : NULL;
		nodes[i].parent = i > 0 ? &nodes[i - 1] : NULL;
	}
	tree.root = &nodes[0];
	ck_assert(!avl_is_valid(&tree));
	/* A circle. */
	nodes[2].child[1] = &nodes[0];
	nodes[0].parent = &nodes[2];
	ck_assert(!avl_is_valid(&tree));
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/avl");
	TCase *tc = tcase_create("avl");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, random_operations_match_a_sorted_array, 0, 2);
	tcase_add_test(tc, extreme_keys);
	tcase_add_loop_test(tc, ascending_and_descending_stay_flat, 0, 2);
	tcase_add_test(tc, walker_finds_damage);
	suite_add_tcase(s, tc);
	return (run_suite(s));
}
