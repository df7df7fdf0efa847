/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The model test: what it is stands in model.h; here are its bookkeeping, the
 * comparison, and the loop.
 *
 * The loop draws an operation by weight.  When the model holds more pages than
 * it may (--memory, by half, so that no refusal is ever right), what would take
 * more is turned into something that gives back.  With --swap it may hold half of that, and
 * pages come and go all the time.  At the end everything is
 * released, and then the library must have nothing left.
 */

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model.h"
#include "pmap.h"
#include "strategy.h"
#include "testpager.h"
#include "vm_init.h"

struct task tasks[NTASKS];
struct snap snaps[NSNAPS];
struct pager pagers[NPAGERS];
struct hold holds[NHOLDS];
uint64_t seed = 1, op, births;
size_t max_pages = 24, live;

static uint64_t rng;
static size_t live_max = 16384;
static unsigned full_every = 500, audit_every = 1;
static bool verbose, swapping, viewing, pageout;

void
fail(const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	die("model: %s", text);
}

static void
say_where(void)
{
	fprintf(stderr, "model: at seed %" PRIu64 ", op %" PRIu64 "; replay with"
	    " --seed %" PRIu64 " --ops %" PRIu64 " --pages %zu --verbose\n", seed, op, seed, op + 1,
	    max_pages);
}

void
say(const char *fmt, ...)
{
	va_list ap;

	if (!verbose)
		return;
	printf("%" PRIu64 ": ", op);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);		/* what is said last is what it died of */
}

size_t
below(size_t n)
{
	return (size_t)(rng_next(&rng) % n);
}

bool
one_in(size_t n)
{
	return below(n) == 0;
}

struct cell *
cell_new(const void *bytes)
{
	struct cell *c = calloc(1, sizeof(*c));

	if (c == NULL)
		fail("out of memory");
	c->refs = 1;
	live++;
	if (bytes != NULL)
		memcpy(c->b, bytes, PG);
	return c;
}

void
cell_put(struct cell *c)
{
	if (--c->refs == 0) {
		live--;
		free(c);
	}
}

void
slot_map(struct slot *s, struct cell *c, int prot)
{
	*s = (struct slot){ .cell = c, .birth = ++births, .prot = (uint8_t)prot,
	    .max = VMF_PROT_ALL, .inherit = VMF_INHERIT_COPY };
}

void
slot_unmap(struct slot *s)
{
	if (s->cell != NULL)
		cell_put(s->cell);
	memset(s, 0, sizeof(*s));
}

struct slot *
slot_at(const char *addr)
{
	for (struct task *t = tasks; t < tasks + NTASKS; t++) {
		if (t->h != 0 && addr >= t->base && addr < t->base + t->n * PG)
			return &t->s[(size_t)(addr - t->base) / PG];
	}
	return NULL;
}

void
model_task_add(vmf_task_t h, struct task *t)
{
	void *base;
	size_t size;

	expect(vmf_task_range(h, &base, &size), 0);
	*t = (struct task){ h, base, size / PG, calloc(size / PG, sizeof(struct slot)) };
	if (t->s == NULL)
		fail("out of memory for a task of %zu pages", t->n);
}

void
model_task_forget(struct task *t)
{
	for (size_t i = 0; i < t->n; i++)
		slot_unmap(&t->s[i]);
	free(t->s);
	memset(t, 0, sizeof(*t));
}

struct task *
model_task_any(void)
{
	struct task *t;

	do
		t = &tasks[below(NTASKS)];
	while (t->h == 0);
	return t;
}

bool
pick(struct span *sp, int prot, size_t max)
{
	bool wild = one_in(10);
	size_t n = 1 + below(max);
	struct slot *s;

	for (int tries = 0; tries < 64; tries++) {
		sp->t = model_task_any();
		sp->i = below(sp->t->n);
		s = &sp->t->s[sp->i];
		if (wild || (s->cell != NULL && (s->prot & prot) == prot))
			break;
		if (tries == 63)
			return false;
	}
	for (sp->n = 1; sp->n < n && sp->i + sp->n < sp->t->n; sp->n++) {
		s = &sp->t->s[sp->i + sp->n];
		if (!wild && (s->cell == NULL || (s->prot & prot) != prot))
			break;
	}
	sp->addr = sp->t->base + sp->i * PG;
	return true;
}

