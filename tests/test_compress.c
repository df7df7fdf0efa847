/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The compressing pager: what it keeps, what it hands on, and what it makes of damage and failure.
 */

#include "compress_fixture.h"

/*
 * What it keeps
 */

START_TEST(pages_come_back_as_they_went)
{
	struct vm_pager *p;
	uint32_t done;

	open_store(STORE, true);
	p = pager_make(1000);
	for (uint64_t key = 0; key < 20; key++) {
		check(!has_page(p, key));
		check(put_one(p, key, (enum content)_i, key) == VM_PAGER_OK);
		check(has_page(p, key));
	}
	for (uint64_t key = 0; key < 20; key++)
		check_page(p, key, (enum content)_i, key);
	/* Newer contents, of any kind, take the place of older ones. */
	for (uint64_t key = 0; key < 20; key++)
		check(put_one(p, key, (enum content)(key % CONTENTS), key + 100) == VM_PAGER_OK);
	for (uint64_t key = 0; key < 20; key++)
		check_page(p, key, (enum content)(key % CONTENTS), key + 100);
	check(testpager_counts.pages == 4);
	check(get_frames(p, 20, 0, 1, &done) == VM_PAGER_FAIL && done == 0);
	drop(p);
	close_store();
}
END_TEST

START_TEST(equal_words_take_no_memory)
{
	unsigned char *w;
	struct vm_pager *p;
	uint32_t done;

	open_store(STORE, true);
	p = pager_make(1000);
	for (uint64_t i = 0; i < 10; i++)
		check(put_one(p, i, i == 0 ? ZEROS : WORD, i) == VM_PAGER_OK);
	check(counts().same == 10 && counts().pages == 0 && counts().used == 0);
	check(counts().resident == 0 && testpager_counts.puts == 0);
	for (uint64_t i = 0; i < 10; i++)
		check_page(p, i, i == 0 ? ZEROS : WORD, i);
	/* One byte is enough to make a difference, wherever it is. */
	for (size_t at = 0; at < PG; at += 117) {
		set_frame(0, WORD, 3);
		w = window_map(WINDOW_TARGET, frame[0]->pfn, 1);
		w[at] ^= 1;
		window_unmap(w);
		check(put_frames(p, 20, 0, 1, &done) == VM_PAGER_OK);
		check(counts().same == 10 && counts().pages == 1);
		check(get_frames(p, 20, 2, 1, &done) == VM_PAGER_OK);
		check(!frame_is(2, WORD, 3));
		w = window_map(WINDOW_TARGET, frame[2]->pfn, 1);
		w[at] ^= 1;
		window_unmap(w);
		check(frame_is(2, WORD, 3));
	}
	drop(p);
	close_store();
}
END_TEST

START_TEST(what_does_not_compress_goes_behind_in_runs)
{
	static const enum content pattern[] = { NOISE, NOISE, NOISE, TEXT, TEXT, NOISE, NOISE, ZEROS, NOISE };
	struct vm_pager *p;
	uint32_t done;

	open_store(STORE, true);
	p = pager_make(1000);
	for (unsigned i = 0; i < nitems(pattern); i++)
		set_frame(i, pattern[i], i);
	check(put_frames(p, 60, 0, nitems(pattern), &done) == VM_PAGER_OK && done == nitems(pattern));
	check(testpager_counts.puts == 3 && testpager_counts.pages == 6);
	check(counts().pages == 2 && counts().same == 1);
	check(COUNT(v_incompressible) == 6 && COUNT(v_pageouts) == nitems(pattern));
	/* A get ends where the place changes, and says so. */
	for (unsigned i = 0; i < nitems(pattern); i += done) {
		check(get_frames(p, 60 + i, 32 + i, (uint32_t)nitems(pattern) - i, &done) == VM_PAGER_OK);
		check(done > 0);
		for (unsigned k = i; k < i + done; k++)
			check(frame_is(32 + k, pattern[k], k));
	}
	check(testpager_counts.gets == 3 && COUNT(v_pageins) == nitems(pattern));
	/* In memory now: no longer behind. */
	check(put_one(p, 60, TEXT, 7) == VM_PAGER_OK);
	check(testpager_counts.pages == 5);
	check_page(p, 60, TEXT, 7);
	drop(p);
	close_store();
}
END_TEST

