/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a process writes while a forked child sees its frames, by the leaf (2 MB).
 *
 *	all pages in a row				a view: the kernel copies
 *	some have left it, written by calls		a view that shows what they hold (vm_view_mend.c)
 *	many have, or some are not at rest		no view: page after page
 *
 * Each is done by a parent, by its child, whose frames are inherited, and by a child's child; and every one of them
 * knows all its bytes.  When the others are gone it all comes home, and mappings are as few as before.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "leaves.h"
#include "physmem.h"
#include "task.h"
#include "vm_map.h"

enum {
	MANY = 2 * 64,		/* more than a view is mended for */
	QUIET_MS = 30
};

/*
 * Rows with gaps
 */

/* Somebody sees our frames. */
static void
mend(void)
{
	uint64_t views = statistics().v_views, left;

	for (size_t l = 0; l < LEAVES; l++)
		put_gaps(l);
	expect(statistics().v_views, views);
	for (size_t l = 0; l < LEAVES; l++) {
		left = statistics().v_unfrozen;
		put(l * LEAF + 2);
		if (fresh && pmap_has_views())
			expect(statistics().v_views, views + l + 1);
		put_some(l);
		if (fresh && pmap_has_views())
			expect(statistics().v_unfrozen, left);
	}
	fresh = false;
	check_all();
	audit();
}

START_TEST(a_view_shows_what_had_left_the_row)
{
	struct held before;
	uint64_t few;
	struct kin k;

	begin_leaves(0);
	put_all();
	few = mappings();
	before = held_now();
	for (int round = 0; round < 3; round++) {
		k = child(NULL);
		mend();
		if (pmap_has_views() && statistics().mappings > few + 2 * LEAVES)
			die("%llu mappings, not %llu", (unsigned long long)statistics().mappings, (unsigned long long)few);
		see(&k);
		put_some(1);
		let_go(&k);
		come_home(few);
	}
	before.fds = count_fds();
	expect_held(before);
	end_leaves();
}
END_TEST

/* What was away comes home, and leaves again: by a call while it is in a view, and by one afterwards. */
START_TEST(calls_write_to_what_is_viewed)
{
	uint64_t few;
	struct kin k;

	begin_leaves(0);
	put_all();
	few = mappings();
	k = child(NULL);
	for (int round = 0; round < 4; round++) {
		mend();
		for (size_t l = 0; l < LEAVES; l++) {
			put_gaps(l);
			put_by_call(l * LEAF);
		}
		check_all();
		audit();
	}
	see(&k);
	let_go(&k);
	come_home(few);
	end_leaves();
}
END_TEST

static void
do_nothing(void)
{
	struct kin k = child(NULL);

	put_all();
	see(&k);
	put_all();
	let_go(&k);
}

/* Again in its child. */
static void
mend_and_fork(void)
{
	struct kin k;

	mend();
	k = child(do_nothing);
	mend();
	see(&k);
	check_all();
	put_some(0);
	let_go(&k);
}

START_TEST(children_do_the_same)
{
	static void (*const whats[])(void) = { mend, mend_and_fork };
	uint64_t few;
	struct kin k;

	begin_leaves(0);
	put_all();
	few = mappings();
	k = child(whats[_i]);
	see(&k);
	mend();
	let_go(&k);
	come_home(few);
	end_leaves();
}
END_TEST

/* The frames that the row lacks were given up after one fork or the other, and the first child ends first, or last. */
START_TEST(a_second_fork_while_the_first_child_lives)
{
	struct kin k[2];
	uint64_t few;

	begin_leaves(0);
	put_all();
	few = mappings();
	k[0] = child(mend);
	if (_i & 1)
		mend();
	else
		put_gaps(0);
	k[1] = child(mend);
	mend();
	see(&k[0]);
	see(&k[1]);
	let_go(&k[_i >> 1]);
	check_all();
	put_gaps(1);
	put_some(0);
	put_some(1);
	let_go(&k[!(_i >> 1)]);
	come_home(few);
	end_leaves();
}
END_TEST

/* No view is mended for so many; and all that is not written lies where it did. */
START_TEST(too_many_have_left_the_row)
{
	uint64_t few, views, left;
	struct kin k;

	begin_leaves(0);
	if (LEAF > (int)MANY) {
		put_all();
		few = mappings();
		k = child(NULL);
		for (size_t i = 0; i < MANY; i += 1)
			put_by_call(i * (LEAF / MANY));
		views = statistics().v_views;
		left = statistics().v_unfrozen;
		put(LEAF - 1);
		expect(statistics().v_views, views);
		expect(statistics().v_unfrozen, left + 1);
		check_all();
		audit();
		see(&k);
		let_go(&k);
		/* What was not written since can only be read, in a mapping of its own. */
		put_all();
		come_home(few);
	}
	end_leaves();
}
END_TEST