errs_t
errs_of(const struct span *sp, int prot)
{
	errs_t errs = 0;

	for (const struct slot *s = &sp->t->s[sp->i]; s < &sp->t->s[sp->i + sp->n]; s++) {
		if (s->cell == NULL)
			errs |= E(EFAULT);
		else if ((s->prot & prot) != prot)
			errs |= E(EACCES);
	}
	return errs;
}

bool
result(const char *what, int got, errs_t errs)
{
	if (errs == 0 ? got != 0 : got >= 0 || got <= -64 || !(errs & E(-got)))
		fail("%s: returned %d (%s), allowed were errors %#" PRIx64, what, got,
		    got < 0 ? strerror(-got) : "fine", errs);
	return got == 0;
}

bool
patient(unsigned tries)
{
	if (!swapping || tries == 1000)
		return false;
	usleep(1000);
	return true;
}

errs_t
place(struct span *sp, size_t n, unsigned *flags, void **addr)
{
	size_t gap = 0;

	sp->t = model_task_any();
	sp->n = n;
	if (one_in(4)) {
		*flags |= VMF_FIXED;
		sp->i = below(sp->t->n - n + 1);
		*addr = sp->addr = sp->t->base + sp->i * PG;
		for EACH(s, sp) {
			if (s->cell != NULL)
				return E(EEXIST);
		}
		return 0;
	}
	*addr = &rng;		/* means nothing without VMF_FIXED */
	for (size_t i = 0; i < sp->t->n && gap < n; i++)
		gap = sp->t->s[i].cell == NULL ? gap + 1 : 0;
	return gap == n ? 0 : E(ENOMEM);
}

void
placed(struct span *sp, void *addr)
{
	uintptr_t at = (uintptr_t)addr, base = (uintptr_t)sp->t->base;

	if (at < base || at % PG != 0 || (at - base) / PG + sp->n > sp->t->n)
		fail("%p is no place for %zu pages in task %d", addr, sp->n, TASK_NO(sp));
	sp->addr = addr;
	sp->i = (at - base) / PG;
	for EACH(s, sp) {
		if (s->cell != NULL)
			fail("%p was taken already", addr);
	}
}

/* ---- comparing ---- */

static void
verify_slot(struct task *t, size_t i)
{
	struct slot *s = &t->s[i];
	char *addr = t->base + i * PG;
	size_t at = 0;

	if (s->cell == NULL || s->prot == VMF_PROT_NONE) {
		at = below(PG);
		expect_read(addr + at, SIGSEGV, s->cell == NULL ? SEGV_MAPERR : SEGV_ACCERR);
		return;
	}
	if (memcmp(addr, s->cell->b, PG) == 0)
		return;
	while (at < PG && addr[at] == (char)s->cell->b[at])
		at++;
	fail("task %d page %zu byte %zu (%p) is %#x, not %#x", (int)(t - tasks), i, at,
	    (void *)(addr + at), (unsigned char)addr[at], s->cell->b[at]);
}

static void
verify_snap(struct snap *sn, size_t range, size_t page)
{
	unsigned char got[VMF_PAGE_SIZE];

	expect(vmf_snapshot_read(sn->h, range, page * PG, got, PG), 0);
	if (memcmp(got, sn->r[range].b + page * PG, PG) != 0)
		fail("snapshot %d range %zu page %zu has changed", (int)(sn - snaps), range, page);
}

static void
verify_sample(void)
{
	struct span sp;
	struct snap *sn = &snaps[below(NSNAPS)];
	size_t r;

	for (int i = 0; i < 3; i++) {
		if (pick(&sp, R, 4)) {
			for (size_t k = 0; k < sp.n; k++)
				verify_slot(sp.t, sp.i + k);
		}
	}
	if (sn->h != 0) {
		r = below(sn->n);
		verify_snap(sn, r, below(sn->r[r].n));
	}
}