START_TEST(with_nothing_behind_the_store_is_all_there_is)
{
	struct vm_pager *p;
	uint64_t n, i;
	uint32_t done;

	open_store(STORE, false);
	p = pager_make(4000);
	set_frame(0, TEXT, 1);
	set_frame(1, NOISE, 1);
	set_frame(2, TEXT, 1);
	check(put_frames(p, 3000, 0, 3, &done) == VM_PAGER_OK && done == 3);
	check(counts().pages == 3 && counts().used > PG);
	check_page(p, 3001, NOISE, 1);
	dispose(p, 3000, 3);
	n = fill_store(p);
	check(counts().used > STORE * 7 / 8 && counts().resident <= STORE);
	check(put_one(p, n, TEXT, n) == VM_PAGER_AGAIN && !has_page(p, n));
	check(put_one(p, n, WORD, n) == VM_PAGER_OK);		/* costs nothing, is never refused */
	for (i = 0; i < n; i++)
		check_page(p, i, TEXT, i);
	/* What is freed here and there is found again. */
	for (i = 0; i < n; i += 2)
		dispose(p, i, 1);
	for (i = 0; i < n && put_one(p, i, TEXT, i) == VM_PAGER_OK; i += 2)
		;
	check(counts().used > STORE * 7 / 8 - (64 << 10) && i > n * 7 / 8);
	for (uint64_t k = 0; k < n; k++)
		if (k < i || k % 2 != 0)
			check_page(p, k, TEXT, k);
	drop(p);
	close_store();
}
END_TEST

START_TEST(a_full_store_hands_on_the_oldest)
{
	struct vm_pager *p;
	uint64_t n, in_store = 0;

	open_store(STORE, true);
	p = pager_make(4000);
	n = fill_store(p);
	check(counts().used > STORE * 7 / 8 - (64 << 10));
	for (; n < 2000; n++)
		check(put_one(p, n, TEXT, n) == VM_PAGER_OK);
	in_store = counts().pages;
	check(COUNT(v_compress_evicted) == n - in_store && testpager_counts.pages == n - in_store);
	/* As long as nothing is freed the log is a queue: what is behind is older than what is not. */
	for (uint64_t i = 0; i < n; i++)
		check_page(p, i, TEXT, i);
	check(testpager_counts.gets == n - in_store);
	testpager_counts.gets = 0;
	for (uint64_t i = n - in_store; i < n; i++)
		check_page(p, i, TEXT, i);
	check(testpager_counts.gets == 0);
	/* They went in runs. */
	check(testpager_counts.puts < (n - in_store) / 8);
	drop(p);
	close_store();
}
END_TEST

/* Cleaning makes nobody younger. */
START_TEST(what_was_cleaned_is_as_old_as_before)
{
	struct vm_pager *p;
	uint64_t n;

	open_store(STORE, true);
	p = pager_make(4000);
	for (n = 0; counts().used < STORE * 7 / 8; n++)
		check(put_one(p, n, TEXT, n) == VM_PAGER_OK);
	for (uint64_t i = 0; i < n / 2; i++)
		if (i % 4 != 0)
			dispose(p, i, 1);
	for (uint64_t i = n; COUNT(v_compress_evicted) == 0; i++)
		check(put_one(p, i, TEXT, i) == VM_PAGER_OK);
	/* Who left is one of the old ones, every one. */
	for (uint64_t i = 0; i < n / 2; i += 4)
		check_page(p, i, TEXT, i);
	check(testpager_counts.gets > 0 && testpager_counts.gets == testpager_counts.pages);
	drop(p);
	close_store();
}
END_TEST

