/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The pmap against an array of ptes, with every strategy.
 *
 * Random calls, and after each: the ptes are those of the array, the pages can be read and
 * written as they say and no more, what is seen is the frame's, and the count of mappings
 * is the kernel's own (/proc/self/maps).  Whether a page can be touched is asked of the
 * kernel by system calls, which say EFAULT where a touch would kill.
 *
 * Frame n begins with the number n; frames need not be allocated for that.
 */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"
#include "pmap.h"
#include "strategy.h"
#include "pmap_impl.h"
#include "suite.h"
#include "support.h"
#include "vm_meter.h"

enum { LEAF = PMAP_LEAF_PAGES, PAGES = 6 * LEAF, FRAMES = 4096, HOME = 8192 };


static char *guard;			/* a readable page; the range; another one */
static vm_offset_t base;
static struct pmap *pmap;
static pt_entry_t ref[PAGES];
static bool may_forget;
static int file;			/* holds what is moved in and out of pages */

static vm_offset_t
va(size_t i)
{
	return base + i * PG;
}

static void
number_frames(vm_pfn_t first, vm_pfn_t n)
{
	for (vm_pfn_t f = first; f < first + n; f++) {
		vm_pfn_t *p = window_map(WINDOW_TARGET, f, 1);

		*p = f;
		window_unmap(p);
	}
}

