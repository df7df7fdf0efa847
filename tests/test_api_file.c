/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Files in memory: vmf_map_file(), vmf_sync(), and the advice that is followed at once.
 *
 * The file is a temporary one, written and read with the kernel's calls, so that what
 * the mapping shows and what reaches the file are two witnesses.  Each test runs with the page cache and
 * with O_DIRECT, where the file system can.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

enum { PAGES = 48, KEY = 7 };

static int fd;				/* read and write */
static char name[64];
static unsigned direct;			/* VMF_MAP_DIRECT or 0 */

static void
setup(void)
{
	static char bytes[PAGES * VMF_PAGE_SIZE];
	int f;

	start(0, 0);
	touch_install();
	snprintf(name, sizeof(name), "vmf-file-XXXXXX");
	fd = mkstemp(name);
	check(fd >= 0);
	fill_pages(bytes, PAGES, KEY);
	check(pwrite(fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes));
	f = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
	direct = f >= 0 ? VMF_MAP_DIRECT : 0;
	if (f >= 0)
		close(f);
}

static void
setup_buffered(void)
{
	setup();
	direct = 0;
}

static void
teardown(void)
{
	stop();
	close(fd);
	unlink(name);
}

static char *
map_fd(int f, size_t first, size_t pages, unsigned flags, int prot)
{
	void *p = NULL;

	expect(vmf_map_file(VMF_TASK_DEFAULT, &p, pages * PG, flags | direct, f, first * PG, prot), 0);
	return p;
}

static char *
map(unsigned kind, int prot)
{
	return map_fd(fd, 0, PAGES, kind, prot);
}

static char *
shared(void)
{
	return map(VMF_MAP_SHARED, VMF_PROT_DEFAULT);
}

static void
unmap(char *p)
{
	expect(vmf_unmap(p, PAGES * PG), 0);
}

static off_t
file_size(void)
{
	struct stat st;

	check(fstat(fd, &st) == 0);
	return st.st_size;
}

static uint64_t
counter(size_t offset)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return *(uint64_t *)(void *)((char *)&s + offset);
}
#define COUNTER(member)	counter(offsetof(struct vmf_stats, member))

/*
 * Mapping
 */

START_TEST(a_mapping_shows_the_file)
{
	char *p = map(VMF_MAP_SHARED, VMF_PROT_READ), *q = map(VMF_MAP_PRIVATE, VMF_PROT_READ), *r;

	check_pages(p, PAGES, KEY);
	check_pages(q, PAGES, KEY);
	r = map_fd(fd, 5, 3, VMF_MAP_SHARED, VMF_PROT_READ);
	for (size_t i = 0; i < 3; i++)
		check_fill(r + i * PG, PG, mix(KEY, 5 + i));
}
END_TEST

START_TEST(the_descriptor_may_be_closed)
{
	int f = open(name, O_RDWR | O_CLOEXEC);
	char *p = map_fd(f, 0, PAGES, VMF_MAP_SHARED, VMF_PROT_DEFAULT);

	check(close(f) == 0);
	check_pages(p, PAGES, KEY);
	fill(p, PG, 1);
	expect(vmf_sync(p, PG, 0), 0);
	check_file(fd, 0, 1);
}
END_TEST

START_TEST(descriptors_and_memory_go_with_the_mapping)
{
	unsigned fds = count_fds();
	uint64_t objects = COUNTER(objects), used = COUNTER(v_free_count);

	for (int i = 0; i < 3; i++) {
		char *p = shared(), *q = map(VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);

		check(count_fds() > fds);
		fill_pages(p, PAGES, KEY);
		fill_pages(q, PAGES, 9);
		unmap(p);
		unmap(q);
		ck_assert_uint_eq(count_fds(), fds);
		ck_assert_uint_eq(COUNTER(objects), objects);
		ck_assert_uint_eq(COUNTER(v_free_count), used);
	}
}
END_TEST

