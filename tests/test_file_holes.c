/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Holes of files.  A write into one makes its neighbours writable as well, before anybody has written
 * to them: what is then still zeros must not be written, and what has become data meanwhile must
 * not be taken for a hole.
 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "race.h"

enum { LENGTH = 64, WRITTEN = 8 };

static int fd;
static char name[64];
static char *p;

static void
setup(void)
{
	void *at = NULL;

	start(0, 0);
	snprintf(name, sizeof(name), "vmf-holes-XXXXXX");
	fd = mkstemp(name);
	check(fd >= 0 && ftruncate(fd, LENGTH * PG) == 0);
	expect(vmf_map_file(VMF_TASK_DEFAULT, &at, LENGTH * PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_DEFAULT), 0);
	p = at;
	expect(vmf_advise(p, LENGTH * PG, VMF_ADVICE_SEQUENTIAL), 0);
}

static void
teardown(void)
{
	probe_hook = NULL;
	stop();
	close(fd);
	unlink(name);
}

static void
sync_all(void)
{
	expect(vmf_sync(p, LENGTH * PG, 0), 0);
	audit();
}

/* Pages of the file, from the first, that are data. */
static size_t
data_pages(void)
{
	off_t hole = lseek(fd, 0, SEEK_HOLE);

	check(hole >= 0 && lseek(fd, hole, SEEK_DATA) < 0);
	return (size_t)hole / PG;
}

START_TEST(one_fault_serves_many_pages_and_no_disk_is_asked)
{
	fill_pages(p, LENGTH, 1);
	check(STAT(v_vm_faults) <= LENGTH / 8);
	ck_assert_uint_eq(STAT(v_pageins), 0);
	sync_all();
	for (size_t i = 0; i < LENGTH; i++)
		check_file(fd, i, mix(1, i));
}
END_TEST

/* Data, and then a hole: reading ahead of the writer stops there. */
START_TEST(reading_ahead_passes_over_holes)
{
	for (size_t i = 0; i < WRITTEN; i++)
		write_file(fd, i, mix(9, i));
	check_fill(p, PG, mix(9, 0));
	fill_pages(p, LENGTH, 1);
	/* Those that were asked for at once were read along. */
	ck_assert_uint_le(STAT(v_pageins), LENGTH / 2);
	sync_all();
	for (size_t i = 0; i < LENGTH; i++)
		check_file(fd, i, mix(1, i));
}
END_TEST

START_TEST(what_nobody_wrote_stays_a_hole)
{
	if (data_pages() != 0)
		return;			/* this file system has none */
	fill_pages(p, WRITTEN, 1);
	sync_all();
	ck_assert_uint_eq(data_pages(), WRITTEN);
	check_pages(p, WRITTEN, 1);
	check_zero(p + WRITTEN * PG, (LENGTH - WRITTEN) * PG);
	/* And now that they are clean they can be written all the same, by a fault of their own. */
	fill(p + WRITTEN * PG, PG, 2);
	sync_all();
	check_file(fd, WRITTEN, 2);
	ck_assert_uint_eq(data_pages(), WRITTEN + 1);
}
END_TEST

START_TEST(what_others_wrote_beside_is_not_overwritten)
{
	fill_pages(p, WRITTEN, 1);
	write_file(fd, WRITTEN + 4, 2);
	fill(p + (WRITTEN + 6) * PG, PG, 3);
	sync_all();
	check_file(fd, WRITTEN + 4, 2);
	check_file(fd, WRITTEN + 6, 3);
	expect(vmf_unmap(p, LENGTH * PG), 0);
	check_file(fd, WRITTEN + 4, 2);
	check_file(fd, WRITTEN + 6, 3);
}
END_TEST

/* One byte at the very end of a page is a write. */
START_TEST(a_single_byte_is_seen)
{
	p[0] = 1;
	for (size_t i = 1; i < LENGTH; i += 2)
		p[(i + 1) * PG - 1] = (char)i;
	sync_all();
	for (size_t i = 1; i < LENGTH; i += 2) {
		char byte;

		check(pread(fd, &byte, 1, (off_t)((i + 1) * PG - 1)) == 1 && byte == (char)i);
	}
}
END_TEST

/*
 * Between the question whether it is a hole and the answer's use a neighbour is written, and
 * leaves.  (The nearest ones are busy meanwhile: they would have been read along.)
 */
