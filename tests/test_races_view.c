/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Races around private views: what others do while a view comes home.
 *
 *	s1 ---> o <--- mem	a view: the frames are what s1 sees, the kernel has what mem shows
 *
 * To bring a view home changes no byte for anybody.  So there is one actor that does nothing else, stopped at each
 * place on its way; and there somebody does one thing to the memory, its snapshots or both, whose outcome is known
 * as if they were alone.  What cannot go on until the view is home waits, and must come to the same end.
 *
 *	state	open (s1 alone); closed (s2 was made while it was open); closed, and s2 is gone; ...
 *	place	where the actor stands
 *	thing	what is done there
 *
 * The world says what is where: a key for each page of the memory and of each snapshot.
 */

#include <errno.h>
#include <stdio.h>

#include "kern/sys.h"
#include "race.h"
#include "trap.h"
#include "vm_init.h"
#include "vm_object.h"
#include "vm_view.h"
#include "pmap.h"
#include "testpager.h"

enum { LEAF = PMAP_LEAF_PAGES, N = 2 * LEAF + 7, SNAPS = 4 };

struct world {
	char *mem;
	uint64_t live[N];		/* key of each page; 0: not mapped, or not to be read */
	struct {
		vmf_snapshot_t name;	/* 0: none */
		char *map;		/* where it is mapped, writable; or null */
		uint64_t key[N], mapped[N];
	} snap[SNAPS];
	uint64_t next;			/* key */
};

static struct world w;

static void
write_page(size_t i)
{
	w.live[i] = ++w.next;
	fill_ends(w.mem + i * PG, w.next);
}

static unsigned
take_snapshot(void)
{
	unsigned k = 0;

	while (w.snap[k].name != 0)
		k++;
	check(k < SNAPS);
	w.snap[k].name = snap(w.mem, N);
	memcpy(w.snap[k].key, w.live, sizeof(w.live));
	return k;
}

static void
let_go(unsigned k)
{
	expect(vmf_snapshot_release(w.snap[k].name), 0);
	w.snap[k].name = 0;
}

static void
map_snapshot(unsigned k)
{
	w.snap[k].map = view(w.snap[k].name, N, VMF_PROT_DEFAULT);
	memcpy(w.snap[k].mapped, w.snap[k].key, sizeof(w.snap[k].key));
}

static void
write_mapped(unsigned k, size_t i)
{
	w.snap[k].mapped[i] = ++w.next;
	fill_ends(w.snap[k].map + i * PG, w.next);
}

static void
check_snap(unsigned k)
{
	char buf[VMF_PAGE_SIZE];

	for (size_t i = 0; w.snap[k].name != 0 && i < N; i++) {
		expect(vmf_snapshot_read(w.snap[k].name, 0, i * PG, buf, PG), 0);
		check_ends("snapshot", buf, i, w.snap[k].key[i]);
	}
	for (size_t i = 0; w.snap[k].map != NULL && i < N; i++)
		check_ends("mapped snapshot", w.snap[k].map + i * PG, i, w.snap[k].mapped[i]);
}

static void
check_live(void)
{
	for (size_t i = 0; i < N; i++)
		if (w.live[i] != 0)
			check_ends("memory", w.mem + i * PG, i, w.live[i]);
}

/* Of all, twice: reading may change who has what; and then nothing is left. */
static void
check_world(void)
{
	for (unsigned k = 0; k < SNAPS; k++)
		check_snap(k);
	check_live();
	audit();
	vm_view_hold();
	for (size_t i = 0; i < N; i += 3)
		if (w.live[i] != 0 && w.live[0] != 0)
			write_page(i);
	for (unsigned k = SNAPS; k-- > 0;)
		check_snap(k);
	vm_view_go_on();
	check_live();
	for (unsigned k = 0; k < SNAPS; k++) {
		if (w.snap[k].name != 0)
			let_go(k);
		check_snap(k);
	}
	check_live();
	audit();
}

