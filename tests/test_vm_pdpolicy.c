/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The policies by themselves: pages that have no bytes, and a daemon of a few lines.  What
 * holds for each policy, and what the default one promises.
 */

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"
#include "vm_page.h"
#include "vm_pdpolicy.h"

enum { FRAMES = 1024, PAGES = 8 * FRAMES, HOT = FRAMES / 4, COLD = FRAMES / 8 };

static const struct vm_pdpolicy *const policies[] = { &vm_pdpolicy_clock, &vm_pdpolicy_warm };
static const struct vm_pdpolicy *policy;
static struct vm_page pages[PAGES];
static uint32_t frames, resident;
static uint64_t misses, soft, watched;

static void
begin(const struct vm_pdpolicy *p)
{
	policy = p;
	memset(pages, 0, sizeof(pages));
	for (vm_pindex_t i = 0; i < PAGES; i++) {
		pages[i].object = (void *)&pages;
		pages[i].pindex = i;
	}
	vm_page_active_count = vm_page_inactive_count = vm_page_wire_count = 0;
	misses = soft = watched = 0;
	resident = 0;
	frames = FRAMES;
	policy->init();
	policy->tune(FRAMES);
}

static void
end(void)
{
	for (vm_pindex_t i = 0; i < PAGES; i++)
		if (pages[i].queue != PQ_NONE)
			policy->dequeue(&pages[i]);
	check(vm_page_active_count == 0 && vm_page_inactive_count == 0);
	policy->fini();
}

static void
make_room(uint32_t want)
{
	struct vm_page *m;

	for (int pass = 0; frames < resident + want; pass++) {
		check(pass < 64);
		policy->begin(pass != 0);
		while ((m = policy->next_to_watch()) != NULL) {
			check(m->queue == PQ_ACTIVE);
			policy->watch(m);
			check(m->queue == PQ_INACTIVE);
			watched++;
		}
		while (frames < resident + want && (m = policy->next_victim()) != NULL) {
			check(m->queue == PQ_INACTIVE);
			policy->evict(m);
			check(m->queue == PQ_NONE);
			resident--;
		}
	}
	check(vm_page_active_count + vm_page_inactive_count == resident);
}

static void
touch(vm_pindex_t i)
{
	struct vm_page *m = &pages[i];

	if (m->queue == PQ_INACTIVE) {
		soft++;
		policy->touch(m);
	} else if (m->queue == PQ_NONE) {
		misses++;
		make_room(1);
		policy->enqueue(m);
		resident++;
	}
	check(m->queue == PQ_ACTIVE);
}

static uint32_t
count_resident(vm_pindex_t lo, vm_pindex_t hi)
{
	uint32_t n = 0;

	for (; lo < hi; lo++)
		n += pages[lo].queue != PQ_NONE;
	return n;
}

/*
 * Every policy
 */

START_TEST(every_page_can_be_had_and_is_counted)
{
	uint64_t seed = 3;

	begin(policies[_i]);
	for (int n = 0; n < 200000; n++) {
		struct vm_page *m = &pages[rng_next(&seed) % (2 * FRAMES)];

		switch (rng_next(&seed) % 16) {
		case 0:		/* wired, or unmapped */
			if (m->queue != PQ_NONE) {
				policy->dequeue(m);
				resident--;
			}
			break;
		case 1:
			if (m->queue != PQ_NONE) {
				policy->discard(m);
				check(m->queue == PQ_INACTIVE);
			}
			break;
		case 2:
			if (m->queue == PQ_INACTIVE) {
				policy->rewind(m);
				check(m->queue == PQ_ACTIVE);
			}
			break;
		default:
			touch(m->pindex);
		}
	}
	/* To the last page, if need be. */
	frames = resident;
	make_room(resident);
	check(resident == 0);
	end();
}
END_TEST

START_TEST(what_is_discarded_goes_next)
{
	begin(policies[_i]);
	for (vm_pindex_t i = 0; i < FRAMES; i++)
		touch(i);
	make_room(1);
	for (vm_pindex_t i = 500; i < 510; i++)
		policy->discard(&pages[i]);
	make_room(11);
	check(count_resident(500, 510) == 0);
	end();
}
END_TEST

