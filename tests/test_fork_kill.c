/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * kill -9 in a family: parent, child and grandchild work on memory that was one once, and one of them is killed, at any
 * instant; in its fork, too.  The others go on, have all their bytes right, and, when nobody is below them any
 * more, nothing is left to them of who was.
 *
 *	judge		has no library; starts the family, kills, says when to end, from below, and waits: it is the
 *			one to whom orphans come
 *	parent		begins, fills, forks, works
 *	child		born with the parent's pages; forks, works
 *	grandchild	works
 *
 * To work is to write pages, take snapshots and fork children that look at all pages and end, or fill them for ever until they
 * are killed, so that there is always somebody whose frames are to be kept.
 *
 * KILLS=n in the environment kills so many.
 */

#include <check.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "forks.h"

enum { KILLS = SANITIZED ? 20 : 200, FAMILY = 3, PAGES = 160, FRAMES = 96, SLOTS = 8192, SLEEP_US = 12000 };

static const char *const names[FAMILY] = { "parent", "child", "grandchild" };

/* What judge and family have in common. */
static struct {
	_Atomic pid_t pid[FAMILY];	/* 0: not born yet */
	_Atomic uint32_t end;		/* who has this number, or a higher one, ends */
	_Atomic uint64_t works;		/* pieces of work that were done, by all */
	uint64_t seed;
} *all;

/* One of the family. */
static unsigned generation;
static char *memory;
static uint64_t key[PAGES], rng;

static void
say_who(void)
{
	fprintf(stderr, "in the %s, or below it; seed %llu\n", names[generation], (unsigned long long)all->seed);
}

static void
check_memory(void)
{
	for (size_t i = 0; i < PAGES; i++)
		check_ends("memory", memory + i * PG, i, key[i]);
}

static void
write_some(void)
{
	size_t i = rng_next(&rng) % PAGES, n = 1 + rng_next(&rng) % 24;

	for (; n > 0 && i < PAGES; i++, n--) {
		key[i] = rng_next(&rng);
		fill_ends(memory + i * PG, key[i]);
	}
}

