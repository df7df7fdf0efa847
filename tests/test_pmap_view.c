/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The pmap's private views against a model: leaves of which each is nothing, mapped, parked, or a view.
 *
 *	frame n begins with the number n, for ever: what is written to a view never gets there
 *	a view shows the frame's number, or what was written to it; and which of the two, it can tell
 *	its rights are taken from the leaf as a whole, by page and by range, and it is never forgotten
 *	mappings are counted: one for each view, of which the kernel may make fewer
 *
 * Random operations, and after each one all of that is looked at, by system calls: they say EFAULT where a touch
 * would kill.
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
#include "pmap_impl.h"
#include "suite.h"
#include "support.h"
#include "vm_meter.h"

enum { LEAF = PMAP_LEAF_PAGES, LEAVES = 10, PAGES = LEAVES * LEAF, HOME = 8192, OTHER = 1, STEPS = SANITIZED ? 150 : 500 };

struct leaf {
	bool view;
	unsigned rights;		/* of the view, for the program */
	bool changed[LEAF];
	vm_pfn_t number[LEAF];		/* what was written */
};

static struct leaf leaf[LEAVES];
static char *guard;			/* a readable page; the range; another one */
static vm_offset_t base;
static struct pmap *pmap;
static int file;
static vm_pfn_t next_number;
static uint64_t opened, grouped, parked_views;

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
begin(uint32_t budget)
{
	expect(physmem_init(64, 1 << 16), 0);
	pmap_init(&pmap_view_ops, budget);
	guard = mmap(NULL, (PAGES + 2) * PG + LEAF * PG, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(guard != MAP_FAILED);
	base = ((vm_offset_t)guard + PG + LEAF * PG - 1) & ~(vm_offset_t)(LEAF * PG - 1);
	check(mmap((void *)base, PAGES * PG, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) !=
	    MAP_FAILED);
	pmap = pmap_create(base, PAGES * PG);
	check(pmap != NULL);
	memset(leaf, 0, sizeof(leaf));
	number_frames(HOME, PAGES);
	number_frames(OTHER, 64);
	next_number = 1000000;
	file = memfd_create("page", 0);
	check(file >= 0);
}

static void
end(void)
{
	sys_inject = NULL;
	for (size_t l = 0; l < LEAVES; l++)
		if (leaf[l].view)
			pmap_view_end(pmap, va(l * LEAF), 0);
	while (park_reap())
		;
	pmap_remove(pmap, base, base + PAGES * PG);
	expect(pmap_mappings(), 1);
	expect(pmap->napart, 0);
	for (unsigned i = 0; i < pmap->ndir; i++)
		check(pmap->dir[i] == NULL || pmap->dir[i]->used == 0);
	pmap_destroy(pmap);
	pmap_fini();
	check(munmap(guard, (PAGES + 2) * PG + LEAF * PG) == 0);
	close(file);
	physmem_fini();
}

/*
 * Looking
 */

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

static void
check_frame(size_t i)
{
	vm_pfn_t *p = window_map(WINDOW_SOURCE, HOME + (vm_pfn_t)i, 1), n = *p;

	window_unmap(p);
	if (n != HOME + i)
		die("frame %zu: %u was written to it", HOME + i, n);
}

/* The number that a page shows; 0: it may not be read. */
static vm_pfn_t
shown(size_t i)
{
	vm_pfn_t n;

	if (pwrite(file, (void *)va(i), sizeof(n), 0) != (ssize_t)sizeof(n)) {
		check(errno == EFAULT);
		return 0;
	}
	check(pread(file, &n, sizeof(n), 0) == (ssize_t)sizeof(n));
	return n;
}

/* false: it may not be written */
static bool
write_number(size_t i, vm_pfn_t n)
{
	check(pwrite(file, &n, sizeof(n), 0) == (ssize_t)sizeof(n));
	return pread(file, (void *)va(i), sizeof(n), 0) == (ssize_t)sizeof(n);
}

static void
check_leaf(size_t l, bool close)
{
	const struct leaf *v = &leaf[l];
	uint64_t changed[PMAP_LEAF_WORDS] = { 0 };

	expect(pmap_view_rights(pmap, va(l * LEAF)), v->rights);
	if (close)
		pmap_view_changed(va(l * LEAF), changed);
	for (size_t k = 0; k < LEAF; k++) {
		size_t i = l * LEAF + k;

		expect(pmap_extract(pmap, va(i)), PTE_MAKE(HOME + i, v->rights & PTE_R));
		if (close)
			expect(changed[k / 64] >> (k % 64) & 1, v->changed[k]);
		if (k % 16 == 3 || v->changed[k]) {
			expect(shown(i), v->rights == 0 ? 0 : v->changed[k] ? v->number[k] : HOME + i);
			check_frame(i);
		}
	}
}

static void
check_all(void)
{
	uint64_t views = 0;

	while (park_reap())
		;
	for (size_t l = 0; l < LEAVES; l++)
		if (leaf[l].view) {
			check_leaf(l, !(leaf[l].rights & PTE_W));
			views++;
		}
	expect(pmap->runs, pmap_count_runs(pmap));
	expect(pmap->runs, pmap_mappings());
	check(kernel_runs() <= pmap->runs && kernel_runs() + views >= pmap->runs);
	check(pmap_mappings() <= pmap_mappings_max());
}

/*
 * Random operations
 */

/* Leaves [l, l + n) can be written, each in one mapping; views end first. */
static void
op_fill(size_t l, size_t n)
{
	pt_entry_t pte[LEAF];
	uint32_t entered;

	for (; n-- > 0; l++) {
		if (leaf[l].view)
			pmap_view_end(pmap, va(l * LEAF), 0);
		leaf[l] = (struct leaf){ 0 };
		for (size_t k = 0; k < LEAF; k++)
			pte[k] = PTE_MAKE(HOME + (vm_pfn_t)(l * LEAF + k), PTE_R | PTE_W);
		expect(pmap_enter(pmap, va(l * LEAF), LEAF, pte, 0, base, base, 0, &entered), KERN_SUCCESS);
	}
}

/* Pages here and there, of any frame: they cut mappings. */
static void
op_scatter(uint64_t *state, size_t l)
{
	uint32_t entered;

	for (unsigned n = 0; n < 6 && !leaf[l].view; n++) {
		vm_pfn_t pfn = OTHER + (vm_pfn_t)(rng_next(state) % 60);
		pt_entry_t pte = PTE_MAKE(pfn, rng_next(state) % 2 ? PTE_R : PTE_R | PTE_W);

		expect(pmap_enter(pmap, va(l * LEAF + (size_t)(rng_next(state) % LEAF)), 1, &pte, 0, base, base, 0, &entered),
		    KERN_SUCCESS);
	}
}

static void
op_open(size_t l, size_t most)
{
	size_t before = 0, after = 0, n;
	bool ok;

	if (leaf[l].view)
		return;
	pmap_view_around(pmap, va(l * LEAF), most, &before, &after);
	check(before + after < most && before <= l && l + after < LEAVES);
	l -= before;
	n = before + 1 + after;
	parked_views += n > 1;
	ok = pmap_view_open(pmap, va(l * LEAF), HOME + (vm_pfn_t)(l * LEAF), n, NULL, 0);
	opened += ok;
	grouped += ok && n > 1;
	for (size_t k = l; ok && k < l + n; k++) {
		check(!leaf[k].view);
		leaf[k] = (struct leaf){ .view = true, .rights = PTE_R | PTE_W };
	}
}

static void
op_write(uint64_t *state, size_t l)
{
	for (unsigned n = 0; n < 20 && leaf[l].view; n++) {
		size_t k = (size_t)(rng_next(state) % LEAF);
		bool ok = write_number(l * LEAF + k, ++next_number);

		check(ok == ((leaf[l].rights & PTE_W) != 0));
		leaf[l].changed[k] |= ok;
		if (ok)
			leaf[l].number[k] = next_number;
	}
}

static vm_prot_t
some_prot(uint64_t *state)
{
	static const vm_prot_t prots[] = { VM_PROT_READ, VM_PROT_READ | VM_PROT_WRITE, VM_PROT_READ | VM_PROT_EXECUTE,
	    VM_PROT_NONE, VM_PROT_WRITE };

	return prots[rng_next(state) % nitems(prots)];
}

static void
limit(size_t l, vm_prot_t prot)
{
	leaf[l].rights &= prot;
	if (!(leaf[l].rights & PTE_R))
		leaf[l].rights = 0;
}

static void
op_protect(uint64_t *state, size_t from, size_t to)
{
	vm_prot_t prot = some_prot(state);

	pmap_protect(pmap, va(from), va(to), prot, rng_next(state) % 2 ? PMAP_KEEP_WIRED : 0);
	for (size_t l = from / LEAF; l <= (to - 1) / LEAF; l++)
		limit(l, prot);
}

static void
op_limit(uint64_t *state, size_t i)
{
	vm_prot_t prot = some_prot(state);
	bool other = rng_next(state) % 3 == 0;

	if (!leaf[i / LEAF].view)
		return;
	pmap_page_limit(pmap, va(i), HOME + (vm_pfn_t)i + other, prot);
	/* Of the frame it may only be read: that is all that can be taken. */
	if (!other && !(prot & VM_PROT_READ))
		limit(i / LEAF, prot);
}

static void
op_close(size_t l)
{
	if (!leaf[l].view)
		return;
	pmap_view_close(pmap, va(l * LEAF));
	leaf[l].rights = PTE_R;
	check_leaf(l, true);
}

static void
op_end(uint64_t *state, size_t l)
{
	static const unsigned rights[] = { 0, PTE_R, PTE_R | PTE_W };
	unsigned r = rights[rng_next(state) % nitems(rights)];

	if (!leaf[l].view)
		return;
	pmap_view_end(pmap, va(l * LEAF), r);
	leaf[l] = (struct leaf){ 0 };
	expect(pmap_view_rights(pmap, va(l * LEAF)), 0);
	for (size_t i = l * LEAF; i < (l + 1) * LEAF; i += 7) {
		pt_entry_t pte = pmap_extract(pmap, va(i));

		/* It may be forgotten at once. */
		check(pte == (r != 0 ? PTE_MAKE(HOME + i, r) : 0) || (pte & PTE_PROT) == 0);
		expect(shown(i), (pte & PTE_R) ? HOME + i : 0);
		expect(write_number(i, HOME + (vm_pfn_t)i), (pte & PTE_W) != 0);
		check_frame(i);
	}
}

static void
random_ops(uint64_t seed, int steps)
{
	uint64_t state = seed;

	for (int s = 0; s < steps; s++) {
		size_t l = (size_t)(rng_next(&state) % LEAVES), i = (size_t)(rng_next(&state) % PAGES);
		size_t n = 1 + (size_t)(rng_next(&state) % (LEAVES - l));

		switch (rng_next(&state) % 12) {
		case 0:
			op_fill(l, n);
			break;
		case 1:			/* a row of leaves is parked */
			op_fill(l, n);
			pmap_protect(pmap, va(l * LEAF), va((l + n) * LEAF), VM_PROT_READ, 0);
			op_open(l + n / 2, 8);
			break;
		case 2: case 3:
			op_open(l, 1 << rng_next(&state) % 4);
			break;
		case 4: case 5: case 6:
			op_write(&state, l);
			break;
		case 7:
			op_protect(&state, i, i + 1 + (size_t)(rng_next(&state) % (PAGES - i)));
			break;
		case 8:
			op_limit(&state, i);
			break;
		case 9:
			op_close(l);
			break;
		case 10:
			op_scatter(&state, l);
			break;
		default:
			op_end(&state, l);
		}
		check_all();
	}
}

START_TEST(against_a_model)
{
	begin(0);
	if (pmap_has_views()) {
		random_ops((uint64_t)_i + 1, STEPS);
		check(opened != 0 && (grouped != 0 || SANITIZED));
	}
	end();
}
END_TEST

/* Mappings are few: there are fewer views, and none is forgotten. */
START_TEST(under_a_budget)
{
	begin(64);
	if (pmap_has_views()) {
		random_ops((uint64_t)_i + 1, STEPS);
		check(opened != 0);
	}
	end();
}
END_TEST

/* All that can be forgotten is, and the view is what it was. */
START_TEST(never_forgotten)
{
	uint64_t state = 1;

	begin(32);
	op_open(4, 1);
	op_write(&state, 4);
	for (unsigned n = 0; n < 200; n++) {
		size_t l = (size_t)(rng_next(&state) % LEAVES);

		op_scatter(&state, l);
		check(pmap_mappings() <= 32);
	}
	check(vm_meter_read(VMC_v_forgets) != 0);
	check_all();
	end();
}
END_TEST

/* Leaves that were parked become views in one go, and those that were looked at, as the first and the last are, do not. */
START_TEST(several_at_once)
{
	size_t before, after;

	begin(0);
	op_fill(0, LEAVES);
	pmap_protect(pmap, base, base + PAGES * PG, VM_PROT_READ, 0);
	(void)pmap_extract(pmap, va(6 * LEAF + 5));
	pmap_view_around(pmap, va(2 * LEAF), 1, &before, &after);
	check(before == 0 && after == 0);
	pmap_view_around(pmap, va(3 * LEAF), 4, &before, &after);
	check(before == 2 && after == 0);
	pmap_view_around(pmap, va(4 * LEAF), 8, &before, &after);
	check(before == 3 && after == 1);
	pmap_view_around(pmap, va(6 * LEAF), 8, &before, &after);
	check(before == 0 && after == 0);
	pmap_view_around(pmap, va(8 * LEAF), 16, &before, &after);
	check(before == 1 && after == 0);
	if (pmap_has_views()) {
		uint64_t state = 3;

		op_open(1, 4);
		check(grouped == 1 && !leaf[0].view && leaf[1].view && leaf[3].view && !leaf[4].view);
		check_all();
		for (size_t l = 1; l < 4; l++)
			op_write(&state, l);
		check_all();
		op_end(&state, 2);
		check_all();
	}
	end();
}
END_TEST

/*
 * The kernel refuses: no view, and what was there is gone or as it was; rights are taken all the same; a view
 * that cannot be shown as its frames shows nothing; and who is not told what was written takes all of it.
 */
static int refusals;
static enum sys_call refused_call;

static int
refuse(enum sys_call call)
{
	return call == refused_call && refusals > 0 ? (refusals--, -ENOMEM) : 0;
}

START_TEST(kernel_refuses)
{
	uint64_t state = 5, changed[PMAP_LEAF_WORDS] = { 0 };

	begin(0);
	op_fill(0, 3);
	sys_inject = refuse;
	refused_call = SYS_CALL_MMAP;
	refusals = 1;
	op_open(1, 1);
	check(!leaf[1].view && refusals == (pmap_has_views() ? 0 : 1));
	refusals = 0;
	check_all();
	if (pmap_has_views()) {
		op_open(1, 1);
		check(leaf[1].view);
		op_write(&state, 1);
		refused_call = SYS_CALL_MPROTECT;
		refusals = 3;
		op_close(1);
		expect(refusals, 0);
		check_all();
		refused_call = SYS_CALL_PREAD;
		refusals = 1;
		pmap_view_changed(va(LEAF), changed);
		for (size_t k = 0; k < PMAP_LEAF_WORDS; k++)
			check(changed[k] == UINT64_MAX);
		refused_call = SYS_CALL_MMAP;
		refusals = 1;
		pmap_view_end(pmap, va(LEAF), PTE_R);
		leaf[1] = (struct leaf){ 0 };
		for (size_t i = LEAF; i < 2 * LEAF; i++)
			expect(pmap_extract(pmap, va(i)), 0);
		expect(shown(LEAF + 3), 0);
		check_all();
	}
	end();
}
END_TEST

static const struct pmap_away away[] = { { 3, OTHER + 5 }, { 4, OTHER + 6 }, { LEAF - 1, OTHER + 1 } };

static bool
open_with_away(size_t l)
{
	bool ok = pmap_view_open(pmap, va(l * LEAF), HOME + (vm_pfn_t)(l * LEAF), 1, away, nitems(away));

	if (ok)
		leaf[l] = (struct leaf){ .view = true, .rights = PTE_R | PTE_W };
	for (size_t n = 0; n < nitems(away) && ok; n++) {
		leaf[l].changed[away[n].page] = true;
		leaf[l].number[away[n].page] = away[n].pfn;
	}
	return ok;
}

static void
check_others(void)
{
	for (vm_pfn_t f = OTHER; f < OTHER + 64; f++) {
		vm_pfn_t *p = window_map(WINDOW_SOURCE, f, 1);

		expect(*p, f);
		window_unmap(p);
	}
}

/* Pages that are in other frames: the view shows them as if they had been written to it, which neither frame was. */
START_TEST(some_are_away)
{
	uint64_t state = 7;

	begin(0);
	op_fill(1, 3);
	for (size_t n = 0; n < nitems(away); n++) {
		pt_entry_t pte = PTE_MAKE(away[n].pfn, PTE_R);
		uint32_t entered;

		expect(pmap_enter(pmap, va(2 * LEAF + away[n].page), 1, &pte, 0, base, base, 0, &entered), KERN_SUCCESS);
	}
	if (pmap_has_views()) {
		check(open_with_away(2));
		check_all();
		check_others();
		op_close(2);
		check_all();
		op_end(&state, 2);
		check(open_with_away(2));
		check(write_number(2 * LEAF + 3, ++next_number));
		leaf[2].number[3] = next_number;
		op_write(&state, 2);
		check_all();
		op_close(2);
		check_others();
		op_end(&state, 2);
		check_all();
	}
	end();
}
END_TEST

/* Then there is no view, and nothing is left behind. */
START_TEST(some_are_away_and_the_kernel_refuses)
{
	static const enum sys_call calls[] = { SYS_CALL_MMAP, SYS_CALL_PREAD, SYS_CALL_MREMAP };
	unsigned maps;

	begin(0);
	op_fill(1, 3);
	if (pmap_has_views()) {
		pmap_remove(pmap, va(2 * LEAF), va(3 * LEAF));
		maps = count_maps();
		sys_inject = refuse;
		refused_call = calls[_i];
		refusals = 1;
		check(!open_with_away(2));
		expect(refusals, 0);
		expect(count_maps(), maps);
		expect(shown(2 * LEAF + 3), 0);
		expect(pmap_extract(pmap, va(2 * LEAF)), 0);
		check_all();
		check(open_with_away(2));
		check_all();
	}
	end();
}
END_TEST

/* What is said of a leaf is good for it alone, and for some time, through which it need not be mapped. */
START_TEST(views_are_avoided_for_some_time)
{
	unsigned times = 0;

	begin(0);
	pmap_view_avoid(pmap, base);
	check(!pmap_view_avoided(pmap, base) && !pmap_wants_own(pmap, base));
	op_fill(0, 3);
	pmap_view_avoid(pmap, va(LEAF + 7));
	check(pmap_view_avoided(pmap, va(LEAF)) && pmap_view_avoided(pmap, va(2 * LEAF - 1)));
	check(!pmap_view_avoided(pmap, va(LEAF - 1)) && !pmap_view_avoided(pmap, va(2 * LEAF)));
	for (; pmap_view_avoided(pmap, va(LEAF)); times++) {
		check(pmap_wants_own(pmap, va(LEAF)));
		op_fill(1, 1);
		pmap_protect(pmap, base, va(PAGES - 1), VM_PROT_READ, PMAP_CUT);
		/* What is unmapped for another reason says nothing. */
		for (size_t i = 0; i < 100; i++)
			pmap_protect(pmap, va(2 * LEAF), va(2 * LEAF + 1), VM_PROT_NONE, 0);
	}
	check(times > 1 && times < 100);
	check(!pmap_wants_own(pmap, va(LEAF)));
	/* Until it is unmapped for good. */
	pmap_view_avoid(pmap, va(LEAF));
	pmap_unmap(pmap, va(LEAF), va(2 * LEAF));
	check(pmap_view_avoided(pmap, va(LEAF)));
	pmap_remove(pmap, va(LEAF), va(2 * LEAF));
	op_fill(1, 1);
	check(!pmap_view_avoided(pmap, va(LEAF)));
	end();
}
END_TEST

/* More than a few pages of it can be written. */
START_TEST(leaves_that_are_written_want_their_own)
{
	bool wanted = false;
	size_t n;

	begin(0);
	for (n = 0; n < LEAF && !wanted; n++) {
		pt_entry_t pte = PTE_MAKE(HOME + (vm_pfn_t)n, PTE_R | PTE_W), read = PTE_MAKE(HOME + LEAF + (vm_pfn_t)n, PTE_R);
		uint32_t entered;

		expect(pmap_enter(pmap, va(n), 1, &pte, 0, base, base, 0, &entered), KERN_SUCCESS);
		expect(pmap_enter(pmap, va(LEAF + n), 1, &read, 0, base, base, 0, &entered), KERN_SUCCESS);
		wanted = pmap_wants_own(pmap, va(LEAF - 1));
	}
	check(wanted && n > 1 && n < LEAF / 8 && !pmap_wants_own(pmap, va(LEAF)));
	end();
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("pmap/view");
	TCase *tc = tcase_create("private views");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, against_a_model, 0, 6);
	tcase_add_loop_test(tc, under_a_budget, 0, 4);
	tcase_add_test(tc, never_forgotten);
	tcase_add_test(tc, several_at_once);
	tcase_add_test(tc, kernel_refuses);
	tcase_add_test(tc, some_are_away);
	tcase_add_loop_test(tc, some_are_away_and_the_kernel_refuses, 0, 3);
	tcase_add_test(tc, views_are_avoided_for_some_time);
	tcase_add_test(tc, leaves_that_are_written_want_their_own);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