START_TEST(memory_goes_back_to_the_kernel)
{
	struct vm_pager *p;
	uint64_t n;

	open_store(4 * STORE, false);
	p = pager_make(8000);
	n = fill_store(p);
	check(counts().resident > 4 * STORE - (128 << 10) && counts().resident <= 4 * STORE);
	dispose(p, 0, n);
	check(counts().pages == 0 && counts().used == 0 && counts().resident <= STORE + STORE / 4);
	fill_store(p);
	for (uint64_t i = 0; i < n; i += 7)
		check_page(p, i, TEXT, i);
	drop(p);
	check(counts().resident <= STORE + STORE / 4);
	close_store();
}
END_TEST

/*
 * Damage and failure
 */

/* Of the one page that is compressed. */
static struct blob *
only_blob(void)
{
	struct blob *b;
	sys_sigset_t old;

	trap_enter(&old);
	kmutex_lock(&compress_lock);
	b = store_any_blob();
	kmutex_unlock(&compress_lock);
	trap_leave(&old);
	check(b != NULL);
	return b;
}

START_TEST(a_damaged_page_is_an_error)
{
	struct vm_pager *p;
	struct blob *b;
	uint32_t done;

	open_store(STORE, true);
	p = pager_make(100);
	check(put_one(p, 5, TEXT, 1) == VM_PAGER_OK);
	b = only_blob();
	check(b->len > 500 && b->len < PG);
	for (unsigned bit = 0; bit < b->len * 8u; bit += 11) {
		b->bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
		check(get_frames(p, 5, 0, 1, &done) == VM_PAGER_ERROR && done == 0);
		b->bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < 32; bit++) {
		b->sum ^= 1u << bit;
		check(get_frames(p, 5, 0, 1, &done) == VM_PAGER_ERROR && done == 0);
		b->sum ^= 1u << bit;
	}
	check(COUNT(v_compress_errors) == (b->len * 8u + 10) / 11 + 32);
	check_page(p, 5, TEXT, 1);
	/* A sum that is right over bytes that make no page. */
	memset(b->bytes, 0xff, b->len);
	{
		unsigned char copy[BLOB_MAX];

		memcpy(copy, b->bytes, b->len);
		blob_fill(b, copy);
	}
	check(get_frames(p, 5, 0, 1, &done) == VM_PAGER_ERROR && done == 0);
	/* It stands in nobody's way. */
	check(put_one(p, 5, TEXT, 2) == VM_PAGER_OK);
	check_page(p, 5, TEXT, 2);
	drop(p);
	close_store();
}
END_TEST

/* Pages that cannot be unpacked stay, be it one or all of a segment, and those beside them go behind. */
START_TEST(damaged_pages_do_not_block_the_store)
{
	uint64_t n = 1500, bad = _i == 0 ? 1 : 15;
	struct vm_pager *p;
	struct blob *b;
	uint32_t done;

	open_store(STORE, true);
	p = pager_make(4000);
	for (uint64_t i = 0; i < bad; i++)
		check(put_one(p, i, TEXT, i) == VM_PAGER_OK);
	/* They stand in a row. */
	b = only_blob();
	for (uint64_t i = 0; i < bad; i++) {
		b->bytes[3] ^= 4;
		b = (struct blob *)(void *)(b->bytes + ((b->len + 7) & ~7));
	}
	for (uint64_t i = bad; i < n; i++)
		check(put_one(p, i, TEXT, i) == VM_PAGER_OK);
	check(testpager_counts.pages > 0);
	for (uint64_t i = 0; i < bad; i++)
		check(get_frames(p, i, 0, 1, &done) == VM_PAGER_ERROR);
	for (uint64_t i = bad; i < n; i++)
		check_page(p, i, TEXT, i);
	drop(p);
	close_store();
}
END_TEST

