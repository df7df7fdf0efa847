/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What it costs to have memory in files and in swap, against the system calls that move the same bytes.
 *
 *	vmfault					kernel
 *	read a mapped file in order		pread(), 128 KB at a time
 *	write a mapped file, vmf_sync()		pwrite(), 128 KB at a time, fdatasync()
 *	read a mapped file at random		mmap(), MADV_RANDOM
 *	memory that goes to swap, comes back	pwrite(), pread(), 256 KB at a time
 *	memory that is compressed		-
 *
 * The budget is an eighth of the size, so everything passes through the pagers.  Cold: the kernel's page
 * cache has none of the file; warm: all of it; direct: O_DIRECT on both sides.  pread() brings all bytes to
 * the reader's cache, and a mapping those that are touched: to be fair, both look at two words
 * of each page while the clock runs, and at all of them in the warm-up round.
 *
 * Sequential passes are measured with the advice that says so and, "unadvised", without, against
 * the same system calls.
 *
 * Compression has a side only.  The ratio is in its last rows; a page in t microseconds is 4.096 / t
 * GB/s, on one core, faults and all.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "vmfault.h"

#define WORDS		(BENCH_PAGE / sizeof(uint64_t))
#define BUFFER		((size_t)128 << 10)	/* of pread() and pwrite() */
#define CLUSTER		((size_t)256 << 10)	/* of swap */
#define SHARE		8			/* the budget, of the size */
#define RANDOM_PAGES	16384
#define RANDOM_THREADS	16

/* What a pair of measurements is about: the state of the page cache, and more. */
enum state { COLD, WARM, DIRECT };
#define STATE(what)	((enum state)((what) & 3))
#define UNADVISED	4u
#define THREADS		8u

enum contents { NUMBERS, TEXT, NOISE };

static const char *const state_name[] = { "cold", "warm", "direct" };

static int file = -1, scratch = -1;	/* without names; both sides use them */
static uint64_t pages;
static bool full;

/* A measuring function begins. */
static enum state
set_up(uint64_t size, bool all, unsigned what)
{
	pages = size / BENCH_PAGE;
	full = all;
	return (STATE(what));
}

static const char *
unadvised(unsigned what)
{
	return ((what & UNADVISED) ? ", unadvised" : "");
}

/* What libc's calls say. */
static int64_t
sys(int64_t r)
{
	return (r < 0 ? -errno : r);
}

/*
 * Contents
 */

static uint64_t
base(uint64_t page)
{
	page = (page + 1) * UINT64_C(0xbf58476d1ce4e5b9);
	return (page ^ page >> 31);
}

static uint64_t
word(uint64_t page, size_t i, enum contents c)
{
	if (c == TEXT)		/* eight letters, or digits, of a few */
		return (base(base(page) + i / 4) % 1000 * UINT64_C(0x101) ^ UINT64_C(0x3030303030303030));
	return (c == NOISE ? base(base(page) + i) : base(page) * (2 * i + 1));
}

static void
write_page(void *mem, uint64_t page, enum contents c)
{
	volatile uint64_t *w = mem;

	for (size_t i = 0; i < WORDS; i++)
		w[i] = word(page, i, c);
}

static void
check_page(const void *mem, uint64_t page, enum contents c)
{
	const volatile uint64_t *w = mem;
	bool ok = w[0] == word(page, 0, c) && w[WORDS - 1] == word(page, WORDS - 1, c);

	for (size_t i = 1; full && ok && i < WORDS - 1; i++)
		ok = w[i] == word(page, i, c);
	if (!ok)
		bench_die("page %llu has a wrong byte", (unsigned long long)page);
}

/*
 * Files
 */

static int
temporary(void)
{
	const char *dir = getenv("TMPDIR");
	char name[4096];
	int fd;

	snprintf(name, sizeof(name), "%s/bench_pager.XXXXXX", dir != NULL ? dir : "/var/tmp");
	fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0 || unlink(name) != 0) {
		fprintf(stderr, "bench_pager: %s: %s\n", name, strerror(errno));
		exit(1);
	}
	return (fd);
}

/* The same file, opened another way. */
static int
reopen(int fd, int flags)
{
	char name[64];

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	return (open(name, flags | O_CLOEXEC));
}

static void *
buffer(size_t size)
{
	void *p;

	if (posix_memalign(&p, BENCH_PAGE, size) != 0)
		bench_die("out of memory");
	memset(p, 0, size);
	return (p);
}