/*
 * Somebody writes to a page that is away while the view is opened that is to show it
 */

enum { ROUNDS = SANITIZED ? 20 : 60, WHILE_OPENING = 1000 };

static _Atomic bool over;
static _Atomic uint64_t written;
static _Atomic unsigned begun, opened;

TOUCHES_MANAGED static void *
count_up(void *arg)
{
	volatile uint64_t *word = arg;

	for (uint64_t n = *word + 1; !over; n++) {
		if (*word != n - 1)
			die("a write was lost: %llu is there, not %llu", (unsigned long long)*word, (unsigned long long)n - 1);
		*word = n;
		written = n;
	}
	return NULL;
}

/* He writes on, as long as he can. */
static void
give_time(void)
{
	uint64_t end = now_ms() + QUIET_MS, until = written + WHILE_OPENING;

	while (written < until && now_ms() < end)
		usleep(100);
}

static void
at_probe(const char *place)
{
	if (strcmp(place, "vm_view: before a view of a row with gaps") == 0) {
		begun++;
		give_time();
	}
}

/* When all has been read, and the view is not there yet. */
static int
before_call(enum sys_call call)
{
	if (call == SYS_CALL_MREMAP && begun != opened) {
		opened++;
		give_time();
	}
	return 0;
}

START_TEST(no_write_is_lost_while_a_view_is_opened)
{
	size_t away = LEAF > OFTEN ? OFTEN + 1 : 1;
	pthread_t writer;
	struct kin k;
	uint64_t few;

	begin_leaves(0);
	put_all();
	few = mappings();
	for (int round = 0; round < ROUNDS && pmap_has_views(); round++) {
		volatile uint64_t *word = (uint64_t *)(void *)(mem + away * PG);

		k = child(NULL);
		begun = opened = 0;
		put_gaps(0);
		over = false;
		written = 0;
		expect(pthread_create(&writer, NULL, count_up, (void *)(uintptr_t)word), 0);
		while (written == 0)
			usleep(100);
		probe_hook = at_probe;
		sys_inject = before_call;
		put(2);
		check(begun == 1 && opened == 1);
		sys_inject = NULL;
		probe_hook = NULL;
		for (uint64_t until = written + WHILE_OPENING; written < until;)
			usleep(100);
		over = true;
		expect(pthread_join(writer, NULL), 0);
		check(*word == written);
		put(away);
		check_all();
		see(&k);
		let_go(&k);
		put_all();
		come_home(few);
	}
	end_leaves();
}
END_TEST

/*
 * Rows that are not mended, or not at once
 */

/* Most pages are in the row, and not the first one. */
START_TEST(the_first_page_has_left_the_row)
{
	uint64_t few, views;
	struct kin k;

	begin_leaves(0);
	put_all();
	few = mappings();
	k = child(NULL);
	put_by_call(LEAF);
	views = statistics().v_views;
	put(LEAF + 2);
	expect(statistics().v_views, views + pmap_has_views());
	check_all();
	audit();
	see(&k);
	let_go(&k);
	put_all();
	come_home(few);
	end_leaves();
}
END_TEST

/* A snapshot would see what the frames of the row hold, and not what has left it. */
START_TEST(a_snapshot_sees_what_has_left_the_row)
{
	uint64_t then[N], few, views;
	vmf_snapshot_t s;
	struct kin k;
	char *p;

	begin_leaves(0);
	put_all();
	few = mappings();
	k = child(NULL);
	put_gaps(0);
	s = snap(mem, N);
	memcpy(then, key, sizeof(then));
	views = statistics().v_views;
	put(2);
	expect(statistics().v_views, views);
	check_all();
	p = view(s, N, VMF_PROT_READ);
	for (size_t i = 0; i < N; i++)
		check_fill(p + i * PG, PG, then[i]);
	expect(vmf_unmap(p, N * PG), 0);
	expect(vmf_snapshot_release(s), 0);
	check_all();
	audit();
	see(&k);
	let_go(&k);
	put_all();
	come_home(few);
	end_leaves();
}
END_TEST

