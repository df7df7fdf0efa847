/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Races of the compressing pager: pages that change while they leave for the pager behind, or are moved
 * about while they are read; and threads.
 */

#include "compress_fixture.h"

/*
 * Races: something happens to a page while it leaves
 */

static struct vm_pager *racer, *other;
static uint64_t victim;		/* the first page that leaves */

static void
make_it_leave(const char *place, void (*meanwhile)(void))
{
	uint64_t n = fill_store(racer);

	check(put_one(other, 4, TEXT, 78) == VM_PAGER_OK);
	check(put_one(other, 3, NOISE, 77) == VM_PAGER_OK);
	/* From here on the next segment leaves: its first page is the first one in memory. */
	testpager_counts.gets = 0;
	for (victim = 0; victim < n; victim++) {
		check_page(racer, victim, TEXT, victim);
		if (testpager_counts.gets == 0)
			break;
		testpager_counts.gets = 0;
	}
	at(place, 1, meanwhile);
	for (uint64_t i = n; at_passed() == 0; i++)
		check(put_one(racer, i, TEXT, i) == VM_PAGER_OK);
	at_end();
}

static void
dispose_victim(void)
{
	dispose(racer, victim, 1);
}

static void
move_victim(void)
{
	check(move(other, 7, racer, victim));
}

/* Through a frame that no other put of this test uses, and with room from elsewhere. */
static void
put_victim(void)
{
	uint32_t done;

	dispose(racer, victim + 100, 200);
	set_frame(5, TEXT, 1000000);
	check(put_frames(racer, victim, 5, 1, &done) == VM_PAGER_OK);
}

static void
dispose_and_move_in(void)
{
	dispose(racer, victim, 1);
	/* Behind us there would be two writers of one page. */
	check(!move(racer, victim, other, 3));
	check(move(racer, victim, other, 4));
}

START_TEST(a_page_changes_while_it_leaves)
{
	static void (*const what[])(void) = {
		dispose_victim, move_victim, put_victim, dispose_and_move_in };
	static const char *const place[] = { "compress: leaving", "compress: written behind" };
	void (*meanwhile)(void) = what[_i / 2];
	uint64_t key;

	open_store(STORE, true);
	racer = pager_make(4000);
	other = pager_make(10);
	make_it_leave(place[_i % 2], meanwhile);
	if (meanwhile == dispose_victim) {
		check(!has_page(racer, victim));
	} else if (meanwhile == move_victim) {
		check(!has_page(racer, victim));
		check_page(other, 7, TEXT, victim);
	} else {
		check_page(racer, victim, TEXT, meanwhile == put_victim ? 1000000 : 78);
	}
	/* Nothing out of date is left behind us. */
	key = testpager_counts.pages;
	check(key + counts().pages == COUNT(v_compress_evicted) + counts().pages + COUNT(v_incompressible));
	check_page(racer, victim + 1, TEXT, victim + 1);
	drop(racer);
	drop(other);
	close_store();
}
END_TEST

static void
drop_racer(void)
{
	drop(racer);
}

/* The thread that makes room outlives the pager of what leaves: another pager wanted the room. */
START_TEST(a_pager_ends_while_its_pages_leave)
{
	uint64_t n;

	open_store(STORE, true);
	racer = pager_make(4000);
	other = pager_make(4000);
	n = fill_store(racer);
	at("compress: leaving", 1, drop_racer);
	for (uint64_t i = n; at_passed() == 0; i++)
		check(put_one(other, i, TEXT, i) == VM_PAGER_OK);
	at_end();
	check(testpager_counts.pagers <= 1);
	check_page(other, n, TEXT, n);
	drop(other);
	close_store();
}
END_TEST

struct putter {
	uint64_t from, to;
};

static void
put_text(void *arg)
{
	struct putter *x = arg;
	uint32_t done;

	for (uint64_t i = x->from; i < x->to; i++) {
		set_frame(10, TEXT, i);
		check(put_frames(racer, i, 10, 1, &done) == VM_PAGER_OK);
	}
}

static void
put_noise(void *arg)
{
	uint32_t done;

	(void)arg;
	set_frame(20, NOISE, 31);
	check(put_frames(racer, victim, 20, 1, &done) == VM_PAGER_OK);
}

