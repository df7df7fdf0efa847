/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Leaves that are copied as a whole when a process writes while a forked child sees its frames (vm_own.c): many of their pages have
 * left the row, or are missing, or some of a view were held.
 *
 * Each is done by a parent, by its child, whose frames are inherited, and by a child's child; and every one of them
 * knows all its bytes.  When the others are gone it all comes home, and mappings are as few as before.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "leaves.h"
#include "physmem.h"
#include "vm_pageout.h"

enum { OWN = 16 };		/* so many pages of a leaf are written: it gets frames as a whole */

/*
 * A leaf as a whole
 */

static uint64_t
is_frozen(size_t l)
{
	uint64_t left = statistics().v_unfrozen;

	/* Before what was copied is written over. */
	check_all();
	audit();
	for (size_t k = 0; k < LEAF; k++)
		put(l * LEAF + k);
	return statistics().v_unfrozen - left;
}

/* Pages of views are held, as for system calls: the leaf is ours then, and no view is opened there. */
static void
hold(void)
{
	uint64_t left, views;

	for (size_t l = 0; l < LEAVES && pmap_has_views(); l++) {
		char *held = mem + (l * LEAF + LEAF / 2) * PG;

		views = statistics().v_views;
		put(l * LEAF);
		expect(statistics().v_views, views + 1);
		left = statistics().v_unfrozen;
		expect(vmf_fault_in(held, PG, VMF_PROT_WRITE), 0);
		expect(statistics().v_unfrozen, left + LEAF - 1);	/* the one that was in the view has come home */
		put(l * LEAF + LEAF / 2);
		expect(is_frozen(l), 0);
		expect(vmf_fault_release(held, PG), 0);
		put_some(l);
		expect(statistics().v_views, views + 1);
	}
	check_all();
	audit();
}

static void
hold_again(void)
{
	struct kin k;

	hold();
	k = child(NULL);
	see(&k);
	put_all();
	check_all();
	let_go(&k);
}

START_TEST(leaves_of_which_pages_were_held_are_copied_whole)
{
	static void (*const whats[])(void) = { NULL, hold, hold_again };
	uint64_t few, views;
	struct kin k;

	begin_leaves(0);
	put_all();
	few = mappings();
	k = child(whats[_i]);
	see(&k);
	hold();
	let_go(&k);
	rest();
	come_home(few);
	/* It is remembered: the next time no view is opened, and the leaf is copied at its first write. */
	k = child(NULL);
	views = statistics().v_views;
	for (size_t l = 0; l < LEAVES && pmap_has_views(); l++) {
		uint64_t left = statistics().v_unfrozen;

		put(l * LEAF + 1);
		expect(statistics().v_unfrozen, left + LEAF);
		expect(is_frozen(l), 0);
	}
	expect(statistics().v_views, views);
	see(&k);
	let_go(&k);
	come_home(few);
	end_leaves();
}
END_TEST

/* Page after page of leaves that lack every fourth one. */
static void
write_on(void)
{
	bool first = fresh;
	uint64_t views = statistics().v_views, left;

	for (size_t l = 0; l < LEAVES; l++) {
		left = statistics().v_unfrozen;
		for (size_t k = 0; k < LEAF; k++) {
			if (k % 4 == 3)
				continue;
			put(l * LEAF + k);
			if (first && LEAF > 2 * OWN && k == 2 * OWN) {
				expect(statistics().v_unfrozen, left + LEAF / 4 * 3);
				check_all();
				audit();
			}
		}
		if (first)
			expect(statistics().v_unfrozen, left + LEAF / 4 * 3);
	}
	fresh = false;
	expect(statistics().v_views, views);
	check_all();
	audit();
}

static void
write_on_again(void)
{
	struct kin k;

	write_on();
	k = child(write_on);
	see(&k);
	write_on();
	let_go(&k);
	check_missing();
}

START_TEST(leaves_with_missing_pages_are_copied_whole)
{
	static void (*const whats[])(void) = { NULL, write_on, write_on_again };
	struct kin k;

	begin_leaves(0);
	expect(vmf_advise(mem, N * PG, VMF_ADVICE_RANDOM), 0);
	for (size_t i = 0; i < N; i++)
		if (i % 4 != 3)
			put(i);
	fresh = true;
	k = child(whats[_i]);
	see(&k);
	write_on();
	let_go(&k);
	check_all();
	check_missing();
	audit();
	end_leaves();
}
END_TEST

/*
 * The last frame
 */

static vm_pfn_t hoard[16 * LEAF + 64];
static _Atomic size_t nhoard;
static _Atomic bool written;

/* Others are faster: there is none left for the page that is being written. */
static void
take_all(const char *place)
{
	if (strcmp(place, "vm_own: unmapped") != 0)
		return;
	probe_hook = NULL;
	while (nhoard < nitems(hoard) && (hoard[nhoard] = physmem_alloc(0, PHYSMEM_OVERWRITE)) != 0)
		nhoard++;
}

/* When he waits for one, or has written without, they go back. */
static void *
give_back(void *arg)
{
	const struct vmf_stats *before = arg;

	while (!written && statistics().v_frame_waits == before->v_frame_waits)
		usleep(1000);
	while (nhoard > 0)
		physmem_free(hoard[--nhoard]);
	return NULL;
}

/* What the child sees is written by nobody, even if there is no frame. */
START_TEST(who_writes_waits_for_a_frame)
{
	struct vmf_stats before;
	uint64_t few;
	pthread_t giver;
	struct kin k;

	begin_leaves(N + 12 * LEAF + 64);
	put_all();
	few = mappings();
	k = child(NULL);
	see(&k);
	hold();
	let_go(&k);
	come_home(few);
	k = child(NULL);
	before = statistics();
	expect(pthread_create(&giver, NULL, give_back, &before), 0);
	/* Who would say that there is no hope. */
	vm_pageout_hold();
	probe_hook = take_all;
	put(2);
	written = true;
	expect(pthread_join(giver, NULL), 0);
	check(pmap_has_views() == (hoard[0] != 0));
	vm_pageout_go_on();
	check_all();
	see(&k);
	let_go(&k);
	check_all();
	audit();
	end_leaves();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("fork/own");
	TCase *t = tcase_create("leaves after a fork");

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, leaves_of_which_pages_were_held_are_copied_whole, 0, 3);
	tcase_add_loop_test(t, leaves_with_missing_pages_are_copied_whole, 0, 3);
	tcase_add_test(t, who_writes_waits_for_a_frame);
	return run_suite(s);
}
