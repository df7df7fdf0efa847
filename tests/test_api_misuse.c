/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Every call, wrongly: null, zero, misaligned, wrapping, foreign, unmapped,
 * released, unknown.  The documented error comes back, and nothing has changed.
 *
 * One arena of eight pages is put up before each test and audited after it: its
 * bytes, its region's attributes, what is mapped around it, and the gauges must be
 * as before.  Page 6 of it is a hole.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "suite.h"
#include "support.h"

enum { PAGES = 8, HOLE = 6 };

static char *arena, *spare;
static struct vmf_region region_before;
static char foreign[2 * VMF_PAGE_SIZE] __attribute__((__aligned__(VMF_PAGE_SIZE)));
static vmf_task_t task, dead_task;
static vmf_snapshot_t shot, dead_shot;
static vmf_pager_t pager, dead_pager;
static struct vmf_stats stats_before;

static int64_t
get_nothing(void *cookie, uint64_t offset, void *buf, size_t len)
{
	return VMF_PAGER_HOLE;
}

static const struct vmf_pager_ops read_only_ops = { .size = sizeof(read_only_ops),
    .get = get_nothing };

static void
setup(void)
{
	start(0, 0);
	expect(vmf_task_create(16 * PG, &dead_task), 0);
	expect(vmf_task_destroy(dead_task), 0);
	expect(vmf_task_create(64 * PG, &task), 0);
	arena = alloc_in(task, PAGES);
	spare = alloc(PAGES);
	fill_pages(arena, PAGES, 1);
	fill_pages(spare, PAGES, 2);
	dead_shot = snap(arena, 1);
	expect(vmf_snapshot_release(dead_shot), 0);
	shot = snap(arena, 4);
	expect(vmf_unmap(arena + HOLE * PG, PG), 0);
	expect(vmf_pager_create(&read_only_ops, NULL, 4 * PG, 0, &dead_pager), 0);
	expect(vmf_pager_release(dead_pager), 0);
	expect(vmf_pager_create(&read_only_ops, NULL, 4 * PG - 100, 0, &pager), 0);
	expect(vmf_region(arena, &region_before), 0);
	stats_before.size = sizeof(stats_before);
	expect(vmf_statistics(&stats_before), 0);
}

static void
teardown(void)
{
	struct vmf_stats now = { .size = sizeof(now) };
	struct vmf_region r;

	expect(vmf_statistics(&now), 0);
	ck_assert_uint_eq(now.entries, stats_before.entries);
	ck_assert_uint_eq(now.objects, stats_before.objects);
	ck_assert_uint_eq(now.snapshots, stats_before.snapshots);
	expect(vmf_region(arena, &r), 0);
	ck_assert_ptr_eq(r.addr, region_before.addr);
	ck_assert_uint_eq(r.size, region_before.size);
	ck_assert_int_eq(r.prot, VMF_PROT_DEFAULT);
	ck_assert_int_eq(r.max_prot, region_before.max_prot);
	ck_assert_int_eq(r.inheritance, VMF_INHERIT_COPY);
	ck_assert_uint_eq(r.wired, 0);
	check_pages(spare, PAGES, 2);
	check_pages(arena, HOLE, 1);
	check_fill(arena + 7 * PG, PG, mix(1, 7));
	expect_read(arena + HOLE * PG, SIGSEGV, SEGV_MAPERR);
	check_zero(foreign, sizeof(foreign));
	stop();
}

/* The calls that take a range and want it whole, mapped and aligned. */
static int
do_protect(void *addr, size_t size)
{
	return vmf_protect(addr, size, VMF_PROT_READ);
}

static int
do_protect_max(void *addr, size_t size)
{
	return vmf_protect_max(addr, size, VMF_PROT_READ);
}

static int
do_inherit(void *addr, size_t size)
{
	return vmf_inherit(addr, size, VMF_INHERIT_SHARE);
}

static int
do_advise(void *addr, size_t size)
{
	return vmf_advise(addr, size, VMF_ADVICE_RANDOM);
}

