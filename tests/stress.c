/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Threads against invariants that every causally consistent cut keeps.
 *
 * A cut is consistent if with each write it holds all that happened before that
 * write: earlier ones of the same thread, and those of other threads that it
 * could have seen.  A snapshot must be such a cut.
 *
 * Banks.  A bank is a few hundred accounts, a page apart, and one journal page
 * for each writer.  A transfer holds the locks of its two accounts (locks in
 * UNMANAGED memory: no rollback may turn them back), and is written ahead:
 *
 *	1  journal: the two accounts and what they held before
 *	2  journal: open = 1
 *	3  the accounts
 *	4  journal: open = 0
 *	5  unlock
 *
 * The reader of a cut takes, for every account, what it holds, or what an open
 * journal says that it held before.  The sum of that is constant:
 *
 *   - if the cut has a write of step 3, it has 1 and 2 (program order), so
 *     either the journal is open and both accounts are taken from it, or the cut has
 *     4 too, and with it both writes of 3;
 *   - if the journal is open, nobody else's transfer touched these accounts in
 *     the cut since: that needs the lock, which is free only after step 4, so a
 *     cut that had such a write would have 4.  An account is in one open
 *     journal at most.
 *
 * So a page that is a moment older or newer than another shows up as money made or
 * lost.  After a rollback the same journals are what a database would recover
 * from: the writers are held at a gate, and open ones are undone in place.
 *
 * Bank 0 lies in one range of a task of its own, which is also forked.  Bank 1 lies
 * in three ranges of two tasks.  The counters are the smallest such test: one
 * thread adds to x, then to y in another task; no cut may show x < y.
 *
 * Beside them run threads with memory of their own whose bytes they know: copies,
 * real system calls, wiring, churn of the map; and one that takes WRITE away
 * from the banks and gives it back: a writer that is refused gets a SIGSEGV with
 * SEGV_ACCERR, and tries again.
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pmap.h"
#include "strategy.h"
#include "support.h"
#include "testpager.h"
#include "vm_init.h"

enum { NBANKS = 2, ACCOUNTS = 192, WRITERS_MAX = 32, PARTS = 3, KEEP = 6 };
enum { PENNY = 1000, TOTAL = ACCOUNTS * PENNY };

struct account {
	_Atomic int32_t balance;
};

struct journal {
	_Atomic uint32_t open;
	_Atomic uint32_t from, to;
	_Atomic int32_t from_was, to_was;
};

/* Where a bank's pages are: live, in a view, or in a forked task. */
struct bank {
	char *part[PARTS];		/* accounts; accounts; journals */
	size_t pages[PARTS];
};

static struct bank banks[NBANKS];
static vmf_task_t other;		/* the task of bank 0, and of half of bank 1 */
static char *other_base;
static atomic_flag locks[NBANKS][ACCOUNTS];
static _Atomic uint64_t *x, *y;		/* x is added to first */
/* Writers hold it for reading, a rollback for writing. */
static pthread_rwlock_t gate = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static atomic_bool stopping;
static unsigned nwriters = 4, seconds = 5;
static uint64_t seed = 1;

static _Atomic uint64_t transfers, snapshots, rollbacks, forks, copies, calls, churns, wires;
static _Atomic uint64_t refusals;

static size_t
draw(uint64_t *rng, size_t n)
{
	return (size_t)(rng_next(rng) % n);
}

static struct account *
account(const struct bank *b, unsigned i)
{
	return (void *)(b->part[i % 2] + i / 2 * PG);
}

static struct journal *
journal(const struct bank *b, unsigned w)
{
	return (void *)(b->part[2] + w * PG);
}

/* The sum of a cut; *opened counts its open journals. */
TOUCHES_MANAGED static int64_t
bank_sum(const struct bank *b)
{
	int32_t was[ACCOUNTS];
	bool in_journal[ACCOUNTS] = { false };
	int64_t sum = 0;

	for (unsigned w = 0; w < nwriters; w++) {
		struct journal *j = journal(b, w);

		if (j->open == 0)
			continue;
		check(j->from < ACCOUNTS && j->to < ACCOUNTS && j->from != j->to);
		check(!in_journal[j->from] && !in_journal[j->to]);
		in_journal[j->from] = in_journal[j->to] = true;
		was[j->from] = j->from_was;
		was[j->to] = j->to_was;
	}
	for (unsigned i = 0; i < ACCOUNTS; i++)
		sum += in_journal[i] ? was[i] : account(b, i)->balance;
	return sum;
}

