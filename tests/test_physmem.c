/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Physical memory alone: placement, the budget, the dirty frames, giving them back.
 *
 * Contents are written through the windows, as the library does; what the
 * kernel holds is asked of the memfd itself (fstat).
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem_impl.h"
#include "suite.h"
#include "support.h"

enum { BUDGET = 256, SPACE = 1 << 16 };

static void
begin(void)
{
	expect(physmem_init(BUDGET, SPACE), 0);
	physmem_set_low(BUDGET / 64 + 1);
}

static void
end(void)
{
	struct physmem_counts c;

	sys_inject = NULL;
	physmem_counts(&c);
	check(c.used == 0);
	physmem_fini();
}

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

	if (key == 0)
		check_zero(p, PG);
	else
		check_fill(p, PG, key);
	window_unmap(p);
}

/* Pages of the memfd that the kernel holds memory for. */
static uint64_t
held(void)
{
	struct stat st;

	check(fstat(physmem_fd(), &st) == 0);
	return (uint64_t)st.st_blocks * 512 / PG;
}

static uint64_t
dirty(void)
{
	struct physmem_counts c;

	physmem_counts(&c);
	check(c.used + c.dirty <= c.budget);
	check(physmem_free_count() == c.budget - c.used);
	return c.dirty;
}

/*
 * Placement
 */

START_TEST(homes)
{
	static const uint32_t sizes[] = { 1, 7, 512, 1, 511, 513, 4096, 3 };
	struct physmem_home home[8];

	begin();
	for (unsigned i = 0; i < 8; i++) {
		check(physmem_reserve(sizes[i], &home[i]));
		check(home[i].npages == sizes[i] && home[i].base != 0);
		if (sizes[i] >= 512)
			check(home[i].base % 512 == 0);		/* as a 2 MB mapping is */
		for (unsigned k = 0; k < i; k++)
			check(home[k].base + home[k].npages <= home[i].base ||
			    home[i].base + home[i].npages <= home[k].base);
	}
	/* A frame of a home is given to who asks for it, once. */
	for (uint32_t i = 0; i < 7; i++)
		check(physmem_alloc(home[1].base + i, PHYSMEM_ZERO) == home[1].base + i);
	for (uint32_t i = 0; i < 7; i++) {
		vm_pfn_t other = physmem_alloc(home[1].base + i, PHYSMEM_ZERO);

		check(other != 0);
		for (unsigned k = 0; k < 8; k++)		/* a stray is in nobody's home */
			check(other < home[k].base || other >= home[k].base + home[k].npages);
		physmem_free(other);
	}
	for (uint32_t i = 0; i < 7; i++)
		physmem_free(home[1].base + i);
	for (unsigned i = 0; i < 8; i++)
		physmem_unreserve(&home[(i * 3) % 8]);
	end();
}
END_TEST

/* Whatever the order they come back in, the runs merge: the whole space can be had as one. */
START_TEST(extents_merge)
{
	struct physmem_home home[64], all;
	uint64_t state = (uint64_t)_i + 1;

	begin();
	for (int round = 0; round < 4; round++) {
		uint32_t n = 0;

		while (n < 64 && physmem_reserve(1 + (uint32_t)(rng_next(&state) % 1000), &home[n]))
			n++;
		check(n == 64);
		while (n > 0) {
			uint32_t k = (uint32_t)(rng_next(&state) % n);

			physmem_unreserve(&home[k]);
			home[k] = home[--n];
		}
		/* Frame 0 is no frame, and runs are aligned: one of 512 less is what fits. */
		check(physmem_reserve(SPACE - 512, &all));
		check(!physmem_reserve(512, &home[0]));
		physmem_unreserve(&all);
	}
	end();
}
END_TEST

/*
 * Strays that come and go take frames of a few runs, again and again: frame space does not run out, and what is freed is
 * used again.  Those that stay keep theirs.
 */