static void
transfer(int fd, void *buf, size_t len, uint64_t at, bool write_it)
{
	ssize_t n = write_it ? pwrite(fd, buf, len, (off_t)at) : pread(fd, buf, len, (off_t)at);

	if (n != (ssize_t)len)
		bench_die("%s: %s", write_it ? "pwrite" : "pread", n < 0 ? strerror(errno) : "short");
}

static void
read_all(int fd, size_t step, enum contents c)
{
	char *buf = buffer(step);

	for (uint64_t at = 0; at < pages * BENCH_PAGE; at += step) {
		transfer(fd, buf, step, at, false);
		for (size_t i = 0; i < step; i += BENCH_PAGE)
			check_page(buf + i, (at + i) / BENCH_PAGE, c);
	}
	free(buf);
}

static void
write_all(int fd, size_t step, uint64_t n, enum contents c)
{
	char *buf = buffer(step);

	for (uint64_t at = 0; at < n * BENCH_PAGE; at += step) {
		for (size_t i = 0; i < step; i += BENCH_PAGE)
			write_page(buf + i, (at + i) / BENCH_PAGE, c);
		transfer(fd, buf, step, at, true);
	}
	free(buf);
}

/* The file is there, on disk, and in the page cache or not. */
static void
prepare(enum state state)
{
	must(sys(posix_fadvise(file, 0, 0, POSIX_FADV_RANDOM)), "posix_fadvise");
	if (lseek(file, 0, SEEK_END) < (off_t)(pages * BENCH_PAGE))
		write_all(file, BUFFER, pages, NUMBERS);
	must(sys(posix_fadvise(file, 0, 0, POSIX_FADV_NORMAL)), "posix_fadvise");
	must(sys(fdatasync(file)), "fdatasync");
	if (state == WARM) {
		bool was_full = full;

		full = false;
		read_all(file, BUFFER, NUMBERS);
		full = was_full;
	} else {
		must(-posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
	}
}

/*
 * vmfault
 */

static uint64_t
faults(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	must(vmf_statistics(&s), "vmf_statistics");
	return (s.v_vm_faults);
}

static void
start(uint64_t swap, uint64_t compress, uint32_t flags)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	config.memory = pages * BENCH_PAGE / SHARE;
	config.swap_size = swap;
	config.compress_size = compress;
	config.flags = flags;
	config.address_space = pages * BENCH_PAGE + ((uint64_t)16 << 20);
	must_fit(vmf_init(&config), "vmf_init");
}

static char *
map(int fd, enum state state)
{
	void *p = NULL;

	must(vmf_map_file(VMF_TASK_DEFAULT, &p, pages * BENCH_PAGE,
	    VMF_MAP_SHARED | (state == DIRECT ? VMF_MAP_DIRECT : 0), fd, 0, VMF_PROT_DEFAULT), "vmf_map_file");
	return (p);
}

static char *
anonymous(uint64_t n)
{
	void *p = NULL;

	must(vmf_allocate(VMF_TASK_DEFAULT, &p, n * BENCH_PAGE, 0), "vmf_allocate");
	return (p);
}

static void __attribute__((__format__(__printf__, 4, 5)))
row(uint64_t n, double began, uint64_t nfaults, const char *format, ...)
{
	double us = (bench_now() - began) / (double)n;
	char what[64];
	va_list ap;

	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	bench_faults(what, n, us, nfaults);
}

static void
vmfault_read(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	double began;
	char *p;

	prepare(state);
	start(0, 0, 0);
	p = map(file, state);
	if (!(what & UNADVISED))
		must(vmf_advise(p, pages * BENCH_PAGE, VMF_ADVICE_SEQUENTIAL), "vmf_advise");
	began = bench_now();
	for (uint64_t i = 0; i < pages; i++)
		check_page(p + i * BENCH_PAGE, i, NUMBERS);
	row(pages, began, faults(), "sequential read, %s%s", state_name[state], unadvised(what));
	must(vmf_fini(), "vmf_fini");
}