START_TEST(errors_behind_lose_nothing)
{
	struct vm_pager *p;
	uint32_t done;
	uint64_t n;

	open_store(STORE, true);
	p = pager_make(4000);
	n = fill_store(p);
	/* No room, and none to be made: the page stays in its frame, and what is kept stays kept. */
	testpager.put_error = testpager.put_again = -1;
	for (uint64_t i = n; i < n + 100; i++)
		if (put_one(p, i, TEXT, i) != VM_PAGER_OK) {
			check(!has_page(p, i));
			n = i;
			break;
		}
	check(put_one(p, n, TEXT, n) == VM_PAGER_AGAIN);
	check(put_one(p, n, NOISE, n) == VM_PAGER_ERROR && COUNT(v_pager_errors) == 1);
	testpager.put_error = 0;
	check(put_one(p, n, NOISE, n) == VM_PAGER_AGAIN && !has_page(p, n));
	for (uint64_t i = 0; i < n; i++)
		check_page(p, i, TEXT, i);
	testpager.put_again = 0;
	/* Short of breath: of a run, some. */
	testpager.done_max = 3;
	for (unsigned i = 0; i < 8; i++)
		set_frame(i, NOISE, i);
	check(put_frames(p, n, 0, 8, &done) == VM_PAGER_OK && done == 3);
	check(has_page(p, n + 2) && !has_page(p, n + 3));
	for (uint64_t i = n + 3; i < n + 400; i++)
		check(put_one(p, i, TEXT, i) == VM_PAGER_OK);
	testpager.done_max = 0;
	for (uint64_t i = 0; i < n + 400; i++)
		check_page(p, i, i >= n && i < n + 3 ? NOISE : TEXT, i >= n && i < n + 3 ? i - n : i);
	/* An error in a get is one; a page that is lost behind is one too, and not a hole. */
	testpager.get_error = 1;
	check(get_frames(p, n, 0, 1, &done) == VM_PAGER_ERROR);
	testpager.end = 1;
	check(get_frames(p, n, 0, 1, &done) == VM_PAGER_ERROR);
	testpager.end = 0;
	check_page(p, n, NOISE, 0);
	drop(p);
	close_store();
}
END_TEST

static int
no_memory(enum sys_call call)
{
	return call == SYS_CALL_MMAP ? -ENOMEM : 0;
}

static _Atomic unsigned mmap_number, mmap_bad;

static int
nth_mmap(enum sys_call call)
{
	return call == SYS_CALL_MMAP && mmap_number++ == mmap_bad ? -ENOMEM : 0;
}

START_TEST(no_memory_is_an_answer)
{
	struct vm_pager *p;
	sys_sigset_t old;
	uint32_t done;
	int error;

	open_store(STORE, true);
	p = pager_make(10);
	/* For the tables, until a chunk is made. */
	set_frame(0, TEXT, 1);
	sys_inject = no_memory;
	check(put_frames(p, 1, 0, 1, &done) == VM_PAGER_AGAIN && !has_page(p, 1));
	sys_inject = NULL;
	check(put_frames(p, 1, 0, 1, &done) == VM_PAGER_OK);
	check_page(p, 1, TEXT, 1);
	drop(p);
	close_store();

	/* At the start: everything is given back. */
	start(0, 0);
	trap_enter(&old);
	check(compress_init(COMPRESS_LEAST - 1, NULL) == -EINVAL);
	for (mmap_bad = 0;; mmap_bad++) {
		mmap_number = 0;
		sys_inject = nth_mmap;
		error = compress_init(STORE, behind_make);
		sys_inject = NULL;
		if (error == 0)
			break;
		check(error == -ENOMEM);
		check(frames_used() == 0);
	}
	check(mmap_bad > 3);
	compress_fini();
	trap_leave(&old);
	stop();
}
END_TEST

/*
 * Move and dispose
 */