START_TEST(all_mappings_of_a_file_see_each_others_writes)
{
	int ro = open(name, O_RDONLY | O_CLOEXEC);
	char *p = map_fd(ro, 0, PAGES, VMF_MAP_SHARED, VMF_PROT_READ), *q = shared();

	check_fill(p + 3 * PG, PG, mix(KEY, 3));
	fill(q + 3 * PG, PG, 33);
	check_fill(p + 3 * PG, PG, 33);
	close(ro);
}
END_TEST

START_TEST(private_writes_stay_private)
{
	char *p = map(VMF_MAP_PRIVATE, VMF_PROT_DEFAULT), *q = map(VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);

	fill(p + 2 * PG, PG, 1);
	check_fill(q + 2 * PG, PG, mix(KEY, 2));
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	unmap(p);
	check_file(fd, 2, mix(KEY, 2));
	check_pages(q, PAGES, KEY);
}
END_TEST

START_TEST(a_private_mapping_of_a_read_only_descriptor_can_be_written)
{
	int ro = open(name, O_RDONLY | O_CLOEXEC);
	char *p = map_fd(ro, 0, PAGES, VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);

	fill(p, PG, 1);
	check_fill(p + PG, PG, mix(KEY, 1));
	close(ro);
}
END_TEST

START_TEST(rights_are_those_of_the_descriptor)
{
	int ro = open(name, O_RDONLY | O_CLOEXEC), wo = open(name, O_WRONLY | O_CLOEXEC);
	int dir = open(".", O_RDONLY | O_CLOEXEC), path = open(name, O_PATH | O_CLOEXEC);
	void *p = name;
	char *q, *r;

	expect(vmf_map_file(1, &p, PG, VMF_MAP_SHARED, ro, 0, VMF_PROT_DEFAULT), -EACCES);
	expect(vmf_map_file(1, &p, PG, VMF_MAP_SHARED, wo, 0, VMF_PROT_DEFAULT), -EACCES);
	expect(vmf_map_file(1, &p, PG, VMF_MAP_PRIVATE, wo, 0, VMF_PROT_READ), -EACCES);
	expect(vmf_map_file(1, &p, PG, VMF_MAP_SHARED, dir, 0, VMF_PROT_READ), -EACCES);
	expect(vmf_map_file(1, &p, PG, VMF_MAP_SHARED, path, 0, VMF_PROT_READ), -EBADF);
	ck_assert_ptr_eq(p, name);
	/* That somebody else may write does not help. */
	q = shared();
	r = map_fd(ro, 0, PAGES, VMF_MAP_SHARED, VMF_PROT_READ);
	expect(vmf_protect(r, PG, VMF_PROT_DEFAULT), -EACCES);
	expect_write(r, SIGSEGV, SEGV_ACCERR);
	fill(q, PG, 1);
	unmap(r);
	r = map(VMF_MAP_SHARED, VMF_PROT_READ);
	expect(vmf_protect(r, PG, VMF_PROT_DEFAULT), 0);
	fill(r, PG, 2);
	check_fill(q, PG, 2);
	close(ro);
	close(wo);
	close(dir);
	close(path);
}
END_TEST

START_TEST(a_snapshot_of_a_file_keeps_its_bytes)
{
	char *p = shared(), buf[VMF_PAGE_SIZE];
	vmf_snapshot_t s;

	fill(p + PG, PG, 1);
	s = snap(p, 4);
	fill(p + PG, PG, 2);
	fill(p + 2 * PG, PG, 3);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	check_file(fd, 1, 2);
	expect(vmf_snapshot_read(s, 0, PG, buf, PG), 0);
	check_fill(buf, PG, 1);
	expect(vmf_snapshot_read(s, 0, 2 * PG, buf, PG), 0);
	check_fill(buf, PG, mix(KEY, 2));
	expect(vmf_snapshot_rollback(s), 0);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	check_file(fd, 1, 1);
	check_file(fd, 2, mix(KEY, 2));
	expect(vmf_snapshot_release(s), 0);
}
END_TEST