static int
do_willneed(void *addr, size_t size)
{
	return vmf_advise(addr, size, VMF_ADVICE_WILLNEED);
}

static int
do_dontneed(void *addr, size_t size)
{
	return vmf_advise(addr, size, VMF_ADVICE_DONTNEED);
}

static int
do_free(void *addr, size_t size)
{
	return vmf_advise(addr, size, VMF_ADVICE_FREE);
}

static int
do_cold(void *addr, size_t size)
{
	return vmf_advise(addr, size, VMF_ADVICE_COLD);
}

static int
do_sync(void *addr, size_t size)
{
	return vmf_sync(addr, size, 0);
}

static int
do_copy_to(void *addr, size_t size)
{
	return vmf_copy(addr, spare, size);
}

static int
do_copy_from(void *addr, size_t size)
{
	return vmf_copy(spare, addr, size);
}

static int
do_page_info(void *addr, size_t size)
{
	static unsigned char vec[PAGES];

	return vmf_page_info(addr, size, vec);
}

static int
do_snapshot(void *addr, size_t size)
{
	struct vmf_range r[2] = { { arena, PG }, { addr, size } };
	vmf_snapshot_t s = 42;
	int got = vmf_snapshot_create(r, 2, &s);

	ck_assert_uint_eq(s, 42);
	return got;
}

static const struct {
	const char *name;
	int (*fn)(void *, size_t);
	bool holes;			/* may have them */
} ranged[] = {
	{ "vmf_unmap", vmf_unmap, true },
	{ "vmf_protect", do_protect, false },
	{ "vmf_protect_max", do_protect_max, false },
	{ "vmf_inherit", do_inherit, false },
	{ "vmf_advise", do_advise, false },
	{ "vmf_advise will-need", do_willneed, false },
	{ "vmf_advise dont-need", do_dontneed, false },
	{ "vmf_advise free", do_free, false },
	{ "vmf_advise cold", do_cold, false },
	{ "vmf_sync", do_sync, false },
	{ "vmf_wire", vmf_wire, false },
	{ "vmf_unwire", vmf_unwire, false },
	{ "vmf_copy to", do_copy_to, false },
	{ "vmf_copy from", do_copy_from, false },
	{ "vmf_page_info", do_page_info, false },
	{ "vmf_snapshot_create", do_snapshot, false },
};

static void
want_range(size_t i, const void *addr, size_t size, int want)
{
	int got = ranged[i].fn((void *)(uintptr_t)addr, size);

	ck_assert_msg(got == want, "%s(%p, %zu): %d (%s), not %d (%s)", ranged[i].name, addr, size,
	    got,
	    strerror(got < 0 ? -got : 0), want, strerror(-want));
}

START_TEST(bad_ranges_are_refused)
{
	size_t i = (size_t)_i, size;
	void *base;

	expect(vmf_task_range(task, &base, &size), 0);
	want_range(i, NULL, PG, -EINVAL);
	want_range(i, arena + PG, 0, -EINVAL);
	want_range(i, arena + PG + 1, PG, -EINVAL);
	want_range(i, arena + PG, PG + 1, -EINVAL);
	want_range(i, arena + PG, 100, -EINVAL);
	want_range(i, arena + PG, SIZE_MAX - PG + 1, -EINVAL);
	want_range(i, (void *)(uintptr_t)(UINTPTR_MAX - PG + 1), 2 * PG, -EINVAL);
	want_range(i, foreign, PG, -EFAULT);
	want_range(i, (char *)base + size, PG, -EFAULT);
	want_range(i, (char *)base + size - PG, 2 * PG, -EFAULT);
	if (!ranged[i].holes) {
		want_range(i, arena + 3 * PG, 4 * PG, -EFAULT);
		want_range(i, arena + HOLE * PG, PG, -EFAULT);
	}
}
END_TEST