static void
begin(const struct pmap_ops *ops, uint32_t budget)
{
	expect(physmem_init(64, 1 << 16), 0);
	pmap_init(ops, budget);
	may_forget = budget != 0;
	/* Between pages of another kind, lest the kernel merge the range with a neighbour. */
	guard = mmap(NULL, (PAGES + 2) * PG, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(guard != MAP_FAILED);
	base = (vm_offset_t)guard + PG;
	check(mmap((void *)base, PAGES * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
	    MAP_NORESERVE, -1, 0) != MAP_FAILED);
	pmap = pmap_create(base, PAGES * PG);
	check(pmap != NULL);
	memset(ref, 0, sizeof(ref));
	number_frames(1, FRAMES);
	number_frames(HOME, PAGES);
	file = memfd_create("page", 0);
	check(file >= 0);
}

/* What is parked is counted until it is reaped: have nothing of that. */
static void
reap_all(void)
{
	while (park_reap())
		;
}

static void
end(void)
{
	sys_inject = NULL;
	reap_all();
	pmap_remove(pmap, base, base + PAGES * PG);
	expect(pmap_mappings(), 1);
	expect(pmap->napart, 0);
	for (unsigned i = 0; i < pmap->ndir; i++)
		check(pmap->dir[i] == NULL || pmap->dir[i]->used == 0);	/* no leaf is left */
	pmap_destroy(pmap);
	pmap_fini();
	check(munmap(guard, (PAGES + 2) * PG) == 0);
	close(file);
	physmem_fini();
}

/* The kernel's mappings of the range. */
static unsigned
kernel_runs(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long s, e;
	char line[512];
	unsigned n = 0;

	check(f != NULL);
	while (fgets(line, sizeof(line), f) != NULL)
		n += sscanf(line, "%lx-%lx", &s, &e) == 2 && s >= base && e <= base + PAGES * PG;
	fclose(f);
	return n;
}

/* Does the kernel let us do with the page exactly what its pte says? */
static void
check_rights(size_t i)
{
	pt_entry_t pte = ref[i];
	vm_pfn_t seen;

	errno = 0;
	if (pte & PTE_R) {
		check(pwrite(file, (void *)va(i), sizeof(seen), 0) == (ssize_t)sizeof(seen));
		check(pread(file, &seen, sizeof(seen), 0) == (ssize_t)sizeof(seen));
		check(seen == PTE_PFN(pte));
	} else {
		check(pwrite(file, (void *)va(i), sizeof(seen), 0) < 0 && errno == EFAULT);
	}
	seen = PTE_PFN(pte);
	check(pwrite(file, &seen, sizeof(seen), 0) == (ssize_t)sizeof(seen));
	if (pte & PTE_W)
		check(pread(file, (void *)va(i), sizeof(seen), 0) == (ssize_t)sizeof(seen));
	else
		check(pread(file, (void *)va(i), sizeof(seen), 0) < 0 && errno == EFAULT);
}

static void
check_all(uint64_t *state, vm_pfn_t home)
{
	reap_all();
	for (size_t i = 0; i < PAGES; i++) {
		pt_entry_t pte = pmap_extract(pmap, va(i));

		/* On the way, a home may be mapped without rights; and what is not wired may go. */
		if (pte != ref[i] && (pte & (PTE_PROT | PTE_WIRED)) == 0 && ((ref[i] == 0 &&
		    home != 0 && PTE_PFN(pte) == home + i) || (may_forget && !(ref[i] & PTE_WIRED))))
			ref[i] = pte;
		if (pte != ref[i])
			die("page %zu: pte %#x, not %#x", i, pte, ref[i]);
	}
	check(pmap->runs == pmap_count_runs(pmap) && pmap->runs == pmap_mappings());
	expect(kernel_runs(), pmap->runs);
	check(pmap_mappings() <= pmap_mappings_max());
	for (int n = 0; n < 16; n++)
		check_rights((size_t)(rng_next(state) % PAGES));
}

/*
 * Random operations
 */

static vm_prot_t
some_prot(uint64_t *state)
{
	static const vm_prot_t prots[] = { VM_PROT_READ, VM_PROT_READ | VM_PROT_WRITE,
	    VM_PROT_READ | VM_PROT_EXECUTE, VM_PROT_ALL, VM_PROT_NONE };

	return prots[rng_next(state) % nitems(prots)];
}

static void
op_enter(uint64_t *state, size_t first, uint32_t n, bool home)
{
	vm_pfn_t frame = 1 + (vm_pfn_t)(rng_next(state) % (FRAMES - 64));
	pt_entry_t pte[32], want[32];
	uint32_t centre = (uint32_t)(rng_next(state) % n), entered, expected = 0;
	unsigned rights = PTE_R;

	for (uint32_t k = 0; k < n; k++) {
		pt_entry_t old = ref[first + k];

		if (rng_next(state) % 4 == 0)
			rights = PTE_R | (some_prot(state) & PTE_PROT);
		pte[k] = PTE_MAKE(home ? HOME + first + k : frame++, rights);
		if (rng_next(state) % 8 == 0)
			frame++;
		if (k != centre && rng_next(state) % 8 == 0)
			pte[k] = 0;
		/* Only what the call is for may change a wired page, and keeps it wired. */
		if (k == centre && (old & PTE_WIRED))
			pte[k] |= PTE_WIRED;
		want[k] = pte[k];
		if (k != centre && ((old & PTE_WIRED) || (PTE_PFN(old) == PTE_PFN(pte[k]) &&
		    (pte[k] & PTE_PROT & ~old) == 0)))
			want[k] = 0;
		expected += want[k] != 0;
	}
	expect(pmap_enter(pmap, va(first), n, pte, centre, base, base + PAGES * PG, home ? HOME : 0,
	    &entered), KERN_SUCCESS);
	for (uint32_t k = 0; k < n; k++) {
		/* What was there may have been forgotten just before, and then be entered again. */
		check(pte[k] == want[k] || may_forget);
		if (pte[k] != 0)
			ref[first + k] = pte[k];
	}
	check(entered == expected || may_forget);
}

static uint64_t parked;

/* Leaves that have lost all rights, although some should have stayed: that is allowed, if nothing is wired. */
static void
adopt_parked(size_t first, size_t n)
{
	for (size_t l = (first + LEAF - 1) / LEAF * LEAF; l + LEAF <= first + n; l += LEAF) {
		bool all = true, any = false;

		for (size_t i = l; i < l + LEAF; i++) {
			pt_entry_t pte = pmap_extract(pmap, va(i));

			all = all && pte == (ref[i] & ~PTE_PROT) && pte != 0;
			any = any || (ref[i] & PTE_PROT) != 0;
		}
		parked += all && any;
		for (size_t i = l; all && i < l + LEAF; i++)
			ref[i] &= ~PTE_PROT;
	}
}

static void
op_protect(uint64_t *state, size_t first, size_t n)
{
	unsigned flags = rng_next(state) % 2 ? PMAP_KEEP_WIRED : 0;
	vm_prot_t prot = some_prot(state);

	pmap_protect(pmap, va(first), va(first + n), prot, flags);
	for (size_t i = first; i < first + n; i++)
		if (!(flags && (ref[i] & PTE_WIRED)))
			ref[i] &= ~PTE_PROT | prot;
	if (pmap_ops->park && !(prot & VM_PROT_WRITE))
		adopt_parked(first, n);
}

/* Whole leaves that can be written. */
static void
op_fill(uint64_t *state)
{
	size_t first = rng_next(state) % 2 * LEAF, n = PAGES - first;
	pt_entry_t pte[LEAF];
	uint32_t entered;

	for (size_t i = first; i < first + n; i++)
		if (ref[i] & PTE_WIRED) {
			pmap_change_wiring(pmap, va(i), false);
			ref[i] &= ~PTE_WIRED;
		}
	for (size_t i = first; i < first + n; i += LEAF) {
		for (size_t k = 0; k < LEAF; k++)
			pte[k] = PTE_MAKE(HOME + i + k, PTE_R | PTE_W);
		expect(pmap_enter(pmap, va(i), LEAF, pte, 0, base, base + PAGES * PG, HOME, &entered), KERN_SUCCESS);
		for (size_t k = 0; k < LEAF; k++)
			if (pte[k] != 0)	/* else it could do that, and more */
				ref[i + k] = pte[k];
	}
}

static void
op_limit(uint64_t *state, size_t i)
{
	vm_prot_t prot = some_prot(state);
	vm_pfn_t pfn = PTE_PFN(ref[i]);
	bool other = rng_next(state) % 3 == 0;

	pmap_page_limit(pmap, va(i), other ? pfn + 1 : pfn, prot);
	if (!other)
		ref[i] &= ~PTE_PROT | prot;
}

static void
op_wire(uint64_t *state, size_t i)
{
	bool wired = rng_next(state) % 2;

	/* Under a budget, few of them, and in one leaf: those that have some are not forgotten. */
	if (may_forget)
		i %= 8;
	if (pmap_extract(pmap, va(i)) != ref[i] || (ref[i] & PTE_PROT) == 0)
		return;
	pmap_change_wiring(pmap, va(i), wired);
	ref[i] = wired ? ref[i] | PTE_WIRED : ref[i] & ~PTE_WIRED;
}

static void
random_ops(uint64_t seed, int steps)
{
	uint64_t state = seed;

	for (int s = 0; s < steps; s++) {
		/* Near the ends of leaves more often than not. */
		size_t first = (size_t)(rng_next(&state) % 3 * LEAF + LEAF - 40 + rng_next(&state) % 80);
		size_t n = 1 + (size_t)(rng_next(&state) % 32);
		bool home = false;

		if (rng_next(&state) % 4 == 0)
			first = (size_t)(rng_next(&state) % (PAGES - 32));
		if (first + n > PAGES)
			first = PAGES - n;
		switch (rng_next(&state) % (pmap_ops->park ? 14 : 12)) {
		case 0: case 1: case 2: case 3: case 4:
			home = rng_next(&state) % 2;
			op_enter(&state, first, (uint32_t)n, home);
			break;
		case 5: case 6:
			op_protect(&state, first, rng_next(&state) % 8 == 0 ? PAGES - first : n);
			break;
		case 7:
			pmap_remove(pmap, va(first), va(first + n));
			memset(ref + first, 0, n * sizeof(ref[0]));
			break;
		case 8: case 9:
			op_limit(&state, first);
			break;
		case 12: case 13:
			op_fill(&state);
			if (rng_next(&state) % 2)
				op_protect(&state, rng_next(&state) % 3 * LEAF / 2, PAGES - 2 * LEAF);
			break;
		default:
			op_wire(&state, first);
		}
		check_all(&state, home ? HOME : 0);
	}
}

START_TEST(against_an_array)
{
	begin(strategies[_i % nitems(strategies)], 0);
	random_ops((uint64_t)_i + 1, 600);
	check(vm_meter_read(VMC_v_forgets) == 0);
	if (pmap_ops->park) {
		uint64_t state = (uint64_t)_i;

		pmap_remove(pmap, base, base + PAGES * PG);
		memset(ref, 0, sizeof(ref));
		op_fill(&state);
		op_limit(&state, 5 * LEAF + 7);	/* not a row any more */
		pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ, 0);
		for (size_t i = 0; i < PAGES; i++)
			ref[i] &= ~PTE_PROT | PTE_R;
		adopt_parked(0, PAGES);
		check_all(&state, 0);
	}
	check((parked != 0) == pmap_ops->park);
	end();
}
END_TEST