static void
bank_check(const struct bank *b, const char *what)
{
	int64_t sum = bank_sum(b);

	if (sum != TOTAL)
		die("stress: seed %" PRIu64 ": %s: the sum is %" PRId64 ", not %d", seed, what, sum,
		    (int)TOTAL);
}

/* Undo what is open, as after a crash.  => no writer runs. */
TOUCHES_MANAGED static void
bank_recover(const struct bank *b)
{
	for (unsigned w = 0; w < nwriters; w++) {
		struct journal *j = journal(b, w);

		if (j->open != 0) {
			account(b, j->from)->balance = j->from_was;
			account(b, j->to)->balance = j->to_was;
			j->open = 0;
		}
	}
}

static void
lock(atomic_flag *f)
{
	while (atomic_flag_test_and_set_explicit(f, memory_order_acquire))
		sched_yield();
}

static void
unlock(atomic_flag *f)
{
	atomic_flag_clear_explicit(f, memory_order_release);
}

TOUCHES_MANAGED static void
transfer(unsigned w, unsigned bank, uint64_t r)
{
	const struct bank *b = &banks[bank];
	uint32_t from = (uint32_t)r % ACCOUNTS, to = (uint32_t)(r >> 32) % ACCOUNTS;
	int32_t amount = (int32_t)(r >> 20 & 63);
	struct account *a, *z;
	struct journal *j = journal(b, w);

	if (from == to)
		return;
	lock(&locks[bank][from < to ? from : to]);
	lock(&locks[bank][from < to ? to : from]);
	a = account(b, from);
	z = account(b, to);
	j->from = from;
	j->to = to;
	j->from_was = a->balance;
	j->to_was = z->balance;
	j->open = 1;
	a->balance = j->from_was - amount;
	z->balance = j->to_was + amount;
	j->open = 0;
	unlock(&locks[bank][from]);
	unlock(&locks[bank][to]);
	transfers++;
}

static void *
writer(void *arg)
{
	unsigned w = (unsigned)(uintptr_t)arg;
	uint64_t rng = mix(seed, w);

	while (!stopping) {
		pthread_rwlock_rdlock(&gate);
		for (int i = 0; i < 64; i++)
			transfer(w, (unsigned)draw(&rng, NBANKS), rng_next(&rng));
		pthread_rwlock_unlock(&gate);
	}
	return NULL;
}

TOUCHES_MANAGED static void *
counter(void *arg)
{
	while (!stopping) {
		pthread_rwlock_rdlock(&gate);
		for (int i = 0; i < 256; i++) {
			*x += 1;
			*y += 1;
		}
		pthread_rwlock_unlock(&gate);
		sched_yield();
	}
	return NULL;
}

/* A snapshot of a bank, and what is needed to look at it again. */
struct shot {
	vmf_snapshot_t h;
	unsigned bank;
	size_t n;			/* ranges; the last two are y's page and x's */
	size_t size[PARTS];
};

static void
shot_take(struct shot *s, unsigned bank)
{
	struct vmf_range r[PARTS + 2];
	struct bank *b = &banks[bank];

	s->bank = bank;
	s->n = bank == 0 ? 1 : PARTS;	/* bank 0 is one range from its first part on */
	for (size_t i = 0; i < s->n; i++) {
		s->size[i] = (s->n == 1 ? b->pages[0] + b->pages[1] + b->pages[2] :
		    b->pages[i]) * PG;
		r[i] = (struct vmf_range){ b->part[i], s->size[i] };
	}
	r[s->n] = (struct vmf_range){ (void *)y, PG };
	r[s->n + 1] = (struct vmf_range){ (void *)x, PG };
	expect(vmf_snapshot_create(r, s->n + 2, &s->h), 0);
	snapshots++;
}

