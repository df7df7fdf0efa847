/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Random trees of forks, against a model.
 *
 * Each process does at random, for a while: write, read, say what a child inherits, take, look at, go back to and
 * release snapshots, unmap and allocate, and fork: six deep, three wide at most, with or without waiting for the child, so that
 * several generations write side by side.  It carries its model in ordinary memory, which the kernel copies to
 * its children: for each page the key that it was filled with.
 *
 *	inherit copy	the child has the page as it was at the fork, and nothing that anybody writes later
 *	share		both see each other's writes: the model of such a range is a mapping that the kernel shares.  Who
 *			touches one holds a lock, so that page and model are of one mind.  A child that inherits a copy of it
 *			has what it was at the fork
 *	none		the child has nothing there
 *
 * A tree follows from its seed: each process's randomness is that of its parent's and its place among the children.
 * FORK_SEED=n in the environment runs trees from that one on, FORK_TREES=n so many.  What fails says whose
 * child of whose it was.
 *
 * At the end each process has waited for its children, has all bytes right, and half of them give all back: then no frame,
 * slot or descriptor is left.  The root always does.
 */

#include <check.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "forks.h"

enum { RANGES = 6, MOST = 40, SHOTS = 2, DEPTH = 6, WIDTH = 3, FAMILY = SANITIZED ? 40 : 150, BLOCKS = 400,
	TREES = SANITIZED ? 3 : 10 };

struct range {
	char *p;			/* null: none */
	size_t pages;
	enum vmf_inherit inherit;
	uint64_t *key;			/* what the pages were filled with; 0: zeros.  own, or shared */
	uint64_t own[MOST];
	bool gone[MOST];		/* unmapped */
	bool whole;			/* none is */
};

struct shot {
	vmf_snapshot_t s;		/* 0: none */
	struct range *of;		/* null: it cannot be gone back to */
	size_t pages;
	uint64_t key[MOST];
};

/* A process. */
static struct {
	struct range range[RANGES];
	struct shot shot[SHOTS];
	uint64_t rng;
	bool share;			/* children may inherit otherwise than by copy */
	bool limited;			/* there are fewer frames than pages */
	unsigned depth, born;
	pid_t child[WIDTH];		/* 0: waited for */
	char name[2 * DEPTH + 2];	/* "0.2.1": the second child of the third one of the root */
} me;

/* All have it in common. */
static struct {
	_Atomic uint32_t lock, blocks, family;
	_Atomic bool failed;
	uint64_t seed;
	uint64_t key[BLOCKS][MOST];
} *all;

static uint64_t
pick(uint64_t n)
{
	return rng_next(&me.rng) % n;
}

static void
say_who(void)
{
	all->failed = true;
	fprintf(stderr, "process %s of the tree FORK_SEED=%llu\n", me.name, (unsigned long long)all->seed);
}

static void
lock(void)
{
	while (atomic_exchange(&all->lock, 1) != 0) {
		if (all->failed)
			_exit(1);
		sched_yield();
	}
}

static void
unlock(void)
{
	atomic_store(&all->lock, 0);
}

static bool
is_shared(const struct range *r)
{
	return r->key != r->own;
}

/*
 * Pages
 */

static void
check_page(const char *p, uint64_t key)
{
	if (key == 0)
		check_zero(p, PG);
	else
		check_fill(p, PG, key);
}

/* n pages from the i-th: what they are, and then something else. */
static void
touch_pages(struct range *r, size_t i, size_t n, bool look, bool change)
{
	bool locked = is_shared(r);

	if (locked)
		lock();
	for (; n > 0 && i < r->pages; i++, n--) {
		if (r->gone[i])
			continue;
		if (look)
			check_page(r->p + i * PG, r->key[i]);
		if (change) {
			uint64_t key = rng_next(&me.rng) | 1;

			fill(r->p + i * PG, PG, key);
			r->key[i] = key;
		}
	}
	if (locked)
		unlock();
}

static void
check_shot(const struct shot *s)
{
	char *v = view(s->s, s->pages, VMF_PROT_READ);

	for (size_t i = 0; i < s->pages; i++)
		check_page(v + i * PG, s->key[i]);
	expect(vmf_unmap(v, s->pages * PG), 0);
}