START_TEST(appending_descriptors_write_in_place)
{
	int f = open(name, O_RDWR | O_APPEND | O_CLOEXEC);
	char *p = map_fd(f, 0, PAGES, VMF_MAP_SHARED, VMF_PROT_DEFAULT), *q = shared();

	fill(p + 4 * PG, PG, 1);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	check_file(fd, 4, 1);
	/* Set on a descriptor that was duplicated, it would tell on the duplicate. */
	check(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_APPEND) == 0);
	fill(q + 5 * PG, PG, 2);
	expect(vmf_sync(q, PAGES * PG, 0), 0);
	check_file(fd, 5, 2);
	ck_assert_int_eq(file_size(), PAGES * PG);
	close(f);
}
END_TEST

START_TEST(a_deleted_file_is_still_there)
{
	char *p;

	check(unlink(name) == 0);
	p = shared();
	check_pages(p, PAGES, KEY);
	fill(p, PG, 1);
	expect(vmf_sync(p, PG, 0), 0);
	check_file(fd, 0, 1);
}
END_TEST

START_TEST(a_memfd_is_a_file)
{
	int f = memfd_create("test", MFD_CLOEXEC);
	unsigned was = direct;
	char *p;

	check(f >= 0 && ftruncate(f, 4 * PG) == 0);
	direct = 0;
	p = map_fd(f, 0, 4, VMF_MAP_SHARED, VMF_PROT_DEFAULT);
	direct = was;
	check_zero(p, 4 * PG);
	fill(p + PG, PG, 1);
	expect(vmf_sync(p, 4 * PG, 0), 0);
	close(f);
}
END_TEST

/*
 * The end of the file
 */

START_TEST(past_the_end_there_is_nothing)
{
	char *p = map_fd(fd, 0, PAGES + 8, VMF_MAP_SHARED, VMF_PROT_DEFAULT), c;
	char *q = map_fd(fd, PAGES + 2, 2, VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);

	expect_read(p + PAGES * PG, SIGBUS, BUS_ADRERR);
	expect_write(p + (PAGES + 7) * PG, SIGBUS, BUS_ADRERR);
	expect_read(q, SIGBUS, BUS_ADRERR);
	expect_write(q, SIGBUS, BUS_ADRERR);
	expect(vmf_read(p + PAGES * PG, &c, 1), -ENXIO);
	check_pages(p, PAGES, KEY);
	expect(vmf_sync(p, (PAGES + 8) * PG, 0), 0);
	ck_assert_int_eq(file_size(), PAGES * PG);
}
END_TEST

START_TEST(the_tail_reads_zeros_and_is_not_written)
{
	char bytes[VMF_PAGE_SIZE];
	char *p;

	check(ftruncate(fd, 3 * PG + 100) == 0);
	p = map_fd(fd, 0, 5, VMF_MAP_SHARED, VMF_PROT_DEFAULT);
	fill(bytes, PG, mix(KEY, 3));
	check(memcmp(p + 3 * PG, bytes, 100) == 0);
	check_zero(p + 3 * PG + 100, PG - 100);
	expect_read(p + 4 * PG, SIGBUS, BUS_ADRERR);
	fill(p + 3 * PG, PG, 1);
	expect(vmf_sync(p, 5 * PG, 0), 0);
	ck_assert_int_eq(file_size(), 3 * PG + 100);
	check(ftruncate(fd, 4 * PG) == 0);
	check(pread(fd, bytes, PG, 3 * PG) == (ssize_t)PG);
	check_zero(bytes + 100, PG - 100);
	fill(p, PG, 1);
	check(memcmp(p, bytes, 100) == 0);
}
END_TEST

/* The page is read into the frame that had it before: what is not read must not show. */
START_TEST(the_tail_is_zeros_in_a_used_frame_too)
{
	char *p = shared();

	check_pages(p, PAGES, KEY);
	check(ftruncate(fd, 3 * PG + 100) == 0);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_DONTNEED), 0);
	check_pages(p, 3, KEY);
	check_zero(p + 3 * PG + 100, PG - 100);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_DONTNEED), 0);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_WILLNEED), 0);
	check_zero(p + 3 * PG + 100, PG - 100);
}
END_TEST