START_TEST(strays_go_round)
{
	enum { N = BUDGET / 4, STAY = 8 };
	vm_pfn_t stay[STAY], high = 0, pfn[N];
	struct physmem_home all;
	unsigned staying = 0;

	begin();
	for (unsigned round = 0; round < 4 * SPACE / N; round++) {
		for (unsigned i = 0; i < N; i++) {
			pfn[i] = physmem_alloc(0, PHYSMEM_OVERWRITE);
			check(pfn[i] != 0);
			high = MAX(high, pfn[i]);
		}
		/* One in each run, if it is not the same run every time. */
		if (round % (1024 / N) == 0 && staying < STAY) {
			stay[staying++] = pfn[0];
			write_frame(pfn[0], staying);
		} else {
			physmem_free(pfn[0]);
		}
		physmem_free_many(pfn + 1, N - 1);
	}
	check(high < 4 * 512);
	check(physmem_reserve(SPACE / 2, &all));
	physmem_unreserve(&all);
	for (unsigned i = 0; i < STAY; i++) {
		check_frame(stay[i], i + 1);
		physmem_free(stay[i]);
	}
	end();
}
END_TEST

/* All frame space is somebody's home: strays are taken from there, and all of the budget comes. */
START_TEST(space_exhausted)
{
	static struct physmem_home home[SPACE / 64];
	vm_pfn_t pfn[BUDGET];
	uint32_t n = 0;

	begin();
	for (uint32_t len = SPACE / 2; len > 0; len /= 2)
		while (physmem_reserve(len, &home[n]))
			n++;
	check(!physmem_reserve(1, &home[n]));
	for (unsigned i = 0; i < BUDGET; i++) {
		pfn[i] = physmem_alloc(0, PHYSMEM_ZERO);
		check(pfn[i] != 0 && pfn[i] < SPACE);
		write_frame(pfn[i], i + 1);
	}
	for (unsigned i = 0; i < BUDGET; i++) {
		check_frame(pfn[i], i + 1);
		physmem_free(pfn[i]);
	}
	while (n > 0)
		physmem_unreserve(&home[--n]);
	end();
}
END_TEST

/*
 * The budget, and what is in a frame
 */

static int
refuse_punch(enum sys_call call)
{
	return call == SYS_CALL_FALLOCATE ? -ENOSPC : 0;
}

/* Freed frames are used again before the budget is called used up, and read as zeros. */
START_TEST(budget_is_hard)
{
	vm_pfn_t pfn[BUDGET];

	begin();
	if (_i)
		sys_inject = refuse_punch;	/* so that all that are freed stay dirty */
	for (int round = 0; round < 3; round++) {
		for (unsigned i = 0; i < BUDGET; i++) {
			pfn[i] = physmem_alloc(0, PHYSMEM_ZERO);
			check(pfn[i] != 0);
			check_frame(pfn[i], 0);
			write_frame(pfn[i], i + 1);
			check(held() <= BUDGET);
		}
		check(physmem_free_count() == 0 && physmem_is_low());
		check(physmem_alloc(0, PHYSMEM_ZERO) == 0);
		check(physmem_alloc(pfn[3] + 1, PHYSMEM_OVERWRITE) == 0);
		for (unsigned i = 0; i < BUDGET; i++) {
			check_frame(pfn[i], i + 1);
			physmem_free(pfn[i]);
			check(dirty() <= i + 1);
		}
		if (_i)
			check(physmem_flush(UINT32_MAX) == 0 && dirty() == BUDGET);
		check(!physmem_is_low());
	}
	end();
}
END_TEST