static void
check_all(void)
{
	for (struct range *r = me.range; r < me.range + RANGES; r++)
		if (r->p != NULL)
			touch_pages(r, 0, r->pages, true, false);
	for (struct shot *s = me.shot; s < me.shot + SHOTS; s++)
		if (s->s != 0)
			check_shot(s);
	audit();
}

/*
 * What a process does
 */

static void
make_range(struct range *r)
{
	*r = (struct range){ .pages = 1 + pick(MOST), .inherit = VMF_INHERIT_COPY, .key = r->own, .whole = true };
	r->p = alloc(r->pages);
}

static void
unmap_pages(struct range *r)
{
	size_t i = pick(r->pages), n = 1 + pick(r->pages - i);

	if (pick(2) != 0)
		i = 0, n = r->pages;
	/* What was unmapped before may be another range's by now. */
	for (size_t k = i, e; k < i + n; k = e + 1) {
		for (e = k; e < i + n && !r->gone[e]; e++)
			r->gone[e] = true;
		if (e > k) {
			expect(vmf_unmap(r->p + k * PG, (e - k) * PG), 0);
			expect_read(r->p + k * PG, SIGSEGV, SEGV_MAPERR);
		}
	}
	r->whole = false;
	for (struct shot *s = me.shot; s < me.shot + SHOTS; s++)
		s->of = s->of == r ? NULL : s->of;
	for (i = 0; i < r->pages && r->gone[i]; i++)
		;
	if (i == r->pages)
		r->p = NULL;
}

static void
set_inherit(struct range *r)
{
	static const enum vmf_inherit choice[] = { VMF_INHERIT_COPY, VMF_INHERIT_SHARE, VMF_INHERIT_NONE };

	if (!me.share || !r->whole)
		return;
	r->inherit = choice[pick(nitems(choice))];
	expect(vmf_inherit(r->p, r->pages * PG, r->inherit), 0);
}

static void
take_shot(struct shot *s, struct range *r)
{
	if (s->s != 0) {
		check_shot(s);
		expect(vmf_snapshot_release(s->s), 0);
		s->s = 0;
	} else if (r->whole && !is_shared(r)) {
		s->s = snap(r->p, r->pages);
		s->of = r;
		s->pages = r->pages;
		memcpy(s->key, r->key, sizeof(s->key));
	}
}

static void
go_back(const struct shot *s)
{
	if (s->s == 0 || s->of == NULL || is_shared(s->of))
		return;
	expect(vmf_snapshot_rollback(s->s), 0);
	memcpy(s->of->key, s->key, sizeof(s->key));
}

static void
await(unsigned i)
{
	if (me.child[i] != 0)
		expect_good(me.child[i]);
	me.child[i] = 0;
}

static void live(void);

/* What is ours in the child. */
static void
be_born(void)
{
	for (struct range *r = me.range; r < me.range + RANGES; r++) {
		if (r->p != NULL && r->inherit == VMF_INHERIT_NONE) {
			for (size_t i = 0; i < r->pages; i++)
				if (!r->gone[i])
					expect_read(r->p + i * PG, SIGSEGV, SEGV_MAPERR);
			r->p = NULL;
		} else if (r->p != NULL && r->inherit == VMF_INHERIT_COPY) {
			r->key = r->own;
		}
	}
	for (struct shot *s = me.shot; s < me.shot + SHOTS; s++)
		if (s->of != NULL && s->of->p == NULL)
			s->of = NULL;
	for (unsigned i = 0; i < WIDTH; i++)
		me.child[i] = 0;
	me.rng = mix(me.rng, me.born);
	snprintf(me.name + strlen(me.name), 3, ".%u", me.born);
	me.depth++;
	me.born = 0;
}