START_TEST(byte_ranges_are_refused)
{
	char buf[64] = "";

	expect(vmf_read(NULL, buf, 8), -EINVAL);
	expect(vmf_read(arena, NULL, 8), -EINVAL);
	expect(vmf_write(NULL, buf, 8), -EINVAL);
	expect(vmf_write(arena, NULL, 8), -EINVAL);
	expect(vmf_read(arena + 5, buf, SIZE_MAX - 2), -EINVAL);
	expect(vmf_write(arena + 5, buf, SIZE_MAX - 2), -EINVAL);
	expect(vmf_read(foreign, buf, 8), -EFAULT);
	expect(vmf_write(foreign, buf, 8), -EFAULT);
	expect(vmf_read(arena + HOLE * PG + 3, buf, 8), -EFAULT);
	expect(vmf_write(arena + HOLE * PG + 3, buf, 8), -EFAULT);
	expect(vmf_fault_in(NULL, 8, VMF_PROT_READ), -EINVAL);
	expect(vmf_fault_in(arena, 8, 64), -EINVAL);
	expect(vmf_fault_in(arena + 1, SIZE_MAX - 2, VMF_PROT_READ), -EINVAL);
	expect(vmf_fault_in(foreign, 8, VMF_PROT_READ), -EFAULT);
	expect(vmf_fault_in(arena + HOLE * PG - 1, 2, VMF_PROT_READ), -EFAULT);
	expect(vmf_fault_release(arena, 8), -EINVAL);
	expect(vmf_fault_release(foreign, 8), -EFAULT);
}
END_TEST

START_TEST(unknown_flags_and_values_are_refused)
{
	void *at = arena;

	expect(vmf_allocate(task, &at, PG, 64), -EINVAL);
	expect(vmf_allocate(task, &at, PG, VMF_MAP_SHARED), -EINVAL);
	expect(vmf_protect(arena, PG, 8), -EINVAL);
	expect(vmf_protect(arena, PG, -1), -EINVAL);
	expect(vmf_protect_max(arena, PG, 8), -EINVAL);
	expect(vmf_inherit(arena, PG, (enum vmf_inherit)3), -EINVAL);
	expect(vmf_advise(arena, PG, (enum vmf_advice)7), -EINVAL);
	expect(vmf_advise(arena, PG, (enum vmf_advice)-1), -EINVAL);
	expect(vmf_sync(arena, PG, 2), -EINVAL);
	expect(vmf_snapshot_map(shot, 0, 0, PG, task, &at, 64, VMF_PROT_READ), -EINVAL);
	expect(vmf_snapshot_map(shot, 0, 0, PG, task, &at, 0, 64), -EINVAL);
	ck_assert_ptr_eq(at, arena);
}
END_TEST

START_TEST(allocate_refuses_what_it_cannot_do)
{
	void *at = arena;

	expect(vmf_allocate(task, NULL, PG, 0), -EINVAL);
	expect(vmf_allocate(task, &at, 0, 0), -EINVAL);
	expect(vmf_allocate(task, &at, PG + 1, 0), -EINVAL);
	expect(vmf_allocate(0, &at, PG, 0), -EBADF);
	expect(vmf_allocate(BAD_HANDLE, &at, PG, 0), -EBADF);
	expect(vmf_allocate(dead_task, &at, PG, 0), -EBADF);
	expect(vmf_allocate(pager, &at, PG, 0), -EBADF);	/* a handle of another kind */
	expect(vmf_allocate(task, &at, 65 * PG, 0), -ENOMEM);
	expect(vmf_allocate(task, &at, 2 * PG, VMF_FIXED), -EEXIST);
	at = arena + HOLE * PG;
	expect(vmf_allocate(task, &at, 2 * PG, VMF_FIXED), -EEXIST);
	at = arena + HOLE * PG + 1;
	expect(vmf_allocate(task, &at, PG, VMF_FIXED), -EINVAL);
	at = foreign;
	expect(vmf_allocate(task, &at, PG, VMF_FIXED), -EFAULT);
	at = NULL;
	ck_assert_int_lt(vmf_allocate(task, &at, PG, VMF_FIXED), 0);
}
END_TEST