/* Map it all; the bank as it was then. */
static struct bank
shot_map(const struct shot *s, int prot)
{
	struct bank b = banks[s->bank];
	void *p;

	for (size_t i = 0; i < s->n; i++) {
		expect(vmf_snapshot_map(s->h, i, 0, s->size[i], i == 1 ? other : VMF_TASK_DEFAULT,
		    &p, 0,
		    prot), 0);
		b.part[i] = p;
	}
	if (s->n == 1) {
		b.part[1] = b.part[0] + b.pages[0] * PG;
		b.part[2] = b.part[1] + b.pages[1] * PG;
	}
	return b;
}

static void
shot_unmap(const struct shot *s, const struct bank *b)
{
	for (size_t i = 0; i < s->n; i++)
		expect(vmf_unmap(b->part[i], s->size[i]), 0);
}

static void
shot_check(const struct shot *s)
{
	struct bank b = shot_map(s, VMF_PROT_READ);
	uint64_t xs, ys;

	bank_check(&b, "a snapshot");
	shot_unmap(s, &b);
	expect(vmf_snapshot_read(s->h, s->n, 0, &ys, sizeof(ys)), 0);
	expect(vmf_snapshot_read(s->h, s->n + 1, 0, &xs, sizeof(xs)), 0);
	if (xs < ys || xs > ys + 1)
		die("stress: seed %" PRIu64 ": a snapshot with x %" PRIu64 " and y %" PRIu64, seed,
		    xs, ys);
}

/* Scribble over a writable view: the snapshot and a snapshot of the view stay as they are. */
TOUCHES_MANAGED static void
shot_scribble(const struct shot *s, uint64_t *rng)
{
	struct bank b = shot_map(s, VMF_PROT_DEFAULT), again;
	struct shot nested = *s;
	struct vmf_range r[PARTS];

	for (size_t i = 0; i < s->n; i++)
		r[i] = (struct vmf_range){ b.part[i], s->size[i] };
	expect(vmf_snapshot_create(r, s->n, &nested.h), 0);
	for (unsigned i = 0; i < ACCOUNTS; i++)
		account(&b, i)->balance = (int32_t)rng_next(rng);
	again = shot_map(&nested, VMF_PROT_READ);
	bank_check(&again, "a snapshot of a view");
	if (draw(rng, 2) == 0) {
		expect(vmf_snapshot_rollback(nested.h), 0);
		bank_check(&b, "a view rolled back");
	}
	expect(vmf_snapshot_release(nested.h), 0);
	bank_check(&again, "a view that outlived its snapshot");
	shot_unmap(&nested, &again);
	shot_unmap(s, &b);
}

/* What diff says of two snapshots of one bank is what a comparison says. */
static void
shot_diff(const struct shot *s, const struct shot *t)
{
	static const unsigned char differs = 1;
	unsigned char *page;
	char *bytes[2];
	struct vmf_extent ext[8];
	size_t cursor = 0, n = s->size[0] / PG;
	int got;

	page = calloc(n, 1);
	bytes[0] = malloc(n * PG);
	bytes[1] = malloc(n * PG);
	check(page != NULL && bytes[0] != NULL && bytes[1] != NULL);
	while ((got = vmf_snapshot_diff(s->h, t->h, 0, &cursor, ext, nitems(ext))) > 0) {
		for (int i = 0; i < got; i++) {
			check(ext[i].offset + ext[i].size <= n * PG);
			memset(page + ext[i].offset / PG, differs, ext[i].size / PG);
		}
	}
	expect(got, 0);
	expect(vmf_snapshot_read(s->h, 0, 0, bytes[0], n * PG), 0);
	expect(vmf_snapshot_read(t->h, 0, 0, bytes[1], n * PG), 0);
	for (size_t i = 0; i < n; i++)
		check((memcmp(bytes[0] + i * PG, bytes[1] + i * PG, PG) != 0) == (page[i] ==
		    differs));
	free(page);
	free(bytes[0]);
	free(bytes[1]);
}

