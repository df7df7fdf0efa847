/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Frozen frames alone: what is frozen, superseded, young and common, through freezes that end in any order, and
 * in a process that inherits frames.  Contents are looked at through the windows.
 */

#include <check.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kern/sys.h"
#include "machdep.h"
#include "physmem_impl.h"
#include "suite.h"
#include "support.h"

enum { BUDGET = 64, SPACE = 1 << 21, FRAMES = 8 };

static struct physmem_home home;

static void
write_frame(vm_pfn_t pfn, uint64_t key)
{
	void *p = window_map(WINDOW_TARGET, pfn, 1);

	fill(p, PG, key);
	window_unmap(p);
}

static void
check_frame(vm_pfn_t pfn, uint64_t key)
{
	void *p = window_map(WINDOW_SOURCE, pfn, 1);

	check_fill(p, PG, key);
	window_unmap(p);
}

/* FRAMES frames in use, each with bytes of its own. */
static void
begin(void)
{
	expect(physmem_init(BUDGET, SPACE), 0);
	check(physmem_reserve(2 * FRAMES, &home));
	for (vm_pfn_t i = 0; i < FRAMES; i++) {
		check(physmem_alloc(physmem_at(&home) + i, PHYSMEM_ZERO) == physmem_at(&home) + i);
		write_frame(physmem_at(&home) + i, i);
	}
}

static vm_pfn_t
at(vm_pfn_t i)
{
	return physmem_at(&home) + i;
}

static void
end(void)
{
	struct physmem_counts c;

	sys_inject = NULL;
	for (vm_pfn_t i = 0; i < 2 * FRAMES; i++)
		if (test_bit(pm.used, at(i)))
			physmem_free(at(i));
	physmem_unreserve(&home);
	physmem_counts(&c);
	check(c.used == 0);
	physmem_fini();
}

static void
expect_counts(uint64_t frozen, uint64_t young, uint64_t superseded, uint32_t live)
{
	struct physmem_freeze_counts c;
	struct physmem_counts all;

	physmem_freeze_counts(&c);
	expect((int)c.frozen, (int)frozen);
	expect((int)c.young, (int)young);
	expect((int)c.superseded, (int)superseded);
	expect((int)c.live, (int)live);
	physmem_counts(&all);
	check(live == 0 || all.used == frozen + young);
}

static uint32_t
freeze(void)
{
	uint32_t id = 0;

	expect(physmem_freeze(&id), 0);
	physmem_freeze_end();
	return id;
}

static bool
is_free(vm_pfn_t pfn)
{
	return !test_bit(pm.used, pfn);
}

START_TEST(what_is_used_is_frozen_and_what_comes_is_not)
{
	uint32_t id;

	begin();
	check(!physmem_is_frozen(at(0)));
	id = freeze();
	expect_counts(FRAMES, 0, 0, 1);
	check(physmem_is_frozen(at(0)) && physmem_is_frozen(at(FRAMES - 1)));
	check(physmem_alloc(at(FRAMES), PHYSMEM_ZERO) == at(FRAMES));
	check(!physmem_is_frozen(at(FRAMES)) && !physmem_any_frozen(at(FRAMES), 1) && physmem_any_frozen(at(0), FRAMES + 1));
	expect_counts(FRAMES, 1, 0, 1);
	/* A young one is freed as ever, and comes back young. */
	physmem_free(at(FRAMES));
	expect_counts(FRAMES, 0, 0, 1);
	check(is_free(at(FRAMES)));
	check(physmem_alloc(at(FRAMES), PHYSMEM_OVERWRITE) == at(FRAMES));
	expect_counts(FRAMES, 1, 0, 1);
	physmem_thaw(id);
	expect_counts(0, 0, 0, 0);
	check(!physmem_is_frozen(at(0)));
	end();
}
END_TEST

START_TEST(who_was_superseded_is_kept_and_does_not_count)
{
	struct physmem_counts c;
	uint32_t id;

	begin();
	id = freeze();
	physmem_free(at(1));
	physmem_free(at(2));
	expect_counts(FRAMES - 2, 0, 2, 1);
	physmem_counts(&c);
	check(c.used == FRAMES - 2 && c.dirty == 0);
	check(!is_free(at(1)));
	check(physmem_alloc(at(1), PHYSMEM_ZERO) != at(1));	/* a stray */
	check_frame(at(1), 1);
	check(physmem_flush(UINT32_MAX) == 0);
	physmem_thaw(id);
	check(is_free(at(1)) && is_free(at(2)));
	physmem_counts(&c);
	check(c.used == FRAMES - 1 && c.dirty == 2);
	for (vm_pfn_t p = 1; p < SPACE; p++)
		if (test_bit(pm.used, p))
			physmem_free(p);
	end();
}
END_TEST