START_TEST(tasks_refuse_what_they_do_not_know)
{
	vmf_task_t t = 42;
	void *base = foreign;

	expect(vmf_task_create(0, &t), -EINVAL);
	expect(vmf_task_create(PG - 1, &t), -EINVAL);
	expect(vmf_task_create(PG, NULL), -EINVAL);
	expect(vmf_task_create(SIZE_MAX - PG + 1, &t), -ENOMEM);
	expect(vmf_task_fork(dead_task, &t), -EBADF);
	expect(vmf_task_fork(0, &t), -EBADF);
	expect(vmf_task_fork(task, NULL), -EINVAL);
	expect(vmf_task_destroy(0), -EBADF);
	expect(vmf_task_destroy(dead_task), -EBADF);
	expect(vmf_task_destroy(shot), -EBADF);
	expect(vmf_task_destroy(VMF_TASK_DEFAULT), -EPERM);
	expect(vmf_task_range(dead_task, &base, NULL), -EBADF);
	expect(vmf_task_range(task, NULL, NULL), 0);
	ck_assert_ptr_eq(base, foreign);
	ck_assert_uint_eq(t, 42);
}
END_TEST

START_TEST(overlapping_copies_are_refused)
{
	expect(vmf_copy(arena, arena, PG), -EINVAL);
	expect(vmf_copy(arena + PG, arena, 2 * PG), -EINVAL);
	expect(vmf_copy(arena, arena + PG, 2 * PG), -EINVAL);
}
END_TEST

START_TEST(snapshots_refuse_bad_lists)
{
	struct vmf_range r[3] = { { arena, 2 * PG }, { arena + 4 * PG, PG }, { arena + PG, PG } };
	vmf_snapshot_t s = 42;

	expect(vmf_snapshot_create(NULL, 1, &s), -EINVAL);
	expect(vmf_snapshot_create(r, 0, &s), -EINVAL);
	expect(vmf_snapshot_create(r, 1, NULL), -EINVAL);
	expect(vmf_snapshot_create(r, 3, &s), -EINVAL);
	r[2] = r[0];
	expect(vmf_snapshot_create(r, 3, &s), -EINVAL);
	ck_assert_uint_eq(s, 42);
}
END_TEST