/* Memory, snapshot 0 of it, and two pages in its first leaf that were written since: a view. */
static void
open_view(void)
{
	begin();
	vm_view_hold();
	w = (struct world){ .next = 1000 };
	w.mem = alloc(N);
	for (size_t i = 0; i < N; i++)
		write_page(i);
	(void)take_snapshot();
	write_page(5);
	write_page(300);
	if (pmap_has_views())
		check(STAT(v_views) == 1);
}

/*
 * States that a view can be in
 */

static void
state_open(void)
{
}

static void
state_closed(void)
{
	(void)take_snapshot();
}

static void
state_closed_second_gone(void)
{
	(void)take_snapshot();
	let_go(1);
}

static void
state_closed_first_gone(void)
{
	(void)take_snapshot();
	let_go(0);
}

static void
state_mapped(void)
{
	map_snapshot(0);
	write_mapped(0, 7);
	(void)*(volatile char *)(w.snap[0].map + 5 * PG);
	(void)*(volatile char *)(w.snap[0].map + 9 * PG);
}

static void
state_mapped_closed(void)
{
	state_mapped();
	(void)take_snapshot();
}

/* The copy has pages of its own, of the view's and of others. */
static void
state_pushed(void)
{
	expect(vmf_wire(w.mem + 5 * PG, PG), 0);	/* which brings it home */
	write_page(5);
	expect(vmf_unwire(w.mem + 5 * PG, PG), 0);
	write_page(LEAF + 3);
	write_page(9);
	write_page(5);
	vm_view_hold();
}

/* So much was written that the copy is given the rest, too. */
static void
write_much(void)
{
	for (size_t i = 0; i < LEAF / 2; i++)
		write_page(2 * i + 1);
}

static void
state_much(void)
{
	write_much();
}

static void
state_much_mapped(void)
{
	state_mapped();
	write_much();
}

static void (*const states[])(void) = {
	state_open, state_closed, state_closed_second_gone, state_closed_first_gone, state_mapped, state_mapped_closed,
	state_pushed, state_much, state_much_mapped,
};
enum { MUCH = nitems(states) - 2 };		/* the first of those that the keeper ends */

/*
 * Things to be done
 */

static void
thing_snapshot(void)
{
	(void)take_snapshot();
}

static void
thing_snapshots(void)
{
	unsigned k = take_snapshot();

	let_go(k);
	(void)take_snapshot();
	write_page(5);
	(void)take_snapshot();
}

static void
thing_write(void)
{
	write_page(5);
	write_page(6);
	write_page(LEAF + 9);
}

static void
thing_snapshot_write(void)
{
	(void)take_snapshot();
	write_page(5);
	write_page(8);
}

/* A reader of many pages at once comes from a leaf that is home to one that is closed. */
static void
thing_cluster(void)
{
	unsigned k;

	write_page(LEAF + 3);
	k = take_snapshot();
	map_snapshot(k);
	expect(vmf_advise(w.snap[k].map, N * PG, VMF_ADVICE_SEQUENTIAL), 0);
	for (size_t i = LEAF - 2; i < LEAF + 8; i++)
		check_ends("many at once", w.snap[k].map + i * PG, i, w.snap[k].mapped[i]);
}

static void
thing_release(void)
{
	for (unsigned k = 0; k < SNAPS; k++)
		if (w.snap[k].name != 0) {
			let_go(k);
			break;
		}
}

static void
thing_release_write(void)
{
	thing_release();
	write_page(5);
	write_page(8);
	write_page(300);
}

/* What comes next may well lie where the old copy was. */
static void
thing_release_snapshot(void)
{
	thing_release();
	(void)take_snapshot();
	write_page(5);
	write_page(8);
}

static void
thing_read_old(void)
{
	for (unsigned k = 0; k < SNAPS; k++)
		check_snap(k);
}

