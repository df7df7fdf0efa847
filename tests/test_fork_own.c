/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a process writes while a forked child sees its frames, by the leaf (2 MB).
 *
 *	all pages in a row				a view: the kernel copies
 *	some have left it, written by calls		a view that shows what they hold (vm_view_mend.c)
 *	many have, or pages are missing, or some of a
 *	view were held					the leaf is copied as a whole (vm_own.c)
 *
 * Each is done by a parent, by its child, whose frames are inherited, and by a child's child; and every one of them
 * knows all its bytes.  When the others are gone it all comes home, and mappings are as few as before.
 */

#include <pthread.h>
#include <stdatomic.h>

#include "forks.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "pmap.h"
#include "vm_object.h"

enum {
	LEAF = PMAP_LEAF_PAGES, LEAVES = 3, N = LEAVES * LEAF,
	OFTEN = 100,		/* one page in so many leaves the row: a few of each leaf, if leaves are large */
	MANY = 2 * 64,		/* more than a view is mended for */
	QUIET_MS = 30,
	OWN = 16		/* so many pages of a leaf are written: it gets frames as a whole */
};

static char *mem;
static bool fresh;				/* no leaf has a view, and but for gaps all are in a row */
static uint64_t key[N], next_key;		/* what each page holds; 0: it is missing */

/* Memory that begins with a leaf. */
static void
begin_leaves(void)
{
	void *base;

	begin_forks(0, 0, 0);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	mem = alloc(N + LEAF);
	mem += (LEAF * PG - (size_t)(mem - (char *)base) % (LEAF * PG)) % (LEAF * PG);
}

static void
end_leaves(void)
{
	probe_hook = NULL;
	sys_inject = NULL;
	expect_no_children();
	stop();
}

static void
put(size_t i)
{
	fill(mem + i * PG, PG, key[i] = ++next_key);
}

/* The same without a mapping that can be written. */
static void
put_by_call(size_t i)
{
	char page[VMF_PAGE_SIZE];

	fill(page, PG, key[i] = ++next_key);
	expect(vmf_write(mem + i * PG, page, PG), 0);
}

static void
put_all(void)
{
	for (size_t i = 0; i < N; i++)
		put(i);
	fresh = true;
}

static void
check_all(void)
{
	for (size_t i = 0; i < N; i++)
		if (key[i] != 0)
			check_fill(mem + i * PG, PG, key[i]);
}

/* Afterwards they are there. */
static void
check_missing(void)
{
	for (size_t i = 0; i < N; i++)
		if (key[i] == 0)
			check_zero(mem + i * PG, PG);
}

static bool
is_away(size_t k)
{
	return k % OFTEN == 1;
}

/* Leaf l has gaps in its row. */
static void
put_gaps(size_t l)
{
	for (size_t k = 0; k < LEAF; k++)
		if (is_away(k))
			put_by_call(l * LEAF + k);
}

/* Every third page of a leaf, those that are away as the others. */
static void
put_some(size_t l)
{
	for (size_t k = 0; k < LEAF; k += 3)
		put(l * LEAF + k);
}

/*
 * Children
 */

struct kin {
	pid_t pid;
	int fd;
};

/* A child that lives until it is let go; before and after it does something to its memory, if that is not null. */
static struct kin
child(void (*fn)(void))
{
	struct kin k;
	int fd[2];
	char c;

	expect(pipe(fd), 0);
	k = (struct kin){ fork(), fd[1] };
	check(k.pid >= 0);
	if (k.pid == 0) {
		(void)close(fd[1]);
		check(read(fd[0], &c, 1) == 1);
		check_all();
		if (fn != NULL)
			fn();
		check(read(fd[0], &c, 1) == 1);
		check_all();
		audit();
		_exit(0);
	}
	(void)close(fd[0]);
	return k;
}

static void
see(const struct kin *k)
{
	check(write(k->fd, "", 1) == 1);
}

static void
let_go(struct kin *k)
{
	check(write(k->fd, "", 1) == 1);
	(void)close(k->fd);
	expect_good(k->pid);
}

/* When all can be read. */
static uint64_t
mappings(void)
{
	for (size_t i = 0; i < N; i++)
		(void)((const volatile char *)mem)[i * PG];
	return statistics().mappings;
}

/* Nothing moves any more, in memory that nobody looks at. */
static void
rest(void)
{
	for (uint64_t began = now_ms(); statistics().frames_superseded != 0 || !vm_homecoming_rest(); usleep(1000))
		if (now_ms() - began > PATIENCE_MS)
			die("%llu frames are superseded", (unsigned long long)statistics().frames_superseded);
}