/*
 * Hold the writers at the gate, roll back, recover.  Without the gate a writer
 * could read an account before the rollback and write it after, rightly.
 */
TOUCHES_MANAGED static void
shot_rollback(const struct shot *s)
{
	pthread_rwlock_wrlock(&gate);
	bank_check(&banks[s->bank], "the live bank before a rollback");
	expect(vmf_snapshot_rollback(s->h), 0);
	bank_check(&banks[s->bank], "the live bank after a rollback");
	bank_recover(&banks[s->bank]);
	bank_check(&banks[s->bank], "the live bank recovered");
	check(*x - *y <= 1);
	*y = *x;
	pthread_rwlock_unlock(&gate);
	rollbacks++;
}

static void *
snapshooter(void *arg)
{
	uint64_t rng = mix(seed, 1000 + (uintptr_t)arg);
	struct shot keep[KEEP] = { { 0 } };

	while (!stopping) {
		struct shot *s = &keep[draw(&rng, KEEP)], *t = &keep[draw(&rng, KEEP)];

		if (s->h == 0)
			shot_take(s, (unsigned)draw(&rng, NBANKS));
		switch (draw(&rng, 8)) {
		case 0:
			shot_scribble(s, &rng);
			break;
		case 1:
			if (t->h != 0 && t->bank == s->bank)
				shot_diff(s, t);
			break;
		case 2:
			if (draw(&rng, 4) == 0)
				shot_rollback(s);
			break;
		case 3:
		case 4:
			expect(vmf_snapshot_release(s->h), 0);
			s->h = 0;
			continue;
		default:
			break;
		}
		shot_check(s);
	}
	for (struct shot *s = keep; s < keep + KEEP; s++) {
		if (s->h != 0)
			expect(vmf_snapshot_release(s->h), 0);
	}
	return NULL;
}

/* A forked task is a cut too; what is written there is nobody else's. */
TOUCHES_MANAGED static void *
forker(void *arg)
{
	vmf_task_t child;
	struct bank b;
	void *base;

	while (!stopping) {
		expect(vmf_task_fork(other, &child), 0);
		expect(vmf_task_range(child, &base, NULL), 0);
		b = banks[0];
		for (int i = 0; i < PARTS; i++)
			b.part[i] = (char *)base + (banks[0].part[i] - other_base);
		bank_check(&b, "a forked task");
		/* It may have been forked under the protector's hand. */
		expect(vmf_protect(b.part[0], (ACCOUNTS + nwriters) * PG, VMF_PROT_DEFAULT), 0);
		bank_recover(&b);
		for (unsigned i = 0; i + 1 < ACCOUNTS; i += 7) {
			account(&b, i)->balance += 1;
			account(&b, i + 1)->balance -= 1;
		}
		bank_check(&b, "a forked task that was written");
		expect(vmf_task_destroy(child), 0);
		forks++;
	}
	return NULL;
}

/* Copies among ranges of its own, in two tasks. */
static void *
copier(void *arg)
{
	uint64_t rng = mix(seed, 2000), key[4];
	char *p[4];

	for (int i = 0; i < 4; i++) {
		p[i] = alloc_in(i % 2 ? other : VMF_TASK_DEFAULT, 32);
		fill_pages(p[i], 32, key[i] = rng_next(&rng));
	}
	while (!stopping) {
		unsigned from = (unsigned)draw(&rng, 4), to = (unsigned)draw(&rng, 4);

		if (from == to) {
			fill_pages(p[to], 32, key[to] = rng_next(&rng));
			continue;
		}
		expect(vmf_copy(p[to], p[from], 32 * PG), 0);
		key[to] = key[from];
		check_pages(p[to], 32, key[to]);
		copies++;
	}
	for (int i = 0; i < 4; i++)
		check_pages(p[i], 32, key[i]);
	return NULL;
}