START_TEST(under_a_budget)
{
	enum { STEPS = SANITIZED ? 500 : 3000 };

	begin(strategies[_i % nitems(strategies)], 64);
	/* Some are long in coming to it; with a sanitizer, where all is looked at ten times as slowly, that is enough. */
	for (uint64_t n = 0; n < 60000 / STEPS && vm_meter_read(VMC_v_forgets) == 0; n++)
		random_ops((uint64_t)_i + 1 + 100 * n, STEPS);
	check(vm_meter_read(VMC_v_forgets) > 0);
	end();
}
END_TEST

/* The worst access pattern: every other page of all there is, with wired ones among them. */
START_TEST(budget_holds)
{
	uint32_t entered;

	begin(strategies[_i], 64);
	for (size_t i = 0; i < PAGES; i += 2) {
		pt_entry_t pte = PTE_MAKE(1 + i, PTE_R | PTE_W | (i < 16 ? PTE_WIRED : 0));

		expect(pmap_enter(pmap, va(i), 1, &pte, 0, base, base, 0, &entered), KERN_SUCCESS);
		check(entered == 1 && pmap_extract(pmap, va(i)) == pte);
		check(i < 16 || pmap_mappings() <= 64 + 4);
		ref[i] = pte;
		check_rights(i);
	}
	for (size_t i = 0; i < 16; i += 2)
		check(pmap_extract(pmap, va(i)) == ref[i]);
	pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ, PMAP_KEEP_WIRED);
	check(pmap_mappings() <= 64);
	expect(kernel_runs(), pmap_mappings());
	end();
}
END_TEST