START_TEST(an_empty_file_can_be_mapped)
{
	char *p;

	check(ftruncate(fd, 0) == 0);
	p = shared();
	expect_read(p, SIGBUS, BUS_ADRERR);
	expect_write(p, SIGBUS, BUS_ADRERR);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	ck_assert_int_eq(file_size(), 0);
}
END_TEST

START_TEST(a_file_that_grew_is_readable)
{
	char *p = map_fd(fd, 0, PAGES + 8, VMF_MAP_SHARED, VMF_PROT_DEFAULT);

	expect_read(p + (PAGES + 3) * PG, SIGBUS, BUS_ADRERR);
	write_file(fd, PAGES + 3, 5);
	check_fill(p + (PAGES + 3) * PG, PG, 5);
	check_zero(p + (PAGES + 1) * PG, PG);
	expect_read(p + (PAGES + 4) * PG, SIGBUS, BUS_ADRERR);
	fill(p + (PAGES + 2) * PG, PG, 6);
	expect(vmf_sync(p, (PAGES + 8) * PG, 0), 0);
	check_file(fd, PAGES + 2, 6);
}
END_TEST

START_TEST(a_file_that_was_cut_raises_sigbus)
{
	char *p = shared(), c;

	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_RANDOM), 0);
	check_fill(p, PG, mix(KEY, 0));
	check(ftruncate(fd, 2 * PG) == 0);
	expect_read(p + 5 * PG, SIGBUS, BUS_ADRERR);
	expect_write(p + 2 * PG, SIGBUS, BUS_ADRERR);
	check_fill(p + PG, PG, mix(KEY, 1));
	expect(vmf_read(p + 3 * PG, &c, 1), -ENXIO);
}
END_TEST

START_TEST(resident_pages_go_when_the_file_is_cut)
{
	char *p = shared(), *q = shared();

	check_pages(p, PAGES, KEY);
	fill(p + 20 * PG, PG, 1);
	check(ftruncate(fd, 2 * PG) == 0);
	/* q has not mapped them: its first touch asks. */
	expect_read(q + 30 * PG, SIGBUS, BUS_ADRERR);
	expect_write(q + 20 * PG, SIGBUS, BUS_ADRERR);
	expect_read(p + 20 * PG, SIGBUS, BUS_ADRERR);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	for (size_t i = 2; i < PAGES; i++)
		expect_read(p + i * PG, SIGBUS, BUS_ADRERR);
	ck_assert_int_eq(file_size(), 2 * PG);
	check_fill(p + PG, PG, mix(KEY, 1));
	/* Cut and grown again, the file is zeros there. */
	check(ftruncate(fd, PAGES * PG) == 0);
	check_zero(p + 20 * PG, PG);
}
END_TEST

START_TEST(neighbours_beyond_the_end_are_not_mapped)
{
	char *p = shared(), *q = shared();

	check_pages(p, PAGES, KEY);
	check(ftruncate(fd, 2 * PG) == 0);
	check_fill(q + PG, PG, mix(KEY, 1));
	expect_read(q + 2 * PG, SIGBUS, BUS_ADRERR);
}
END_TEST

START_TEST(copies_of_what_was_cut_keep_their_bytes)
{
	char *p = shared(), *q = map(VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);

	fill(q + 9 * PG, PG, 1);
	check_pages(p, PAGES, KEY);
	check(ftruncate(fd, PG) == 0);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	check_fill(q + 9 * PG, PG, 1);
	expect_read(q + 10 * PG, SIGBUS, BUS_ADRERR);
}
END_TEST

START_TEST(holes_are_zeros)
{
	char *p;

	check(ftruncate(fd, 0) == 0 && ftruncate(fd, PAGES * PG) == 0);
	write_file(fd, 7, 7);
	p = shared();
	check_zero(p, 7 * PG);
	check_fill(p + 7 * PG, PG, 7);
	check_zero(p + 8 * PG, (PAGES - 8) * PG);
	fill(p + 30 * PG, PG, 30);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	check_file(fd, 30, 30);
}
END_TEST

