/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The malloc family of the shim, seen from a program that it is preloaded into: every function is ours, the
 * blocks of each go to any other, and those that were there before anything of ours could run are as
 * good as all others.
 */

#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../suite.h"

#define PAGE	4096u
#define n_of(a)	((int)(sizeof(a) / sizeof((a)[0])))

/* Before any constructor, and in the program's first one. */
static char *early[2];

static void
allocate_early(int i)
{
	early[i] = malloc(1000);
	if (early[i] != NULL)
		memset(early[i], 'a' + i, 1000);
}

static void
before_all(void)
{
	allocate_early(0);
}

__attribute__((__section__(".preinit_array"), __used__)) static void (*first)(void) = before_all;

__attribute__((__constructor__(101))) static void
constructor(void)
{
	allocate_early(1);
}

static bool
all_are(const char *p, char c, size_t n)
{
	size_t i = 0;

	while (i < n && p[i] == c)
		i++;
	return i == n;
}

/* The object that a function belongs to. */
static const char *
home_of(const char *name)
{
	void *f = dlsym(RTLD_DEFAULT, name);
	Dl_info info;

	ck_assert_msg(f != NULL && dladdr(f, &info) != 0, "%s", name);
	return info.dli_fname;
}

START_TEST(every_function_is_the_shims)
{
	static const char *const names[] = {
		"malloc", "calloc", "realloc", "reallocarray", "free", "memalign", "aligned_alloc", "posix_memalign",
		"valloc", "pvalloc", "malloc_usable_size", "mallocx", "rallocx", "xallocx", "sallocx", "dallocx",
		"sdallocx", "nallocx", "mallctl", "malloc_stats_print",
	};

	for (int i = 0; i < n_of(names); i++)
		ck_assert_msg(strstr(home_of(names[i]), "libvmfault-preload") != NULL, "%s is of %s", names[i],
		    home_of(names[i]));
}
END_TEST

START_TEST(blocks_from_before_the_constructors)
{
	for (int i = 0; i < n_of(early); i++) {
		ck_assert_ptr_nonnull(early[i]);
		ck_assert(all_are(early[i], (char)('a' + i), 1000));
		ck_assert_uint_ge(malloc_usable_size(early[i]), 1000);
		early[i] = realloc(early[i], 100000);
		ck_assert(all_are(early[i], (char)('a' + i), 1000));
		free(early[i]);
	}
}
END_TEST

START_TEST(alignment)
{
	for (size_t align = sizeof(void *); align <= 64 * PAGE; align *= 2)
		for (size_t size = 1; size <= 8 * PAGE; size = 3 * size + 1) {
			void *p[3] = { memalign(align, size), aligned_alloc(align, size), NULL };

			ck_assert_int_eq(posix_memalign(&p[2], align, size), 0);
			for (int i = 0; i < n_of(p); i++) {
				ck_assert_ptr_nonnull(p[i]);
				ck_assert_uint_eq((uintptr_t)p[i] % align, 0);
				ck_assert_uint_ge(malloc_usable_size(p[i]), size);
				memset(p[i], 1, size);
				free(p[i]);
			}
		}
}
END_TEST

START_TEST(whole_pages)
{
	void *p = valloc(10), *q = pvalloc(PAGE + 1);

	ck_assert_uint_eq((uintptr_t)p % PAGE, 0);
	ck_assert_uint_eq((uintptr_t)q % PAGE, 0);
	ck_assert_uint_ge(malloc_usable_size(q), 2 * PAGE);
	p = realloc(p, 5 * PAGE);
	memset(p, 1, 5 * PAGE);
	free(p);
	free(q);
}
END_TEST

/* What the compiler must not know. */
static volatile size_t huge = SIZE_MAX / 2 + 100, none = 0;

START_TEST(refusals)
{
	void *p = &p;

	errno = 0;
	ck_assert_ptr_null(calloc(huge, 4));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(reallocarray(NULL, huge, 4));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(pvalloc(SIZE_MAX - 1 + none));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_ptr_null(malloc(huge));
	ck_assert_int_eq(errno, ENOMEM);
	errno = 0;
	ck_assert_int_eq(posix_memalign(&p, 3 * sizeof(void *), 10), EINVAL);
	ck_assert_int_eq(posix_memalign(&p, sizeof(void *), huge), ENOMEM);
	ck_assert_int_eq(errno, 0);
	ck_assert_ptr_eq(p, &p);
}
END_TEST

START_TEST(zeros_and_nothing)
{
	for (size_t n = 1; n < 4 << 20; n = 5 * n + 3) {
		char *p = malloc(n);

		memset(p, 0xff, n);
		free(p);
		p = calloc(1, n);
		ck_assert_msg(all_are(p, 0, n), "%zu bytes", n);
		free(p);
	}
	free(NULL);
	ck_assert_uint_eq(malloc_usable_size(NULL), 0);
	free(malloc(none));
	free(realloc(NULL, 10));
	ck_assert_ptr_null(realloc(malloc(10), none));
}
END_TEST

#define BLOCKS	200
#define ROUNDS	20000

static uint32_t
next(uint32_t *r)
{
	*r = *r * 1664525u + 1013904223u;
	return *r >> 8;
}

/* Blocks that come, grow and go; every byte is looked at before it goes. */
static void *
churn(void *arg)
{
	struct { char *p; size_t n; char c; } b[BLOCKS] = { 0 };
	uint32_t r = (uint32_t)(uintptr_t)arg;
	uintptr_t wrong = 0;

	for (int i = 0; i < ROUNDS + BLOCKS; i++) {
		int k = i < ROUNDS ? (int)(next(&r) % BLOCKS) : i - ROUNDS;
		size_t n = (size_t)1 << next(&r) % 17, m;

		n += next(&r) % n;
		wrong += b[k].p != NULL && !all_are(b[k].p, b[k].c, b[k].n);
		if (i >= ROUNDS || next(&r) % 4 == 0) {
			free(b[k].p);
			b[k].p = NULL;
			b[k].n = 0;
			continue;
		}
		b[k].p = next(&r) % 2 ? realloc(b[k].p, n) : (free(b[k].p), b[k].n = 0, memalign(64, n));
		m = n < b[k].n ? n : b[k].n;
		wrong += b[k].p == NULL || !all_are(b[k].p, b[k].c, m);
		b[k].n = n;
		b[k].c = (char)next(&r);
		memset(b[k].p, b[k].c, n);
	}
	return (void *)wrong;
}

START_TEST(threads)
{
	pthread_t t[4];
	void *wrong;

	for (int i = 0; i < n_of(t); i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, churn, (void *)(uintptr_t)(i + 1)), 0);
	for (int i = 0; i < n_of(t); i++) {
		ck_assert_int_eq(pthread_join(t[i], &wrong), 0);
		ck_assert_ptr_null(wrong);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("malloc");
	TCase *t = tcase_create("malloc");

	suite_add_tcase(s, t);
	tcase_add_test(t, every_function_is_the_shims);
	tcase_add_test(t, blocks_from_before_the_constructors);
	tcase_add_test(t, alignment);
	tcase_add_test(t, whole_pages);
	tcase_add_test(t, refusals);
	tcase_add_test(t, zeros_and_nothing);
	tcase_add_test(t, threads);
	return run_suite(s);
}
