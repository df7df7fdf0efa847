/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Files that fail, and reading ahead that is overtaken by events.
 *
 * The system calls of the pager fail on order (sys_inject), in the calling thread and in
 * io_uring alike; every test runs with both engines.  What is read ahead is held back in the thread that
 * delivers it, so each race with it happens at each run.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "kern/sys.h"
#include "race.h"
#include "suite.h"
#include "testpager.h"
#include "vm_readahead.h"

enum { FILE_PAGES = 64, KEY = 7 };

static int fd;
static char name[64];

/*
 * Failing calls
 */

static struct {
	_Atomic int kind;		/* enum sys_call */
	_Atomic int result;
	_Atomic unsigned skip, count;	/* calls to let through, and then to fail */
	_Atomic unsigned seen;
} plan;

static int
inject(enum sys_call kind)
{
	unsigned n;

	if ((int)kind != plan.kind)
		return 0;
	n = plan.seen++;
	return n >= plan.skip && n - plan.skip < plan.count ? plan.result : 0;
}

/* From now on calls number skip .. skip + count - 1 of this kind fail, or are cut short. */
static void
break_calls(enum sys_call kind, int result, unsigned skip, unsigned count)
{
	sys_inject = NULL;
	plan.kind = (int)kind;
	plan.result = result;
	plan.skip = skip;
	plan.count = count;
	plan.seen = 0;
	sys_inject = inject;
}

static void
heal(void)
{
	sys_inject = NULL;
}

/*
 * Holding back what was read
 */

static _Atomic bool hold;
static const char *_Atomic hold_place;
static _Atomic unsigned held;

static void
hold_here(const char *place)
{
	stop_here(place);
	if (hold && strcmp(place, hold_place) == 0) {
		held++;
		while (hold)
			usleep(200);
		held--;
	}
}

static void
hold_at(const char *place)
{
	hold_place = place;
	hold = true;
	probe_hook = hold_here;
}

static void
let_go(void)
{
	hold = false;
	while (held != 0 || vm_pager_transfers() != 0)
		usleep(200);
}

static void
wait_held(void)
{
	uint64_t until = now_ms() + SLOW_MS;

	while (held == 0) {
		check(now_ms() < until);
		usleep(200);
	}
}

static void
go_on(struct actor *a, void (*fn)(void *), struct act *x)
{
	go(a, fn, x, "nowhere");
	probe_hook = hold_here;
}

/*
 * The file
 */

static void
start_with(unsigned flags)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	config.flags = VMF_CONFIG_QUIET | flags;
	expect(vmf_init(&config), 0);
	touch_install();
}

static void
make_file(void)
{
	static char bytes[FILE_PAGES * VMF_PAGE_SIZE];

	snprintf(name, sizeof(name), "vmf-vnode-XXXXXX");
	fd = mkstemp(name);
	check(fd >= 0);
	fill_pages(bytes, FILE_PAGES, KEY);
	check(pwrite(fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes));
}

static void
setup_calls(void)
{
	start_with(VMF_CONFIG_IO_SYSCALLS);
	make_file();
}

static void
setup(void)
{
	start_with(0);
	make_file();
}

static void
teardown(void)
{
	heal();
	probe_hook = NULL;
	stop();
	close(fd);
	unlink(name);
}

static char *
map(unsigned kind)
{
	void *p = NULL;

	expect(vmf_map_file(VMF_TASK_DEFAULT, &p, FILE_PAGES * PG, kind, fd, 0, VMF_PROT_DEFAULT), 0);
	return p;
}

static bool
file_holds(size_t page, uint64_t key)
{
	char bytes[VMF_PAGE_SIZE], want[VMF_PAGE_SIZE];

	check(pread(fd, bytes, PG, (off_t)(page * PG)) == (ssize_t)PG);
	fill(want, PG, key);
	return memcmp(bytes, want, PG) == 0;
}

static bool
is_resident(const char *p)
{
	unsigned char bits;

	expect(vmf_page_info(p, PG, &bits), 0);
	return bits & VMF_PAGE_RESIDENT;
}

static void
will_need(char *p)
{
	expect(vmf_advise(p, FILE_PAGES * PG, VMF_ADVICE_WILLNEED), 0);
}

/*
 * Errors
 */

