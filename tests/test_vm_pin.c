/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Light pins: they are what holds are, as long as nobody takes rights away, and become holds before somebody does.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "kern/event.h"
#include "kern/probe.h"
#include "physmem.h"
#include "pmap.h"
#include "suite.h"
#include "support.h"
#include "task.h"
#include "vm_object.h"
#include "vm_pin.h"

enum { PAGES = 8, THREADS = 4, ROUNDS = SANITIZED ? 300 : 3000, RW = VMF_PROT_READ | VMF_PROT_WRITE };

static struct vm_map *map;

static void
begin(void)
{
	start(0, 0);
	map = task_get(VMF_TASK_DEFAULT);
	vm_pin_open(map);
}

static void
end(void)
{
	task_put(map);
	stop();
}

static uint32_t
take(const void *p, size_t n, int prot)
{
	return vm_pin_take((vm_offset_t)p, (vm_offset_t)p + n, (vm_prot_t)prot);
}

static bool
is_wired(const void *p)
{
	return pmap_extract(map->pmap, (vm_offset_t)p & ~(PG - 1)) & PTE_WIRED;
}

static char *
touched(size_t pages)
{
	char *p = alloc(pages);

	fill_pages(p, pages, 1);
	return p;
}

START_TEST(what_has_its_rights_is_pinned)
{
	char *p = touched(PAGES), *fresh = alloc(1);
	uint32_t pin;

	ck_assert_uint_eq(take(fresh, 1, VMF_PROT_READ), 0);
	pin = take(p + 10, PAGES * PG - 20, RW);
	ck_assert_uint_ne(pin, 0);
	/* No lock, no count, no mark. */
	ck_assert(!is_wired(p));
	ck_assert(vm_pin_end(pin));

	expect(vmf_protect(p + PG, PG, VMF_PROT_READ), 0);
	ck_assert_uint_eq(take(p, 2 * PG, RW), 0);
	ck_assert_uint_ne(pin = take(p, PG, RW), 0);
	ck_assert(vm_pin_end(pin));
	/* The last byte is enough, the one behind it is not. */
	ck_assert_uint_eq(take(p, PG + 1, RW), 0);
	expect(vmf_advise(p + 2 * PG, PG, VMF_ADVICE_COLD), 0);
	ck_assert_uint_eq(take(p + 2 * PG, 1, VMF_PROT_READ), 0);
	/* Not ours at all. */
	ck_assert_uint_eq(take(&pin, sizeof(pin), VMF_PROT_READ), 0);
	end();
}
END_TEST

START_TEST(what_is_pinned_is_not_unmapped)
{
	char *p = touched(PAGES);
	uint32_t pin = take(p + PG, PG, RW), other = take(p + PG, 1, VMF_PROT_READ);

	ck_assert(pin != 0 && other != 0);
	expect(vmf_unmap(p, PAGES * PG), -EBUSY);
	expect(vmf_advise(p + PG, PG, VMF_ADVICE_DONTNEED), -EBUSY);
	expect(vmf_unmap(p + 2 * PG, PG), 0);
	ck_assert(vm_pin_end(pin));
	expect(vmf_unmap(p, 2 * PG), -EBUSY);
	ck_assert(vm_pin_end(other));
	expect(vmf_unmap(p, 2 * PG), 0);
	end();
}
END_TEST

START_TEST(closing_makes_them_holds)
{
	char *p = touched(PAGES);
	uint32_t pin = take(p + PG, PG + 1, RW);

	ck_assert_uint_ne(pin, 0);
	vm_pin_close_for_good();
	ck_assert(!is_wired(p) && is_wired(p + PG) && is_wired(p + 2 * PG) && !is_wired(p + 3 * PG));
	ck_assert_uint_eq(take(p, 1, VMF_PROT_READ), 0);
	/* Whoever takes rights away leaves them alone. */
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_COLD), 0);
	ck_assert_uint_eq(pmap_peek(map->pmap, (vm_offset_t)p), 0);
	ck_assert_uint_eq(pmap_peek(map->pmap, (vm_offset_t)p + PG), PTE_R | PTE_W);
	ck_assert(!vm_pin_end(pin));
	expect(vmf_fault_release(p + PG, PG + 1), 0);
	ck_assert(!is_wired(p + PG) && !is_wired(p + 2 * PG));
	check_pages(p, PAGES, 1);
	end();
}
END_TEST

/* Can p be pinned? */
static bool
is_open(const char *p)
{
	uint32_t pin = take(p, 1, VMF_PROT_READ);

	return pin != 0 && vm_pin_end(pin);
}