/* Nobody needs the contents of a page: it is no part of a view, and others are not for its sake. */
START_TEST(what_is_not_at_rest_is_in_no_view)
{
	uint64_t views;
	struct kin k;

	begin_leaves(0);
	put_all();
	k = child(NULL);
	put_gaps(0);
	expect(vmf_advise(mem + PG * (LEAF - 1), PG, VMF_ADVICE_FREE), 0);
	views = statistics().v_views;
	put(2);
	expect(statistics().v_views, views);
	put(LEAF - 1);
	check_all();
	audit();
	see(&k);
	let_go(&k);
	end_leaves();
}
END_TEST

/* The kernel refuses a call of those that make the view: page after page is copied. */
static int refuse_from, refuse_call;

static int
refuse(enum sys_call which)
{
	return begun != 0 && (which == SYS_CALL_MMAP || which == SYS_CALL_MREMAP) && refuse_call++ == refuse_from ? -ENOMEM : 0;
}

static void
begins(const char *place)
{
	if (strcmp(place, "vm_view: before a view of a row with gaps") == 0)
		begun++;
}

START_TEST(a_view_that_the_kernel_refuses)
{
	uint64_t views, few;
	struct kin k;

	begin_leaves(0);
	put_all();
	few = mappings();
	for (refuse_from = 0; pmap_has_views(); refuse_from++) {
		bool refused;

		k = child(NULL);
		put_gaps(0);
		views = statistics().v_views;
		refuse_call = 0;
		begun = 0;
		probe_hook = begins;
		sys_inject = refuse;
		put(2);
		check(begun == 1);
		sys_inject = NULL;
		probe_hook = NULL;
		refused = statistics().v_views == views;
		check_all();
		audit();
		put(3);
		check_all();
		audit();
		see(&k);
		let_go(&k);
		put_all();
		come_home(few);
		if (!refused)
			break;
	}
	check(!pmap_has_views() || refuse_from > 0);
	end_leaves();
}
END_TEST

/* Somebody else takes the place of one that has left the row. */
static vm_pfn_t stolen;
static vm_pfn_t place;
static unsigned wanted;

static void
steal(const char *where)
{
	if (strcmp(where, "vm_view_mend: a place is free") == 0 && wanted++ == 1) {
		stolen = physmem_alloc(place, PHYSMEM_OVERWRITE);
		expect(stolen, place);
	}
}

/* 0: all places are had again; 1: one is taken meanwhile */
START_TEST(places_in_the_row_that_nobody_has)
{
	const size_t second = OFTEN + 1;
	uint64_t views, used;
	struct vm_map *map;
	struct kin k;

	if (LEAF < OFTEN)
		return;			/* two of its pages are too many */
	begin_leaves(0);
	put_all();
	map = task_nth(0);
	place = PTE_PFN(pmap_extract(map->pmap, (vm_offset_t)(mem + second * PG)));
	task_put(map);
	k = child(NULL);
	put_by_call(1);
	put_by_call(second);
	see(&k);
	vm_homecoming_hold(true);
	let_go(&k);
	while (statistics().frames_superseded != 0)
		usleep(1000);
	k = child(NULL);
	views = statistics().v_views;
	used = statistics().v_page_count - statistics().v_free_count;
	wanted = 0;
	probe_hook = _i == 1 ? steal : NULL;
	put(3);
	probe_hook = NULL;
	expect(statistics().v_views, views + (pmap_has_views() && _i == 0));
	if (stolen != 0) {
		physmem_free(stolen);
		/* The page that was written has another frame. */
		expect(statistics().v_page_count - statistics().v_free_count, used);
	}
	check_all();
	audit();
	vm_homecoming_hold(false);
	see(&k);
	let_go(&k);
	put_all();
	end_leaves();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("fork/mend");
	TCase *t = tcase_create("leaves after a fork");

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_view_shows_what_had_left_the_row);
	tcase_add_test(t, calls_write_to_what_is_viewed);
	tcase_add_loop_test(t, children_do_the_same, 0, 2);
	tcase_add_loop_test(t, a_second_fork_while_the_first_child_lives, 0, 4);
	tcase_add_test(t, too_many_have_left_the_row);
	tcase_add_test(t, the_first_page_has_left_the_row);
	tcase_add_test(t, a_snapshot_sees_what_has_left_the_row);
	tcase_add_test(t, what_is_not_at_rest_is_in_no_view);
	tcase_add_test(t, a_view_that_the_kernel_refuses);
	tcase_add_loop_test(t, places_in_the_row_that_nobody_has, 0, 2);
	tcase_add_test(t, no_write_is_lost_while_a_view_is_opened);
	return run_suite(s);
}