START_TEST(a_read_that_fails_is_a_signal_where_it_was_touched)
{
	char *p = map(VMF_MAP_SHARED), c;
	struct act x = { .p = p };
	struct actor a;

	expect(vmf_advise(p, FILE_PAGES * PG, VMF_ADVICE_RANDOM), 0);
	break_calls(SYS_CALL_PREADV, -EIO, 0, 1);
	expect_read(p, SIGBUS, BUS_ADRERR);
	check_pages(p, 2, KEY);		/* the next touch asks again */
	break_calls(SYS_CALL_PREADV, -EIO, 0, 1);
	expect(vmf_read(p + 5 * PG, &c, 1), -EIO);
	/* Another thread wants the page that is being read in vain: it asks for itself. */
	break_calls(SYS_CALL_PREADV, -EIO, 0, 1);
	x.p = p + 9 * PG;
	go(&a, do_touch_write, &x, "vm_fault: pager got");
	meet(&a);
	let(&a);
	ck_assert_int_eq(x.touch.signo, SIGBUS);
	check_fill(p + 9 * PG, PG, mix(KEY, 9));
}
END_TEST

START_TEST(a_read_that_was_cut_short_is_no_end_of_file)
{
	static const int cut[] = { 1, 100, 4096, 5000, 12288 };
	char *p = map(VMF_MAP_SHARED);

	for (size_t i = 0; i < nitems(cut); i++) {
		break_calls(SYS_CALL_PREADV, cut[i], 0, 3);
		check_pages(p, FILE_PAGES, KEY);
		heal();
		expect(vmf_advise(p, FILE_PAGES * PG, VMF_ADVICE_DONTNEED), 0);
		check(!is_resident(p + 7 * PG));
		break_calls(SYS_CALL_PREADV, cut[i], 0, 3);
		will_need(p);
		check_pages(p, FILE_PAGES, KEY);
		heal();
		expect(vmf_advise(p, FILE_PAGES * PG, VMF_ADVICE_DONTNEED), 0);
	}
}
END_TEST

START_TEST(a_write_that_fails_keeps_the_page)
{
	static const int errors[] = { -EIO, -ENOSPC, -EDQUOT };
	char *p = map(VMF_MAP_SHARED);

	for (size_t i = 0; i < nitems(errors); i++) {
		fill(p + PG, PG, 100 + i);
		fill(p + 9 * PG, PG, 200 + i);
		break_calls(SYS_CALL_PWRITEV, errors[i], 0, 1000);
		expect(vmf_sync(p, FILE_PAGES * PG, 0), errors[i]);
		check_fill(p + PG, PG, 100 + i);
		check_fill(p + 9 * PG, PG, 200 + i);
		heal();
		expect(vmf_sync(p, FILE_PAGES * PG, 0), 0);
		check_file(fd, 1, 100 + i);
		check_file(fd, 9, 200 + i);
	}
}
END_TEST

START_TEST(a_write_that_fails_does_not_stop_the_others)
{
	char *p = map(VMF_MAP_SHARED);

	fill(p + PG, PG, 1);
	fill(p + 9 * PG, PG, 9);
	break_calls(SYS_CALL_PWRITEV, -EIO, 0, 1);
	expect(vmf_sync(p, FILE_PAGES * PG, 0), -EIO);
	heal();
	/* Which of the two comes first is not said. */
	check(file_holds(1, 1) ? file_holds(9, mix(KEY, 9)) : file_holds(9, 9));
	expect(vmf_sync(p, FILE_PAGES * PG, 0), 0);
	check_file(fd, 1, 1);
	check_file(fd, 9, 9);
}
END_TEST

START_TEST(a_write_that_was_cut_short_goes_on)
{
	static const int cut[] = { 1, 100, 4096, 5000 };
	char *p = map(VMF_MAP_SHARED);

	for (size_t i = 0; i < nitems(cut); i++) {
		fill_pages(p, 8, 50 + i);
		break_calls(SYS_CALL_PWRITEV, cut[i], 0, 3);
		expect(vmf_sync(p, FILE_PAGES * PG, 0), 0);
		heal();
		for (size_t k = 0; k < 8; k++)
			check_file(fd, k, mix(50 + i, k));
	}
}
END_TEST