static void
thing_map_old(void)
{
	unsigned k = 0;

	while (w.snap[k].name == 0)
		k++;
	if (w.snap[k].map == NULL)
		map_snapshot(k);
	write_mapped(k, 5);
	write_mapped(k, 11);
	let_go(k);
	write_mapped(k, 12);
}

/* Who is mapped above the copy writes and so tries to do without it. */
static void
thing_bypass(void)
{
	for (unsigned k = 0; k < SNAPS; k++)
		if (w.snap[k].map != NULL) {
			let_go(k);
			write_mapped(k, LEAF + 1);
			write_mapped(k, 8);
		}
}

static void
thing_unmap(void)
{
	expect(vmf_unmap(w.mem, N * PG), 0);
	memset(w.live, 0, sizeof(w.live));
}

static void
thing_unmap_part(void)
{
	expect(vmf_unmap(w.mem, 200 * PG), 0);
	memset(w.live, 0, 200 * sizeof(w.live[0]));
}

static void
thing_protect(void)
{
	expect(vmf_protect(w.mem + 4 * PG, 4 * PG, VMF_PROT_READ), 0);
	check_live();
	expect_write(w.mem + 5 * PG, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(w.mem + 4 * PG, 4 * PG, 0), 0);
	expect_read(w.mem + 5 * PG, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(w.mem, N * PG, VMF_PROT_DEFAULT), 0);
	write_page(5);
}

static void
thing_wire(void)
{
	expect(vmf_wire(w.mem + 4 * PG, 4 * PG), 0);
	write_page(5);
	(void)take_snapshot();
	write_page(5);
	expect(vmf_unwire(w.mem + 4 * PG, 4 * PG), 0);
}

static void
thing_fault_in(void)
{
	expect(vmf_fault_in(w.mem + 4 * PG, 4 * PG, VMF_PROT_WRITE), 0);
	write_page(5);
	expect(vmf_fault_release(w.mem + 4 * PG, 4 * PG), 0);
}

static void
thing_rollback(void)
{
	unsigned k = 0;

	while (w.snap[k].name == 0)
		k++;
	write_page(LEAF + 20);
	expect(vmf_snapshot_rollback(w.snap[k].name), 0);
	memcpy(w.live, w.snap[k].key, sizeof(w.live));
	check_live();
	write_page(5);
	expect(vmf_snapshot_rollback(w.snap[k].name), 0);
	memcpy(w.live, w.snap[k].key, sizeof(w.live));
}

static void
thing_fork(void)
{
	uint64_t then[N];
	vmf_task_t task;
	void *base, *child;

	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &task), 0);
	expect(vmf_task_range(task, &child, NULL), 0);
	memcpy(then, w.live, sizeof(then));
	write_page(5);
	for (size_t i = 0; i < N; i++)
		check_ends("child", (char *)child + (w.mem - (char *)base) + i * PG, i, then[i]);
	expect(vmf_task_destroy(task), 0);
}

static void
thing_copy(void)
{
	expect(vmf_copy(w.mem + LEAF * PG, w.mem, 20 * PG), 0);
	memcpy(w.live + LEAF, w.live, 20 * sizeof(w.live[0]));
}

static void
thing_advise(void)
{
	expect(vmf_advise(w.mem + 4 * PG, 2 * PG, VMF_ADVICE_RANDOM), 0);
	write_page(5);
	expect(vmf_advise(w.mem + 300 * PG, PG, VMF_ADVICE_NORMAL), 0);
	check_live();
}