/* Newer contents must not be overtaken by older ones on the way behind. */
START_TEST(a_put_waits_for_the_page_to_have_left)
{
	struct actor a, b;
	struct putter x;
	uint64_t n;

	open_store(STORE, true);
	racer = pager_make(4000);
	n = fill_store(racer);
	for (victim = 0; testpager_counts.gets != 0 || victim == 0; victim++) {
		testpager_counts.gets = 0;
		check_page(racer, victim, TEXT, victim);
	}
	victim--;
	x = (struct putter){ n, n + 200 };
	go(&a, put_text, &x, "compress: leaving");
	meet(&a);
	go(&b, put_noise, NULL, "compress: waiting");
	meet(&b);
	release(&b);
	check_waits(&b);
	let(&a);
	finish(&b);
	check_page(racer, victim, NOISE, 31);
	check_page(racer, victim + 1, TEXT, victim + 1);
	check_page(racer, n, TEXT, n);
	drop(racer);
	close_store();
}
END_TEST

static void
churn(void)
{
	uint32_t done;

	/* The blob's neighbours go, are replaced, and all that can leave leaves. */
	for (uint64_t i = 1; i < 2000; i++) {
		set_frame(30, TEXT, i + 5000);
		check(put_frames(racer, i, 30, 1, &done) == VM_PAGER_OK);
	}
}

START_TEST(a_page_is_cleaned_or_leaves_while_it_is_read)
{
	open_store(STORE, true);
	racer = pager_make(4000);
	for (uint64_t i = 0; i < 300; i++)
		check(put_one(racer, i, TEXT, i) == VM_PAGER_OK);
	at("compress: unpacking", 1, churn);
	check_page(racer, 0, TEXT, 0);
	check(at_passed() == 1 && testpager_counts.puts > 10);
	at_end();
	check_page(racer, 0, TEXT, 0);
	for (uint64_t i = 1; i < 2000; i++)
		check_page(racer, i, TEXT, i + 5000);
	drop(racer);
	close_store();
}
END_TEST

/*
 * Threads, each with frames and pages of its own, in one store that is too small
 */

enum { THREADS = 4, OWN = FRAMES / THREADS };

static void *
hammer(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg, first = me * OWN;
	uint64_t base = me * 500, seed = me + 1;
	static struct known known[THREADS][500];

	for (unsigned op = 0; op < 3000; op++) {
		unsigned i = (unsigned)(rng_next(&seed) % 500), n = 1 + (unsigned)(rng_next(&seed) % 8);
		enum content c = (enum content)(rng_next(&seed) % CONTENTS);
		uint32_t done = 0;

		n = MIN(n, 500 - i);
		if (op % 2 == 0) {
			for (unsigned j = 0; j < n; j++)
				set_frame(first + j, c, op + j);
			check(put_frames(racer, base + i, first, n, &done) == VM_PAGER_OK && done == n);
			for (unsigned j = 0; j < n; j++)
				known[me][i + j] = (struct known){ true, c, op + j };
		} else if (op % 37 == 0) {
			dispose(racer, base + i, n);
			for (unsigned j = 0; j < n; j++)
				known[me][i + j].there = false;
		} else {
			enum vm_pager_result r = get_frames(racer, base + i, first, n, &done);

			check(r == (known[me][i].there ? VM_PAGER_OK : VM_PAGER_FAIL));
			for (unsigned j = 0; j < done; j++)
				check(frame_is(first + j, known[me][i + j].content, known[me][i + j].key));
		}
	}
	return NULL;
}

START_TEST(threads)
{
	pthread_t t[THREADS];

	open_store(STORE, true);
	racer = pager_make(THREADS * 500);
	for (unsigned i = 0; i < THREADS; i++)
		check(pthread_create(&t[i], NULL, hammer, (void *)(uintptr_t)i) == 0);
	for (unsigned i = 0; i < THREADS; i++)
		check(pthread_join(t[i], NULL) == 0);
	check(COUNT(v_compress_evicted) > 0);
	drop(racer);
	close_store();
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "changes while leaving", a_page_changes_while_it_leaves, 8 },
		{ "ends while leaving", a_pager_ends_while_its_pages_leave, 1 },
		{ "put waits", a_put_waits_for_the_page_to_have_left, 1 },
		{ "read while cleaned", a_page_is_cleaned_or_leaves_while_it_is_read, 1 },
		{ "threads", threads, 1 },
	};

	return run_races("compress races", races, nitems(races));
}