START_TEST(what_the_disk_did_not_take_is_written_again)
{
	char *p = map(VMF_MAP_SHARED);

	fill(p + 3 * PG, PG, 3);
	break_calls(SYS_CALL_FDATASYNC, -EIO, 0, 1);
	expect(vmf_sync(p, FILE_PAGES * PG, 0), -EIO);
	heal();
	/* The kernel forgot that its page was dirty: that is what we stand in for. */
	check(pwrite(fd, "lost", 4, 3 * PG) == 4);
	expect(vmf_sync(p, FILE_PAGES * PG, 0), 0);
	check_file(fd, 3, 3);
}
END_TEST

START_TEST(without_a_size_nothing_is_written)
{
	char *p = map(VMF_MAP_SHARED);

	fill(p, PG, 1);
	break_calls(SYS_CALL_STAT, -EIO, 0, 1000);
	expect(vmf_sync(p, PG, 0), -EIO);
	heal();
	check_file(fd, 0, mix(KEY, 0));
	expect(vmf_sync(p, PG, 0), 0);
	check_file(fd, 0, 1);
}
END_TEST

START_TEST(pages_that_cannot_be_written_outlive_their_mapping)
{
	char *p = map(VMF_MAP_SHARED);
	unsigned fds = count_fds();

	fill(p + 3 * PG, PG, 3);
	break_calls(SYS_CALL_PWRITEV, -ENOSPC, 0, 1000);
	expect(vmf_unmap(p, FILE_PAGES * PG), 0);
	check_file(fd, 3, mix(KEY, 3));
	p = map(VMF_MAP_SHARED);
	check_fill(p + 3 * PG, PG, 3);
	expect(vmf_unmap(p, FILE_PAGES * PG), 0);
	heal();
	p = map(VMF_MAP_SHARED);
	expect(vmf_unmap(p, FILE_PAGES * PG), 0);
	check_file(fd, 3, 3);
	check(count_fds() < fds);
}
END_TEST

START_TEST(the_end_tries_once_more)
{
	char *p = map(VMF_MAP_SHARED);

	fill(p + 3 * PG, PG, 3);
	break_calls(SYS_CALL_PWRITEV, -ENOSPC, 0, 1000);
	expect(vmf_unmap(p, FILE_PAGES * PG), 0);
	heal();
	stop();
	check_file(fd, 3, 3);
	start_with(0);
}
END_TEST

START_TEST(mapping_fails_without_a_trace)
{
	static const struct {
		enum sys_call kind;
		int error, want;
	} plans[] = {
		{ SYS_CALL_FCNTL, -EMFILE, -EBADF }, { SYS_CALL_STAT, -EIO, -EIO },
	};
	unsigned fds = count_fds();
	uint64_t objects = objects_alive();

	for (size_t i = 0; i < nitems(plans); i++) {
		void *p = name;

		break_calls(plans[i].kind, plans[i].error, 0, 1000);
		expect(vmf_map_file(1, &p, PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_DEFAULT), plans[i].want);
		heal();
		ck_assert_ptr_eq(p, name);
		ck_assert_uint_eq(count_fds(), fds);
		ck_assert_uint_eq(objects_alive(), objects);
	}
}
END_TEST

START_TEST(where_the_file_cannot_be_opened_again_a_duplicate_serves)
{
	char *p;

	break_calls(SYS_CALL_OPEN, -ENOENT, 0, 1000);
	p = map(VMF_MAP_SHARED);
	heal();
	fill(p, PG, 1);
	expect(vmf_sync(p, PG, 0), 0);
	check_file(fd, 0, 1);
}
END_TEST

/*
 * Each call of each kind fails once: an error or a retry, and nothing lost
 */

/* One step of the scenario: it either did what it should, or says so. */
static bool
attempt(int result)
{
	if (result != 0 && result != -EIO && result != -ENOSPC && result != -ENOMEM && result != -EBADF &&
	    result != -EACCES && result != -ENXIO)
		die("says %d", result);
	return result == 0;
}

