/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What it costs to try something and take it back, against kernel fork().
 *
 * Fuzzers and those who execute on speculation do one thing over and over: from a state that was prepared
 * once, write some pages, look at what came of it, and have the old state again.
 *
 *	vmfault				kernel
 *	-				fork()
 *	write n pages			the child writes n pages
 *	vmf_snapshot_rollback()		the child exits, waitpid()
 *
 * A sample is one such round, writes included.  The snapshot is taken once; so is the parent's
 * memory, which is 64 MB by default, written by the parent before the first round.
 *
 * Which pages are written makes a difference: `same' are at random places, but the same ones in each
 * round, as in a program that does nearly the same each time; `other' are at other places in each
 * round, and then nothing can be learnt from the round before.  The first rounds do not count.
 *
 * Off the clock each round is verified on both sides: that the pages were written (the kernel's child
 * says so once, as looking would cost it faults), and that they are what they were; and after each
 * series all of the memory, in the warm-up after each round.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/wait.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "vmfault.h"

#define WORDS	(BENCH_PAGE / sizeof(uint64_t))
#define LEARN	4u		/* rounds before the first that counts */
#define ROUNDS	40u

enum places { SAME, OTHER };

static const char *const place_name[] = { "same", "other" };
static const unsigned counts[] = { 1, 16, 64, 256, 1024 };

static unsigned char *memory;
static uint64_t pages;
static vmf_snapshot_t snapshot;

static uint64_t
word(uint64_t page, size_t i)
{
	page = (page * WORDS + i + 1) * UINT64_C(0xbf58476d1ce4e5b9);
	return (page ^ page >> 31);
}

static volatile uint64_t *
page_at(uint64_t page)
{
	return ((volatile uint64_t *)(void *)(memory + page * BENCH_PAGE));
}

static void
fill(void)
{
	for (uint64_t p = 0; p < pages; p++)
		for (size_t i = 0; i < WORDS; i++)
			page_at(p)[i] = word(p, i);
}

/* The k-th page that a round writes. */
static uint64_t
place(enum places places, unsigned round, unsigned n, unsigned k)
{
	uint64_t at = places == SAME ? k : (uint64_t)round * n + k;

	return (bench_page(RANDOM, at % pages, pages));
}

static void
write_pages(enum places places, unsigned round, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		uint64_t p = place(places, round, n, k);

		page_at(p)[round % WORDS] = ~word(p, round % WORDS);
	}
}

/* Are the pages of this round written, or as they were? */
static void
check_written(enum places places, unsigned round, unsigned n, bool written, const char *side)
{
	size_t i = round % WORDS;

	for (unsigned k = 0; k < n; k++) {
		uint64_t p = place(places, round, n, k), want = word(p, i);

		if (page_at(p)[i] != (written ? ~want : want))
			bench_die("%s: a page that was written has a wrong byte", side);
	}
}

/* Is all memory as it was? */
static void
check_all(bool full, const char *side)
{
	for (uint64_t p = 0; p < pages; p++)
		for (size_t i = 0; i < WORDS; i += full ? 1 : WORDS / 4)
			if (page_at(p)[i] != word(p, i))
				bench_die("%s: the memory has a wrong byte", side);
}

/*
 * A round: microseconds
 */

static double
vmfault_round(enum places places, unsigned round, unsigned n)
{
	double start = bench_now(), took;

	write_pages(places, round, n);
	took = bench_now() - start;
	check_written(places, round, n, true, "vmfault");
	start = bench_now();
	must(vmf_snapshot_rollback(snapshot), "vmf_snapshot_rollback");
	return (took + (bench_now() - start));
}

static double
kernel_round(enum places places, unsigned round, unsigned n)
{
	double start = bench_now();
	pid_t pid = fork();
	int status;

	if (pid < 0)
		bench_skip("fork: %s", strerror(errno));
	if (pid == 0) {
		write_pages(places, round, n);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			bench_die("waitpid: %s", strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_die("kernel: the forked child died");
	return (bench_now() - start);
}

/* Off the clock: a child that looks at what it wrote. */
static void
kernel_check(enum places places, unsigned round, unsigned n)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		bench_skip("fork: %s", strerror(errno));
	if (pid == 0) {
		write_pages(places, round, n);
		check_written(places, round, n, true, "kernel");
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_die("kernel: the forked child has a wrong byte");
}

static void
rounds(bool vmfault, enum places places, unsigned n, bool full)
{
	const char *side = vmfault ? "vmfault" : "kernel";
	char what[64];

	snprintf(what, sizeof(what), "%u page%s, %s places", n, n == 1 ? "" : "s", place_name[places]);
	for (unsigned r = 0; r < LEARN + ROUNDS; r++) {
		double took = vmfault ? vmfault_round(places, r, n) : kernel_round(places, r, n);

		check_written(places, r, n, false, side);
		if (full)
			check_all(r == 0, side);
		if (r >= LEARN)
			bench_time(what, 0, took);
	}
	check_all(full, side);
	if (!vmfault)
		kernel_check(places, 0, n);
}

static void
vmfault_start(size_t size)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	struct vmf_range range;
	void *addr;

	config.address_space = size + ((uint64_t)16 << 20);
	config.memory = (uint64_t)size * 9 / 4 + ((uint64_t)64 << 20);
	must_fit(vmf_init(&config), "vmf_init");
	must_fit(vmf_allocate(VMF_TASK_DEFAULT, &addr, size, 0), "vmf_allocate");
	memory = addr;
	fill();
	range = (struct vmf_range){ memory, size };
	must(vmf_snapshot_create(&range, 1, &snapshot), "vmf_snapshot_create");
}

/* what: a count, and which places. */
static void
measure_vmfault(uint64_t size, bool full, unsigned what)
{
	pages = size / BENCH_PAGE;
	vmfault_start((size_t)size);
	rounds(true, what % 2, counts[what / 2], full);
	must(vmf_fini(), "vmf_fini");
}

static void
measure_kernel(uint64_t size, bool full, unsigned what)
{
	pages = size / BENCH_PAGE;
	memory = bench_private((size_t)size);
	fill();
	rounds(false, what % 2, counts[what / 2], full);
}

int
main(int argc, char **argv)
{
	struct bench_pair pair[2 * sizeof(counts) / sizeof(counts[0])];
	struct bench_options options = {
		.size = { UINT64_C(64) << 20 }, .sizes = 1, .rounds = 3,
	};
	size_t n = sizeof(pair) / sizeof(pair[0]);

	for (size_t i = 0; i < n; i++)
		pair[i] = (struct bench_pair){ .side = { measure_vmfault, measure_kernel },
		    .what = (unsigned)((i % (n / 2)) * 2 + i / (n / 2)) };
	bench_options(&options, argc, argv,
	    "What it costs to write some pages and to have back what was there before, again and\n"
	    "again: vmf_snapshot_rollback(), against a forked child that writes them and exits.\n"
	    "Rows are microseconds per round, writes included; the pages are at the same random\n"
	    "places in each round, or at other places each time.\n");
	return (bench_main(&options, pair, n, 2.5, NULL));
}