/* Taking rights away cuts runs, too. */
START_TEST(budget_holds_when_cut)
{
	pt_entry_t pte[32];
	uint32_t entered;

	begin(strategies[_i], 64);
	for (size_t i = 0; i < PAGES; i += 32) {
		for (size_t k = 0; k < 32; k++)
			pte[k] = PTE_MAKE(HOME + i + k, PTE_R | PTE_W);
		expect(pmap_enter(pmap, va(i), 32, pte, 0, base, base, 0, &entered), KERN_SUCCESS);
	}
	expect(pmap_mappings(), 1);
	for (size_t i = 0; i < PAGES; i += 2) {
		if (i % 4 == 0)
			pmap_protect(pmap, va(i), va(i + 1), VM_PROT_READ, 0);
		else
			pmap_page_limit(pmap, va(i), HOME + i, VM_PROT_READ);
		check((pmap_extract(pmap, va(i)) & PTE_W) == 0);
		check(pmap_mappings() <= 64);
	}
	expect(kernel_runs(), pmap_mappings());
	end();
}
END_TEST

/* One page of a home: the rest of its 2 MB comes with it, closed; the next pages are mprotects. */
START_TEST(home_comes_along)
{
	pt_entry_t pte = PTE_MAKE(HOME + LEAF + 7, PTE_R);
	uint32_t entered;

	begin(strategies[_i], 0);
	expect(pmap_enter(pmap, va(LEAF + 7), 1, &pte, 0, va(LEAF + 3), va(2 * LEAF + 9),
	    HOME + LEAF + 3, &entered), KERN_SUCCESS);
	for (size_t i = 0; i < PAGES; i++) {
		if (i == LEAF + 7)
			ref[i] = pte;
		else if (i >= LEAF + 3 && i < 2 * LEAF)
			ref[i] = PTE_MAKE(HOME + i, 0);
		expect(pmap_extract(pmap, va(i)), ref[i]);
		if (i % 64 == 7)
			check_rights(i);
	}
	/* Nothing, closed, the page, closed, nothing. */
	expect(pmap_mappings(), 5);
	expect(kernel_runs(), 5);
	/* All of it, and the kernel has one mapping where there were three. */
	for (size_t i = LEAF + 3; i < 2 * LEAF; i++) {
		pte = PTE_MAKE(HOME + i, PTE_R);
		expect(pmap_enter(pmap, va(i), 1, &pte, 0, va(LEAF + 3), va(2 * LEAF + 9),
		    HOME + LEAF + 3, &entered), KERN_SUCCESS);
	}
	expect(pmap_mappings(), 3);
	expect(kernel_runs(), 3);
	end();
}
END_TEST

/* Enter [i, i + n) of the home, a leaf at a time at most, with these rights. */
static void
enter_home_pages(size_t i, size_t n, unsigned rights)
{
	static pt_entry_t pte[LEAF];
	uint32_t entered;

	for (size_t k = 0; k < n; k++)
		pte[k] = ref[i + k] = PTE_MAKE(HOME + i + k, rights);
	expect(pmap_enter(pmap, va(i), (uint32_t)n, pte, 0, base, base, 0, &entered), KERN_SUCCESS);
}

