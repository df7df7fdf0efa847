/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tasks, through vmfault.h alone: their ranges, forks of them with each
 * inheritance, copies between them, and what a kernel fork() leaves: nothing.
 */

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"

static void
setup(void)
{
	start(0, 0);
}

static vmf_task_t
task_new(size_t pages)
{
	vmf_task_t task = 0;

	expect(vmf_task_create(pages * PG, &task), 0);
	return task;
}

static vmf_task_t
task_fork(vmf_task_t parent)
{
	vmf_task_t child = 0;

	expect(vmf_task_fork(parent, &child), 0);
	return child;
}

static char *
base_of(vmf_task_t task)
{
	void *base;

	expect(vmf_task_range(task, &base, NULL), 0);
	return base;
}

/* Where p of one task is in another, forked from it. */
static char *
same_in(vmf_task_t child, const char *p, vmf_task_t parent)
{
	return base_of(child) + (p - base_of(parent));
}

START_TEST(ranges_of_tasks_do_not_overlap)
{
	char *base[8];
	size_t size[8];
	vmf_task_t task[8];

	for (size_t i = 0; i < 8; i++) {
		void *p;

		task[i] = i == 0 ? VMF_TASK_DEFAULT : task_new(16 * i);
		expect(vmf_task_range(task[i], &p, &size[i]), 0);
		base[i] = p;
		ck_assert_uint_ge(size[i], i == 0 ? PG : 16 * i * PG);
		for (size_t k = 0; k < i; k++) {
			ck_assert(task[i] != task[k]);
			ck_assert(base[i] >= base[k] + size[k] || base[k] >= base[i] + size[i]);
		}
	}
}
END_TEST

START_TEST(a_destroyed_task_is_unknown_and_its_memory_gone)
{
	vmf_task_t task = task_new(32);
	char *p = alloc_in(task, 4);
	void *at;

	fill_pages(p, 4, 1);
	expect(vmf_task_destroy(task), 0);
	expect(vmf_task_destroy(task), -EBADF);
	expect(vmf_allocate(task, &at, PG, 0), -EBADF);
	expect(vmf_task_range(task, &at, NULL), -EBADF);
	expect(vmf_unmap(p, PG), -EFAULT);
}
END_TEST

START_TEST(the_default_task_stays)
{
	char *p = alloc(1);

	fill(p, PG, 1);
	expect(vmf_task_destroy(VMF_TASK_DEFAULT), -EPERM);
	check_fill(p, PG, 1);
}
END_TEST

START_TEST(fork_copies_by_default)
{
	vmf_task_t parent = task_new(64), child;
	char *p = alloc_in(parent, 8), *c;

	fill_pages(p, 8, 1);
	child = task_fork(parent);
	c = same_in(child, p, parent);
	check_pages(c, 8, 1);
	fill_pages(p, 4, 2);
	fill(c + 7 * PG, PG, 3);
	check_pages(p, 4, 2);
	check_fill(p + 7 * PG, PG, mix(1, 7));
	check_pages(c, 7, 1);
	check_fill(c + 7 * PG, PG, 3);
	expect(vmf_task_destroy(parent), 0);
	check_pages(c, 7, 1);
}
END_TEST

START_TEST(fork_shares_where_told)
{
	vmf_task_t parent = task_new(64), child, grandchild;
	char *p = alloc_in(parent, 8), *c, *g;
	struct vmf_region r;

	fill_pages(p, 4, 1);		/* the other four come into being after the fork */
	expect(vmf_inherit(p, 8 * PG, VMF_INHERIT_SHARE), 0);
	child = task_fork(parent);
	c = same_in(child, p, parent);
	check_pages(c, 4, 1);
	fill_pages(c, 8, 2);
	check_pages(p, 8, 2);
	grandchild = task_fork(child);
	g = same_in(grandchild, c, child);
	fill_pages(g, 8, 3);
	check_pages(p, 8, 3);
	check_pages(c, 8, 3);
	expect(vmf_region(p, &r), 0);
	ck_assert_uint_eq(r.shared, 1);
	expect(vmf_task_destroy(parent), 0);
	fill_pages(c, 8, 4);
	check_pages(g, 8, 4);
}
END_TEST