START_TEST(far_offsets_are_reached)
{
	uint64_t far = (uint64_t)5 << 32;
	char bytes[VMF_PAGE_SIZE];
	void *p = NULL;

	check(ftruncate(fd, (off_t)(far + 2 * PG)) == 0);
	expect(vmf_map_file(1, &p, 2 * PG, VMF_MAP_SHARED, fd, far, VMF_PROT_DEFAULT), 0);
	check_zero(p, 2 * PG);
	fill(p, PG, 1);
	expect(vmf_sync(p, 2 * PG, 0), 0);
	check(pread(fd, bytes, PG, (off_t)far) == (ssize_t)PG);
	check_fill(bytes, PG, 1);
	expect(vmf_map_file(1, &p, 2 * PG, VMF_MAP_SHARED, fd, VMF_FILE_MAX, VMF_PROT_READ), -EOVERFLOW);
}
END_TEST

/*
 * Writing back
 */

START_TEST(sync_writes_what_was_written)
{
	char *p = shared();

	for (size_t i = 0; i < PAGES; i += 3)
		fill(p + i * PG, PG, i + 100);
	expect(vmf_sync(p, (PAGES - 3) * PG, 0), 0);
	for (size_t i = 0; i < PAGES; i++)
		check_file(fd, i, i % 3 == 0 && i < PAGES - 3 ? i + 100 : mix(KEY, i));
	expect(vmf_sync(p, PAGES * PG, VMF_SYNC_ASYNC), 0);
	check_file(fd, PAGES - 3, PAGES - 3 + 100);
	/* A page that was synced and is written again is written again. */
	fill(p, PG, 1);
	expect(vmf_sync(p, PG, 0), 0);
	check_file(fd, 0, 1);
}
END_TEST

START_TEST(unmapping_writes_what_was_written)
{
	char *p = shared(), *q = map_fd(fd, 0, 2, VMF_MAP_SHARED, VMF_PROT_DEFAULT);

	fill(p + 5 * PG, PG, 5);
	unmap(p);
	expect(vmf_unmap(q, 2 * PG), 0);
	check_file(fd, 5, 5);
}
END_TEST

START_TEST(the_end_of_the_library_writes_what_was_written)
{
	char *p = shared();

	fill(p + 5 * PG, PG, 5);
	stop();
	check_file(fd, 5, 5);
	start(0, 0);
}
END_TEST

START_TEST(sync_passes_over_what_is_no_file)
{
	char *p = shared(), *q = alloc(4);

	fill(q, 4 * PG, 1);
	expect(vmf_sync(q, 4 * PG, 0), 0);
	expect(vmf_unmap(q + PG, PG), 0);
	expect(vmf_sync(q, 4 * PG, 0), -EFAULT);
	expect(vmf_sync(p, PG, 64), -EINVAL);
	expect(vmf_sync(p + 1, PG, 0), -EINVAL);
}
END_TEST

START_TEST(a_file_that_is_mapped_again_shows_what_others_wrote)
{
	char *p = shared();

	check_pages(p, PAGES, KEY);
	unmap(p);
	write_file(fd, 1, 1);
	p = shared();
	check_fill(p + PG, PG, 1);
}
END_TEST

/*
 * Advice
 */

START_TEST(dontneed_of_anonymous_memory_is_zeros)
{
	char *p = alloc(64);
	uint64_t entries = COUNTER(entries), left;

	fill_pages(p, 64, 1);
	left = COUNTER(v_free_count);
	for (size_t i = 0; i < 64; i += 2)
		expect(vmf_advise(p + i * PG, PG, VMF_ADVICE_DONTNEED), 0);
	/* The frames are free at once, and the region is still one. */
	ck_assert_uint_eq(COUNTER(v_free_count), left + 32);
	ck_assert_uint_eq(COUNTER(entries), entries);
	for (size_t i = 0; i < 64; i++) {
		if (i % 2 == 0)
			check_zero(p + i * PG, PG);
		else
			check_fill(p + i * PG, PG, mix(1, i));
	}
	fill(p, PG, 2);
	check_fill(p, PG, 2);
}
END_TEST