/* The very frame that is asked for, dirty: zeros, if zeros were asked for. */
START_TEST(dirty_frame_wanted)
{
	struct physmem_home home;

	begin();
	check(physmem_reserve(64, &home));
	for (uint32_t i = 0; i < 64; i++) {
		check(physmem_alloc(home.base + i, PHYSMEM_ZERO) == home.base + i);
		write_frame(home.base + i, i + 1);
	}
	for (uint32_t i = 0; i < 64; i++)
		physmem_free(home.base + i);
	check(dirty() == 64);
	for (uint32_t i = 0; i < 32; i++) {
		check(physmem_alloc(home.base + i, PHYSMEM_ZERO) == home.base + i);
		check_frame(home.base + i, 0);
		check(physmem_used(home.base + i) && !physmem_used(home.base + i + 32));
	}
	check(dirty() == 32);
	/* What is in the batch and used again must not be punched. */
	for (uint32_t i = 0; i < 32; i++)
		write_frame(home.base + i, 100 + i);
	check(physmem_flush(UINT32_MAX) == 32 && dirty() == 0);
	for (uint32_t i = 0; i < 32; i++) {
		check_frame(home.base + i, 100 + i);
		physmem_free(home.base + i);
	}
	physmem_unreserve(&home);
	end();
}
END_TEST

START_TEST(flush_gives_back)
{
	vm_pfn_t pfn[BUDGET];

	begin();
	for (unsigned i = 0; i < BUDGET; i++) {
		pfn[i] = physmem_alloc(0, PHYSMEM_ZERO);
		check(physmem_is_zero(pfn[i]));
		write_frame(pfn[i], 1);
		check(!physmem_is_zero(pfn[i]));
	}
	check(held() == BUDGET);
	for (unsigned i = 0; i < BUDGET; i += 2)
		physmem_free(pfn[i]);
	check(physmem_flush(UINT32_MAX) == BUDGET / 2);
	check(held() == BUDGET / 2);
	for (unsigned i = 1; i < BUDGET; i += 2) {
		check_frame(pfn[i], 1);
		physmem_free(pfn[i]);
	}
	/* A refusal is not forgotten: the next flush tries again. */
	sys_inject = refuse_punch;
	check(physmem_flush(UINT32_MAX) == 0 && dirty() == BUDGET / 2 && held() == BUDGET / 2);
	sys_inject = NULL;
	check(physmem_flush(UINT32_MAX) == BUDGET / 2 && dirty() == 0 && held() == 0);
	check(physmem_flush(UINT32_MAX) == 0);
	end();
}
END_TEST

/* A frame that is being punched is nobody's to have: not clean yet, and soon not dirty any more. */
static vm_pfn_t punched, got_instead;

static void
grab(const char *place)
{
	if (strcmp(place, "physmem_flush: punching") == 0)
		got_instead = physmem_alloc(punched, PHYSMEM_ZERO);
}

START_TEST(not_while_punched)
{
	begin();
	punched = physmem_alloc(0, PHYSMEM_ZERO);
	write_frame(punched, 1);
	physmem_free(punched);
	probe_hook = grab;
	check(physmem_flush(UINT32_MAX) == 1);
	probe_hook = NULL;
	check(got_instead != 0 && got_instead != punched);
	physmem_free(got_instead);
	end();
}
END_TEST

/* The last frames there are, while they are being punched: they are waited for, not refused. */
static _Atomic bool asked;

static void
grab_last(const char *place)
{
	if (strcmp(place, "physmem_flush: punching") == 0)
		while (!asked)
			usleep(100);
	else if (strcmp(place, "physmem_alloc: what is free is being punched") == 0)
		asked = true;
}

static void *
flush(void *arg)
{
	(void)arg;
	(void)physmem_flush(UINT32_MAX);
	return NULL;
}

START_TEST(the_last_ones_are_waited_for)
{
	vm_pfn_t pfn[BUDGET];
	pthread_t thread;

	begin();
	for (unsigned i = 0; i < BUDGET; i++) {
		pfn[i] = physmem_alloc(0, PHYSMEM_ZERO);
		write_frame(pfn[i], 1);
	}
	physmem_free(pfn[7]);
	asked = false;
	probe_hook = grab_last;
	check(pthread_create(&thread, NULL, flush, NULL) == 0);
	while (physmem_used(pfn[7]) == false)
		usleep(100);
	pfn[7] = physmem_alloc(0, PHYSMEM_ZERO);
	check(pfn[7] != 0 && asked);
	check(pthread_join(thread, NULL) == 0);
	probe_hook = NULL;
	check_frame(pfn[7], 0);
	check(physmem_alloc(0, PHYSMEM_ZERO) == 0);
	for (unsigned i = 0; i < BUDGET; i++)
		physmem_free(pfn[i]);
	end();
}
END_TEST

