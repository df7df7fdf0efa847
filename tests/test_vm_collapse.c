/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Collapse and bypass: chains become shorter, and no byte changes.
 *
 * The BYTE TABLE.  Three objects, top -> backing -> bottom; bottom has every page.  Each page of
 * the top stands for one pair of states:
 *
 *	absent	not there
 *	dirty	resident, modified, not in the pager
 *	out	in the pager only
 *	clean	resident, and the same in the pager
 *	stale	resident and modified; the pager has what it was before
 *
 * What a reader must see is computed from the table alone, before anything is done, and compared
 * after, then once more when all that can leave memory has left it: a clean page
 * whose pager was lost is only found out that way.
 */

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "machdep.h"
#include "suite.h"
#include "support.h"
#include "task.h"
#include "testpager.h"
#include "trap.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"

enum state { ABSENT, DIRTY, OUT, CLEAN, STALE, STATES };
enum { TOP_PAGES = STATES * STATES, EXTRA = 5, BOTTOM_PAGES = 64, BOTTOM_OFFSET = 3 };
enum key { TOP = 1, BACKING, BOTTOM, GARBAGE };

struct variant {
	bool top_pager, backing_pager, can_move;
	bool shared;		/* backing is used by others, too: bypass, not merge */
	bool visible;		/* the top sees pages of backing ... */
	bool only_out;		/* ... but no resident ones */
	bool mapped;		/* all pages were read before */
	vm_pindex_t offset;	/* top's shadow_offset */
	vm_pindex_t top_paging, backing_paging;	/* paging_offset */
};

static struct vm_map *map;
static sys_sigset_t mask;

static void
setup(void)
{
	testpager_reset();
	start(0, 0);
	testpager_default();
	map = task_get(VMF_TASK_DEFAULT);
}

static void
teardown(void)
{
	task_put(map);
	stop();
	ck_assert_uint_eq(testpager_counts.pagers, 0);
	ck_assert_uint_eq(testpager_counts.pages, 0);
}

/*
 * Objects by hand
 */

static void
put_page(struct vm_object *o, vm_pindex_t i, uint64_t key, bool modified)
{
	struct vm_page *m;
	void *w;

	trap_enter(&mask);
	vm_object_lock(o);
	m = vm_page_alloc(o, i, PHYSMEM_OVERWRITE);
	check(m != NULL);
	w = window_map(WINDOW_TARGET, m->pfn, 1);
	fill(w, PG, key);
	window_unmap(w);
	m->flags = (uint16_t)((m->flags & ~PG_FAKE) | (modified ? PG_MODIFIED : 0));
	vm_page_activate(m);
	vm_page_wakeup(m);
	vm_object_unlock(o);
	trap_leave(&mask);
}

static void
put_out(struct vm_object *o, vm_pindex_t i, uint64_t key)
{
	char bytes[VMF_PAGE_SIZE];

	fill(bytes, PG, key);
	testpager_store(container_of(o->pager, struct testpager, pager), i + o->paging_offset,
	    bytes);
}

static void
put_state(struct vm_object *o, vm_pindex_t i, enum state state, enum key key)
{
	if (state == DIRTY || state == CLEAN || state == STALE)
		put_page(o, i, mix(key, i), state != CLEAN);
	if (state == OUT || state == CLEAN)
		put_out(o, i, mix(key, i));
	if (state == STALE)
		put_out(o, i, mix(GARBAGE, i));
}

static void
put_over(struct vm_object *o, struct vm_object *below, vm_pindex_t offset)
{
	trap_enter(&mask);
	krwlock_write(&vm_rmap_lock);
	o->shadow = below;
	o->shadow_offset = offset;
	LIST_INSERT_HEAD(&below->children, o, sibling);
	krwlock_write_unlock(&vm_rmap_lock);
	trap_leave(&mask);
}