START_TEST(dontneed_keeps_snapshots_and_copies)
{
	char *p = alloc(16), *q = alloc(16), *v;
	vmf_snapshot_t s;

	fill_pages(p, 16, 1);
	s = snap(p, 16);
	expect(vmf_copy(q, p, 16 * PG), 0);
	fill(p + PG, PG, 2);
	fill(q + 2 * PG, PG, 3);
	expect(vmf_advise(p, 8 * PG, VMF_ADVICE_DONTNEED), 0);
	check_zero(p, 8 * PG);
	for (size_t i = 8; i < 16; i++)
		check_fill(p + i * PG, PG, mix(1, i));
	expect(vmf_advise(q + PG, 2 * PG, VMF_ADVICE_DONTNEED), 0);
	check_zero(q + PG, 2 * PG);
	check_fill(q, PG, mix(1, 0));
	check_fill(q + 3 * PG, PG, mix(1, 3));
	v = view(s, 16, VMF_PROT_DEFAULT);
	check_pages(v, 16, 1);
	fill(v, PG, 9);
	expect(vmf_advise(v, PG, VMF_ADVICE_DONTNEED), 0);
	check_zero(v, PG);
	expect(vmf_snapshot_rollback(s), 0);
	check_pages(p, 16, 1);
	expect(vmf_snapshot_release(s), 0);
}
END_TEST

START_TEST(dontneed_of_a_private_mapping_shows_the_file)
{
	char *p = map(VMF_MAP_PRIVATE, VMF_PROT_DEFAULT);

	fill(p + 3 * PG, PG, 1);
	fill(p + 5 * PG, PG, 2);
	expect(vmf_advise(p + 2 * PG, 2 * PG, VMF_ADVICE_DONTNEED), 0);
	check_fill(p + 2 * PG, PG, mix(KEY, 2));
	check_fill(p + 3 * PG, PG, mix(KEY, 3));
	check_fill(p + 5 * PG, PG, 2);
	fill(p + 3 * PG, PG, 4);
	check_fill(p + 3 * PG, PG, 4);
	check_file(fd, 3, mix(KEY, 3));
}
END_TEST

START_TEST(dontneed_of_a_shared_mapping_drops_clean_pages_only)
{
	char *p = shared();

	check_pages(p, PAGES, KEY);
	fill(p + 2 * PG, PG, 2);
	write_file(fd, 1, 1);
	write_file(fd, 2, 99);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_DONTNEED), 0);
	check_fill(p + PG, PG, 1);
	check_fill(p + 2 * PG, PG, 2);
	expect(vmf_sync(p, PAGES * PG, 0), 0);
	check_file(fd, 2, 2);
}
END_TEST

START_TEST(dontneed_refuses_what_is_wired_or_held)
{
	char *p = alloc(4);

	fill_pages(p, 4, 1);
	expect(vmf_wire(p + PG, PG), 0);
	expect(vmf_advise(p, 4 * PG, VMF_ADVICE_DONTNEED), -EBUSY);
	expect(vmf_unwire(p + PG, PG), 0);
	expect(vmf_fault_in(p + PG, 1, VMF_PROT_READ), 0);
	expect(vmf_advise(p, 4 * PG, VMF_ADVICE_DONTNEED), -EBUSY);
	check_pages(p, 4, 1);
	expect(vmf_fault_release(p + PG, 1), 0);
	expect(vmf_advise(p, 4 * PG, VMF_ADVICE_DONTNEED), 0);
	check_zero(p, 4 * PG);
}
END_TEST