START_TEST(what_was_written_meanwhile_is_no_hole)
{
	struct act x = { .p = p + 4 * PG, .byte = 77 };
	struct actor a;

	go(&a, do_write, &x, "vm_fault: pager got");
	meet(&a);
	fill(p + 25 * PG, PG, 5);
	fill(p + 29 * PG, PG, 9);
	expect(vmf_sync(p, LENGTH * PG, 0), 0);
	expect(vmf_advise(p + 25 * PG, 5 * PG, VMF_ADVICE_DONTNEED), 0);
	release(&a);
	finish(&a);
	check(p[4 * PG] == 77);
	check_fill(p + 25 * PG, PG, 5);
	check_fill(p + 29 * PG, PG, 9);
	check_zero(p + 26 * PG, 3 * PG);
	sync_all();
	check_file(fd, 25, 5);
	check_file(fd, 29, 9);
}
END_TEST

/* The same, with more writes in between than are remembered. */
START_TEST(nor_after_many_writes)
{
	struct act x = { .p = p + 4 * PG, .byte = 77 };
	struct actor a;

	go(&a, do_write, &x, "vm_fault: pager got");
	meet(&a);
	fill(p + 25 * PG, PG, 5);
	expect(vmf_sync(p, LENGTH * PG, 0), 0);
	expect(vmf_advise(p + 25 * PG, PG, VMF_ADVICE_DONTNEED), 0);
	for (uint64_t i = 0; i < 20; i++) {
		fill(p + 40 * PG, PG, i + 100);
		expect(vmf_sync(p + 40 * PG, PG, 0), 0);
	}
	release(&a);
	finish(&a);
	check_fill(p + 25 * PG, PG, 5);
	check_fill(p + 40 * PG, PG, 119);
}
END_TEST

START_TEST(a_private_mapping_of_it_is_zeros_and_ones_own)
{
	void *at = NULL;
	char *q;

	expect(vmf_map_file(VMF_TASK_DEFAULT, &at, LENGTH * PG, VMF_MAP_PRIVATE, fd, 0, VMF_PROT_DEFAULT), 0);
	q = at;
	expect(vmf_advise(q, LENGTH * PG, VMF_ADVICE_SEQUENTIAL), 0);
	fill(q + 2 * PG, PG, 2);
	check_zero(q, 2 * PG);
	check_zero(q + 3 * PG, (LENGTH - 3) * PG);
	fill_pages(q + 8 * PG, 8, 3);
	fill_pages(p, 4, 1);
	check_fill(q + 2 * PG, PG, 2);
	check_pages(q + 8 * PG, 8, 3);
	check_zero(p + 8 * PG, (LENGTH - 8) * PG);
	sync_all();
	check_file(fd, 2, mix(1, 2));
	expect(vmf_unmap(q, LENGTH * PG), 0);
	audit();
}
END_TEST

START_TEST(snapshots_of_it_are_right)
{
	struct vmf_range range = { p, LENGTH * PG };
	char bytes[VMF_PAGE_SIZE];
	vmf_snapshot_t snapshot;

	fill_pages(p, WRITTEN, 1);
	expect(vmf_snapshot_create(&range, 1, &snapshot), 0);
	fill_pages(p, LENGTH, 2);
	sync_all();
	for (size_t i = 0; i < LENGTH; i++) {
		expect(vmf_snapshot_read(snapshot, 0, i * PG, bytes, PG), 0);
		if (i < WRITTEN)
			check_fill(bytes, PG, mix(1, i));
		else
			check_zero(bytes, PG);
	}
	expect(vmf_snapshot_release(snapshot), 0);
	check_pages(p, LENGTH, 2);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("file holes");
	TCase *t = tcase_create("holes");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, one_fault_serves_many_pages_and_no_disk_is_asked);
	tcase_add_test(t, reading_ahead_passes_over_holes);
	tcase_add_test(t, what_nobody_wrote_stays_a_hole);
	tcase_add_test(t, what_others_wrote_beside_is_not_overwritten);
	tcase_add_test(t, a_single_byte_is_seen);
	tcase_add_test(t, what_was_written_meanwhile_is_no_hole);
	tcase_add_test(t, nor_after_many_writes);
	tcase_add_test(t, a_private_mapping_of_it_is_zeros_and_ones_own);
	tcase_add_test(t, snapshots_of_it_are_right);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return run_suite(s);
}