START_TEST(pages_move_from_pager_to_pager)
{
	static const enum content kinds[] = { ZEROS, WORD, TEXT, NOISE };
	struct vm_pager *p, *q;

	open_store(STORE, true);
	p = pager_make(100);
	q = pager_make(200);
	for (unsigned k = 0; k < nitems(kinds); k++) {
		check(put_one(p, k, kinds[k], k) == VM_PAGER_OK);
		check(move(q, 150 + k, p, k));
		check(!has_page(p, k) && has_page(q, 150 + k));
		check_page(q, 150 + k, kinds[k], k);
	}
	check(testpager_counts.moved == 1 && testpager_counts.pages == 1);
	/* Refused behind: nothing has changed. */
	drop(p);
	testpager.can_move = false;
	p = pager_make(100);
	check(put_one(p, 1, NOISE, 9) == VM_PAGER_OK);
	check(!move(q, 100, p, 1));
	check(!has_page(q, 100) && has_page(p, 1));
	check_page(p, 1, NOISE, 9);
	drop(p);
	for (unsigned k = 0; k < nitems(kinds); k++)
		check_page(q, 150 + k, kinds[k], k);
	drop(q);
	close_store();
}
END_TEST

START_TEST(dispose_takes_just_the_range)
{
	struct vm_pager *p;

	open_store(STORE, true);
	p = pager_make(400);
	for (uint64_t i = 0; i < 300; i++)
		check(put_one(p, i, i % 3 == 0 ? NOISE : i % 3 == 1 ? TEXT : WORD, i) == VM_PAGER_OK);
	dispose(p, 63, 130);
	dispose(p, 300, 100);
	dispose(p, 299, UINT64_C(1) << 40);
	for (uint64_t i = 0; i < 300; i++) {
		bool gone = (i >= 63 && i < 193) || i == 299;

		check(has_page(p, i) != gone);
		if (!gone)
			check_page(p, i, i % 3 == 0 ? NOISE : i % 3 == 1 ? TEXT : WORD, i);
	}
	check(testpager_counts.pages == 56);
	drop(p);
	close_store();
}
END_TEST

/*
 * Random operations on three pagers, against a table of what each page holds.
 */

START_TEST(random_operations)
{
	enum { PAGERS = 3, SPAN = 400, OPS = SANITIZED ? 6000 : 20000 };
	static struct known known[PAGERS][SPAN];
	struct vm_pager *p[PAGERS];
	uint64_t seed = (uint64_t)_i + 1;

	open_store(STORE, _i != 0);
	for (unsigned i = 0; i < PAGERS; i++)
		p[i] = pager_make(SPAN);
	for (unsigned op = 0; op < OPS; op++) {
		unsigned a = (unsigned)(rng_next(&seed) % PAGERS), b = (unsigned)(rng_next(&seed) % PAGERS);
		unsigned i = (unsigned)(rng_next(&seed) % SPAN), k = (unsigned)(rng_next(&seed) % SPAN);
		unsigned what = (unsigned)(rng_next(&seed) % 1000);

		/* Mostly a part of it, so that the store holds some old pages among new ones. */
		i = rng_next(&seed) % 4 != 0 ? i / 8 : i;
		testpager.done_max = (unsigned)(rng_next(&seed) % 4);
		if (rng_next(&seed) % 50 == 0)
			testpager.put_error = 1;
		if (what < 500) {
			unsigned n = 1 + (unsigned)(rng_next(&seed) % 12);
			enum content c = (enum content)(rng_next(&seed) % CONTENTS);
			uint32_t done;

			n = MIN(n, SPAN - i);
			c = rng_next(&seed) % 2 ? TEXT : c;
			for (unsigned j = 0; j < n; j++)
				set_frame(j, c, op + j);
			(void)put_frames(p[a], i, 0, n, &done);
			for (unsigned j = 0; j < n; j++) {
				if (j < done)
					known[a][i + j] = (struct known){ true, c, op + j };
				else	/* its frame is all there is now */
					dispose(p[a], i + j, 1), known[a][i + j].there = false;
			}
		} else if (what < 900) {
			uint32_t done;

			if (known[a][i].there)
				check_page(p[a], i, known[a][i].content, known[a][i].key);
			else
				check(get_frames(p[a], i, 0, 1, &done) == VM_PAGER_FAIL);
		} else if (what < 950) {
			dispose(p[a], i, k % 8);
			for (unsigned j = i; j < MIN(i + k % 8, SPAN); j++)
				known[a][j].there = false;
		} else if (what < 998) {
			if (known[a][i].there && !known[b][k].there && a != b && move(p[b], k, p[a], i)) {
				known[b][k] = known[a][i];
				known[a][i].there = false;
			}
		} else {
			drop(p[a]);
			p[a] = pager_make(SPAN);
			memset(known[a], 0, sizeof(known[a]));
		}
		if (op % 500 == 0)
			(void)counts();
	}
	check(_i == 0 || COUNT(v_compress_evicted) > OPS / 40);
	for (unsigned a = 0; a < PAGERS; a++) {
		for (unsigned i = 0; i < SPAN; i++) {
			check(has_page(p[a], i) == known[a][i].there);
			if (known[a][i].there)
				check_page(p[a], i, known[a][i].content, known[a][i].key);
		}
		drop(p[a]);
	}
	close_store();
}
END_TEST