/* Real system calls into held memory, which is also in snapshots and wired at times. */
static void *
caller(void *arg)
{
	uint64_t rng = mix(seed, 3000), key;
	char buf[8192], *p = alloc(16);
	vmf_snapshot_t s;
	int fd[2];

	check(pipe2(fd, O_CLOEXEC) == 0);
	while (!stopping) {
		size_t at = draw(&rng, 8 * PG), n = 1 + draw(&rng, sizeof(buf));
		bool wire = draw(&rng, 4) == 0;

		fill(buf, n, key = rng_next(&rng));
		check(write(fd[1], buf, n) == (ssize_t)n);
		s = snap(p, 16);
		if (wire)
			expect(vmf_wire(p, 16 * PG), 0);
		expect(vmf_fault_in(p + at, n, VMF_PROT_WRITE), 0);
		if (wire)
			expect(vmf_unwire(p, 16 * PG), 0);
		check(read(fd[0], p + at, n) == (ssize_t)n);
		expect(vmf_fault_release(p + at, n), 0);
		check_fill(p + at, n, key);
		expect(vmf_snapshot_release(s), 0);
		calls++;
		wires += wire;
	}
	close(fd[0]);
	close(fd[1]);
	return NULL;
}

/* Map, fill, forbid, cut, unmap. */
static void *
churner(void *arg)
{
	uint64_t rng = mix(seed, 4000 + (uintptr_t)arg), key;

	while (!stopping) {
		size_t n = 4 + draw(&rng, 60);
		vmf_task_t task = draw(&rng, 2) ? other : VMF_TASK_DEFAULT;
		char *p = alloc_in(task, n);

		expect(vmf_inherit(p, n * PG, (enum vmf_inherit)draw(&rng, 3)), 0);
		check_zero(p, n * PG);
		fill_pages(p, n, key = rng_next(&rng));
		expect(vmf_protect(p + PG, PG, VMF_PROT_READ), 0);
		expect_write(p + PG, SIGSEGV, SEGV_ACCERR);
		check_pages(p, n, key);
		expect(vmf_unmap(p + 2 * PG, PG), 0);
		check_pages(p, 2, key);
		expect(vmf_unmap(p, n * PG), 0);
		churns++;
	}
	return NULL;
}

/* A write to a bank met the protector: try again. */
static bool
refused(int signo, int code, const void *addr)
{
	if (signo != SIGSEGV || code != SEGV_ACCERR)
		return false;
	for (struct bank *b = banks; b < banks + NBANKS; b++) {
		for (int i = 0; i < PARTS; i++) {
			if ((const char *)addr >= b->part[i] &&
			    (const char *)addr < b->part[i] + b->pages[i] * PG) {
				refusals++;
				return true;
			}
		}
	}
	return false;
}

static void *
protector(void *arg)
{
	uint64_t rng = mix(seed, 5000);

	while (!stopping) {
		struct bank *b = &banks[draw(&rng, NBANKS)];
		size_t part = draw(&rng, PARTS), n = 1 + draw(&rng, b->pages[part]);

		expect(vmf_protect(b->part[part], n * PG, VMF_PROT_READ), 0);
		usleep(200);
		expect(vmf_protect(b->part[part], n * PG, VMF_PROT_DEFAULT), 0);
		usleep(2000);
	}
	return NULL;
}

TOUCHES_MANAGED static void
banks_make(void)
{
	const size_t pages[PARTS] = { ACCOUNTS / 2, ACCOUNTS / 2, nwriters };
	void *base;

	expect(vmf_task_create(64 << 20, &other), 0);
	expect(vmf_task_range(other, &base, NULL), 0);
	other_base = base;
	for (struct bank *b = banks; b < banks + NBANKS; b++) {
		memcpy(b->pages, pages, sizeof(pages));
		if (b == &banks[0]) {
			b->part[0] = alloc_in(other, ACCOUNTS + nwriters);
			b->part[1] = b->part[0] + pages[0] * PG;
			b->part[2] = b->part[1] + pages[1] * PG;
		} else {
			for (int i = 0; i < PARTS; i++)
				b->part[i] = alloc_in(i == 1 ? other : VMF_TASK_DEFAULT, pages[i]);
		}
		for (unsigned i = 0; i < ACCOUNTS; i++)
			account(b, i)->balance = PENNY;
	}
	x = (void *)alloc(1);
	y = (void *)alloc_in(other, 1);
}