/* A budget that has become smaller than what is used: nothing is to be had until it fits. */
START_TEST(budget_changes)
{
	vm_pfn_t pfn[BUDGET];

	begin();
	for (unsigned i = 0; i < BUDGET; i++)
		pfn[i] = physmem_alloc(0, PHYSMEM_ZERO);
	physmem_set_budget(BUDGET - 3);
	check(physmem_budget() == BUDGET - 3 && !physmem_fits() && physmem_free_count() == 0);
	for (unsigned i = 0; i < 3; i++) {
		check(!physmem_fits());
		physmem_free(pfn[i]);
		check(physmem_alloc(pfn[i], PHYSMEM_OVERWRITE) == 0);
	}
	sys_inject = refuse_punch;
	check(!physmem_fits());			/* dirty ones still count */
	sys_inject = NULL;
	check(physmem_fits() && dirty() == 0);
	check(physmem_alloc(0, PHYSMEM_OVERWRITE) == 0);
	physmem_set_budget(BUDGET + 1);
	for (unsigned i = 0; i < 3; i++)
		check((pfn[i] = physmem_alloc(0, PHYSMEM_ZERO)) != 0);
	check(physmem_free_count() == 1);
	for (unsigned i = 0; i < BUDGET; i++)
		physmem_free(pfn[i]);
	end();
}
END_TEST

/*
 * Freed frames linger: what somebody takes meanwhile stays for the next, what nobody took for a whole interval goes.
 */
START_TEST(surplus_goes)
{
	struct physmem_home home;

	begin();
	physmem_linger = 500 * 1000 * 1000;
	check(!physmem_is_untended() && physmem_trim() == EVENT_FOREVER);
	check(physmem_reserve(128, &home));
	for (uint32_t i = 0; i < 128; i++) {
		check(physmem_alloc(home.base + i, PHYSMEM_ZERO) == home.base + i);
		write_frame(home.base + i, 1);
	}
	for (uint32_t i = 0; i < 128; i++)
		physmem_free(home.base + i);
	check(physmem_is_untended() && !physmem_is_untended());
	check(physmem_trim() != EVENT_FOREVER && dirty() == 128);
	for (uint32_t i = 0; i < 40; i++)
		check(physmem_alloc(home.base + 3 * i, PHYSMEM_OVERWRITE) == home.base + 3 * i);
	for (uint32_t i = 0; i < 40; i++)
		physmem_free(home.base + 3 * i);
	do
		usleep(10000);
	while (physmem_trim() != EVENT_FOREVER && dirty() == 128);
	check(dirty() == 40 && held() == 40);
	while (physmem_trim() != EVENT_FOREVER)
		usleep(10000);
	check(dirty() == 0 && held() == 0 && !physmem_is_untended());
	/* It begins again. */
	check(physmem_alloc(home.base, PHYSMEM_OVERWRITE) == home.base);
	physmem_free(home.base);
	check(physmem_is_untended());
	physmem_unreserve(&home);
	end();
}
END_TEST