/*
 * As the default pager
 */

START_TEST(memory_larger_than_its_frames)
{
	enum { N = 4 * 128 };
	sys_sigset_t old;
	char *p;

	testpager_reset();
	start((uint64_t)128 * PG, 0);
	trap_enter(&old);
	expect(compress_init(STORE, _i == 0 ? NULL : behind_make), 0);
	trap_leave(&old);
	vm_default_pager_set(compress_pager_make);
	p = alloc(N);
	for (uint64_t round = 0; round < 3; round++) {
		vmf_snapshot_t s;

		for (uint64_t i = 0; i < N; i++)
			make((unsigned char *)p + i * PG, _i == 1 && i % 4 == 0 ? NOISE : THIN, i + round);
		s = snap(p, N);
		for (uint64_t i = 0; i < N; i += 3)
			p[i * PG] ^= 1;
		expect(vmf_snapshot_rollback(s), 0);
		expect(vmf_snapshot_release(s), 0);
		for (uint64_t i = 0; i < N; i++) {
			unsigned char want[VMF_PAGE_SIZE];

			make(want, _i == 1 && i % 4 == 0 ? NOISE : THIN, i + round);
			check(memcmp(p + i * PG, want, PG) == 0);
		}
	}
	check(counts().pages > 0 && (testpager_counts.pages > 0) == (_i == 1));
	check(STAT(compress_pages) > 0 && STAT(compress_limit) == STORE);
	check(STAT(compress_used) <= STAT(compress_resident));
	daemon_rest();
	audit();
	expect(vmf_unmap(p, N * PG), 0);
	check(counts().pages == 0);
	vm_default_pager_set(NULL);
	trap_enter(&old);
	compress_fini();
	trap_leave(&old);
	stop();
	check(testpager_counts.pagers == 0);
}
END_TEST

int
main(void)
{
	const struct race races[] = {
		{ "back as they went", pages_come_back_as_they_went, CONTENTS },
		{ "equal words", equal_words_take_no_memory, 1 },
		{ "runs behind", what_does_not_compress_goes_behind_in_runs, 1 },
		{ "nothing behind", with_nothing_behind_the_store_is_all_there_is, 1 },
		{ "oldest first", a_full_store_hands_on_the_oldest, 1 },
		{ "cleaned", what_was_cleaned_is_as_old_as_before, 1 },
		{ "memory goes back", memory_goes_back_to_the_kernel, 1 },
		{ "damage", a_damaged_page_is_an_error, 1 },
		{ "damage does not block", damaged_pages_do_not_block_the_store, 2 },
		{ "errors behind", errors_behind_lose_nothing, 1 },
		{ "no memory", no_memory_is_an_answer, 1 },
		{ "move", pages_move_from_pager_to_pager, 1 },
		{ "dispose", dispose_takes_just_the_range, 1 },
		{ "random operations", random_operations, 3 },
		{ "default pager", memory_larger_than_its_frames, 2 },
	};

	return run_races("compress", races, nitems(races));
}