static void
vmfault_write(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	double began;
	char *p;

	must(sys(ftruncate(scratch, 0)), "ftruncate");
	must(sys(ftruncate(scratch, (off_t)(pages * BENCH_PAGE))), "ftruncate");
	must(-posix_fadvise(scratch, 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
	start(0, 0, 0);
	p = map(scratch, state);
	if (!(what & UNADVISED))
		must(vmf_advise(p, pages * BENCH_PAGE, VMF_ADVICE_SEQUENTIAL), "vmf_advise");
	began = bench_now();
	for (uint64_t i = 0; i < pages; i++)
		write_page(p + i * BENCH_PAGE, i, TEXT);
	must(vmf_sync(p, pages * BENCH_PAGE, 0), "vmf_sync");
	row(pages, began, faults(), "sequential write-back, %s%s", state_name[state], unadvised(what));
	must(vmf_fini(), "vmf_fini");
	read_all(scratch, BUFFER, TEXT);
}

static void
vmfault_swap(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	uint64_t n = pages / 2;
	double began;
	char *p;

	start(2 * pages * BENCH_PAGE, 0, state == DIRECT ? VMF_CONFIG_SWAP_DIRECT : 0);
	p = anonymous(n);
	began = bench_now();
	for (uint64_t i = 0; i < n; i++)
		write_page(p + i * BENCH_PAGE, i, NOISE);
	row(n, began, faults(), "swap out, %s", state_name[state]);
	/* Once more, so that all of it is in swap and nothing has to leave for what comes back. */
	for (unsigned pass = 0; pass < 2; pass++) {
		uint64_t before = faults();

		began = bench_now();
		for (uint64_t i = 0; i < n; i++)
			check_page(p + i * BENCH_PAGE, i, NOISE);
		if (pass == 1)
			row(n, began, faults() - before, "swap in, %s", state_name[state]);
	}
	must(vmf_fini(), "vmf_fini");
}

static void
vmfault_compress(uint64_t size, bool warmup, unsigned what)
{
	struct vmf_stats s = { .size = sizeof(s) };
	uint64_t n = size / BENCH_PAGE / 2;
	double began;
	char *p;

	(void)set_up(size, warmup, what);
	start(0, pages * BENCH_PAGE, 0);
	p = anonymous(n);
	began = bench_now();
	for (uint64_t i = 0; i < n; i++)
		write_page(p + i * BENCH_PAGE, i, TEXT);
	row(n, began, faults(), "compress, text");
	for (unsigned pass = 0; pass < 2; pass++) {
		began = bench_now();
		for (uint64_t i = 0; i < n; i++)
			check_page(p + i * BENCH_PAGE, i, TEXT);
		if (pass == 1)
			row(n, began, 0, "decompress, text");
	}
	must(vmf_statistics(&s), "vmf_statistics");
	bench_bytes("compressed pages, text", s.compress_used, s.compress_pages * BENCH_PAGE);
	bench_bytes("... and the memory they take", s.compress_resident, s.compress_pages * BENCH_PAGE);
	must(vmf_fini(), "vmf_fini");
}

/*
 * Random reads, of both sides: a mapping is a mapping
 */

struct reader {
	pthread_t thread;
	const char *p;
	uint64_t from, to;
};

static void *
read_some(void *arg)
{
	struct reader *r = arg;

	for (uint64_t i = r->from; i < r->to; i++) {
		uint64_t page = bench_page(RANDOM, i, pages);

		check_page(r->p + page * BENCH_PAGE, page, NUMBERS);
	}
	return (NULL);
}

static void
random_reads(const char *p, unsigned threads, enum state state, uint64_t (*count)(void))
{
	struct reader r[RANDOM_THREADS];
	uint64_t n = pages < RANDOM_PAGES ? pages : RANDOM_PAGES;
	double began = bench_now();

	for (unsigned i = 0; i < threads; i++) {
		r[i] = (struct reader){ .p = p, .from = n * i / threads, .to = n * (i + 1) / threads };
		must(-pthread_create(&r[i].thread, NULL, read_some, &r[i]), "pthread_create");
	}
	for (unsigned i = 0; i < threads; i++)
		must(-pthread_join(r[i].thread, NULL), "pthread_join");
	row(n, began, count != NULL ? count() : 0, "random read, %s, %u thread%s", state_name[state], threads,
	    threads > 1 ? "s" : "");
}

static unsigned
threads_of(unsigned what)
{
	return ((what & THREADS) ? RANDOM_THREADS : 1);
}

static void
vmfault_random(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	char *p;

	prepare(state);
	start(0, 0, 0);
	p = map(file, state);
	must(vmf_advise(p, pages * BENCH_PAGE, VMF_ADVICE_RANDOM), "vmf_advise");
	random_reads(p, threads_of(what), state, faults);
	must(vmf_fini(), "vmf_fini");
}

static void
kernel_random(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	void *p;

	prepare(state);
	p = mmap(NULL, pages * BENCH_PAGE, PROT_READ, MAP_SHARED, file, 0);
	if (p == MAP_FAILED)
		bench_skip("mmap: %s", strerror(errno));
	must(sys(madvise(p, pages * BENCH_PAGE, MADV_RANDOM)), "madvise");
	random_reads(p, threads_of(what), state, NULL);
	munmap(p, pages * BENCH_PAGE);
}

/*
 * The kernel
 */

static void
kernel_read(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	int fd = reopen(file, O_RDONLY | (state == DIRECT ? O_DIRECT : 0));
	double began;

	if (fd < 0)
		bench_skip("O_DIRECT: %s", strerror(errno));
	prepare(state);
	began = bench_now();
	read_all(fd, BUFFER, NUMBERS);
	row(pages, began, 0, "sequential read, %s%s", state_name[state], unadvised(what));
	close(fd);
}

static void
kernel_write(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	int fd = reopen(scratch, O_WRONLY | (state == DIRECT ? O_DIRECT : 0));
	double began;

	if (fd < 0)
		bench_skip("O_DIRECT: %s", strerror(errno));
	must(sys(ftruncate(scratch, 0)), "ftruncate");
	must(sys(ftruncate(scratch, (off_t)(pages * BENCH_PAGE))), "ftruncate");
	must(-posix_fadvise(scratch, 0, 0, POSIX_FADV_DONTNEED), "posix_fadvise");
	began = bench_now();
	write_all(fd, BUFFER, pages, TEXT);
	must(sys(fdatasync(fd)), "fdatasync");
	row(pages, began, 0, "sequential write-back, %s%s", state_name[state], unadvised(what));
	close(fd);
	read_all(scratch, BUFFER, TEXT);
}

static void
kernel_swap(uint64_t size, bool warmup, unsigned what)
{
	enum state state = set_up(size, warmup, what);
	uint64_t n = pages / 2, all = pages;
	int swap = temporary(), fd = reopen(swap, O_RDWR | (state == DIRECT ? O_DIRECT : 0));
	double began;

	if (fd < 0)
		bench_skip("O_DIRECT: %s", strerror(errno));
	began = bench_now();
	write_all(fd, CLUSTER, n, NOISE);
	row(n, began, 0, "swap out, %s", state_name[state]);
	pages = n;
	began = bench_now();
	read_all(fd, CLUSTER, NOISE);
	row(n, began, 0, "swap in, %s", state_name[state]);
	pages = all;
	close(fd);
	close(swap);
}

/*
 * What is compared with what
 */

static const struct bench_pair pairs[] = {
	{ { vmfault_read, kernel_read }, COLD },
	{ { vmfault_read, kernel_read }, COLD | UNADVISED },
	{ { vmfault_read, kernel_read }, WARM },
	{ { vmfault_read, kernel_read }, WARM | UNADVISED },
	{ { vmfault_read, kernel_read }, DIRECT },
	{ { vmfault_write, kernel_write }, WARM },
	{ { vmfault_write, kernel_write }, WARM | UNADVISED },
	{ { vmfault_write, kernel_write }, DIRECT },
	{ { vmfault_random, kernel_random }, COLD },
	{ { vmfault_random, kernel_random }, COLD | THREADS },
	{ { vmfault_random, kernel_random }, WARM },
	{ { vmfault_random, kernel_random }, WARM | THREADS },
	{ { vmfault_swap, kernel_swap }, WARM },
	{ { vmfault_swap, kernel_swap }, DIRECT },
	{ { vmfault_compress, NULL }, 0 },
};

int
main(int argc, char **argv)
{
	struct bench_options options = {
		.size = { UINT64_C(2) << 30 },
		.sizes = 1,
		.rounds = 3,
	};

	bench_options(&options, argc, argv, "Memory in files and in swap against pread(), pwrite() and mmap().\n"
	    "The budget of frames is an eighth of the size; files are made in $TMPDIR, or in /var/tmp.\n");
	for (size_t i = 0; i < options.sizes; i++)
		options.size[i] = (options.size[i] + CLUSTER * 2 - 1) / (CLUSTER * 2) * (CLUSTER * 2);
	file = temporary();
	scratch = temporary();
	return (bench_main(&options, pairs, sizeof(pairs) / sizeof(pairs[0]), 2.5, NULL));
}