static void
give_birth(void)
{
	pid_t pid;

	if (me.depth == DEPTH || me.born == WIDTH || atomic_fetch_add(&all->family, 1) >= FAMILY)
		return;
	/* What is shared from now on, or ends to be in the child, is of one mind at the fork. */
	lock();
	for (struct range *r = me.range; r < me.range + RANGES; r++) {
		if (r->p == NULL)
			continue;
		if (is_shared(r)) {
			memcpy(r->own, r->key, sizeof(r->own));
		} else if (r->inherit == VMF_INHERIT_SHARE) {
			uint32_t b = atomic_fetch_add(&all->blocks, 1);

			check(b < BLOCKS);
			r->key = memcpy(all->key[b], r->own, sizeof(r->own));
		}
	}
	pid = vmf_fork();
	if (pid == 0) {
		be_born();
		live();
		_exit(0);
	}
	unlock();
	/* All that is shared must be in memory, and may be more than there are frames. */
	if ((pid == -ENOMEM || pid == -EAGAIN) && me.limited && me.share)
		return;
	if (pid < 0)
		die("vmf_fork: %s", strerror(-pid));
	me.child[me.born++] = pid;
	if (pick(2) != 0)
		await(me.born - 1);
}

static void
step(void)
{
	struct range *r = &me.range[pick(RANGES)];
	struct shot *s = &me.shot[pick(SHOTS)];
	uint64_t what = pick(20);

	if (r->p == NULL) {
		make_range(r);
		touch_pages(r, 0, r->pages, false, pick(2) != 0);
	} else if (what < 8) {
		touch_pages(r, pick(r->pages), 1 + pick(MOST), pick(2) != 0, what < 6);
	} else if (what < 10) {
		set_inherit(r);
	} else if (what < 13) {
		take_shot(s, r);
	} else if (what < 14) {
		go_back(s);
	} else if (what < 15) {
		unmap_pages(r);
	} else {
		give_birth();
	}
}

static void
give_all_back(void)
{
	for (struct shot *s = me.shot; s < me.shot + SHOTS; s++)
		if (s->s != 0)
			expect(vmf_snapshot_release(s->s), 0);
	for (struct range *r = me.range; r < me.range + RANGES; r++)
		if (r->p != NULL)
			expect(vmf_unmap(r->p, r->pages * PG), 0);
}

/* From birth, or the root's beginning, to the end. */
static void
live(void)
{
	struct held none = { .fds = count_fds() };

	if (pick(2) != 0)
		check_all();
	for (uint64_t n = 5 + pick(25); n > 0; n--)
		step();
	for (unsigned i = 0; i < me.born; i++)
		await(i);
	expect_no_children();
	check_all();
	if (me.depth == 0 || pick(2) != 0) {
		give_all_back();
		expect_held(none);
		audit();
	}
}

static void
tree(uint64_t seed, bool share)
{
	/* Memory, swap, mappings. */
	static const struct {
		size_t memory, swap;
		uint32_t mappings;
	} settings[] = { { 0, 0, 0 }, { 96, 8192, 0 }, { 0, 0, 128 } };
	uint64_t kind = seed % nitems(settings);

	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(all != MAP_FAILED);
	all->seed = seed;
	on_die = say_who;
	begin_forks(settings[kind].memory, settings[kind].swap, settings[kind].mappings);
	me.rng = mix(seed, 1);
	me.share = share;
	me.limited = settings[kind].memory != 0;
	strcpy(me.name, "0");
	live();
	stop();
	munmap(all, sizeof(*all));
}

static uint64_t
from_environment(const char *name, uint64_t otherwise)
{
	const char *s = getenv(name);

	return s != NULL ? strtoull(s, NULL, 10) : otherwise;
}

START_TEST(trees_of_copies)
{
	tree(from_environment("FORK_SEED", 1) + (uint64_t)_i, false);
}
END_TEST

START_TEST(trees_of_all_that_can_be_inherited)
{
	tree(from_environment("FORK_SEED", 1) + (uint64_t)_i, true);
}
END_TEST

int
main(void)
{
	int trees = (int)from_environment("FORK_TREES", TREES);
	Suite *s = suite_create("fork/tree");
	TCase *copies = tcase_create("copies"), *inherit;

	tcase_set_timeout(copies, 120);
	suite_add_tcase(s, copies);
	tcase_add_loop_test(copies, trees_of_copies, 0, trees);
	/* A copy is no way to share. */
	if (forks_share()) {
		inherit = tcase_create("inherit");
		tcase_set_timeout(inherit, 120);
		suite_add_tcase(s, inherit);
		tcase_add_loop_test(inherit, trees_of_all_that_can_be_inherited, 0, trees);
	}
	return run_suite(s);
}
