/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BENCH_H
#define BENCH_H

/*
 * What the benchmarks share: how they measure, and how they report.
 *
 * A number of one machine means little, and less if the two sides of a
 * comparison were measured at different times.  So:
 *
 *   - Every measurement of either side runs in a process of its own, forked from a
 *     driver that holds no memory and never starts the library.  Neither side
 *     can disturb the other: a kernel fork() copies the page tables of the plain
 *     memory and nothing else.
 *   - The sides alternate (A B A B ...) in one run, after a round of each that
 *     is thrown away, and what is to be compared is measured within moments: machines
 *     and their disks are fast and slow by turns.  What is reported is the median of
 *     all samples.
 *   - The bytes are verified on both sides; a wrong one ends the run.
 *   - The ratio is what may be quoted.  The times are there to see where it
 *     comes from, beside a description of the machine.
 *
 * A measuring function calls bench_time() for each sample; the samples travel
 * through a pipe to the driver, which collects them in rows by name and size.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_PAGE	4096u
#define BENCH_SIZES	16

enum bench_side { VMFAULT, KERNEL, SIDES };

struct bench_options {
	uint64_t size[BENCH_SIZES];	/* bytes; set the defaults before */
	size_t sizes;
	unsigned rounds;
	bool json;
	const char *plot;		/* file to draw, or null */
	unsigned seconds;		/* that a measurement lasts; 0: there is no such option */
};

/* The common command line.  Ends the process on --help and on a mistake (2). */
void bench_options(struct bench_options *, int argc, char **argv, const char *about);

/* Measure one size on one side; full: a warm-up round, verify every byte; what: the pair's own. */
typedef void bench_fn(uint64_t size, bool full, unsigned what);

/* What is compared, and measured one right after the other; either may be null. */
struct bench_pair {
	bench_fn *side[SIDES];
	unsigned what;
};

/*
 * Run all sizes, and all rounds of each pair, then print.  memory is the number of
 * times a size must fit into the memory that is available.  finish, if not null, may
 * add rows that follow from others.  The exit status.
 */
int bench_main(const struct bench_options *, const struct bench_pair *, size_t pairs, double memory,
    void (*finish)(void));

/* In a measuring function: report a sample. pages 0: us is of one call, else of each page. */
void bench_time(const char *what, uint64_t pages, double us);
/* The same, with the number of faults that were taken for these pages. */
void bench_faults(const char *what, uint64_t pages, double us, uint64_t faults);
/* Report an amount of memory that is spent for `resident` bytes. */
void bench_bytes(const char *what, uint64_t bytes, uint64_t resident);
/* End the measuring process: something is wrong, or this size cannot be measured here. */
void bench_die(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2), __noreturn__));
void bench_skip(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2), __noreturn__));

/* What a call of the library, or of ours that says -errno, returned: end the measuring process if that is an error. */
void must(int64_t error, const char *what);
void must_fit(int64_t error, const char *what);	/* where -ENOMEM says that this size cannot be measured here */

/* In finish: the median of a side of a row, negative where there is none; and a new row. */
double bench_median(const char *what, uint64_t size, enum bench_side);
void bench_derived(const char *what, uint64_t size, double vmfault_us);

/*
 * First thing in a measuring function that needs more memory than bench_main() was told:
 * end it, as bench_skip(), where that much is not available.
 */
void bench_need(double bytes);

/* Microseconds of a monotonic clock. */
double bench_now(void);

/* Plain private memory in 4 KB pages, the fair counterpart of managed memory. */
void *bench_private(size_t size);

/*
 * The order in which pages are visited: sequential, or a permutation that needs
 * no memory and can be inverted.
 */
enum bench_order { SEQUENTIAL, RANDOM };

uint64_t bench_page(enum bench_order, uint64_t i, uint64_t pages);	/* the i-th page */
uint64_t bench_rank(enum bench_order, uint64_t page, uint64_t pages);	/* its inverse */

#endif