static void
scenario(void)
{
	char bytes[VMF_PAGE_SIZE];
	void *p = NULL;

	if (!attempt(vmf_map_file(1, &p, FILE_PAGES * PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_DEFAULT)))
		return;
	for (size_t i = 0; i < FILE_PAGES; i++)
		if (attempt(vmf_read((char *)p + i * PG, bytes, PG)))
			check_fill(bytes, PG, mix(KEY, i));
	will_need(p);
	for (size_t i = 0; i < FILE_PAGES; i += 2) {
		fill(bytes, PG, mix(KEY + 1, i));
		while (!attempt(vmf_write((char *)p + i * PG, bytes, PG)))
			;
	}
	if (attempt(vmf_sync(p, FILE_PAGES * PG, 0)))
		for (size_t i = 0; i < FILE_PAGES; i++)
			check_file(fd, i, mix(i % 2 == 0 ? KEY + 1 : KEY, i));
	for (size_t i = 0; i < FILE_PAGES; i += 2) {
		fill(bytes, PG, mix(KEY, i));
		while (!attempt(vmf_write((char *)p + i * PG, bytes, PG)))
			;
	}
	expect(vmf_unmap(p, FILE_PAGES * PG), 0);
	heal();
	p = map(VMF_MAP_SHARED);
	check_pages(p, FILE_PAGES, KEY);
	expect(vmf_sync(p, FILE_PAGES * PG, 0), 0);
	expect(vmf_unmap(p, FILE_PAGES * PG), 0);
	for (size_t i = 0; i < FILE_PAGES; i++)
		check_file(fd, i, mix(KEY, i));
}

START_TEST(every_call_fails_in_turn)
{
	static const struct {
		enum sys_call kind;
		int result;
	} kinds[] = {
		{ SYS_CALL_PREADV, -EIO }, { SYS_CALL_PREADV, 1000 }, { SYS_CALL_PREADV, -EAGAIN },
		{ SYS_CALL_PREADV, -EINTR }, { SYS_CALL_PWRITEV, -EIO }, { SYS_CALL_PWRITEV, -ENOSPC },
		{ SYS_CALL_PWRITEV, 1000 }, { SYS_CALL_PWRITEV, -EAGAIN }, { SYS_CALL_PWRITEV, -EINTR },
		{ SYS_CALL_STAT, -EIO }, { SYS_CALL_FDATASYNC, -EIO }, { SYS_CALL_FDATASYNC, -ENOSPC },
		{ SYS_CALL_FCNTL, -EBADF }, { SYS_CALL_OPEN, -EACCES },
	};
	uint64_t objects = objects_alive(), used = frames_used();
	unsigned fds = count_fds(), step;

	for (size_t k = 0; k < nitems(kinds); k++)
		for (unsigned skip = 0;; skip += step) {
			break_calls(kinds[k].kind, kinds[k].result, skip, 1);
			scenario();
			ck_assert_uint_eq(objects_alive(), objects);
			ck_assert_uint_eq(frames_used(), used);
			ck_assert_uint_eq(count_fds(), fds);
			if (plan.seen <= skip)
				break;
			step = skip < 12 ? 1 : 7;
		}
}
END_TEST

/*
 * Reading ahead
 */

START_TEST(reading_ahead_grows_and_hits)
{
	char *p = map(VMF_MAP_SHARED);

	for (size_t i = 0; i < FILE_PAGES; i++)
		check_fill(p + i * PG, PG, mix(KEY, i));
	check(STAT(v_readahead) >= FILE_PAGES / 2);
	ck_assert_uint_eq(STAT(v_readahead), STAT(v_readahead_hits));
	check(STAT(v_vm_faults) < FILE_PAGES / 4);
}
END_TEST

START_TEST(random_readers_start_nothing)
{
	char *p = map(VMF_MAP_SHARED), *q = map(VMF_MAP_PRIVATE);

	for (size_t i = 0; i < FILE_PAGES; i++)
		(void)*(volatile char *)(p + (i * 37 % FILE_PAGES) * PG);
	ck_assert_uint_eq(STAT(v_readahead), 0);
	expect(vmf_advise(q, FILE_PAGES * PG, VMF_ADVICE_RANDOM), 0);
	expect(vmf_advise(p, FILE_PAGES * PG, VMF_ADVICE_DONTNEED), 0);
	for (size_t i = 0; i < FILE_PAGES; i++)
		(void)*(volatile char *)(q + i * PG);
	ck_assert_uint_eq(STAT(v_readahead), 0);
}
END_TEST