static void
expect_mappings(uint64_t n)
{
	expect(pmap_mappings(), n);
	expect(pmap_count_runs(pmap), n);
	expect(kernel_runs(), n);
}

/* Lone pages that are written keep their mappings when they are closed again, and need fewer calls then. */
START_TEST(lone_writes_stay_apart)
{
	uint64_t calls;

	begin(&pmap_mprotect_ops, 0);
	for (size_t i = 0; i < PAGES; i += LEAF)
		enter_home_pages(i, LEAF, PTE_R);
	expect_mappings(1);
	for (size_t i = 40; i < PAGES; i += 64)
		enter_home_pages(i, 1, PTE_R | PTE_W);
	expect_mappings(1 + 2 * PAGES / 64);
	for (int round = 0; round < 3; round++) {
		calls = vm_meter_read(VMC_v_map_calls);
		pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ | VM_PROT_EXECUTE, 0);
		expect(vm_meter_read(VMC_v_map_calls), calls + 1);
		for (size_t i = 0; i < PAGES; i++)
			ref[i] &= ~PTE_W;
		for (size_t i = 38; i < PAGES; i += 64)
			check_rights(i), check_rights(i + 2);
		expect_mappings(1 + 2 * PAGES / 64);
		for (size_t i = 40; i < PAGES; i += 64)
			enter_home_pages(i, 1, PTE_R | PTE_W);
		expect(vm_meter_read(VMC_v_map_calls), calls + 1 + PAGES / 64);
		expect_mappings(1 + 2 * PAGES / 64);
	}
	/* Other frames in its place: an ordinary mapping. */
	enter_home_pages(40, 1, PTE_R);
	ref[40] = PTE_MAKE(1, PTE_R | PTE_W);
	expect(pmap_enter(pmap, va(40), 1, ref + 40, 0, base, base, 0, &(uint32_t){ 0 }), KERN_SUCCESS);
	enter_home_pages(40, 1, PTE_R);
	expect_mappings(1 + 2 * PAGES / 64 - 2);
	end();
}
END_TEST

/* Where other pages are written than before, those that are not join their neighbours again. */
START_TEST(stale_ones_join)
{
	begin(&pmap_mprotect_ops, 0);
	enter_home_pages(0, LEAF, PTE_R);
	for (size_t round = 0; round < 7; round++) {
		for (size_t i = 20 + 3 * round; i < LEAF; i += 64)
			enter_home_pages(i, 1, PTE_R | PTE_W);
		/* This round's and, every other round, the last one's. */
		expect(pmap->napart, round % 2 ? 16 : 8);
		pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ | VM_PROT_EXECUTE, 0);
	}
	expect(kernel_runs(), pmap_count_runs(pmap));
	end();
}
END_TEST

/* Full leaves take a short cut, unless a page of theirs is of another kind. */
START_TEST(odd_pages_in_full_leaves)
{
	begin(strategies[_i], 0);
	enter_home_pages(0, LEAF, PTE_R | PTE_W);
	enter_home_pages(LEAF, LEAF, PTE_R);
	enter_home_pages(2 * LEAF, LEAF, PTE_R | PTE_W);
	enter_home_pages(3 * LEAF, LEAF, PTE_R);
	enter_home_pages(LEAF - 1, 1, PTE_PROT);
	enter_home_pages(2 * LEAF, 1, PTE_PROT);
	enter_home_pages(2 * LEAF + 7, 1, PTE_R | PTE_W | PTE_WIRED);
	enter_home_pages(3 * LEAF + 7, 1, PTE_R | PTE_W | PTE_WIRED);
	enter_home_pages(3 * LEAF + 70, 1, PTE_R | PTE_W);
	pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ | VM_PROT_EXECUTE, PMAP_KEEP_WIRED);
	for (size_t i = 0; i < PAGES; i++) {
		if (!(ref[i] & PTE_WIRED))
			ref[i] &= ~PTE_W;
		expect(pmap_extract(pmap, va(i)), ref[i]);
		check_rights(i);
	}
	expect(kernel_runs(), pmap_count_runs(pmap));
	end();
}
END_TEST