/* Which pages differ, exactly. */
static void
thing_diff(void)
{
	for (unsigned k = 0; k < SNAPS; k++)
		for (unsigned l = 0; l <= SNAPS; l++) {
			const uint64_t *a = w.snap[k].key, *b = l < SNAPS ? w.snap[l].key : w.live;
			bool differs[N] = { false };
			struct vmf_extent e;
			size_t cursor = 0;

			if (w.snap[k].name == 0 || (l < SNAPS && w.snap[l].name == 0))
				continue;
			while (vmf_snapshot_diff(w.snap[k].name, l < SNAPS ? w.snap[l].name : 0, 0, &cursor, &e, 1) == 1)
				for (size_t i = e.offset / PG; i < (e.offset + e.size) / PG; i++)
					differs[i] = true;
			for (size_t i = 0; i < N; i++)
				if (differs[i] != (a[i] != b[i]))
					die("diff of %u and %u: page %zu", k, l, i);
		}
}

static void
thing_shrink(void)
{
	expect(vmf_set_memory((uint64_t)4 * N * PG), 0);
	check_live();
	expect(vmf_set_memory((uint64_t)64 * N * PG), 0);
}

static void
thing_write_in(void)
{
	char buf[VMF_PAGE_SIZE];

	fill(buf, PG, 0);
	fill_ends(buf, ++w.next);
	expect(vmf_write(w.mem + 6 * PG, buf, PG), 0);
	w.live[6] = w.next;
}

static void
thing_end(void)
{
	thing_unmap();
	for (unsigned k = 0; k < SNAPS; k++)
		if (w.snap[k].name != 0)
			let_go(k);
}

static const struct {
	const char *name;
	void (*fn)(void);
} things[] = {
	{ "snapshot", thing_snapshot }, { "snapshots", thing_snapshots }, { "write", thing_write },
	{ "snapshot and write", thing_snapshot_write }, { "release", thing_release },
	{ "release and write", thing_release_write }, { "release and snapshot", thing_release_snapshot }, { "read old", thing_read_old }, { "map old", thing_map_old },
	{ "bypass", thing_bypass }, { "unmap", thing_unmap }, { "unmap a part", thing_unmap_part },
	{ "protect", thing_protect }, { "wire", thing_wire }, { "fault in", thing_fault_in },
	{ "rollback", thing_rollback }, { "fork", thing_fork }, { "copy", thing_copy }, { "advise", thing_advise },
	{ "diff", thing_diff }, { "shrink", thing_shrink }, { "write in", thing_write_in }, { "end", thing_end }, { "cluster", thing_cluster },
};

static unsigned state_of, thing_of;
static const char *place_of;

static void
say(void)
{
	fprintf(stderr, "state %u, \"%s\" at \"%s\"\n", state_of, things[thing_of].name, place_of);
}

static void
do_thing(void *arg)
{
	things[*(unsigned *)arg].fn();
}

/* Brings home what page 5 is in, with no lock of the map held. */
static void
do_bring_home(void *arg)
{
	char buf[VMF_PAGE_SIZE];

	(void)arg;
	(void)vmf_read(w.mem + 5 * PG, buf, PG);
}

/* Wait until it has ended, or is likely to be waiting. */
static void
watch(struct actor *a)
{
	for (int n = 0; n < 8 && !a->ended; n++)
		usleep(1000);
}

/* What the keeper does when a good part of a view was written. */
static void
do_keep(void *arg)
{
	sys_sigset_t old;

	(void)arg;
	trap_enter(&old);
	vm_view_step();
	trap_leave(&old);
}

static void
race(unsigned state, const char *place, unsigned thing)
{
	void (*doing)(void *) = state >= MUCH && place != NULL && strncmp(place, "vm_view: ", 9) == 0 ? do_keep : do_bring_home;
	struct actor a, b;

	state_of = state, thing_of = thing, place_of = place;
	on_die = say;
	open_view();
	states[state]();
	if (!pmap_has_views() || place == NULL) {
		things[thing].fn();
		check_world();
		end();
		return;
	}
	go(&a, doing, NULL, place);
	meet(&a);
	go(&b, do_thing, &thing, "none");
	watch(&b);
	release(&a);
	finish(&a);
	finish(&b);
	check_world();
	end();
}