static void
verify_all(void)
{
	for (struct task *t = tasks; t < tasks + NTASKS; t++) {
		for (size_t i = 0; t->h != 0 && i < t->n; i++) {
			if (t->s[i].cell != NULL)
				verify_slot(t, i);
		}
	}
	for (struct snap *sn = snaps; sn < snaps + NSNAPS; sn++) {
		for (size_t r = 0; sn->h != 0 && r < sn->n; r++) {
			for (size_t i = 0; i < sn->r[r].n; i++)
				verify_snap(sn, r, i);
		}
	}
}

/* ---- the loop ---- */

static const struct {
	void (*fn)(void);
	unsigned weight;
	bool grows;			/* may take pages */
} table[] = {
	{ op_touch_write, 30, false },
	{ op_move, 12, false },
	{ op_copy, 8, false },
	{ op_allocate, 8, true },
	{ op_unmap, 6, false },
	{ op_protect, 6, false },
	{ op_inherit, 3, false },
	{ op_advise, 1, false },
	{ op_task, 2, true },
	{ op_wire, 4, false },
	{ op_hold, 4, false },
	{ op_snapshot, 6, true },
	{ op_view, 4, true },
	{ op_rollback, 5, false },
	{ op_diff, 4, false },
	{ op_release, 4, false },
	{ op_pager, 3, false },
	{ op_map, 3, true },
	{ op_inspect, 2, false },
};

static void
step(void)
{
	unsigned total = 0;
	size_t k = 0, w;

	for (size_t i = 0; i < nitems(table); i++)
		total += table[i].weight;
	for (w = below(total); w >= table[k].weight; k++)
		w -= table[k].weight;
	if (table[k].grows && live > live_max)
		(one_in(2) ? op_release : op_unmap)();
	else
		table[k].fn();
	if (audit_every != 0 && op % audit_every == 0)
		audit();
	verify_sample();
	if (op % full_every == full_every - 1)
		verify_all();
}

/* Give everything back, in no particular order, and find nothing left. */
static void
finish(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	verify_all();
	for (struct hold *h = holds; h < holds + NHOLDS; h++) {
		if (h->addr != NULL)
			hold_release(h);
	}
	for (struct pager *p = pagers; p < pagers + NPAGERS; p++) {
		if (p->h != 0)
			model_pager_release(p);
	}
	for (struct task *t = tasks; t < tasks + NTASKS; t++) {
		if (t->h == VMF_TASK_DEFAULT)
			expect(vmf_unmap(t->base, t->n * PG), 0);
		else if (t->h != 0)
			expect(vmf_task_destroy(t->h), 0);
		if (t->h != 0)
			model_task_forget(t);
	}
	for (struct snap *sn = snaps; sn < snaps + NSNAPS; sn++) {
		if (sn->h != 0)
			model_snap_release(sn);
	}
	for (struct pager *p = pagers; p < pagers + NPAGERS; p++)
		pager_wait_gone(p);
	audit();
	expect(vmf_statistics(&stats), 0);
	if (swapping && stats.v_swpin == 0)
		fail("nothing was ever paged in");
	if (viewing && (stats.v_views == 0 || stats.v_views_home == 0))
		fail("nothing that was viewed ever came home");
	if (live != 0 || stats.swap_used != 0 || stats.entries != 0 || stats.objects != 0 || stats.snapshots != 0 ||
	    stats.v_free_count != stats.v_page_count)
		fail("left at the end: %zu pages of the model; %" PRIu64 " entries, %" PRIu64
		    " objects, %" PRIu64 " snapshots, %" PRIu64 " frames, %" PRIu64 " slots", live, stats.entries,
		    stats.objects, stats.snapshots, stats.v_page_count - stats.v_free_count,
		    stats.swap_used);
}