/* Show the object; its reference becomes the mapping's. */
static char *
show(struct vm_object *o)
{
	static const struct vm_map_attr attr = {
		.protection = VM_PROT_READ | VM_PROT_WRITE, .max_protection = VM_PROT_ALL,
		.inheritance = VM_INHERIT_COPY, .advice = VM_ADVICE_RANDOM,
	};
	vm_size_t size = (vm_size_t)o->size << PAGE_SHIFT;
	vm_offset_t va;

	trap_enter(&mask);
	krwlock_write(&map->lock);
	va = vm_map_find(map, size);
	check(va != 0 && vm_map_insert(map, va, va + size, o, 0, &attr));
	krwlock_write_unlock(&map->lock);
	trap_leave(&mask);
	return (char *)va;
}

static void
drop(struct vm_object *o)
{
	trap_enter(&mask);
	vm_object_deallocate(o);
	trap_leave(&mask);
}

/*
 * The table
 */

static void
states_of(const struct variant *v, vm_pindex_t i, enum state *top, enum state *backing)
{
	static const enum state bare[STATES] = { ABSENT, DIRTY, ABSENT, DIRTY, DIRTY };

	*top = v->top_pager ? i % STATES : bare[i % STATES];
	*backing = v->backing_pager ? i / STATES : bare[i / STATES];
	if (*top == ABSENT && (!v->visible || (v->only_out && *backing != OUT)))
		*backing = ABSENT;
}

/* Does the top see any page of backing? */
static bool
sees(const struct variant *v)
{
	return v->visible && (!v->only_out || v->backing_pager);
}

static void
check_top(const struct variant *v, const char *p)
{
	for (vm_pindex_t i = 0; i < TOP_PAGES; i++) {
		vm_pindex_t at = i + v->offset;
		enum state top, backing;

		states_of(v, i, &top, &backing);
		check_fill(p + i * PG, PG, top != ABSENT ? mix(TOP, i) :
		    backing != ABSENT ? mix(BACKING, at) : mix(BOTTOM, at + BOTTOM_OFFSET));
	}
}

static void
check_backing(const struct variant *v, const char *p)
{
	for (vm_pindex_t i = 0; i < TOP_PAGES; i++) {
		vm_pindex_t at = i + v->offset;
		enum state top, backing;

		states_of(v, i, &top, &backing);
		check_fill(p + at * PG, PG, backing != ABSENT ? mix(BACKING, at) :
		    mix(BOTTOM, at + BOTTOM_OFFSET));
	}
}

/* What the top has, and what of it is resident, after a merge. */
static void
count(const struct variant *v, unsigned *pages, unsigned *resident)
{
	*pages = *resident = 0;
	for (vm_pindex_t i = 0; i < TOP_PAGES; i++) {
		enum state top, backing, it;

		states_of(v, i, &top, &backing);
		it = top != ABSENT ? top : backing;
		*pages += it != ABSENT;
		*resident += it != ABSENT && (it != OUT || v->mapped);
	}
}