START_TEST(a_reader_waits_for_what_is_on_its_way)
{
	char *p = map(VMF_MAP_SHARED);
	struct act x = { .p = p + 3 * PG };
	struct actor a;

	hold_at("vm_readahead: filled");
	will_need(p);
	wait_held();
	go_on(&a, do_read, &x);
	check_waits(&a);
	let_go();
	finish(&a);
	check_pages(p, FILE_PAGES, KEY);
	ck_assert_uint_eq(STAT(v_pageins), FILE_PAGES);
}
END_TEST

START_TEST(a_writer_waits_too_and_wins)
{
	char *p = map(VMF_MAP_SHARED);
	struct act x = { .p = p + 3 * PG, .byte = 77 };
	struct actor a;

	hold_at("vm_readahead: filled");
	will_need(p);
	wait_held();
	go_on(&a, do_write, &x);
	check_waits(&a);
	let_go();
	finish(&a);
	check(p[3 * PG] == 77);
	check_fill(p + 4 * PG, PG, mix(KEY, 4));
}
END_TEST

static void
do_unmap_file(void *arg)
{
	struct act *x = arg;

	x->result = vmf_unmap(x->p, FILE_PAGES * PG);
}

START_TEST(unmapping_waits_for_what_is_on_its_way)
{
	uint64_t used = frames_used();
	char *p = map(VMF_MAP_SHARED);
	unsigned fds = count_fds();
	struct act x = { .p = p };
	struct actor a;

	hold_at("vm_readahead: filled");
	will_need(p);
	wait_held();
	go_on(&a, do_unmap_file, &x);
	check_waits(&a);
	let_go();
	finish(&a);
	ck_assert_int_eq(x.result, 0);
	ck_assert_uint_eq(frames_used(), used);
	check(count_fds() < fds);
}
END_TEST

START_TEST(unmapping_a_part_leaves_what_is_on_its_way)
{
	char *p = map(VMF_MAP_SHARED), *q;

	hold_at("vm_readahead: filled");
	will_need(p);
	wait_held();
	expect(vmf_unmap(p + 8 * PG, 8 * PG), 0);
	q = map(VMF_MAP_SHARED);
	let_go();
	check_pages(q, FILE_PAGES, KEY);
}
END_TEST

START_TEST(dropping_passes_by_what_is_on_its_way)
{
	char *p = map(VMF_MAP_SHARED);

	hold_at("vm_readahead: filled");
	will_need(p);
	wait_held();
	expect(vmf_advise(p, FILE_PAGES * PG, VMF_ADVICE_DONTNEED), 0);
	expect(vmf_advise(p, FILE_PAGES * PG, VMF_ADVICE_COLD), 0);
	expect(vmf_sync(p, FILE_PAGES * PG, 0), 0);
	let_go();
	check_pages(p, FILE_PAGES, KEY);
}
END_TEST

static void
cut_file(void)
{
	check(ftruncate(fd, 5 * PG + 10) == 0);
}

START_TEST(a_file_that_is_cut_before_it_is_read_ends_there)
{
	char *p = map(VMF_MAP_SHARED), bytes[VMF_PAGE_SIZE];

	at("vm_readahead: start", 1, cut_file);
	will_need(p);
	let_go();
	check_pages(p, 5, KEY);
	fill(bytes, PG, mix(KEY, 5));
	check(memcmp(p + 5 * PG, bytes, 10) == 0);
	check_zero(p + 5 * PG + 10, PG - 10);
	expect_read(p + 6 * PG, SIGBUS, BUS_ADRERR);
	ck_assert_uint_eq(frames_used(), 6);
}
END_TEST

START_TEST(a_file_that_is_cut_after_it_was_read_ends_there_too)
{
	char *p = map(VMF_MAP_SHARED);

	hold_at("vm_readahead: filled");
	will_need(p);
	wait_held();
	cut_file();
	let_go();
	expect_read(p + 6 * PG, SIGBUS, BUS_ADRERR);
	expect_write(p + 60 * PG, SIGBUS, BUS_ADRERR);
	check_pages(p, 5, KEY);
	expect(vmf_sync(p, FILE_PAGES * PG, 0), 0);
	ck_assert_uint_eq(frames_used(), 6);
}
END_TEST