START_TEST(fork_gives_nothing_where_told)
{
	vmf_task_t parent = task_new(64), child;
	char *p = alloc_in(parent, 6), *c;

	fill_pages(p, 6, 1);
	expect(vmf_inherit(p + 2 * PG, 2 * PG, VMF_INHERIT_NONE), 0);
	child = task_fork(parent);
	c = same_in(child, p, parent);
	check_pages(c, 2, 1);
	expect_read(c + 2 * PG, SIGSEGV, SEGV_MAPERR);
	expect_read(c + 4 * PG - 1, SIGSEGV, SEGV_MAPERR);
	check_fill(c + 4 * PG, PG, mix(1, 4));
	check_pages(p, 6, 1);
}
END_TEST

START_TEST(a_forked_region_keeps_its_attributes)
{
	vmf_task_t parent = task_new(64), child;
	char *p = alloc_in(parent, 2), *c;
	struct vmf_region r;

	fill_pages(p, 2, 1);
	expect(vmf_wire(p, 2 * PG), 0);
	expect(vmf_protect_max(p, 2 * PG, VMF_PROT_DEFAULT), 0);
	expect(vmf_protect(p, 2 * PG, VMF_PROT_READ), 0);
	child = task_fork(parent);
	c = same_in(child, p, parent);
	expect(vmf_region(c, &r), 0);
	ck_assert_uint_eq(r.task, child);
	ck_assert_int_eq(r.prot, VMF_PROT_READ);
	ck_assert_int_eq(r.max_prot, VMF_PROT_DEFAULT);
	ck_assert_uint_eq(r.wired, 0);
	expect_write(c, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(c, 2 * PG, VMF_PROT_DEFAULT), 0);
	fill_pages(c, 2, 2);
	check_pages(p, 2, 1);
	expect(vmf_unwire(p, 2 * PG), 0);
}
END_TEST

START_TEST(wired_memory_is_forked_by_copying_even_where_it_cannot_be_read)
{
	vmf_task_t parent = task_new(64), child;
	char *p = alloc_in(parent, 4), *c;

	fill_pages(p, 4, 1);
	expect(vmf_wire(p, 4 * PG), 0);
	expect(vmf_protect(p, 4 * PG, VMF_PROT_NONE), 0);
	child = task_fork(parent);
	c = same_in(child, p, parent);
	expect_read(c, SIGSEGV, SEGV_ACCERR);
	expect(vmf_protect(p, 4 * PG, VMF_PROT_DEFAULT), 0);
	expect(vmf_protect(c, 4 * PG, VMF_PROT_DEFAULT), 0);
	fill_pages(p, 4, 2);
	check_pages(c, 4, 1);
	check_pages(p, 4, 2);
	expect(vmf_unwire(p, 4 * PG), 0);
}
END_TEST

START_TEST(a_chain_of_forks_keeps_every_generation)
{
	enum { GENERATIONS = 40 };
	vmf_task_t task[GENERATIONS];
	char *p[GENERATIONS];

	task[0] = task_new(64);
	p[0] = alloc_in(task[0], 8);
	fill_pages(p[0], 8, 0);
	for (size_t i = 1; i < GENERATIONS; i++) {
		task[i] = task_fork(task[i - 1]);
		p[i] = same_in(task[i], p[i - 1], task[i - 1]);
		fill(p[i] + i % 8 * PG, PG, mix(9, i));
	}
	for (size_t i = 0; i < GENERATIONS; i += 2)
		expect(vmf_task_destroy(task[i]), 0);
	for (size_t i = 1; i < GENERATIONS; i += 2) {
		/* page k was last written in generation w */
		for (size_t k = 0; k < 8; k++) {
			size_t back = (i + 8 - k) % 8;

			check_fill(p[i] + k * PG, PG, i > back ? mix(9, i - back) : mix(0, k));
		}
	}
}
END_TEST