/*
 * All things at a place; with a sanitizer, where each takes ten times as long, a quarter of them.  For 32 bits a half, as
 * each page that is looked at has to be mapped for that.
 */
static void
at_place(const char *place, unsigned state)
{
	unsigned share = SANITIZED ? 4 : sizeof(void *) == 4 ? 2 : 1;

	for (unsigned t = 0; t < nitems(things); t++)
		if ((t + state) % share == 0)
			race(state, place, t);
}

/* In each state, while nobody brings anything home. */
START_TEST(while_viewed)
{
	at_place(NULL, (unsigned)_i);
}
END_TEST

START_TEST(before_bringing_home)
{
	at_place("vm_fault: before bringing home", (unsigned)_i);
}
END_TEST

START_TEST(when_closed)
{
	at_place("vm_view: closed", (unsigned)_i);
}
END_TEST

START_TEST(between_pushes)
{
	at_place("vm_view: between pushes", (unsigned)_i);
}
END_TEST

START_TEST(when_pushed)
{
	at_place("vm_view: pushed", (unsigned)_i);
}
END_TEST

START_TEST(when_brought)
{
	at_place("vm_view: brought", (unsigned)_i);
}
END_TEST

START_TEST(while_serving)
{
	at_place("vm_view: serving", MUCH + (unsigned)_i);
}
END_TEST

START_TEST(when_served)
{
	at_place("vm_view: served", MUCH + (unsigned)_i);
}
END_TEST

/* Somebody who reads through the copy is about to map the very page that the copy would get. */
static void
do_read_mapped(void *arg)
{
	(void)arg;
	(void)*(volatile char *)(w.snap[0].map + 21 * PG);
}

START_TEST(not_while_somebody_reads)
{
	struct actor reader, keeper;

	open_view();
	state_much_mapped();
	if (pmap_has_views()) {
		go(&reader, do_read_mapped, NULL, "vm_fault: before locking the chain");
		meet(&reader);
		go(&keeper, do_keep, NULL, "none");
		finish(&keeper);
		write_page(21);
		release(&reader);
		finish(&reader);
		write_page(21);
	}
	check_world();
	end();
}
END_TEST

/* Nobody looked while a leaf was written: who brings it home finds out, and after the next snapshot it is pushed whole. */
START_TEST(nobody_looked)
{
	open_view();
	for (size_t i = LEAF; i-- > 0;)
		write_page(i);
	let_go(0);
	write_page(5);
	(void)take_snapshot();
	write_page(6);
	if (pmap_has_views())
		check(STAT(v_dense) == 1);
	check_world();
	end();
}
END_TEST

/* The copy that was given all is gone, and the next one comes while the view comes home: it was given nothing. */
START_TEST(given_to_another)
{
	struct actor keeper;

	open_view();
	write_much();
	if (pmap_has_views()) {
		go(&keeper, do_keep, NULL, "vm_view: served");
		meet(&keeper);
		let_go(0);
		release_to(&keeper, "vm_view: closed");
		meet(&keeper);
		(void)take_snapshot();
		release(&keeper);
		finish(&keeper);
		write_page(5);
		write_page(8);
	}
	check_world();
	end();
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "while it is viewed", while_viewed, nitems(states) },
		{ "before bringing home", before_bringing_home, nitems(states) },
		{ "when it is closed", when_closed, nitems(states) },
		{ "between pushes", between_pushes, nitems(states) },
		{ "when copies have what is theirs", when_pushed, nitems(states) },
		{ "when frames are right", when_brought, nitems(states) },
		{ "while the copy is given all", while_serving, nitems(states) - MUCH },
		{ "while the copy is given all: done", when_served, nitems(states) - MUCH },
		{ "not while somebody reads", not_while_somebody_reads, 1 },
		{ "given to another", given_to_another, 1 },
		{ "nobody looked", nobody_looked, 1 },
	};

	return run_races("races of views", races, nitems(races));
}