/* More runs than are known by their places: they are found by their bits, wherever they are. */
START_TEST(many_runs)
{
	enum { MANY = 4096 };
	static vm_pfn_t pfn[MANY];
	uint64_t state = 7;
	uint32_t got = 0;
	vm_pfn_t base;

	expect(physmem_init(MANY, SPACE), 0);
	for (unsigned i = 0; i < MANY; i++) {
		pfn[i] = physmem_alloc(1 + (vm_pfn_t)(rng_next(&state) % (SPACE - 1)), PHYSMEM_ZERO);
		write_frame(pfn[i], i + 1);
	}
	for (unsigned i = 0; i < MANY; i += 2)
		physmem_free(pfn[i]);
	check(dirty() == MANY / 2);
	/* Those that are known are used again: one of the others is found. */
	for (unsigned i = MANY - 2 * KNOWN_RUNS; i < MANY; i += 2)
		check(physmem_alloc(pfn[i], PHYSMEM_OVERWRITE) == pfn[i]);
	kmutex_lock(&pm.lock);
	base = dirty_any();
	check(base != 0 && test_bit(pm.dirty, base));
	kmutex_unlock(&pm.lock);
	for (unsigned i = MANY - 2 * KNOWN_RUNS; i < MANY; i += 2)
		physmem_free(pfn[i]);
	check(physmem_flush(100) == 100 && dirty() == MANY / 2 - 100 && held() == MANY - 100);
	check(physmem_flush(UINT32_MAX) == MANY / 2 - 100 && dirty() == 0 && held() == MANY / 2);
	for (unsigned i = 1; i < MANY; i += 2) {
		check_frame(pfn[i], i + 1);
		physmem_free(pfn[i]);
	}
	/* So are those that are used again. */
	for (; physmem_recycle(1, &base) == 1; got++)
		check(physmem_used(base));
	check(got == MANY / 2 && dirty() == 0);
	for (vm_pfn_t p = 1; p < SPACE; p++)
		if (physmem_used(p))
			physmem_free(p);
	end();
}
END_TEST

/* A row is of frames that are all clean or all dirty; the dirty ones do not count twice against the budget. */
START_TEST(rows)
{
	struct physmem_home home;
	bool clean;

	begin();
	check(physmem_reserve(BUDGET + 64, &home));
	check(physmem_alloc_row(home.base, BUDGET + 1, &clean) == BUDGET && clean);
	check(physmem_alloc_row(home.base + BUDGET, 1, &clean) == 0);
	for (uint32_t i = 0; i < 64; i++) {
		write_frame(home.base + i, i + 1);
		physmem_free(home.base + i);
	}
	check(physmem_alloc_row(home.base + BUDGET, 64, &clean) == 0 && clean);
	check(physmem_alloc_row(home.base + 10, 100, &clean) == 54 && !clean);
	check(dirty() == 10 && physmem_used(home.base + 63) && !physmem_used(home.base + 9));
	check_frame(home.base + 63, 64);
	/* Dirty, clean, dirty. */
	physmem_unalloc_row(home.base + 100, 30);
	physmem_free(home.base + 99);
	physmem_free(home.base + 130);
	check(physmem_alloc_row(home.base + 99, 64, &clean) == 1 && !clean);
	check(physmem_alloc_row(home.base + 100, 64, &clean) == 30 && clean);
	check(physmem_alloc_row(home.base + 130, 64, &clean) == 1 && !clean);
	for (uint32_t i = 10; i < BUDGET; i++)
		physmem_free(home.base + i);
	physmem_unreserve(&home);
	end();
}
END_TEST

/* What was freed is not in the way of a loan, as far as the kernel takes it back. */
START_TEST(lending)
{
	vm_pfn_t pfn[BUDGET], lent;

	begin();
	for (unsigned i = 0; i < BUDGET; i++) {
		pfn[i] = physmem_alloc(0, PHYSMEM_ZERO);
		write_frame(pfn[i], 1);
	}
	check(!physmem_lend(1, 0));
	for (unsigned i = 0; i < 100; i++)
		physmem_free(pfn[i]);
	sys_inject = refuse_punch;
	check(!physmem_lend(50, 20) && physmem_free_count() == 100);
	sys_inject = NULL;
	check(!physmem_lend(50, 51) && held() == BUDGET);
	check(physmem_lend(50, 20) && physmem_free_count() == 50 && held() == BUDGET - 50);
	for (unsigned i = 0; i < 50; i++)
		check((pfn[i] = physmem_alloc(0, PHYSMEM_OVERWRITE)) != 0);
	check(physmem_alloc(0, PHYSMEM_OVERWRITE) == 0 && (lent = physmem_alloc(0, PHYSMEM_LENT)) != 0);
	physmem_free(lent);
	physmem_lend_end(50);
	for (unsigned i = 0; i < BUDGET; i++)
		if (i < 50 || i >= 100)
			physmem_free(pfn[i]);
	end();
}
END_TEST