START_TEST(snapshots_refuse_what_they_do_not_have)
{
	static const vmf_snapshot_t bad[] = { 0, BAD_HANDLE };
	char buf[8];
	void *at = foreign;
	struct vmf_extent e;
	size_t cursor = 0;
	vmf_snapshot_t s;

	for (size_t i = 0; i < 4; i++) {
		s = i < 2 ? bad[i] : i == 2 ? dead_shot : task;
		expect(vmf_snapshot_release(s), -EBADF);
		expect(vmf_snapshot_rollback(s), -EBADF);
		expect(vmf_snapshot_read(s, 0, 0, buf, 8), -EBADF);
		expect(vmf_snapshot_map(s, 0, 0, PG, task, &at, 0, VMF_PROT_READ), -EBADF);
		expect(vmf_snapshot_diff(s, shot, 0, &cursor, &e, 1), -EBADF);
		if (s != 0)
			expect(vmf_snapshot_diff(shot, s, 0, &cursor, &e, 1), -EBADF);
	}
	expect(vmf_snapshot_map(shot, 0, 0, PG, dead_task, &at, 0, VMF_PROT_READ), -EBADF);
	expect(vmf_snapshot_map(shot, 1, 0, PG, task, &at, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_snapshot_map(shot, 0, 0, 0, task, &at, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_snapshot_map(shot, 0, 1, PG, task, &at, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_snapshot_map(shot, 0, 0, 5 * PG, task, &at, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_snapshot_map(shot, 0, 4 * PG, PG, task, &at, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_snapshot_map(shot, 0, SIZE_MAX - PG + 1, 2 * PG, task, &at, 0, VMF_PROT_READ),
	    -EINVAL);
	expect(vmf_snapshot_map(shot, 0, 0, PG, task, NULL, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_snapshot_read(shot, 1, 0, buf, 8), -EINVAL);
	expect(vmf_snapshot_read(shot, 0, 0, NULL, 8), -EINVAL);
	expect(vmf_snapshot_read(shot, 0, 1, buf, SIZE_MAX), -EINVAL);
	expect(vmf_snapshot_diff(shot, 0, 1, &cursor, &e, 1), -EINVAL);
	expect(vmf_snapshot_diff(shot, 0, 0, &cursor, &e, 0), -EINVAL);
	expect(vmf_snapshot_diff(shot, 0, 0, NULL, &e, 1), -EINVAL);
	expect(vmf_snapshot_diff(shot, 0, 0, &cursor, NULL, 1), -EINVAL);
	ck_assert_ptr_eq(at, foreign);
	ck_assert_uint_eq(cursor, 0);
}
END_TEST

START_TEST(pagers_refuse_bad_arguments)
{
	struct vmf_pager_ops ops = read_only_ops;
	vmf_pager_t p = 42;
	void *at = foreign;

	expect(vmf_pager_create(NULL, NULL, PG, 0, &p), -EINVAL);
	expect(vmf_pager_create(&ops, NULL, 0, 0, &p), -EINVAL);
	expect(vmf_pager_create(&ops, NULL, PG, 0, NULL), -EINVAL);
	ops.get = NULL;
	expect(vmf_pager_create(&ops, NULL, PG, 0, &p), -EINVAL);
	ops = read_only_ops;
	ops.size = 4;
	expect(vmf_pager_create(&ops, NULL, PG, 0, &p), -EINVAL);
	expect(vmf_pager_release(0), -EBADF);
	expect(vmf_pager_release(dead_pager), -EBADF);
	expect(vmf_pager_release(task), -EBADF);
	expect(vmf_pager_sync(dead_pager, 0, PG), -EBADF);
	expect(vmf_map(task, &at, PG, VMF_MAP_PRIVATE, dead_pager, 0, VMF_PROT_READ), -EBADF);
	expect(vmf_map(task, &at, PG, VMF_MAP_PRIVATE, 0, 0, VMF_PROT_READ), -EBADF);
	expect(vmf_map(dead_task, &at, PG, VMF_MAP_PRIVATE, pager, 0, VMF_PROT_READ), -EBADF);
	expect(vmf_map(task, NULL, PG, VMF_MAP_PRIVATE, pager, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map(task, &at, 0, VMF_MAP_PRIVATE, pager, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map(task, &at, PG, 0, pager, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map(task, &at, PG, VMF_MAP_PRIVATE | VMF_MAP_SHARED, pager, 0, VMF_PROT_READ),
	    -EINVAL);
	expect(vmf_map(task, &at, PG, VMF_MAP_PRIVATE | 64, pager, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map(task, &at, PG, VMF_MAP_PRIVATE, pager, 0, 64), -EINVAL);
	expect(vmf_map(task, &at, PG, VMF_MAP_PRIVATE, pager, 7, VMF_PROT_READ), -EINVAL);
	expect(vmf_map(task, &at, 5 * PG, VMF_MAP_PRIVATE, pager, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map(task, &at, PG, VMF_MAP_PRIVATE, pager, 4 * PG, VMF_PROT_READ), -EINVAL);
	expect(vmf_map(task, &at, 2 * PG, VMF_MAP_PRIVATE, pager, UINT64_MAX - PG + 1,
	    VMF_PROT_READ),
	    -EINVAL);
	ck_assert_ptr_eq(at, foreign);
	ck_assert_uint_eq(p, 42);
}
END_TEST

START_TEST(files_refuse_bad_arguments)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), ends[2];
	void *at = foreign;

	check(fd >= 0 && pipe2(ends, O_CLOEXEC) == 0);
	expect(vmf_map_file(dead_task, &at, PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_READ), -EBADF);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, -1, 0, VMF_PROT_READ), -EBADF);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, 9999, 0, VMF_PROT_READ), -EBADF);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, ends[0], 0, VMF_PROT_READ), -EACCES);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_DEFAULT), -EACCES);
	expect(vmf_map_file(task, NULL, PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map_file(task, &at, 0, VMF_MAP_SHARED, fd, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map_file(task, &at, PG + 1, VMF_MAP_SHARED, fd, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map_file(task, &at, PG, 0, fd, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED | VMF_MAP_PRIVATE, fd, 0, VMF_PROT_READ),
	    -EINVAL);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED | 64, fd, 0, VMF_PROT_READ), -EINVAL);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, fd, 0, 64), -EINVAL);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, fd, 1, VMF_PROT_READ), -EINVAL);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, fd, UINT64_MAX - PG + 1, VMF_PROT_READ),
	    -EOVERFLOW);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED, fd, VMF_FILE_MAX, VMF_PROT_READ), -EOVERFLOW);
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED | VMF_FIXED, fd, 0, VMF_PROT_READ), -EFAULT);
	at = arena;
	expect(vmf_map_file(task, &at, PG, VMF_MAP_SHARED | VMF_FIXED, fd, 0, VMF_PROT_READ), -EEXIST);
	ck_assert_ptr_eq(at, arena);
	close(fd);
	close(ends[0]);
	close(ends[1]);
}
END_TEST