START_TEST(the_last_of_a_line_of_short_lived_tasks_has_a_bounded_chain)
{
	vmf_task_t task = task_new(64), next;
	struct vmf_region r;
	char *p = alloc_in(task, 4);

	fill_pages(p, 4, 0);
	for (uint64_t i = 1; i <= 300; i++) {
		next = task_fork(task);
		p = same_in(next, p, task);
		expect(vmf_task_destroy(task), 0);
		task = next;
		fill(p + i % 3 * PG, PG, mix(1, i));
	}
	check_fill(p, PG, mix(1, 300));
	check_fill(p + 3 * PG, PG, mix(0, 3));
	expect(vmf_region(p, &r), 0);
	ck_assert_uint_le(r.chain, 64);
}
END_TEST

START_TEST(siblings_do_not_see_each_other)
{
	vmf_task_t parent = task_new(64), child[10];
	char *p = alloc_in(parent, 10);

	fill_pages(p, 10, 1);
	for (size_t i = 0; i < 10; i++) {
		child[i] = task_fork(parent);
		fill(same_in(child[i], p, parent) + i * PG, PG, mix(2, i));
		fill(p + i * PG, PG, mix(3, i));
	}
	for (size_t i = 0; i < 10; i++) {
		char *c = same_in(child[i], p, parent);

		for (size_t k = 0; k < 10; k++)
			check_fill(c + k * PG, PG, k == i ? mix(2, i) : k < i ? mix(3, k) : mix(1,
			    k));
	}
	check_pages(p, 10, 3);
}
END_TEST

START_TEST(copies_cross_tasks)
{
	vmf_task_t a = task_new(32), b = task_new(32);
	char *p = alloc_in(a, 8), *q = alloc_in(b, 8), *d = alloc(8);

	fill_pages(p, 8, 1);
	expect(vmf_copy(q, p, 8 * PG), 0);
	expect(vmf_copy(d, q, 8 * PG), 0);
	fill_pages(p, 8, 2);
	expect(vmf_task_destroy(a), 0);
	fill(q, PG, 3);
	check_pages(d, 8, 1);
	check_fill(q + 7 * PG, PG, mix(1, 7));
}
END_TEST

START_TEST(a_copy_over_shared_memory_is_seen_by_all_who_share)
{
	vmf_task_t parent = task_new(64), child;
	char *p = alloc_in(parent, 4), *c, *src = alloc(4);
	vmf_snapshot_t s;

	fill_pages(p, 4, 1);
	expect(vmf_inherit(p, 4 * PG, VMF_INHERIT_SHARE), 0);
	child = task_fork(parent);
	c = same_in(child, p, parent);
	fill_pages(src, 4, 2);
	expect(vmf_copy(p, src, 4 * PG), 0);
	check_pages(c, 4, 2);
	fill_pages(src, 4, 3);
	check_pages(p, 4, 2);
	s = snap(c, 4);
	fill_pages(p, 4, 4);
	check_pages(c, 4, 4);
	check_pages(view(s, 4, VMF_PROT_READ), 4, 2);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 4, 2);
	fill_pages(c, 4, 5);
	check_pages(p, 4, 5);
}
END_TEST

/* The sharing graph: share, then a copy of the sharers, then writes from every side. */
START_TEST(a_copy_of_shared_memory_is_cut_off_from_all_who_share)
{
	vmf_task_t parent = task_new(64), sharer, copier;
	char *p = alloc_in(parent, 4), *s, *c;

	fill_pages(p, 4, 1);
	expect(vmf_inherit(p, 4 * PG, VMF_INHERIT_SHARE), 0);
	sharer = task_fork(parent);
	s = same_in(sharer, p, parent);
	expect(vmf_inherit(s, 4 * PG, VMF_INHERIT_COPY), 0);
	copier = task_fork(sharer);
	c = same_in(copier, s, sharer);
	fill(p, PG, 2);
	fill(s + PG, PG, 3);
	fill(c + 2 * PG, PG, 4);
	check_fill(s, PG, 2);
	check_fill(p + PG, PG, 3);
	check_fill(c, PG, mix(1, 0));
	check_fill(c + PG, PG, mix(1, 1));
	check_fill(p + 2 * PG, PG, mix(1, 2));
	check_fill(s + 2 * PG, PG, mix(1, 2));
	expect(vmf_task_destroy(copier), 0);
	fill(p + 2 * PG, PG, 5);
	check_fill(s + 2 * PG, PG, 5);
}
END_TEST