static void
try(const struct variant *v)
{
	struct vm_object *bottom, *backing, *top;
	uint64_t before = frames_used(), merged, bypassed;
	bool refused = v->top_pager && v->backing_pager && !v->can_move;
	char *p, *q = NULL;
	unsigned pages, resident;

	testpager.can_move = v->can_move;
	bottom = vm_object_allocate(BOTTOM_PAGES, true);
	backing = vm_object_allocate(v->offset + TOP_PAGES + EXTRA, true);
	top = vm_object_allocate(TOP_PAGES, true);
	for (vm_pindex_t i = 0; i < BOTTOM_PAGES; i++)
		put_page(bottom, i, mix(BOTTOM, i), true);
	put_over(backing, bottom, BOTTOM_OFFSET);
	put_over(top, backing, v->offset);
	vm_object_reference(bottom);
	if (v->top_pager)
		give_pager(top, v->top_paging);
	if (v->backing_pager)
		give_pager(backing, v->backing_paging);
	for (vm_pindex_t i = 0; i < TOP_PAGES; i++) {
		enum state t, b;

		states_of(v, i, &t, &b);
		put_state(top, i, t, TOP);
		put_state(backing, i + v->offset, b, BACKING);
	}
	/* Just outside of what the top sees. */
	put_state(backing, v->offset + TOP_PAGES, v->backing_pager ? CLEAN : DIRTY, BACKING);
	if (v->offset != 0)
		put_state(backing, v->offset - 1, v->backing_pager ? OUT : DIRTY, BACKING);
	p = show(top);
	if (v->shared) {
		vm_object_reference(backing);
		q = show(backing);
	}
	if (v->mapped)
		check_top(v, p);
	audit();

	merged = vm_meter_read(VMC_v_collapses);
	bypassed = vm_meter_read(VMC_v_bypasses);
	collapse(top);
	audit();
	ck_assert_uint_eq(vm_meter_read(VMC_v_collapses) - merged, !v->shared && !refused);
	ck_assert_uint_eq(vm_meter_read(VMC_v_bypasses) - bypassed, v->shared && !sees(v));
	if (top->shadow == bottom) {
		ck_assert_uint_eq(top->shadow_offset, v->offset + BOTTOM_OFFSET);
	} else {
		ck_assert_ptr_eq(top->shadow, backing);
		ck_assert_uint_eq(top->shadow_offset, v->offset);
	}
	count(v, &pages, &resident);
	if (!v->shared && !refused)
		ck_assert_uint_eq(frames_used() - before, resident + BOTTOM_PAGES);
	check_top(v, p);
	if (q != NULL)
		check_backing(v, q);
	audit();

	evict(top);
	if (q != NULL)
		evict(backing);
	audit();
	if (!v->shared && !refused && top->pager != NULL)
		ck_assert_uint_eq(testpager_counts.pages, pages);
	check_top(v, p);
	if (q != NULL)
		check_backing(v, q);
	audit();

	expect(vmf_unmap(p, TOP_PAGES * PG), 0);
	audit();
	if (q != NULL) {
		check_backing(v, q);
		expect(vmf_unmap(q, (v->offset + TOP_PAGES + EXTRA) * PG), 0);
	}
	drop(bottom);
	ck_assert_uint_eq(frames_used(), before);
	ck_assert_uint_eq(testpager_counts.pagers, 0);
	ck_assert_uint_eq(testpager_counts.pages, 0);
}

/* Every bit of n is a choice. */
static void
try_all(bool shared)
{
	for (unsigned n = 0; n < 512; n++) {
		struct variant v = {
			.top_pager = n & 1, .backing_pager = n & 2, .can_move = n & 4,
			.shared = shared, .visible = n & 8, .only_out = n & 256, .mapped = n & 16,
			.offset = n & 32 ? 7 : 0,
			.top_paging = n & 64 ? 2 : 0, .backing_paging = n & 128 ? 11 : 0,
		};

		try(&v);
	}
}

START_TEST(a_merge_changes_no_byte)
{
	try_all(false);
}
END_TEST

START_TEST(a_bypass_changes_no_byte)
{
	try_all(true);
}
END_TEST

/* One page that is seen, at either end, stands in the way of a bypass; one just beyond does not. */
START_TEST(the_first_and_the_last_page_count)
{
	static const struct {
		vm_pindex_t at;
		bool seen;
	} where[] = { { 1, false }, { 2, true }, { 5, true }, { 6, false } };

	for (unsigned n = 0; n < 2 * nitems(where); n++) {
		struct vm_object *bottom = vm_object_allocate(8, true), *backing = vm_object_allocate(8, true);
		struct vm_object *top = vm_object_allocate(4, true);
		char *p;

		put_page(bottom, 3, mix(BOTTOM, 3), true);
		put_over(backing, bottom, 0);
		put_over(top, backing, 2);
		vm_object_reference(backing);
		vm_object_reference(bottom);
		give_pager(backing, 0);
		put_state(backing, where[n / 2].at, n % 2 == 0 ? DIRTY : OUT, BACKING);
		p = show(top);
		collapse(top);
		ck_assert_ptr_eq(top->shadow, where[n / 2].seen ? backing : bottom);
		check_fill(p + PG, PG, mix(BOTTOM, 3));
		if (where[n / 2].seen)
			check_fill(p + (where[n / 2].at - 2) * PG, PG,
			    mix(BACKING, where[n / 2].at));
		audit();
		expect(vmf_unmap(p, 4 * PG), 0);
		drop(backing);
		drop(bottom);
	}
}
END_TEST