START_TEST(reading_ahead_that_fails_harms_nobody)
{
	uint64_t used = frames_used();
	char *p = map(VMF_MAP_SHARED);

	break_calls(SYS_CALL_PREADV, -EIO, 0, 1000);
	will_need(p);
	let_go();
	ck_assert_uint_eq(frames_used(), used);
	expect_read(p + PG, SIGBUS, BUS_ADRERR);
	heal();
	check_pages(p, FILE_PAGES, KEY);
}
END_TEST

START_TEST(a_private_mapping_reads_ahead_in_the_file)
{
	char *p = map(VMF_MAP_PRIVATE), *q = map(VMF_MAP_SHARED);

	hold_at("vm_readahead: filled");
	will_need(p);
	wait_held();
	let_go();
	ck_assert_uint_eq(frames_used(), FILE_PAGES);
	check_pages(q, FILE_PAGES, KEY);
	ck_assert_uint_eq(frames_used(), FILE_PAGES);
	check_pages(p, FILE_PAGES, KEY);
}
END_TEST

/* The same page is paged in by a fault between the plan and its start. */
static char *_Atomic touched;

static void
touch_all(void)
{
	for (size_t i = 0; i < FILE_PAGES; i++) {
		char c;

		expect(vmf_read(touched + i * PG, &c, 1), 0);
	}
}

START_TEST(what_came_in_meanwhile_is_not_read_again)
{
	char *p = map(VMF_MAP_SHARED);

	touched = p;
	at("vm_readahead: run", 1, touch_all);
	for (size_t i = 0; i < FILE_PAGES; i++)
		(void)*(volatile char *)(p + i * PG);
	let_go();
	check(at_passed() > 0);
	ck_assert_uint_eq(STAT(v_pageins), FILE_PAGES);
	check_pages(p, FILE_PAGES, KEY);
}
END_TEST

/*
 * Behind
 */

enum { LONG = 2048, KEPT = 768 };	/* pages; KEPT: that stay behind who said that he is sequential, at most */

static char *
map_long(void)
{
	void *p = NULL;

	for (size_t i = 0; i < LONG; i++) {
		char bytes[VMF_PAGE_SIZE];

		fill(bytes, PG, mix(KEY, i));
		check(pwrite(fd, bytes, PG, (off_t)(i * PG)) == (ssize_t)PG);
	}
	expect(vmf_map_file(VMF_TASK_DEFAULT, &p, LONG * PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_DEFAULT), 0);
	return p;
}

START_TEST(behind_a_sequential_reader_clean_pages_go)
{
	char *p = map_long();

	fill(p + 100 * PG, PG, 1);
	expect(vmf_advise(p, LONG * PG, VMF_ADVICE_SEQUENTIAL), 0);
	for (size_t i = 0; i < LONG; i++)
		check_fill(p + i * PG, PG, i == 100 ? 1 : mix(KEY, i));
	check(STAT(v_drop_behind) > LONG / 2);
	check(frames_used() < LONG / 2);
	check(is_resident(p + 100 * PG));
	expect(vmf_sync(p, LONG * PG, 0), 0);
	check_file(fd, 100, 1);
	for (size_t i = 0; i < LONG; i++)
		check_fill(p + i * PG, PG, i == 100 ? 1 : mix(KEY, i));
}
END_TEST

/*
 * Who says nothing and reads more than there is memory for: the same, further behind; who turns
 * back is not harmed.
 */
START_TEST(behind_a_long_reader_pages_go_later)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	char *p;

	expect(vmf_fini(), 0);
	config.memory = LONG / 2 * PG;
	config.flags = VMF_CONFIG_QUIET;
	expect(vmf_init(&config), 0);
	p = map_long();
	for (size_t round = 0; round < 2; round++)
		for (size_t i = 0; i < LONG; i++) {
			check_fill(p + i * PG, PG, mix(KEY, i));
			if (i % 16 == 0 && i >= 32)
				check_fill(p + (i - 24) * PG, PG, mix(KEY, i - 24));
		}
	check(STAT(v_drop_behind) > 0);
	ck_assert_uint_le(frames_used(), LONG / 2);
}
END_TEST

