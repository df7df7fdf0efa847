/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * tour: what the library does, in one small program, each step checked.
 *
 *	1	more memory than there are frames: it goes to swap and comes back
 *	2	threads write while snapshots are taken; each one is of an instant
 *	3	a writable view of a snapshot, and the pages that differ
 *	4	rolling back
 *	5	pages from a function, which a thread of the library's calls
 *	6	a file, written through memory
 *	7	a system call into managed memory: held for the time of it
 *
 * What it prints is the same each time, so that it can be run under debuggers and sanitizers and compared
 * (tests/tools.py does).
 */

#include <err.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vmfault.h>

#define MB	((size_t)1 << 20)
#define FRAMES	(4 * MB)
#define DATA	(12 * MB)
#define PAGE	((size_t)VMF_PAGE_SIZE)
#define THREADS	2
#define PAIRS	64		/* pages of each thread's: it moves amounts from one to another */
#define AMOUNT	1000u

static void
check(int error, const char *what)
{
	if (error != 0)
		errx(1, "%s: %s", what, strerror(-error));
}

static void *
allocate(size_t size)
{
	void *p;

	check(vmf_allocate(VMF_TASK_DEFAULT, &p, size, 0), "vmf_allocate");
	return p;
}

/* FNV-1a. */
static uint64_t
digest(const void *data, size_t size)
{
	const unsigned char *p = data;
	uint64_t h = UINT64_C(14695981039346656037);

	while (size-- > 0)
		h = (h ^ *p++) * UINT64_C(1099511628211);
	return h;
}

static void
swapping(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };
	uint32_t *data = allocate(DATA), x = 1;

	for (size_t i = 0; i < DATA / sizeof(*data); i++)
		data[i] = x = x * 1664525 + 1013904223;
	printf("more than memory: %016" PRIx64 "\n", digest(data, DATA));
	check(vmf_statistics(&stats), "vmf_statistics");
	printf("  was paged: %s\n", stats.v_pageouts > 0 && stats.v_pageins > 0 ? "yes" : "no");
	check(vmf_unmap(data, DATA), "vmf_unmap");
}

/*
 * Each thread moves amounts between its own words, one on each page, a load and a store at a time.  Not more than
 * one is ever on its way: so every snapshot has the same sum, or one less for each thread.
 */
struct account {
	char *pages;
	_Atomic int *stop;
};

static _Atomic uint32_t *
word(char *pages, size_t i)
{
	return (_Atomic uint32_t *)(void *)(pages + i % PAIRS * PAGE);
}

static void *
move_amounts(void *arg)
{
	struct account *a = arg;

	for (size_t i = 0; !atomic_load(a->stop); i++) {
		atomic_fetch_sub(word(a->pages, i * 7), 1);
		atomic_fetch_add(word(a->pages, i * 13 + 5), 1);
	}
	return NULL;
}

static void
snapshots(void)
{
	size_t size = PAIRS * PAGE;
	char *data = allocate(THREADS * size);
	struct vmf_range range = { data, THREADS * size };
	struct account account[THREADS];
	pthread_t thread[THREADS];
	_Atomic int stop = 0;
	int wrong = 0;

	for (size_t t = 0; t < THREADS; t++) {
		account[t] = (struct account){ data + t * size, &stop };
		for (size_t i = 0; i < PAIRS; i++)
			atomic_store(word(account[t].pages, i), AMOUNT);
	}
	for (size_t t = 0; t < THREADS; t++)
		check(-pthread_create(&thread[t], NULL, move_amounts, &account[t]), "pthread_create");
	for (int n = 0; n < 20; n++) {
		vmf_snapshot_t snap;

		check(vmf_snapshot_create(&range, 1, &snap), "vmf_snapshot_create");
		for (size_t t = 0; t < THREADS; t++) {
			uint32_t sum = 0, v;

			for (size_t i = 0; i < PAIRS; i++, sum += v)
				check(vmf_snapshot_read(snap, 0, t * size + i * PAGE, &v, sizeof(v)), "vmf_snapshot_read");
			wrong += sum != PAIRS * AMOUNT && sum != PAIRS * AMOUNT - 1;
		}
		check(vmf_snapshot_release(snap), "vmf_snapshot_release");
	}
	atomic_store(&stop, 1);
	for (size_t t = 0; t < THREADS; t++)
		check(-pthread_join(thread[t], NULL), "pthread_join");
	printf("snapshots under writers: %d of 20 wrong\n", wrong);
	check(vmf_unmap(data, THREADS * size), "vmf_unmap");
}