START_TEST(a_pager_without_put_is_not_mapped_shared_and_writable)
{
	void *at = foreign;

	ck_assert_int_lt(vmf_map(task, &at, PG, VMF_MAP_SHARED, pager, 0, VMF_PROT_DEFAULT), 0);
	ck_assert_ptr_eq(at, foreign);
}
END_TEST

START_TEST(information_refuses_bad_arguments)
{
	struct vmf_region r;
	struct vmf_stats stats = { .size = 12 };
	struct sigaction act = { .sa_handler = SIG_DFL };
	unsigned char vec;

	expect(vmf_region(arena, NULL), -EINVAL);
	expect(vmf_region(foreign, &r), -EFAULT);
	expect(vmf_region(arena + PAGES * PG, &r), -ENOENT);
	expect(vmf_page_info(arena, PG, NULL), -EINVAL);
	expect(vmf_page_info(arena + HOLE * PG, PG, &vec), -EFAULT);
	expect(vmf_statistics(NULL), -EINVAL);
	expect(vmf_statistics(&stats), -EINVAL);
	expect(vmf_sigaction(SIGUSR1, &act, NULL), -EINVAL);
	expect(vmf_sigaction(0, &act, NULL), -EINVAL);
	expect(vmf_init(NULL), -EALREADY);
	expect(vmf_set_memory(1), -EINVAL);
	expect(vmf_set_memory(64 * PG - 1), -EINVAL);
}
END_TEST

START_TEST(errno_is_never_changed)
{
	void *at = NULL;
	char buf[8];

	errno = 12345;
	expect(vmf_allocate(BAD_HANDLE, &at, PG, 0), -EBADF);
	expect(vmf_read(foreign, buf, 8), -EFAULT);
	expect(vmf_allocate(task, &at, 2 * PG, 0), 0);
	fill(at, 2 * PG, 1);
	expect(vmf_unmap(at, 2 * PG), 0);
	ck_assert_int_eq(errno, 12345);
}
END_TEST

START_TEST(a_bad_configuration_is_refused)
{
	struct vmf_config good = VMF_CONFIG_INIT, c = good;

	c.size = 3;
	expect(vmf_init(&c), -EINVAL);
	c = good;
	c.flags = 1u << 30;
	expect(vmf_init(&c), -EINVAL);
	c = good;
	c.memory = 63 * PG;
	expect(vmf_init(&c), -EINVAL);
	c = good;
	c.mappings = 63;
	expect(vmf_init(&c), -EINVAL);
	good.memory = 64 * PG;
	good.mappings = 64;
	expect(vmf_init(&good), 0);
	expect(vmf_fini(), 0);
	expect(vmf_init(NULL), 0);
	expect(vmf_init(NULL), -EALREADY);
	expect(vmf_fini(), 0);
}
END_TEST