/* Frames given up in a row are offered in a row; short ones are not; no frame is offered twice. */
START_TEST(recycling)
{
	struct physmem_home home;
	vm_pfn_t base, other;

	begin();
	check(physmem_recycle(64, &base) == 0);
	check(physmem_reserve(200, &home));
	for (uint32_t i = 0; i < 200; i++) {
		check(physmem_alloc(home.base + i, PHYSMEM_ZERO) == home.base + i);
		write_frame(home.base + i, i + 1);
	}
	for (uint32_t i = 0; i < 20; i++)
		physmem_free(home.base + i);
	check(physmem_recycle(64, &base) == 0);
	for (uint32_t i = 50; i < 90; i++)
		physmem_free(home.base + i);
	for (uint32_t i = 100; i < 180; i++)
		physmem_free(home.base + i);
	/* The shortest that is long enough; then the longest. */
	check(physmem_recycle(30, &base) == 30 && base == home.base + 50);
	check(physmem_recycle(40, &other) == 40 && other == home.base + 100);
	check(physmem_recycle(100, &other) == 40 && other == home.base + 140);
	check(physmem_recycle(64, &other) == 0);
	check(dirty() == 20 + 10);
	for (uint32_t i = 0; i < 30; i++) {
		check(physmem_used(base + i));
		check_frame(base + i, 50 + i + 1);
	}
	check(physmem_flush(UINT32_MAX) == 20 + 10);
	for (uint32_t i = 0; i < 200; i++)
		if (physmem_used(home.base + i))
			physmem_free(home.base + i);
	physmem_unreserve(&home);
	end();
}
END_TEST

START_TEST(copies_and_zeros)
{
	struct physmem_home a, b;

	begin();
	check(physmem_reserve(40, &a) && physmem_reserve(40, &b));
	for (uint32_t i = 0; i < 40; i++) {
		check(physmem_alloc(a.base + i, PHYSMEM_ZERO) == a.base + i);
		check(physmem_alloc(b.base + i, PHYSMEM_OVERWRITE) == b.base + i);
		write_frame(a.base + i, i + 1);
	}
	physmem_copy(a.base + 1, b.base + 1, 38);
	check_frame(b.base, 0);
	check_frame(b.base + 39, 0);
	physmem_zero(a.base + 7);
	for (uint32_t i = 0; i < 40; i++) {
		check_frame(a.base + i, i == 7 ? 0 : i + 1);
		if (i >= 1 && i < 39)
			check_frame(b.base + i, i + 1);
		physmem_free(a.base + i);
		physmem_free(b.base + i);
	}
	physmem_unreserve(&a);
	physmem_unreserve(&b);
	end();
}
END_TEST

/* What the kernel was asked to write, and what it is to answer: 0: do it. */
static unsigned writes;
static int answer;

static int
count_writes(enum sys_call call)
{
	if (call != SYS_CALL_PWRITE)
		return 0;
	writes++;
	return answer;
}

