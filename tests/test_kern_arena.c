/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * lib/kern/arena.c: chunks are aligned, zeroed, apart and used again, and those that a fork tore into small pages are
 * huge ones again afterwards, with the same bytes.
 */

#include "kern/arena.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>

#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "kern/types.h"
#include "test_kern.h"

#define THREADS	4
#define EACH	20
#define FEW	3

static bool
is_all(const unsigned char *p, unsigned char what)
{
	for (size_t i = 0; i < ARENA_CHUNK; i++)
		if (p[i] != what)
			return false;
	return true;
}

START_TEST(chunks_are_aligned_zeroed_and_apart)
{
	unsigned char *p[40];		/* more than an arena has */

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < nitems(p); i++) {
			ck_assert_ptr_nonnull(p[i] = arena_alloc());
			must((uintptr_t)p[i] % ARENA_CHUNK == 0 && p[i][0] == 0 && p[i][ARENA_CHUNK - 1] == 0);
			p[i][0] = p[i][ARENA_CHUNK - 1] = (unsigned char)(i + 1);
		}
		for (size_t i = 0; i < nitems(p); i++) {
			must(p[i][0] == i + 1 && p[i][ARENA_CHUNK - 1] == i + 1);
			must(arena_free(p[i]));
		}
	}
}
END_TEST

START_TEST(what_is_freed_is_given_out_again_and_what_is_no_chunk_is_refused)
{
	unsigned char *p = arena_alloc(), *q = arena_alloc();

	ck_assert_ptr_nonnull(q);
	memset(p, 1, ARENA_CHUNK);
	must(arena_free(p));
	must(!arena_free(&p));
	ck_assert_ptr_eq(arena_alloc(), p);
	must(is_all(p, 0));
	must(arena_free(p) && arena_free(q));
}
END_TEST

static void *taken;

/* Somebody else is faster. */
static void
take_it(const char *place)
{
	(void)place;
	probe_hook = NULL;
	taken = arena_alloc();
}

START_TEST(a_chunk_goes_to_one)
{
	unsigned char *p;

	probe_hook = take_it;
	p = arena_alloc();
	must(p != NULL && taken != NULL && p != taken);
	must(arena_free(p) && arena_free(taken));
}
END_TEST

static _Atomic int failures;

static void *
use(void *arg)
{
	unsigned char *p[EACH], mine = (unsigned char)(uintptr_t)arg;

	for (int round = 0; round < 20; round++) {
		for (size_t i = 0; i < EACH; i++) {
			p[i] = arena_alloc();
			if (p[i] == NULL || p[i][0] != 0) {
				failures++;
				return NULL;
			}
			p[i][0] = mine;
		}
		for (size_t i = 0; i < EACH; i++)
			failures += p[i][0] != mine || !arena_free(p[i]);
	}
	return NULL;
}

START_TEST(threads_get_different_chunks)
{
	pthread_t thread[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, use, (void *)(i + 1)), 0);
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_join(thread[i], NULL), 0);
	ck_assert_int_eq(failures, 0);
}
END_TEST

/* Bytes of huge pages in the mapping that has p. */
static size_t
huge_around(const void *p)
{
	unsigned long s, e, kb = 0;
	bool here = false;
	char line[512];
	FILE *f = fopen("/proc/self/smaps", "r");

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		if (sscanf(line, "%lx-%lx ", &s, &e) == 2)
			here = (uintptr_t)p >= s && (uintptr_t)p < e;
		else if (here && sscanf(line, "AnonHugePages: %lu", &kb) == 1)
			break;
	}
	fclose(f);
	return (size_t)kb << 10;
}

/* Has the machine any to give? */
static bool
there_are_huge(void)
{
	size_t size = 2 * ARENA_CHUNK;
	unsigned char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool huge;

	ck_assert_ptr_ne(p, MAP_FAILED);
	(void)madvise(p, size, MADV_HUGEPAGE);
	memset(p, 1, size);
	huge = huge_around(p) != 0;
	munmap(p, size);
	return huge;
}