/* Nobody else sees our frames any more, and as few mappings do as before. */
static void
come_home(uint64_t few)
{
	for (uint64_t began = now_ms(); statistics().frames_superseded != 0 || mappings() > few; usleep(1000))
		if (now_ms() - began > PATIENCE_MS)
			die("%llu mappings, not %llu; %llu frames are superseded", (unsigned long long)statistics().mappings,
			    (unsigned long long)few, (unsigned long long)statistics().frames_superseded);
	fresh = true;
	check_all();
	audit();
}

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

	begin_leaves();
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

	begin_leaves();
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

	begin_leaves();
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

	begin_leaves();
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
	uint64_t few, views;
	struct kin k;

	begin_leaves();
	if (LEAF > MANY) {
		put_all();
		few = mappings();
		k = child(NULL);
		for (size_t i = 0; i < MANY; i += 1)
			put_by_call(i * (LEAF / MANY));
		views = statistics().v_views;
		put(LEAF - 1);
		expect(statistics().v_views, views);
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
 * A leaf as a whole
 */

static uint64_t
is_frozen(size_t l)
{
	uint64_t left = statistics().v_unfrozen;

	for (size_t k = 0; k < LEAF; k++)
		put(l * LEAF + k);
	return statistics().v_unfrozen - left;
}

/* Pages of views are held, as for system calls: the leaf is ours then, and no view is opened there. */
static void
hold(void)
{
	uint64_t left, views;

	for (size_t l = 0; l < LEAVES && pmap_has_views(); l++) {
		char *held = mem + (l * LEAF + LEAF / 2) * PG;

		views = statistics().v_views;
		put(l * LEAF);
		expect(statistics().v_views, views + 1);
		left = statistics().v_unfrozen;
		expect(vmf_fault_in(held, PG, VMF_PROT_WRITE), 0);
		expect(statistics().v_unfrozen, left + LEAF - 1);	/* the one that was in the view has come home */
		put(l * LEAF + LEAF / 2);
		expect(is_frozen(l), 0);
		expect(vmf_fault_release(held, PG), 0);
		put_some(l);
		expect(statistics().v_views, views + 1);
	}
	check_all();
	audit();
}

static void
hold_again(void)
{
	struct kin k;

	hold();
	k = child(NULL);
	see(&k);
	put_all();
	check_all();
	let_go(&k);
}

START_TEST(leaves_of_which_pages_were_held_are_copied_whole)
{
	static void (*const whats[])(void) = { NULL, hold, hold_again };
	uint64_t few, views;
	struct kin k;

	begin_leaves();
	put_all();
	few = mappings();
	k = child(whats[_i]);
	see(&k);
	hold();
	let_go(&k);
	rest();
	come_home(few);
	/* It is remembered: the next time no view is opened, and the leaf is copied at its first write. */
	k = child(NULL);
	views = statistics().v_views;
	for (size_t l = 0; l < LEAVES && pmap_has_views(); l++) {
		uint64_t left = statistics().v_unfrozen;

		put(l * LEAF + 1);
		expect(statistics().v_unfrozen, left + LEAF);
		expect(is_frozen(l), 0);
	}
	expect(statistics().v_views, views);
	see(&k);
	let_go(&k);
	come_home(few);
	end_leaves();
}
END_TEST

/* Page after page of leaves that lack every fourth one. */
static void
write_on(void)
{
	bool first = fresh;
	uint64_t views = statistics().v_views, left;

	for (size_t l = 0; l < LEAVES; l++) {
		left = statistics().v_unfrozen;
		for (size_t k = 0; k < LEAF; k++) {
			if (k % 4 == 3)
				continue;
			put(l * LEAF + k);
			if (first && LEAF > 2 * OWN && k == 2 * OWN)
				expect(statistics().v_unfrozen, left + LEAF / 4 * 3);
		}
		if (first)
			expect(statistics().v_unfrozen, left + LEAF / 4 * 3);
	}
	fresh = false;
	expect(statistics().v_views, views);
	check_all();
	audit();
}

static void
write_on_again(void)
{
	struct kin k;

	write_on();
	k = child(write_on);
	see(&k);
	write_on();
	let_go(&k);
	check_missing();
}

START_TEST(leaves_with_missing_pages_are_copied_whole)
{
	static void (*const whats[])(void) = { NULL, write_on, write_on_again };
	struct kin k;

	begin_leaves();
	expect(vmf_advise(mem, N * PG, VMF_ADVICE_RANDOM), 0);
	for (size_t i = 0; i < N; i++)
		if (i % 4 != 3)
			put(i);
	fresh = true;
	k = child(whats[_i]);
	see(&k);
	write_on();
	let_go(&k);
	check_all();
	check_missing();
	audit();
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

	begin_leaves();
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

int
main(void)
{
	Suite *s = suite_create("fork/own");
	TCase *t = tcase_create("leaves after a fork");

	suite_add_tcase(s, t);
	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_view_shows_what_had_left_the_row);
	tcase_add_test(t, calls_write_to_what_is_viewed);
	tcase_add_loop_test(t, children_do_the_same, 0, 2);
	tcase_add_loop_test(t, a_second_fork_while_the_first_child_lives, 0, 4);
	tcase_add_test(t, too_many_have_left_the_row);
	tcase_add_loop_test(t, leaves_of_which_pages_were_held_are_copied_whole, 0, 3);
	tcase_add_loop_test(t, leaves_with_missing_pages_are_copied_whole, 0, 3);
	tcase_add_test(t, no_write_is_lost_while_a_view_is_opened);
	return run_suite(s);
}