/* Where there is no memory yet the kernel is asked to copy; if it does not, or not all, we do. */
START_TEST(copies_to_fresh_frames)
{
	static const int answers[] = { 0, -ENOSPC, 512 };
	struct physmem_home a, b;

	begin();
	check(physmem_reserve(8, &a) && physmem_reserve(8, &b));
	for (size_t n = 0; n < nitems(answers); n++) {
		sys_inject = count_writes;
		answer = answers[n];
		writes = 0;
		for (uint32_t i = 0; i < 8; i++) {
			check(physmem_alloc(a.base + i, PHYSMEM_ZERO) == a.base + i);
			check(physmem_alloc(b.base + i, PHYSMEM_OVERWRITE) == b.base + i);
			write_frame(a.base + i, 10 * n + i + 1);
			physmem_copy(a.base + i, b.base + i, 1);
			check_frame(b.base + i, 10 * n + i + 1);
			check(writes == i + 1);
		}
		/* Now there is: copied over, and kept in memory when freed. */
		physmem_copy(a.base + 1, b.base, 1);
		check_frame(b.base, 10 * n + 2);
		physmem_free(b.base);
		check(physmem_alloc(b.base, PHYSMEM_OVERWRITE) == b.base);
		physmem_copy(a.base + 2, b.base, 1);
		check_frame(b.base, 10 * n + 3);
		check(writes == 8);
		sys_inject = NULL;
		for (uint32_t i = 0; i < 8; i++) {
			physmem_free(a.base + i);
			physmem_free(b.base + i);
		}
		check(physmem_flush(UINT32_MAX) == 16);
	}
	physmem_unreserve(&a);
	physmem_unreserve(&b);
	end();
}
END_TEST

/*
 * Four threads: no frame is given to two, none changes under its owner
 */

static _Atomic unsigned refused;

static void *
work(void *arg)
{
	uint64_t state = (uintptr_t)arg, key[96] = { 0 };
	vm_pfn_t pfn[96] = { 0 };

	for (int n = 0; n < 4000; n++) {
		unsigned i = (unsigned)(rng_next(&state) % 96);

		if (pfn[i] != 0) {
			check_frame(pfn[i], key[i]);
			physmem_free(pfn[i]);
			pfn[i] = 0;
			continue;
		}
		/* Now and then a frame that another thread may have, or may be punching. */
		pfn[i] = physmem_alloc(n % 3 == 0 ? 1 + (vm_pfn_t)(rng_next(&state) % 300) : 0,
		    PHYSMEM_ZERO);
		if (pfn[i] == 0) {
			refused++;
			continue;
		}
		check_frame(pfn[i], 0);
		key[i] = rng_next(&state);
		write_frame(pfn[i], key[i]);
		if (n % 64 == 0)
			(void)physmem_flush(UINT32_MAX);
	}
	for (unsigned i = 0; i < 96; i++)
		if (pfn[i] != 0) {
			check_frame(pfn[i], key[i]);
			physmem_free(pfn[i]);
		}
	return NULL;
}

START_TEST(threads)
{
	pthread_t t[4];

	/* Less than each of them has after a while when it is alone: half of 96. */
	expect(physmem_init(40, SPACE), 0);
	for (uintptr_t i = 0; i < 4; i++)
		check(pthread_create(&t[i], NULL, work, (void *)(i + 1)) == 0);
	for (int i = 0; i < 4; i++)
		check(pthread_join(t[i], NULL) == 0);
	check(refused > 0);
	(void)physmem_flush(UINT32_MAX);
	(void)physmem_flush(UINT32_MAX);
	check(dirty() == 0 && held() == 0);
	end();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("physmem");
	TCase *tc = tcase_create("frames");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, homes);
	tcase_add_loop_test(tc, extents_merge, 0, 4);
	tcase_add_test(tc, strays_go_round);
	tcase_add_test(tc, space_exhausted);
	tcase_add_loop_test(tc, budget_is_hard, 0, 2);
	tcase_add_test(tc, dirty_frame_wanted);
	tcase_add_test(tc, flush_gives_back);
	tcase_add_test(tc, not_while_punched);
	tcase_add_test(tc, the_last_ones_are_waited_for);
	tcase_add_test(tc, budget_changes);
	tcase_add_test(tc, surplus_goes);
	tcase_add_test(tc, many_runs);
	tcase_add_test(tc, rows);
	tcase_add_test(tc, lending);
	tcase_add_test(tc, recycling);
	tcase_add_test(tc, copies_and_zeros);
	tcase_add_test(tc, copies_to_fresh_frames);
	tcase_add_test(tc, threads);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