/* Chunks, huge if the machine has huge pages; and torn by a fork whose child has ended. */
static bool
torn(unsigned char **p)
{
	pid_t child;

	for (int i = 0; i < FEW; i++) {
		ck_assert_ptr_nonnull(p[i] = arena_alloc());
		memset(p[i], i + 1, ARENA_CHUNK);
	}
	if (!there_are_huge()) {
		printf("skip: no huge pages here\n");
		return false;
	}
	ck_assert_uint_eq(huge_around(p[0]), FEW * ARENA_CHUNK);
	child = fork();
	if (child == 0) {
		pause();
		_exit(0);
	}
	ck_assert_int_gt(child, 0);
	for (int i = 0; i < FEW; i++)
		for (size_t at = 0; at < ARENA_CHUNK; at += PAGE_SIZE)
			*(volatile unsigned char *)(p[i] + at) = p[i][at];
	kill(child, SIGKILL);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	ck_assert_uint_eq(huge_around(p[0]), 0);
	return true;
}

START_TEST(what_a_fork_tore_is_mended)
{
	unsigned char *p[FEW];
	int steps = 0;

	if (!torn(p))
		return;
	ck_assert_int_eq(arena_tend(), EVENT_FOREVER);
	arena_mend(true);
	arena_mend(false);
	ck_assert_int_eq(arena_tend(), EVENT_FOREVER);
	ck_assert_uint_eq(huge_around(p[0]), 0);
	/* A free chunk in between takes no memory by it. */
	must(arena_free(p[1]));
	arena_mend(true);
	while (arena_tend() != EVENT_FOREVER)
		ck_assert_int_lt(steps++, FEW);
	if (huge_around(p[0]) == 0) {
		printf("skip: the kernel is older than 6.1, or has no huge page left\n");
		return;
	}
	ck_assert_int_eq(steps, FEW - 1);
	ck_assert_uint_eq(huge_around(p[0]), (FEW - 1) * ARENA_CHUNK);
	must(is_all(p[0], 1) && is_all(p[2], 3));
}
END_TEST

static int refusal;
static _Atomic int asked;

static int
refuse(enum sys_call which)
{
	if (which != SYS_CALL_MADVISE)
		return 0;
	asked++;
	return refusal;
}

/* So often is the kernel asked before somebody rests. */
static int
asked_in_a_round(int answer)
{
	refusal = answer;
	asked = 0;
	sys_inject = refuse;
	arena_mend(true);
	while (arena_tend() != EVENT_FOREVER)
		;
	sys_inject = NULL;
	return asked;
}

START_TEST(refusals_are_taken)
{
	unsigned char *p[FEW];

	for (int i = 0; i < FEW; i++) {
		ck_assert_ptr_nonnull(p[i] = arena_alloc());
		p[i][0] = 1;
	}
	/* Somebody has a page: on to the next one.  No memory: not now.  Unknown: never. */
	ck_assert_int_eq(asked_in_a_round(-EAGAIN), FEW);
	ck_assert_int_eq(asked_in_a_round(-ENOMEM), 1);
	ck_assert_int_eq(asked_in_a_round(-EAGAIN), FEW);
	ck_assert_int_eq(asked_in_a_round(-EINVAL), 1);
	ck_assert_int_eq(asked_in_a_round(-EAGAIN), 0);
	/* What cannot be emptied is not given out again. */
	refusal = -ENOMEM;
	sys_inject = refuse;
	must(arena_free(p[0]));
	sys_inject = NULL;
	ck_assert_ptr_ne(arena_alloc(), p[0]);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kern/arena");
	TCase *tc = tcase_create("arena");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, chunks_are_aligned_zeroed_and_apart);
	tcase_add_test(tc, what_is_freed_is_given_out_again_and_what_is_no_chunk_is_refused);
	tcase_add_test(tc, a_chunk_goes_to_one);
	tcase_add_test(tc, threads_get_different_chunks);
	tcase_add_test(tc, what_a_fork_tore_is_mended);
	tcase_add_test(tc, refusals_are_taken);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