/* 0 is freed before any freeze, 1 after the first, 2 after the second, 3 after the third. */
START_TEST(freezes_end_in_any_order)
{
	static const uint8_t orders[][3] = { { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 } };
	uint32_t id[3], gone = 0;

	begin();
	physmem_free(at(0));
	for (vm_pfn_t i = 0; i < 3; i++) {
		id[i] = freeze();
		physmem_free(at(1 + i));
	}
	check(is_free(at(0)));
	for (int i = 0; i < 3; i++) {
		uint32_t which = orders[_i][i];

		physmem_thaw(id[which]);
		gone |= 1u << which;
		/* A frame is needed by the freezes before it went. */
		for (vm_pfn_t k = 0; k < 3; k++) {
			uint32_t before = (1u << (k + 1)) - 1;

			check(is_free(at(1 + k)) == ((gone & before) == before));
			if ((gone & before) != before)
				check_frame(at(1 + k), 1 + k);
		}
	}
	expect_counts(0, 0, 0, 0);
	end();
}
END_TEST

START_TEST(a_freeze_can_be_made_wider)
{
	uint32_t id;

	begin();
	id = freeze();
	check(physmem_alloc(at(FRAMES), PHYSMEM_ZERO) == at(FRAMES));
	physmem_free(at(0));
	expect(physmem_freeze(&id), 0);
	/* What is given out in the meantime is frozen from the start, unless it is said to be nobody else's. */
	check(physmem_alloc(at(FRAMES + 1), PHYSMEM_ZERO) == at(FRAMES + 1));
	check(physmem_alloc(at(FRAMES + 2), PHYSMEM_ZERO) == at(FRAMES + 2));
	physmem_make_young(at(FRAMES + 2));
	physmem_make_young(at(FRAMES + 2));
	physmem_freeze_end();
	check(physmem_is_frozen(at(FRAMES)) && physmem_is_frozen(at(FRAMES + 1)) && !physmem_is_frozen(at(FRAMES + 2)));
	expect_counts(FRAMES + 1, 1, 1, 1);
	physmem_thaw(id);
	expect_counts(0, 0, 0, 0);
	check(is_free(at(0)));
	end();
}
END_TEST

START_TEST(there_are_so_many)
{
	uint32_t id[PHYSMEM_FREEZES];

	begin();
	for (int round = 0; round < 3; round++) {
		for (uint32_t i = 0; i < PHYSMEM_FREEZES; i++)
			id[i] = freeze();
		for (uint32_t i = 0; i < PHYSMEM_FREEZES; i++)
			physmem_thaw(id[(i * 5 + (uint32_t)round) % PHYSMEM_FREEZES]);
	}
	expect_counts(0, 0, 0, 0);
	end();
}
END_TEST

/* 1 went after the first freeze, 2 after the second: they are ours again, once, and go again as those that never went. */
START_TEST(what_was_superseded_is_taken_back)
{
	uint32_t id[2];

	begin();
	check(!physmem_take_back(at(1)));
	id[0] = freeze();
	physmem_free(at(1));
	id[1] = freeze();
	physmem_free(at(2));
	expect_counts(FRAMES - 2, 0, 2, 2);
	check(!physmem_take_back(at(0)) && !physmem_take_back(at(FRAMES)));
	check(physmem_alloc(at(FRAMES), PHYSMEM_ZERO) == at(FRAMES) && !physmem_take_back(at(FRAMES)));
	expect_counts(FRAMES - 2, 1, 2, 2);
	for (vm_pfn_t i = 1; i <= 2; i++) {
		check(physmem_take_back(at(i)));
		expect_counts(FRAMES - 2 + i, 1, 2 - i, 2);
		check(!physmem_take_back(at(i)));
		check(physmem_is_frozen(at(i)));
		check_frame(at(i), i);
	}
	/* Now it is the second freeze that may need 1 last. */
	physmem_free(at(1));
	expect_counts(FRAMES - 1, 1, 1, 2);
	physmem_thaw(id[_i]);
	check(!is_free(at(1)));
	check_frame(at(1), 1);
	physmem_thaw(id[!_i]);
	check(is_free(at(1)) && !is_free(at(2)) && !physmem_is_frozen(at(2)));
	check_frame(at(2), 2);
	check(!physmem_take_back(at(1)));
	end();
}
END_TEST

/* It counts, and so it may be too many. */
START_TEST(nothing_is_taken_back_over_the_budget)
{
	struct physmem_counts c;
	vm_pfn_t other, last = 0;
	uint32_t id;

	begin();
	id = freeze();
	physmem_free(at(1));
	while ((other = physmem_alloc(0, PHYSMEM_ZERO)) != 0)
		last = other;
	check(last != 0 && !physmem_take_back(at(1)));
	expect_counts(FRAMES - 1, BUDGET - FRAMES + 1, 1, 1);
	check(!is_free(at(1)));
	physmem_free(last);
	(void)physmem_flush(UINT32_MAX);
	check(physmem_lend(1, 0) && !physmem_take_back(at(1)));
	physmem_lend_end(1);
	check(physmem_take_back(at(1)));
	physmem_counts(&c);
	check(c.used == BUDGET);
	expect_counts(FRAMES, BUDGET - FRAMES, 0, 1);
	physmem_thaw(id);
	for (vm_pfn_t p = 1; p < SPACE; p++)
		if (test_bit(pm.used, p) && (p < at(0) || p >= at(FRAMES)))
			physmem_free(p);
	end();
}
END_TEST