/*
 * Pagers that must not be asked under locks: nobody knows what they have, so all stays
 * as it is wherever that matters.
 */
START_TEST(a_pager_that_cannot_be_asked_is_left_alone)
{
	testpager.queryable = false;
	for (unsigned n = 1; n < 16; n++) {
		struct vm_object *bottom = vm_object_allocate(BOTTOM_PAGES, true);
		struct vm_object *backing = vm_object_allocate(TOP_PAGES, true);
		struct vm_object *top = vm_object_allocate(TOP_PAGES, true);
		struct variant v = {
			.top_pager = n & 1, .backing_pager = n & 2,
			.shared = n & 4, .visible = n & 8,
		};
		char *p;

		for (vm_pindex_t i = 0; i < BOTTOM_PAGES; i++)
			put_page(bottom, i, mix(BOTTOM, i), true);
		put_over(backing, bottom, BOTTOM_OFFSET);
		put_over(top, backing, 0);
		if (v.top_pager)
			give_pager(top, 0);
		if (v.backing_pager)
			give_pager(backing, 0);
		for (vm_pindex_t i = 0; i < TOP_PAGES; i++) {
			enum state t, b;

			states_of(&v, i, &t, &b);
			put_state(top, i, t, TOP);
			put_state(backing, i, b, BACKING);
		}
		if (v.shared)
			vm_object_reference(backing);
		p = show(top);
		collapse(top);
		audit();
		check_top(&v, p);
		evict(top);
		check_top(&v, p);
		expect(vmf_unmap(p, TOP_PAGES * PG), 0);
		if (v.shared)
			drop(backing);
		ck_assert_uint_eq(testpager_counts.pages, 0);
	}
}
END_TEST

START_TEST(a_chain_with_a_fault_under_way_is_left_alone)
{
	for (int k = 0; k < 2; k++) {
		struct vm_object *backing = vm_object_allocate(4, true), *top = vm_object_allocate(4, true);
		struct vm_object *busy = k == 0 ? top : backing;
		char *p;

		put_over(top, backing, 0);
		put_page(backing, 1, mix(BACKING, 1), true);
		p = show(top);
		trap_enter(&mask);
		vm_object_lock(busy);
		vm_object_pip_add(busy);
		vm_object_unlock(busy);
		trap_leave(&mask);
		collapse(top);
		ck_assert_ptr_eq(top->shadow, backing);
		trap_enter(&mask);
		vm_object_lock(busy);
		vm_object_pip_done(busy);
		vm_object_unlock(busy);
		trap_leave(&mask);
		collapse(top);
		ck_assert_ptr_null(top->shadow);
		check_fill(p + PG, PG, mix(BACKING, 1));
		check_zero(p, PG);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("vm_collapse");
	TCase *t = tcase_create("table");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_merge_changes_no_byte);
	tcase_add_test(t, a_bypass_changes_no_byte);
	tcase_add_test(t, the_first_and_the_last_page_count);
	tcase_add_test(t, a_pager_that_cannot_be_asked_is_left_alone);
	tcase_add_test(t, a_chain_with_a_fault_under_way_is_left_alone);
	suite_add_tcase(s, t);
	return run_suite(s);
}