static void __attribute__((__noreturn__))
usage(int code)
{
	printf("usage: stress [--threads n] [--seconds n] [--seed n] [--mappings n]\n"
	    "              [--memory bytes] [--pageout] [--strategy name]\n"
	    "  --threads   writers (4); some ten other threads run beside them\n"
	    "  --seconds   how long (5)\n"
	    "  --seed      of what the threads choose (1); the schedule does not replay\n"
	    "  --mappings  budget of kernel mappings (most of the limit)\n"
	    "  --memory    budget of page frames, in bytes (what the machine has)\n"
	    "  --pageout   a default pager that is asynchronous and fails at times\n"
	    "  --strategy  of the pmap: view, park, mprotect or mmap (the first that the kernel can)\n");
	exit(code);
}

TOUCHES_MANAGED int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "threads", required_argument, NULL, 't' },
		{ "seconds", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },
		{ "mappings", required_argument, NULL, 'k' },
		{ "memory", required_argument, NULL, 'm' },
		{ "strategy", required_argument, NULL, 'M' },
		{ "pageout", no_argument, NULL, 'o' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	static void *(*const services[])(void *) = {
		counter, snapshooter, snapshooter, forker, copier, caller, churner, churner, protector,
	};
	pthread_t threads[WRITERS_MAX + nitems(services)];
	struct vmf_stats stats = { .size = sizeof(stats) };
	bool pageout = false, full = false;
	uint64_t memory = 0;
	uint32_t mappings = 0;
	unsigned n = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 't': nwriters = (unsigned)atoi(optarg); break;
		case 'n': seconds = (unsigned)atoi(optarg); break;
		case 's': seed = strtoull(optarg, NULL, 0); break;
		case 'k': mappings = (uint32_t)atoi(optarg); break;
		case 'm': memory = strtoull(optarg, NULL, 0); break;
		case 'M':
			if ((vm_init_pmap_ops = pmap_strategy(optarg)) == NULL)
				usage(2);
			break;
		case 'o': pageout = true; break;
		case 'h': usage(0);
		default: usage(2);
		}
	}
	if (optind != argc || nwriters < 1 || nwriters > WRITERS_MAX)
		usage(2);
	start(memory, mappings);
	if (pageout) {
		testpager_reset();
		testpager_default();
		testpager.async = true;
		testpager.put_fails_one_in = 16;
	}
	on_stray = refused;
	touch_install();
	banks_make();
	for (unsigned w = 0; w < nwriters; w++)
		check(pthread_create(&threads[n++], NULL, writer, (void *)(uintptr_t)w) == 0);
	for (size_t i = 0; i < nitems(services); i++)
		check(pthread_create(&threads[n++], NULL, services[i], (void *)(uintptr_t)i) == 0);
	/* On a busy machine it may take longer until memory has been full at all. */
	for (unsigned s = 0; s < seconds || (pageout && !full); s++) {
		sleep(1);
		expect(vmf_statistics(&stats), 0);
		check(stats.mappings <= stats.mappings_max);
		full = stats.v_pageouts != 0 && stats.v_swpin != 0;
	}
	stopping = true;
	while (n > 0)
		check(pthread_join(threads[--n], NULL) == 0);
	for (int i = 0; i < NBANKS; i++)
		bank_check(&banks[i], "at the end");
	expect(vmf_statistics(&stats), 0);
	check(stats.snapshots == 0);
	check(*x == *y);
	expect(vmf_task_destroy(other), 0);
	stop();
	printf("stress: %" PRIu64 " transfers, %" PRIu64 " snapshots, %" PRIu64 " rollbacks, "
	    "%" PRIu64 " forks, %" PRIu64 " copies, %" PRIu64 " calls (%" PRIu64 " wired), "
	    "%" PRIu64 " churns, %" PRIu64 " refusals\n", transfers, snapshots, rollbacks, forks,
	    copies, calls, wires, churns, refusals);
	return 0;
}