static void
views(void)
{
	char *data = allocate(MB);
	struct vmf_range range = { data, MB };
	struct vmf_extent extent[8];
	size_t cursor = 0;
	vmf_snapshot_t snap;
	void *p;
	char *view;

	memset(data, 'a', MB);
	check(vmf_snapshot_create(&range, 1, &snap), "vmf_snapshot_create");
	memset(data + 5 * PAGE, 'b', 2 * PAGE);
	check(vmf_snapshot_map(snap, 0, 0, MB, VMF_TASK_DEFAULT, &p, 0, VMF_PROT_DEFAULT), "vmf_snapshot_map");
	view = p;
	view[5 * PAGE + 1] = 'c';
	printf("live %.2s, view %.2s\n", data + 5 * PAGE, view + 5 * PAGE);
	for (int n; (n = vmf_snapshot_diff(snap, 0, 0, &cursor, extent, 8)) > 0;)
		for (int i = 0; i < n; i++)
			printf("  differs: %zu bytes at %zu\n", extent[i].size, extent[i].offset);
	check(vmf_snapshot_rollback(snap), "vmf_snapshot_rollback");
	printf("rolled back: live %.2s, view %.2s\n", data + 5 * PAGE, view + 5 * PAGE);
	check(vmf_unmap(view, MB), "vmf_unmap");
	check(vmf_snapshot_release(snap), "vmf_snapshot_release");
	check(vmf_unmap(data, MB), "vmf_unmap");
}

/* Squares: each word is the square of its number.  On a thread of the library's. */
static int64_t
get_squares(void *cookie, uint64_t offset, void *buf, size_t len)
{
	uint32_t *to = buf, i = (uint32_t)(offset / sizeof(*to));

	atomic_fetch_add((_Atomic int *)cookie, 1);
	for (size_t n = 0; n < len / sizeof(*to); n++, i++)
		to[n] = i * i;
	return (int64_t)len;
}

static void
pagers(void)
{
	static _Atomic int calls;
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = get_squares };
	const uint32_t *square;
	vmf_pager_t pager;
	void *p;

	check(vmf_pager_create(&ops, &calls, MB, 0, &pager), "vmf_pager_create");
	check(vmf_map(VMF_TASK_DEFAULT, &p, MB, VMF_MAP_SHARED, pager, 0, VMF_PROT_READ), "vmf_map");
	square = p;
	printf("squares: %" PRIu32 " %" PRIu32 " %" PRIu32 "\n", square[7], square[1000], square[60000]);
	printf("  was asked: %s\n", atomic_load(&calls) > 0 ? "yes" : "no");
	check(vmf_unmap(p, MB), "vmf_unmap");
	check(vmf_pager_release(pager), "vmf_pager_release");
}

static void
files(void)
{
	FILE *file = tmpfile();
	char line[16] = "", *data;
	void *p;

	if (file == NULL || ftruncate(fileno(file), (off_t)MB) != 0)
		err(1, "tmpfile");
	check(vmf_map_file(VMF_TASK_DEFAULT, &p, MB, VMF_MAP_SHARED, fileno(file), 0, VMF_PROT_DEFAULT), "vmf_map_file");
	data = p;
	memcpy(data + MB / 2, "by memory", 10);
	check(vmf_sync(data, MB, 0), "vmf_sync");
	if (pread(fileno(file), line, 10, (off_t)(MB / 2)) != 10)
		err(1, "pread");
	printf("in the file: %s\n", line);
	check(vmf_unmap(data, MB), "vmf_unmap");
	data = allocate(MB);
	/* Without this the kernel would find pages missing, and say EFAULT. */
	check(vmf_fault_in(data, MB, VMF_PROT_WRITE), "vmf_fault_in");
	if (pread(fileno(file), data, MB, 0) != (ssize_t)MB)
		err(1, "pread");
	check(vmf_fault_release(data, MB), "vmf_fault_release");
	printf("by a system call: %s\n", data + MB / 2);
	check(vmf_unmap(data, MB), "vmf_unmap");
	(void)fclose(file);
}

int
main(void)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	config.memory = FRAMES;
	config.swap_size = 8 * DATA;
	check(vmf_init(&config), "vmf_init");
	swapping();
	snapshots();
	views();
	pagers();
	files();
	check(vmf_fini(), "vmf_fini");
	puts("done");
	return 0;
}