/* Where many pages are written they come together, without being asked to. */
START_TEST(dense_writes_come_together)
{
	begin(&pmap_mprotect_ops, 0);
	enter_home_pages(0, LEAF, PTE_R);
	expect_mappings(2);
	for (size_t i = 1; i < LEAF; i += 2)
		enter_home_pages(i, 1, PTE_R | PTE_W);
	for (size_t i = 0; i < LEAF; i += 2)
		enter_home_pages(i, 1, PTE_R | PTE_W);
	expect_mappings(2);
	end();
}
END_TEST

/*
 * Leaves that are known to be written all over, in parts: they lose all rights, and are one mapping with those beside
 * them, in one call.  Not so where a page is wired, or nothing was written; and the knowledge ends after some times.
 */
START_TEST(leaves_in_parts)
{
	begin(&pmap_mprotect_ops, 0);
	for (size_t l = 0; l < 4; l++) {
		enter_home_pages(l * LEAF, LEAF, 0);
		pmap_dense_set(pmap, va(l * LEAF), l != 3);
		enter_home_pages(l * LEAF + 8, 16, PTE_R | PTE_W);
		enter_home_pages(l * LEAF + 64, 16, PTE_R);
	}
	pmap_change_wiring(pmap, va(2 * LEAF + 10), true);
	pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ | VM_PROT_EXECUTE, PMAP_KEEP_WIRED);
	for (size_t l = 0; l < 4; l++)
		for (size_t i = 8; i < 80; i += i == 23 ? 41 : 1) {
			unsigned has = pmap_extract(pmap, va(l * LEAF + i)) & PTE_PROT;

			expect(has, l < 2 ? 0 : l == 2 && i == 10 ? PTE_R | PTE_W : PTE_R);
		}
	expect(pmap_extract(pmap, va(2 * LEAF + 10)) & PTE_PROT, PTE_R | PTE_W);
	pmap_change_wiring(pmap, va(2 * LEAF + 10), false);
	/* Only read since: that stays. */
	enter_home_pages(8, 16, PTE_R);
	pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ | VM_PROT_EXECUTE, 0);
	expect(pmap_extract(pmap, va(8)) & PTE_PROT, PTE_R);
	for (size_t n = 0; n < 8; n++)
		pmap_protect(pmap, base, base + PG, VM_PROT_READ | VM_PROT_EXECUTE, PMAP_CUT);
	/* The last look said: not all over. */
	check(!pmap_dense(pmap, va(0)));
	end();
}
END_TEST

/* When mappings run short, those that are only kept apart go before anything is forgotten. */
START_TEST(apart_goes_before_forgetting)
{
	begin(&pmap_mprotect_ops, 128);
	for (size_t i = 0; i < PAGES; i += LEAF)
		enter_home_pages(i, LEAF, PTE_R);
	/* Up to half of the budget. */
	for (size_t i = 0; i < 31; i++)
		enter_home_pages(i * 64 + 40, 1, PTE_R | PTE_W);
	pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ | VM_PROT_EXECUTE, 0);
	expect_mappings(1 + 2 * 31);
	for (size_t n = 0; n < 40; n++) {
		enter_home_pages(n * 50, 1, PTE_R | PTE_W);
		check(pmap_mappings() <= 128);
		check(n >= 3 || (pmap->napart != 0) == (n < 2));
	}
	expect_mappings(1 + 2 * 40 - 1);
	expect(vm_meter_read(VMC_v_forgets), 0);
	end();
}
END_TEST

/* One call enters a run, though some pages of it are mapped as it will be. */
START_TEST(a_run_bridges_what_is_mapped)
{
	pt_entry_t pte[32];
	uint32_t entered;
	uint64_t calls;

	begin(strategies[_i], 0);
	for (size_t i = 0; i < 32; i += 2)
		enter_home_pages(i, 1, PTE_R | PTE_W);
	/* Neither one with other rights nor a wired one is touched. */
	pmap_protect(pmap, va(8), va(9), VM_PROT_READ, 0);
	pmap_change_wiring(pmap, va(20), true);
	calls = vm_meter_read(VMC_v_map_calls);
	for (size_t k = 0; k < 32; k++)
		pte[k] = k == 8 ? PTE_MAKE(HOME + k, PTE_R) : PTE_MAKE(HOME + k, PTE_R | PTE_W);
	expect(pmap_enter(pmap, base, 32, pte, 1, base, base, 0, &entered), KERN_SUCCESS);
	expect(entered, 16);
	/* Pages 1-7, 9-19 and 21-31; the kernel may also be asked to keep them apart or not. */
	check(vm_meter_read(VMC_v_map_calls) - calls <= 6);
	for (size_t i = 0; i < 32; i++)
		ref[i] = PTE_MAKE(HOME + i, i == 8 ? PTE_R : i == 20 ? PTE_R | PTE_W | PTE_WIRED : PTE_R | PTE_W);
	for (size_t i = 0; i < 32; i++)
		check_rights(i);
	check(pmap->runs == pmap_count_runs(pmap));
	pmap_change_wiring(pmap, va(20), false);
	end();
}
END_TEST