START_TEST(what_is_touched_while_it_is_watched_stays)
{
	begin(policies[_i]);
	for (vm_pindex_t i = 0; i < PAGES; i++) {
		touch(i);
		for (vm_pindex_t k = 0; k < 8; k++)
			touch(k);
	}
	check(misses < PAGES + 16);
	end();
}
END_TEST

START_TEST(a_smaller_budget_is_kept)
{
	begin(policies[_i]);
	for (vm_pindex_t i = 0; i < 2 * FRAMES; i++)
		touch(i);
	frames = FRAMES / 8;
	policy->tune(frames);
	make_room(0);
	check(resident <= frames);
	for (vm_pindex_t i = 0; i < FRAMES; i++)
		touch(i);
	check(resident == frames);
	end();
}
END_TEST

/*
 * The default one
 */

START_TEST(a_scan_costs_the_hot_pages_nothing)
{
	begin(&vm_pdpolicy_warm);
	for (vm_pindex_t i = 0; i < HOT; i++)
		touch(i);
	for (vm_pindex_t i = HOT; i < PAGES; i++)
		touch(i);
	check(count_resident(0, HOT) == HOT);
	check(soft == 0);
	for (vm_pindex_t i = 0; i < HOT; i++)
		check(pages[i].queue == PQ_ACTIVE);
	end();
}
END_TEST

START_TEST(a_loop_larger_than_memory_hits)
{
	enum { LOOP = FRAMES * 5 / 4, ROUNDS = 20 };

	begin(&vm_pdpolicy_warm);
	for (int round = 0; round < ROUNDS; round++)
		for (vm_pindex_t i = 0; i < LOOP; i++)
			touch(i);
	/* What is hot hits, from the second round on. */
	check(misses <= LOOP + (ROUNDS - 1) * (LOOP - FRAMES + COLD + 1));
	end();
}
END_TEST

/* What comes back sooner than hot pages are used takes their place; the test of a claim is what they do meanwhile. */
START_TEST(what_comes_back_becomes_hot)
{
	enum { NEXT = FRAMES / 2, ROUNDS = 12 };
	bool in_use = _i;

	begin(&vm_pdpolicy_warm);
	for (vm_pindex_t i = 0; i < FRAMES; i++)
		touch(i);
	for (int round = 0; round < ROUNDS; round++) {
		misses = 0;
		for (vm_pindex_t i = FRAMES; i < FRAMES + NEXT; i++) {
			touch(i);
			for (vm_pindex_t k = 0; in_use && k < FRAMES - COLD; k += 8)
				touch(k + i % 8);
		}
	}
	if (in_use)
		check(misses > NEXT / 2 && count_resident(0, FRAMES - COLD) > (FRAMES - COLD) * 9 / 10);
	else
		check(misses == 0);
	end();
}
END_TEST

START_TEST(wired_pages_leave_the_cold_their_share)
{
	begin(&vm_pdpolicy_warm);
	vm_page_wire_count = FRAMES / 2;
	frames = FRAMES / 2;
	for (vm_pindex_t i = 0; i < PAGES; i++)
		touch(i);
	/* The first comers are hot, and still there. */
	check(count_resident(0, FRAMES * 3 / 8) == FRAMES * 3 / 8);
	check(soft == 0);
	end();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_pdpolicy");
	TCase *tc = tcase_create("every policy"), *tw = tcase_create("warm");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(tc, every_page_can_be_had_and_is_counted, 0, nitems(policies));
	tcase_add_loop_test(tc, what_is_discarded_goes_next, 0, nitems(policies));
	tcase_add_loop_test(tc, what_is_touched_while_it_is_watched_stays, 0, nitems(policies));
	tcase_add_loop_test(tc, a_smaller_budget_is_kept, 0, nitems(policies));
	tcase_add_test(tw, a_scan_costs_the_hot_pages_nothing);
	tcase_add_test(tw, a_loop_larger_than_memory_hits);
	tcase_add_loop_test(tw, what_comes_back_becomes_hot, 0, 2);
	tcase_add_test(tw, wired_pages_leave_the_cold_their_share);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, tw);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