static int
refuse_mmap(enum sys_call call)
{
	return call == SYS_CALL_MMAP ? -ENOMEM : 0;
}

START_TEST(no_memory_for_it_changes_nothing)
{
	uint32_t id = 0;

	begin();
	sys_inject = refuse_mmap;
	expect(physmem_freeze(&id), -ENOMEM);
	check(!physmem_make_common(at(0)));
	sys_inject = NULL;
	expect_counts(0, 0, 0, 0);
	check(!physmem_is_frozen(at(0)) && id == 0);
	end();
}
END_TEST

START_TEST(common_frames_are_written_and_kept)
{
	uint32_t id;

	begin();
	check(physmem_make_common(at(1)) && physmem_make_common(at(1)));
	id = freeze();
	check(physmem_is_common(at(1)) && !physmem_is_common(at(2)));
	check(!physmem_is_frozen(at(1)) && physmem_is_frozen(at(2)));
	physmem_free(at(1));
	check(!is_free(at(1)));
	physmem_thaw(id);
	check(is_free(at(1)) && !physmem_is_common(at(1)));
	end();
}
END_TEST

/* As a child does; the parent's frames are looked at through the window. */
START_TEST(inherited_frames_are_read_and_own_ones_lie_above)
{
	vm_pfn_t theirs = at(0), common = at(1), own;
	struct physmem_home other;
	struct physmem_counts c;

	begin();
	theirs = at(0);
	common = at(1);
	if (_i == 1)
		check(physmem_make_common(common));
	for (int generation = 1; generation <= 3; generation++) {
		vm_pfn_t base = physmem_base;
		int fd;

		check(physmem_can_inherit());
		fd = physmem_another();
		check(fd >= 0);
		window_forked();
		expect(physmem_inherit(fd), 0);
		check(physmem_base > base + home.base + 2 * FRAMES);
		check(physmem_fd_of(at(0)) == fd && physmem_fd() == fd && physmem_fd_of(theirs) != fd);
		for (vm_pfn_t i = 0; i < FRAMES; i++)
			check_frame(theirs + i, i == 1 && _i == 1 && generation > 1 ? 77 : i);
		check(physmem_is_inherited(theirs) && physmem_is_frozen(theirs) && physmem_used(theirs));
		physmem_counts(&c);
		check(c.used == 0 && c.dirty == 0);
		physmem_free(theirs);		/* nothing to us */
		check_frame(theirs, 0);
		check(physmem_take_back(theirs));	/* nor was it ever gone */
		physmem_counts(&c);
		check(c.used == 0);
		/* The home is where it was, from our first frame on; what is reserved now is beside it. */
		own = physmem_alloc(at(0), PHYSMEM_ZERO);
		check(own == at(0) && !physmem_is_inherited(own) && !physmem_is_frozen(own));
		physmem_copy(theirs + 3, own, 1);
		check_frame(own, 3);
		check(physmem_reserve(FRAMES, &other) && other.base >= home.base + 2 * FRAMES);
		check(physmem_alloc(physmem_at(&other), PHYSMEM_ZERO) == physmem_at(&other));
		physmem_free(physmem_at(&other));
		physmem_unreserve(&other);
		check(physmem_alloc(0, PHYSMEM_ZERO) > physmem_base);
		if (_i == 1) {
			check(!physmem_is_frozen(common));
			write_frame(common, 77);
			check_frame(common, 77);
		}
	}
	for (vm_pfn_t p = physmem_base; p < SPACE; p++)
		if (test_bit(pm.used, p))
			physmem_free(p);
	end();
}
END_TEST

START_TEST(frame_space_has_an_end)
{
	int n;

	begin();
	for (n = 0; physmem_can_inherit(); n++) {
		window_forked();
		expect(physmem_inherit(physmem_another()), 0);
	}
	check(n >= 4 && n < SPACE >> 18);
	check(physmem_alloc(at(0), PHYSMEM_ZERO) == at(0));
	end();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("physmem_freeze");
	TCase *t = tcase_create("freezes");

	suite_add_tcase(s, t);
	tcase_add_test(t, what_is_used_is_frozen_and_what_comes_is_not);
	tcase_add_test(t, who_was_superseded_is_kept_and_does_not_count);
	tcase_add_loop_test(t, freezes_end_in_any_order, 0, 6);
	tcase_add_test(t, a_freeze_can_be_made_wider);
	tcase_add_test(t, there_are_so_many);
	tcase_add_loop_test(t, what_was_superseded_is_taken_back, 0, 2);
	tcase_add_test(t, nothing_is_taken_back_over_the_budget);
	tcase_add_test(t, no_memory_for_it_changes_nothing);
	tcase_add_test(t, common_frames_are_written_and_kept);
	tcase_add_loop_test(t, inherited_frames_are_read_and_own_ones_lie_above, 0, 2);
	tcase_add_test(t, frame_space_has_an_end);
	return run_suite(s);
}