/* When mappings are short a page brings with it what will be in one with it, and nothing else. */
START_TEST(one_run_when_mappings_are_short)
{
	pt_entry_t pte[16];
	uint32_t entered;

	begin(strategies[_i], 64);
	for (size_t i = 64; i < 64 + 40; i += 2) {
		pt_entry_t lone = PTE_MAKE(i, PTE_R);

		expect(pmap_enter(pmap, va(i), 1, &lone, 0, base, base, 0, &entered), KERN_SUCCESS);
	}
	check(pmap_mappings_short());
	for (size_t k = 0; k < 16; k++)
		pte[k] = PTE_MAKE(HOME + k, k == 3 || k == 12 ? PTE_R : PTE_R | PTE_W);
	pte[9] = PTE_MAKE(1, PTE_R | PTE_W);
	expect(pmap_enter(pmap, base, 16, pte, 6, base, base, 0, &entered), KERN_SUCCESS);
	expect(entered, 5);
	for (size_t k = 0; k < 16; k++)
		check((pte[k] != 0) == (k >= 4 && k <= 8) && (pmap_extract(pmap, va(k)) != 0) == (k >= 4 && k <= 8));
	end();
}
END_TEST

/* What is in one mapping stays, when that is enough: to forget it would free none. */
START_TEST(what_is_cut_most_is_forgotten)
{
	uint32_t entered;

	begin(strategies[_i], 64);
	for (size_t i = 0; i < PAGES; i += LEAF)
		enter_home_pages(i, LEAF, PTE_R | PTE_W);
	for (size_t n = 0; n < 4 * LEAF; n++) {
		pt_entry_t lone = PTE_MAKE(1 + n % LEAF, PTE_R);

		/* The last leaf only. */
		expect(pmap_enter(pmap, va(PAGES - LEAF + n * 7 % LEAF), 1, &lone, 0, base, base, 0, &entered),
		    KERN_SUCCESS);
		check(pmap_mappings() <= 64);
	}
	check(vm_meter_read(VMC_v_forgets) > 0);
	for (size_t i = 0; i < PAGES - LEAF; i++)
		check(pmap_extract(pmap, va(i)) == PTE_MAKE(HOME + i, PTE_R | PTE_W));
	end();
}
END_TEST

/* The kernel refuses: giving fails and leaves nothing behind, taking away does not fail. */
static int refusals;
static enum sys_call refused_call;

static int
refuse(enum sys_call call)
{
	return call == refused_call && refusals > 0 ? (refusals--, -ENOMEM) : 0;
}

START_TEST(kernel_refuses)
{
	uint32_t entered;
	pt_entry_t pte;

	begin(strategies[_i], 0);
	sys_inject = refuse;
	for (int round = 0; round < 4; round++) {
		refused_call = round % 2 ? SYS_CALL_MPROTECT : SYS_CALL_MMAP;
		for (size_t i = 0; i < 8; i++) {
			pte = ref[i] = PTE_MAKE(10 + i, PTE_R | PTE_W);
			expect(pmap_enter(pmap, va(i), 1, &pte, 0, base, base, 0, &entered), KERN_SUCCESS);
		}
		refusals = round < 2 ? 1 : 20;
		pmap_protect(pmap, va(1), va(5), VM_PROT_READ, 0);
		for (size_t i = 0; i < 8; i++) {
			pte = pmap_extract(pmap, va(i));
			check((pte & PTE_W) == 0 || i < 1 || i >= 5);
			ref[i] = pte;
			check_rights(i);
		}
		refusals = 5;
		pte = PTE_MAKE(99, PTE_R);
		if (pmap_enter(pmap, va(3), 1, &pte, 0, base, base, 0, &entered) == KERN_SUCCESS)
			ref[3] = pte;
		else
			ref[3] = 0;
		expect(pmap_extract(pmap, va(3)), ref[3]);
		refusals = 0;
		check_rights(3);
		expect(kernel_runs(), pmap_mappings());
		expect(pmap_count_runs(pmap), pmap_mappings());
	}
	end();
}
END_TEST