START_TEST(dontneed_of_shared_anonymous_memory_keeps_it)
{
	char *p = alloc(4);
	vmf_task_t task;

	fill_pages(p, 4, 1);
	expect(vmf_inherit(p, 4 * PG, VMF_INHERIT_SHARE), 0);
	expect(vmf_task_fork(VMF_TASK_DEFAULT, &task), 0);
	expect(vmf_advise(p, 4 * PG, VMF_ADVICE_DONTNEED), 0);
	expect(vmf_advise(p, 4 * PG, VMF_ADVICE_FREE), 0);
	check_pages(p, 4, 1);
	expect(vmf_task_destroy(task), 0);
}
END_TEST

/* Touch so much memory that everything else must leave that can. */
static void
press(char *p, size_t pages)
{
	for (size_t i = 0; i < pages; i++)
		p[i * PG] = 1;
}

/* Touch all frames but one or two, and let the pageout daemon do what it can. */
static void
press_all_frames(char *p, size_t pages)
{
	uint64_t before, now = 0;

	expect(vmf_advise(p, pages * PG, VMF_ADVICE_RANDOM), 0);
	for (size_t i = 0; i < pages && COUNTER(v_free_count) > 2 && COUNTER(v_pdwakeups) == 0; i++)
		p[i * PG] = 1;
	do {
		before = now;
		usleep(20000);
		now = COUNTER(v_scan) + COUNTER(v_map_calls);
	} while (now != before);
}

/* What was given up is as it was, or zeros. */
static void
check_given(const char *p, uint64_t key)
{
	char bytes[VMF_PAGE_SIZE], zeros[VMF_PAGE_SIZE] = "";

	expect(vmf_read(p, bytes, PG), 0);
	if (memcmp(bytes, zeros, PG) != 0)
		check_fill(bytes, PG, key);
}

START_TEST(freed_memory_leaves_without_a_pager)
{
	size_t n = 256;
	unsigned char info[128];
	size_t gone = 0;
	char *p, *q;

	stop();
	start((uint64_t)n * PG, 0);
	p = alloc(n / 2);
	q = alloc(n - 40);
	fill_pages(p, n / 2, 1);
	expect(vmf_advise(p, n / 2 * PG, VMF_ADVICE_FREE), 0);
	check_fill(p + PG, PG, mix(1, 1));
	p[3 * PG] = 3;			/* written again: it stays */
	press(q, n - 40);
	check(p[3 * PG] == 3);
	expect(vmf_page_info(p, n / 2 * PG, info), 0);
	for (size_t i = 0; i < n / 2; i++)
		gone += !(info[i] & VMF_PAGE_RESIDENT);
	check(gone > 64);
	for (size_t i = 4; i < 12; i++)
		check_given(p + i * PG, mix(1, i));
}
END_TEST

/* A known bug of real systems: what was freed goes, and the older page below it comes back. */
START_TEST(freed_memory_never_shows_older_contents)
{
	size_t n = 256, half = n / 4;
	char *p, *q, *v;
	vmf_snapshot_t s;

	stop();
	start((uint64_t)n * PG, 0);
	p = alloc(half);
	q = alloc(n);
	fill_pages(p, half, 1);
	s = snap(p, half);
	v = view(s, half, VMF_PROT_DEFAULT);
	fill_pages(v, half, 2);		/* a shadow of 1 */
	expect(vmf_advise(v, half * PG, VMF_ADVICE_FREE), 0);
	press_all_frames(q, n);
	for (size_t i = 0; i < half; i++)
		check_given(v + i * PG, mix(2, i));
	check_pages(p, half, 1);
}
END_TEST

START_TEST(a_snapshot_of_freed_memory_does_not_change_its_mind)
{
	enum { N = 256, HALF = N / 4 };
	static char bytes[HALF * VMF_PAGE_SIZE];
	vmf_snapshot_t s;
	char *p, *q;

	stop();
	start(N * PG, 0);
	p = alloc(HALF);
	q = alloc(N);
	fill_pages(p, HALF, 1);
	expect(vmf_advise(p, HALF * PG, VMF_ADVICE_FREE), 0);
	/* Frames were plenty: all is there still, and from now on for good. */
	s = snap(p, HALF);
	press_all_frames(q, N);
	expect(vmf_snapshot_read(s, 0, 0, bytes, sizeof(bytes)), 0);
	check_pages(bytes, HALF, 1);
}
END_TEST