START_TEST(behind_a_reader_nothing_goes_that_others_map)
{
	char *p = map_long(), *q = map(VMF_MAP_PRIVATE);

	expect(vmf_advise(p, LONG * PG, VMF_ADVICE_SEQUENTIAL), 0);
	check_pages(p, LONG, KEY);
	ck_assert_uint_eq(STAT(v_drop_behind), 0);
	check_pages(q, FILE_PAGES, KEY);
	expect(vmf_unmap(q, FILE_PAGES * PG), 0);
}
END_TEST

START_TEST(behind_a_sequential_writer_pages_are_written)
{
	char *p = map_long();
	size_t i;

	for (i = 0; i < LONG; i++)
		fill(p + i * PG, PG, mix(8, i));
	let_go();
	check(STAT(v_write_behind) > 0);
	for (i = 0; i < 128; i++)
		check_file(fd, i, mix(8, i));
	expect(vmf_sync(p, LONG * PG, 0), 0);
	for (i = 0; i < LONG; i++)
		check_file(fd, i, mix(8, i));
}
END_TEST

static pthread_t washer;

static void
note_washer(void)
{
	washer = pthread_self();
}

/*
 * Behind one who said so they go as well, as soon as they are written; to the page cache he copies
 * them himself.
 */
START_TEST(behind_an_advised_writer_pages_are_written_and_go)
{
	char *p = map_long();

	expect(vmf_advise(p, LONG * PG, VMF_ADVICE_SEQUENTIAL), 0);
	at("vm_clean: washed", 1, note_washer);
	for (size_t i = 0; i < LONG; i++)
		fill(p + i * PG, PG, mix(8, i));
	check(pthread_equal(washer, pthread_self()));
	/* Of his window, and the last ones that he was in, some stay. */
	ck_assert_uint_ge(STAT(v_drop_behind), LONG - KEPT);
	ck_assert_uint_le(frames_used(), KEPT);
	for (size_t i = 0; i < LONG - KEPT; i++)
		check_file(fd, i, mix(8, i));
	expect(vmf_sync(p, LONG * PG, 0), 0);
	for (size_t i = 0; i < LONG; i++)
		check_file(fd, i, mix(8, i));
	check_pages(p, LONG, 8);
}
END_TEST

int
main(void)
{
	const TTest *const tests[] = {
		a_read_that_fails_is_a_signal_where_it_was_touched,
		a_read_that_was_cut_short_is_no_end_of_file, a_write_that_fails_keeps_the_page,
		a_write_that_fails_does_not_stop_the_others, a_write_that_was_cut_short_goes_on,
		what_the_disk_did_not_take_is_written_again, without_a_size_nothing_is_written,
		pages_that_cannot_be_written_outlive_their_mapping, the_end_tries_once_more,
		mapping_fails_without_a_trace, where_the_file_cannot_be_opened_again_a_duplicate_serves,
		every_call_fails_in_turn, reading_ahead_grows_and_hits, random_readers_start_nothing,
		a_reader_waits_for_what_is_on_its_way, a_writer_waits_too_and_wins,
		unmapping_waits_for_what_is_on_its_way, unmapping_a_part_leaves_what_is_on_its_way,
		dropping_passes_by_what_is_on_its_way, a_file_that_is_cut_before_it_is_read_ends_there,
		a_file_that_is_cut_after_it_was_read_ends_there_too, reading_ahead_that_fails_harms_nobody,
		a_private_mapping_reads_ahead_in_the_file, what_came_in_meanwhile_is_not_read_again,
		behind_a_sequential_reader_clean_pages_go, behind_a_long_reader_pages_go_later,
		behind_a_reader_nothing_goes_that_others_map,
		behind_a_sequential_writer_pages_are_written,
		behind_an_advised_writer_pages_are_written_and_go,
	};
	Suite *s = suite_create("vnode");
	TCase *t = tcase_create("as the kernel allows"), *u = tcase_create("system calls");

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_checked_fixture(u, setup_calls, teardown);
	for (size_t i = 0; i < nitems(tests); i++) {
		tcase_add_test(t, tests[i]);
		tcase_add_test(u, tests[i]);
	}
	tcase_set_timeout(t, 60);
	tcase_set_timeout(u, 60);
	suite_add_tcase(s, t);
	suite_add_tcase(s, u);
	return run_suite(s);
}