/* A child that looks and ends, or that writes for ever. */
static void
fork_one(void)
{
	bool for_ever = rng_next(&rng) % 2 != 0;
	pid_t me = getpid(), pid = fork();
	int status;

	check(pid >= 0);
	if (pid == 0) {
		/* Should we be killed, nobody would end it. */
		expect(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
		if (getppid() != me)
			_exit(0);
		check_memory();
		do
			write_some();
		while (for_ever);
		check_memory();
		_exit(0);
	}
	write_some();
	if (!for_ever) {
		expect_good(pid);
		return;
	}
	usleep((useconds_t)(rng_next(&rng) % 1000));
	expect(kill(pid, SIGKILL), 0);
	check(waitpid(pid, &status, 0) == pid);
	/* Should it have found a wrong byte before, that is what it died of. */
	expect_killed(status, SIGKILL);
}

static void
take_snapshot(void)
{
	vmf_snapshot_t s = snap(memory, PAGES);
	uint64_t then[PAGES];
	char *v;

	memcpy(then, key, sizeof(then));
	write_some();
	v = view(s, PAGES, VMF_PROT_READ);
	for (size_t i = 0; i < PAGES; i++)
		check_ends("a snapshot", v + i * PG, i, then[i]);
	expect(vmf_unmap(v, PAGES * PG), 0);
	expect(vmf_snapshot_release(s), 0);
}

/* Until the judge says that it is enough. */
static void
work(void)
{
	while (atomic_load(&all->end) > generation) {
		switch (rng_next(&rng) % 8) {
		case 0:
			fork_one();
			break;
		case 1:
			take_snapshot();
			break;
		case 2:
			check_memory();
			break;
		default:
			write_some();
		}
		all->works++;
	}
}

/* From its birth on.  none: what it may hold when all is given back */
static void
live(struct held none)
{
	pid_t next = 0;
	int status;

	rng = mix(all->seed, generation);
	all->pid[generation] = getpid();
	if (generation + 1 < FAMILY) {
		next = fork();
		check(next >= 0);
		if (next == 0) {
			generation++;
			none.fds = count_fds();
			live(none);
			_exit(0);
		}
	}
	work();
	if (next != 0) {
		/* It is told to end before us; or it was killed. */
		check(waitpid(next, &status, 0) == next);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
			expect_exit(status, 0);
	}
	expect_no_children();
	check_memory();
	audit();
	expect(vmf_unmap(memory, PAGES * PG), 0);
	expect_held(none);
	audit();
}

static void
begin_family(void)
{
	struct held none;

	generation = 0;
	on_die = say_who;
	begin_forks(FRAMES, SLOTS, 0);
	none = held_now();
	memory = alloc(PAGES);
	for (size_t i = 0; i < PAGES; i++) {
		key[i] = mix(all->seed, i);
		fill_ends(memory + i * PG, key[i]);
	}
	live(none);
	stop();
	_exit(0);
}

/* Wait for one of them, who has ended well, or, if it is the victim, been killed. */
static void
await(unsigned who, unsigned victim)
{
	uint64_t began = now_ms();
	int status;

	/* An orphan comes to us when its parent has ended, which takes it a moment. */
	while (waitpid(all->pid[who], &status, 0) != all->pid[who]) {
		check(errno == ECHILD && now_ms() - began < PATIENCE_MS);
		usleep(100);
	}
	if (who == victim && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return;
	if (status != 0)
		die("the %s: wait status %#x, when the %s was killed", names[who], (unsigned)status, names[victim]);
}

static bool
is_born(unsigned who)
{
	return atomic_load(&all->pid[who]) != 0;
}

/* Kill one of a family, at a random instant. */
static void
kill_one(uint64_t seed, uint64_t *random)
{
	unsigned victim = (unsigned)(rng_next(random) % FAMILY);
	uint64_t began = now_ms(), works;
	pid_t pid;

	memset((void *)all, 0, sizeof(*all));
	all->seed = seed;
	all->end = FAMILY;
	pid = fork();
	check(pid >= 0);
	if (pid == 0)
		begin_family();
	/* It need not have become complete before; who is killed must be there. */
	while (!is_born(victim)) {
		check(now_ms() - began < PATIENCE_MS);
		usleep(100);
	}
	usleep((useconds_t)(rng_next(random) % SLEEP_US));
	expect(kill(all->pid[victim], SIGKILL), 0);
	/* The others go on: each piece of work is theirs, but for one.  If there are others. */
	works = all->works;
	while (victim != 0 && all->works < works + 3) {
		check(now_ms() - began < PATIENCE_MS);
		usleep(100);
	}
	for (unsigned who = FAMILY; who-- > 0;) {
		all->end = who;
		/* Our own child, or an orphan; all others have somebody to wait for them. */
		if (who == 0 || (is_born(who) && victim == who - 1))
			await(who, victim);
	}
	/* Whom the victim had forked. */
	for (int status; (pid = waitpid(-1, &status, 0)) > 0;)
		if (status != 0 && status != SIGKILL)
			die("an orphan: wait status %#x", (unsigned)status);
	check(errno == ECHILD);
}

START_TEST(the_others_go_on)
{
	const char *more = getenv("KILLS");
	uint64_t random = (uint64_t)getpid();

	expect(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	all = mmap(NULL, sizeof(*all), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(all != MAP_FAILED);
	for (int i = more != NULL ? atoi(more) : KILLS; i > 0; i--)
		kill_one(rng_next(&random), &random);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("fork/kill");
	TCase *t = tcase_create("kill");

	tcase_set_timeout(t, 3600);
	suite_add_tcase(s, t);
	tcase_add_test(t, the_others_go_on);
	return run_suite(s);
}