START_TEST(willneed_and_cold_change_no_contents)
{
	char *p = shared(), *q = map(VMF_MAP_PRIVATE, VMF_PROT_DEFAULT), *r = alloc(8);

	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_WILLNEED), 0);
	expect(vmf_advise(q, PAGES * PG, VMF_ADVICE_WILLNEED), 0);
	expect(vmf_advise(r, 8 * PG, VMF_ADVICE_WILLNEED), 0);
	check_pages(p, PAGES, KEY);
	check_pages(q, PAGES, KEY);
	check(COUNTER(v_readahead_hits) > 0);
	fill_pages(r, 8, 1);
	fill(q + PG, PG, 1);
	expect(vmf_advise(p, PAGES * PG, VMF_ADVICE_COLD), 0);
	expect(vmf_advise(q, PAGES * PG, VMF_ADVICE_COLD), 0);
	expect(vmf_advise(r, 8 * PG, VMF_ADVICE_COLD), 0);
	check_pages(p, PAGES, KEY);
	check_fill(q + PG, PG, 1);
	check_fill(q + 2 * PG, PG, mix(KEY, 2));
	check_pages(r, 8, 1);
}
END_TEST

int
main(void)
{
	const TTest *const tests[] = {
		a_mapping_shows_the_file, the_descriptor_may_be_closed,
		descriptors_and_memory_go_with_the_mapping, all_mappings_of_a_file_see_each_others_writes,
		private_writes_stay_private, a_private_mapping_of_a_read_only_descriptor_can_be_written,
		rights_are_those_of_the_descriptor, a_snapshot_of_a_file_keeps_its_bytes,
		appending_descriptors_write_in_place, a_deleted_file_is_still_there, a_memfd_is_a_file,
		past_the_end_there_is_nothing, the_tail_reads_zeros_and_is_not_written,
		the_tail_is_zeros_in_a_used_frame_too, an_empty_file_can_be_mapped, a_file_that_grew_is_readable, a_file_that_was_cut_raises_sigbus,
		resident_pages_go_when_the_file_is_cut, neighbours_beyond_the_end_are_not_mapped,
		copies_of_what_was_cut_keep_their_bytes, holes_are_zeros, far_offsets_are_reached,
		sync_writes_what_was_written, unmapping_writes_what_was_written,
		the_end_of_the_library_writes_what_was_written, sync_passes_over_what_is_no_file,
		a_file_that_is_mapped_again_shows_what_others_wrote,
		dontneed_of_a_private_mapping_shows_the_file,
		dontneed_of_a_shared_mapping_drops_clean_pages_only, willneed_and_cold_change_no_contents,
	};
	const TTest *const anonymous[] = {
		dontneed_of_anonymous_memory_is_zeros, dontneed_keeps_snapshots_and_copies,
		dontneed_refuses_what_is_wired_or_held, dontneed_of_shared_anonymous_memory_keeps_it,
		freed_memory_leaves_without_a_pager, freed_memory_never_shows_older_contents,
		a_snapshot_of_freed_memory_does_not_change_its_mind,
	};
	Suite *s = suite_create("api file");
	TCase *t = tcase_create("page cache"), *u = tcase_create("direct"), *v = tcase_create("anonymous");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup_buffered, teardown);
	tcase_add_checked_fixture(u, setup, teardown);
	tcase_add_checked_fixture(v, setup_buffered, teardown);
	for (size_t i = 0; i < nitems(tests); i++) {
		tcase_add_test(t, tests[i]);
		tcase_add_test(u, tests[i]);
	}
	for (size_t i = 0; i < nitems(anonymous); i++)
		tcase_add_test(v, anonymous[i]);
	suite_add_tcase(s, t);
	suite_add_tcase(s, u);
	suite_add_tcase(s, v);
	r = srunner_create(s);
	srunner_run_all(r, CK_ENV);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed == 0 ? 0 : 1;
}