START_TEST(nothing_works_before_init_and_after_fini)
{
	for (int i = 0; i < 2; i++) {
		char buf[PG];
		void *at = NULL;
		size_t cursor = 0;
		vmf_task_t t;
		struct vmf_range r = { foreign, PG };
		struct vmf_extent e;
		struct vmf_region region;
		struct vmf_stats stats = { .size = sizeof(stats) };
		unsigned char vec;

		expect(vmf_fini(), -ENODEV);
		expect(vmf_task_create(PG, &t), -ENODEV);
		expect(vmf_task_fork(1, &t), -ENODEV);
		expect(vmf_task_destroy(1), -ENODEV);
		expect(vmf_task_range(1, &at, NULL), -ENODEV);
		expect(vmf_allocate(1, &at, PG, 0), -ENODEV);
		expect(vmf_map(1, &at, PG, VMF_MAP_PRIVATE, 1, 0, 1), -ENODEV);
		expect(vmf_map_file(1, &at, PG, VMF_MAP_PRIVATE, 0, 0, 1), -ENODEV);
		for (size_t k = 0; k < nitems(ranged); k++) {
			if (ranged[k].fn != do_snapshot)
				want_range(k, foreign, PG, -ENODEV);
		}
		expect(vmf_read(foreign, buf, 8), -ENODEV);
		expect(vmf_write(foreign, buf, 8), -ENODEV);
		expect(vmf_fault_in(foreign, 8, 1), -ENODEV);
		expect(vmf_fault_release(foreign, 8), -ENODEV);
		expect(vmf_region(foreign, &region), -ENODEV);
		expect(vmf_page_info(foreign, PG, &vec), -ENODEV);
		expect(vmf_statistics(&stats), -ENODEV);
		expect(vmf_set_memory(0), -ENODEV);
		expect(vmf_set_memory(1), -ENODEV);
		expect(vmf_pager_create(&read_only_ops, NULL, PG, 0, &t), -ENODEV);
		expect(vmf_pager_sync(1, 0, PG), -ENODEV);
		expect(vmf_pager_release(1), -ENODEV);
		expect(vmf_snapshot_create(&r, 1, &t), -ENODEV);
		expect(vmf_snapshot_map(1, 0, 0, PG, 1, &at, 0, 1), -ENODEV);
		expect(vmf_snapshot_read(1, 0, 0, buf, 8), -ENODEV);
		expect(vmf_snapshot_rollback(1), -ENODEV);
		expect(vmf_snapshot_diff(1, 0, 0, &cursor, &e, 1), -ENODEV);
		expect(vmf_snapshot_release(1), -ENODEV);
		expect(vmf_thread_attach(), -ENODEV);
		expect(vmf_thread_detach(), -ENODEV);
		expect(vmf_sigaction(SIGSEGV, NULL, NULL), -ENODEV);
		ck_assert_ptr_nonnull(vmf_version());
		expect(vmf_init(NULL), 0);
		expect(vmf_fini(), 0);
	}
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("api misuse");
	TCase *t = tcase_create("running"), *u = tcase_create("not running");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_loop_test(t, bad_ranges_are_refused, 0, (int)nitems(ranged));
	tcase_add_test(t, byte_ranges_are_refused);
	tcase_add_test(t, unknown_flags_and_values_are_refused);
	tcase_add_test(t, allocate_refuses_what_it_cannot_do);
	tcase_add_test(t, tasks_refuse_what_they_do_not_know);
	tcase_add_test(t, overlapping_copies_are_refused);
	tcase_add_test(t, snapshots_refuse_bad_lists);
	tcase_add_test(t, snapshots_refuse_what_they_do_not_have);
	tcase_add_test(t, pagers_refuse_bad_arguments);
	tcase_add_test(t, files_refuse_bad_arguments);
	tcase_add_test(t, a_pager_without_put_is_not_mapped_shared_and_writable);
	tcase_add_test(t, information_refuses_bad_arguments);
	tcase_add_test(t, errno_is_never_changed);
	tcase_add_test(u, a_bad_configuration_is_refused);
	tcase_add_test(u, nothing_works_before_init_and_after_fini);
	suite_add_tcase(s, t);
	suite_add_tcase(s, u);
	return run_suite(s);
}