static _Atomic uint64_t *counters[2];
static atomic_bool done;

TOUCHES_MANAGED static void *
count(void *arg)
{
	while (!done) {
		*counters[0] += 1;
		*counters[1] += 1;
	}
	return NULL;
}

START_TEST(a_fork_is_one_instant)
{
	vmf_task_t parent = task_new(512);
	char *p = alloc_in(parent, 256);
	pthread_t thread;

	counters[0] = (void *)p;
	counters[1] = (void *)(p + 255 * PG);
	fill_pages(p + PG, 254, 1);
	ck_assert_int_eq(pthread_create(&thread, NULL, count, NULL), 0);
	for (int i = 0; i < 200; i++) {
		vmf_task_t child = task_fork(parent);
		uint64_t first = *(uint64_t *)(void *)same_in(child, (char *)counters[0], parent);
		uint64_t second = *(uint64_t *)(void *)same_in(child, (char *)counters[1], parent);

		ck_assert(first == second || first == second + 1);
		expect(vmf_task_destroy(child), 0);
	}
	done = true;
	pthread_join(thread, NULL);
}
END_TEST

static void
child_has_all(void *arg)
{
	struct vmf_stats stats = { .size = sizeof(stats) };
	vmf_task_t task;
	char *p = arg;
	vmf_snapshot_t s;

	check_pages(p, 16, 1);
	s = snap(p, 16);
	fill_pages(p, 16, 3);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &task), 0);
	check_pages(same_in(task, p, VMF_TASK_DEFAULT), 16, 3);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 16, 1);
	expect(vmf_statistics(&stats), 0);
	expect(vmf_fini(), 0);
}

START_TEST(a_kernel_fork_has_all_and_harms_nothing)
{
	char *p = alloc(16);

	fill_pages(p, 16, 1);
	for (int i = 0; i < 5; i++)
		expect_exit(in_child(child_has_all, p), 0);
	check_pages(p, 16, 1);
	fill_pages(p, 16, 2);
	check_pages(p, 16, 2);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("api task");
	TCase *t = tcase_create("task");

	tcase_add_checked_fixture(t, setup, stop);
	tcase_add_test(t, ranges_of_tasks_do_not_overlap);
	tcase_add_test(t, a_destroyed_task_is_unknown_and_its_memory_gone);
	tcase_add_test(t, the_default_task_stays);
	tcase_add_test(t, fork_copies_by_default);
	tcase_add_test(t, fork_shares_where_told);
	tcase_add_test(t, fork_gives_nothing_where_told);
	tcase_add_test(t, a_forked_region_keeps_its_attributes);
	tcase_add_test(t, wired_memory_is_forked_by_copying_even_where_it_cannot_be_read);
	tcase_add_test(t, a_chain_of_forks_keeps_every_generation);
	tcase_add_test(t, the_last_of_a_line_of_short_lived_tasks_has_a_bounded_chain);
	tcase_add_test(t, siblings_do_not_see_each_other);
	tcase_add_test(t, copies_cross_tasks);
	tcase_add_test(t, a_copy_over_shared_memory_is_seen_by_all_who_share);
	tcase_add_test(t, a_copy_of_shared_memory_is_cut_off_from_all_who_share);
	tcase_add_test(t, a_fork_is_one_instant);
	tcase_add_test(t, a_kernel_fork_has_all_and_harms_nothing);
	suite_add_tcase(s, t);
	return run_suite(s);
}