START_TEST(they_are_opened_again)
{
	char *p = touched(PAGES);
	uint32_t id = 0;

	/* The daemon does what is done here; it may be first. */
	vm_pin_close();
	ck_assert_int_eq(vm_pin_tend(), EVENT_FOREVER);
	ck_assert(is_open(p));

	/* Not while somebody else sees the frames. */
	expect(physmem_freeze(&id), 0);
	physmem_freeze_end();
	vm_pin_close();
	ck_assert_int_eq(vm_pin_tend(), EVENT_FOREVER);
	ck_assert(!is_open(p));
	physmem_thaw(id);
	vm_homecoming_thawed();
	ck_assert_int_eq(vm_pin_tend(), EVENT_FOREVER);
	ck_assert(is_open(p));

	vm_pin_close_for_good();
	ck_assert_int_eq(vm_pin_tend(), EVENT_FOREVER);
	ck_assert(!is_open(p));
	end();
}
END_TEST

/* Closed while a pin is being taken. */
static const char *when;

static void
close_there(const char *place)
{
	if (strcmp(place, when) == 0)
		vm_pin_close_for_good();
}

START_TEST(closing_comes_before_or_after)
{
	char *p = touched(PAGES);
	uint32_t pin;

	when = "vm_pin: not noted yet";
	probe_hook = close_there;
	ck_assert_uint_eq(take(p, 1, RW), 0);
	ck_assert(!is_wired(p));

	probe_hook = NULL;
	vm_pin_open(map);
	when = "vm_pin: noted";
	probe_hook = close_there;
	ck_assert_uint_ne(pin = take(p, 1, RW), 0);
	ck_assert(is_wired(p));
	ck_assert(!vm_pin_end(pin));
	expect(vmf_fault_release(p, 1), 0);
	ck_assert(!is_wired(p));
	probe_hook = NULL;
	end();
}
END_TEST

START_TEST(too_many_are_none)
{
	char *p = touched(1);
	uint32_t pin[1024], n = 0;

	while (n < 1024 && (pin[n] = take(p, 1, RW)) != 0)
		n++;
	ck_assert_uint_gt(n, 1);
	ck_assert_uint_lt(n, 1024);
	while (n-- > 0)
		ck_assert(vm_pin_end(pin[n]));
	ck_assert_uint_ne(pin[0] = take(p, 1, RW), 0);
	ck_assert(vm_pin_end(pin[0]));
	end();
}
END_TEST

/*
 * Threads have the kernel write to memory that loses all its rights again and again: none of them ever sees an
 * error, or a byte that is not there.
 */
static _Atomic bool over;
static _Atomic uint32_t light, heavy;

static void *
reader(void *arg)
{
	char *p = arg;
	int zero = open("/dev/zero", O_RDONLY);

	check(zero >= 0);
	for (uint32_t i = 0; !atomic_load(&over); i++) {
		size_t at = i * 977u % (PAGES * PG - PG), n = 1 + i * 31 % PG;
		uint32_t pin = take(p + at, n, RW);

		if (pin == 0)
			expect(vmf_fault_in(p + at, n, RW), 0);
		check(read(zero, p + at, n) == (ssize_t)n);
		atomic_fetch_add(pin != 0 ? &light : &heavy, 1);
		if (pin == 0 || !vm_pin_end(pin))
			expect(vmf_fault_release(p + at, n), 0);
	}
	close(zero);
	return NULL;
}

START_TEST(no_call_meets_a_page_without_rights)
{
	char *p = touched(PAGES);
	pthread_t t[THREADS];

	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&t[i], NULL, reader, p), 0);
	for (int i = 0; i < ROUNDS || light < ROUNDS || heavy < ROUNDS; i++) {
		vm_pin_close_for_good();
		expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_COLD), 0);
		vm_pin_open(map);
		/* Some of them find their pages as they should be. */
		if (i % 2 != 0)
			fill_pages(p, PAGES, 1);
	}
	over = true;
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_join(t[i], NULL), 0);
	vm_pin_close_for_good();
	for (size_t i = 0; i < PAGES; i++)
		ck_assert(!is_wired(p + i * PG));
	audit();
	end();
}
END_TEST

static Suite *
suite(void)
{
	Suite *s = suite_create("vm_pin");
	TCase *tc = tcase_create("vm_pin");

	tcase_add_checked_fixture(tc, begin, NULL);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, what_has_its_rights_is_pinned);
	tcase_add_test(tc, what_is_pinned_is_not_unmapped);
	tcase_add_test(tc, closing_makes_them_holds);
	tcase_add_test(tc, they_are_opened_again);
	tcase_add_test(tc, closing_comes_before_or_after);
	tcase_add_test(tc, too_many_are_none);
	tcase_add_test(tc, no_call_meets_a_page_without_rights);
	suite_add_tcase(s, tc);
	return s;
}

int
main(void)
{
	return run_suite(suite());
}