/* What lies between the pages of a run may be forgotten to make room for it: then it must not come along. */
START_TEST(a_run_is_refused)
{
	pt_entry_t pte[32] = { 0 };
	uint32_t entered;

	begin(strategies[_i], 0);
	for (size_t i = 0; i < 32; i += 2)
		enter_home_pages(i, 1, PTE_R | PTE_W);
	for (size_t k = 1; k < 32; k += 2)
		pte[k] = PTE_MAKE(HOME + k, PTE_R | PTE_W);
	refused_call = SYS_CALL_MMAP;
	refusals = 1;
	sys_inject = refuse;
	expect(pmap_enter(pmap, base, 32, pte, 1, base, base, 0, &entered), KERN_SUCCESS);
	expect(refusals, 0);
	for (size_t i = 0; i < 32; i++) {
		ref[i] = pmap_extract(pmap, va(i));
		check((ref[i] & PTE_PROT) == (i % 2 != 0 ? PTE_R | PTE_W : 0u));
		check_rights(i);
	}
	expect(pmap_count_runs(pmap), pmap->runs);
	expect(kernel_runs(), pmap->runs);
	end();
}
END_TEST

/*
 * Parking is refused: the rights go the other way.  Closing what was left is: the pages go.  Letting go of the
 * tables is: they go later.
 */
START_TEST(parking_is_refused)
{
	uint64_t state = 1;

	begin(&pmap_park_ops, 0);
	sys_inject = refuse;
	for (int round = 0; round < 3; round++) {
		memset(ref, 0, sizeof(ref));
		pmap_remove(pmap, base, base + PAGES * PG);
		for (size_t i = 0; i < PAGES; i += LEAF)
			enter_home_pages(i, LEAF, PTE_R | PTE_W);
		/* The first needs address space; the last leaves some. */
		refused_call = round == 0 ? SYS_CALL_MMAP : round == 1 ? SYS_CALL_MREMAP : SYS_CALL_MPROTECT;
		refusals = 1;
		pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ, 0);
		expect(refusals, 0);
		for (size_t i = 0; i < PAGES; i++)
			ref[i] = round == 2 ? 0 : PTE_MAKE(HOME + i, PTE_R);
		check_all(&state, 0);
	}
	for (size_t i = 0; i < PAGES; i += LEAF)
		enter_home_pages(i, LEAF, PTE_R | PTE_W);
	pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ, 0);
	refused_call = SYS_CALL_MMAP;
	refusals = 1;
	check(pmap_mappings() > pmap_count_runs(pmap));
	check(!park_reap());
	expect(refusals, 0);
	for (size_t i = 0; i < PAGES; i++)
		ref[i] = PTE_MAKE(HOME + i, 0);
	check_all(&state, 0);
	expect(pmap_mappings(), pmap_count_runs(pmap));
	end();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("pmap");
	TCase *tc = tcase_create("every strategy");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, against_an_array, 0, 12);
	tcase_add_loop_test(tc, under_a_budget, 0, 12);
	tcase_add_loop_test(tc, budget_holds, 0, (int)nitems(strategies));
	tcase_add_loop_test(tc, budget_holds_when_cut, 0, (int)nitems(strategies));
	tcase_add_loop_test(tc, home_comes_along, 0, (int)nitems(strategies));
	tcase_add_test(tc, lone_writes_stay_apart);
	tcase_add_test(tc, stale_ones_join);
	tcase_add_loop_test(tc, odd_pages_in_full_leaves, 0, (int)nitems(strategies));
	tcase_add_test(tc, dense_writes_come_together);
	tcase_add_test(tc, leaves_in_parts);
	tcase_add_test(tc, apart_goes_before_forgetting);
	tcase_add_loop_test(tc, a_run_bridges_what_is_mapped, 0, (int)nitems(strategies));
	tcase_add_loop_test(tc, one_run_when_mappings_are_short, 0, (int)nitems(strategies));
	tcase_add_loop_test(tc, a_run_is_refused, 0, (int)nitems(strategies));
	tcase_add_loop_test(tc, what_is_cut_most_is_forgotten, 0, (int)nitems(strategies));
	tcase_add_loop_test(tc, kernel_refuses, 0, (int)nitems(strategies));
	tcase_add_test(tc, parking_is_refused);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