static void __attribute__((__noreturn__))
usage(int code)
{
	printf("usage: model [--ops n] [--seed n] [--pages n] [--memory bytes] [--mappings n]\n"
	    "             [--swap bytes] [--syscalls] [--pageout] [--strategy name] [--full n] [--audit n] [--verbose]\n"
	    "  --ops       operations to do (20000)\n"
	    "  --seed      where all choices come from (1)\n"
	    "  --pages     largest range, in pages (24)\n"
	    "  --memory    budget of page frames, in bytes (what the machine has)\n"
	    "  --swap      size of the swap file, in bytes (none)\n"
	    "  --syscalls  no io_uring\n"
	    "  --mappings  budget of kernel mappings (most of the limit)\n"
	    "  --strategy  of the pmap: view, park, mprotect or mmap (the first that the kernel can)\n"
	    "  --full      compare everything each n operations (500)\n"
	    "  --audit     walk the library's state each n operations (1; 0: at the end only)\n"
	    "  --pageout   hold twice the memory, by a default pager that is asynchronous and fails at times\n"
	    "  --verbose   print each operation\n");
	exit(code);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "ops", required_argument, NULL, 'o' },
		{ "seed", required_argument, NULL, 's' },
		{ "pages", required_argument, NULL, 'p' },
		{ "memory", required_argument, NULL, 'm' },
		{ "mappings", required_argument, NULL, 'k' },
		{ "swap", required_argument, NULL, 'S' },
		{ "syscalls", no_argument, NULL, 'i' },
		{ "strategy", required_argument, NULL, 'M' },
		{ "full", required_argument, NULL, 'f' },
		{ "audit", required_argument, NULL, 'a' },
		{ "pageout", no_argument, NULL, 'O' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct vmf_config config = VMF_CONFIG_INIT;
	uint64_t ops = 20000, n, began;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		n = optarg != NULL ? strtoull(optarg, NULL, 0) : 0;
		switch (c) {
		case 'o': ops = n; break;
		case 's': seed = n; break;
		case 'p': max_pages = (size_t)n; break;
		case 'm': config.memory = n; break;
		case 'k': config.mappings = (uint32_t)n; break;
		case 'S': config.swap_size = n; break;
		case 'i': config.flags |= VMF_CONFIG_IO_SYSCALLS; break;
		case 'M':
			if ((vm_init_pmap_ops = pmap_strategy(optarg)) == NULL)
				usage(2);
			break;
		case 'f': full_every = (unsigned)n; break;
		case 'a': audit_every = (unsigned)n; break;
		case 'O': pageout = true; break;
		case 'v': verbose = true; break;
		case 'h': usage(0);
		default: usage(2);
		}
	}
	if (optind != argc || max_pages < 4 || max_pages > 1024 || full_every == 0)
		usage(2);
	/* Where views are of a few pages, and not out of reach, there must be some. */
	viewing = PMAP_LEAF_PAGES < max_pages && ops >= 5000 && config.mappings == 0;
	swapping = config.swap_size != 0 || pageout;
	if (config.memory != 0)
		live_max = (size_t)((config.swap_size != 0 ? config.swap_size :
		    config.memory * (pageout ? 4 : 1)) / PG / 2);
	rng = mix(seed, 0);
	on_die = say_where;
	config.address_space = 16 * max_pages * PG;
	expect(vmf_init(&config), 0);
	if (pageout) {
		testpager_reset();
		testpager_default();
		testpager.async = true;
		testpager.put_fails_one_in = 16;
	}
	touch_install();
	memory_setup();
	model_task_add(VMF_TASK_DEFAULT, &tasks[0]);
	viewing = viewing && pmap_has_views();
	began = now_ms();
	for (op = 0; op < ops; op++)
		step();
	say("finish");
	finish();
	expect(vmf_fini(), 0);
	printf("model: %" PRIu64 " operations with seed %" PRIu64 " in %" PRIu64 " ms\n", ops, seed,
	    now_ms() - began);
	return 0;
}
