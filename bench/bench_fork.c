/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What fork() costs, with managed memory against the kernel's own.
 *
 *	vmfault				kernel
 *	fork(), of managed memory	fork(), of anonymous private memory without huge pages
 *
 * All else is the same on both sides.  Each page is written before each fork, so that all of them are resident and
 * writable, and the child is there until what is measured is over.
 *
 *	the call		until fork() returns in the parent; and with a child that ends at once, until it is waited for
 *	the parent, after it	for a page of a part of them, written while the child is there: the copying; the
 *				longest that so many writes in a row took, which is how long the memory was not to be had; and all
 *				writes with the call
 *	when the child is gone	all pages written again, which has the rest of the price in it, if a part was put off
 *	the child		reading every page; writing every page
 *	a hundred forks		the first ten and the last ten of them, a hundredth of the pages written in between
 *	memory			what parent and child take besides when the parent has written all of it
 *
 * The contents prove themselves, as in bench_snapshot: after each experiment parent and child both compare all pages
 * with what they must be, two words of each, and all words in the warm-up round.  The child's verdict is its exit status,
 * and it is right only if the child saw the memory as it was at the fork, the parent's and nobody else's writes
 * in the parent's.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/wait.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "contents.h"
#include "fork.h"
#include "memory.h"
#include "vmfault.h"

/* What a pair measures, and how many times the size it needs. */
enum what { CALLS, WRITES };
#define CALLS_MEMORY	1.3
#define WRITES_MEMORY	2.4

#define STEP	1024u		/* between generations: more than a part is written in one */
#define FORKS	100u
#define FEW	10u		/* of them, at either end */
#define ROW	16u		/* writes between two looks at the clock */

/*
 * What the memory holds: the first word of a page is base + generation, and so many more as it was written since in
 * the first `written' pages of the order.
 */
struct contents {
	uint64_t generation, times;
	enum bench_order order;
	uint64_t written;
};

static unsigned char *memory;
static uint64_t pages;
static struct contents now;		/* a child has what it was at the fork */
static double longest;			/* of write_pages(): microseconds of ROW writes */

static const char *const order_name[] = { "sequential", "random" };

/* Write every page.  => microseconds it took */
static double
touch(void)
{
	double start = bench_now();

	now = (struct contents){ .generation = now.generation + STEP };
	for (uint64_t p = 0; p < pages; p++)
		*page_at(memory, p) = base(p) + now.generation;
	return (bench_now() - start);
}

/* Write the first n pages of the order.  => microseconds it took */
static double
write_pages(enum bench_order order, uint64_t n)
{
	double start = bench_now(), at = start, t;

	longest = 0;
	now.times++;
	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = bench_page(order, i, pages);

		*page_at(memory, p) = base(p) + now.generation + now.times;
		if (i % ROW == ROW - 1) {
			t = bench_now();
			longest = t - at > longest ? t - at : longest;
			at = t;
		}
	}
	now.order = order;
	now.written = n;
	return (bench_now() - start);
}

/* => microseconds it took */
static double
read_pages(void)
{
	double start = bench_now();
	uint64_t sum = 0;

	for (uint64_t p = 0; p < pages; p++)
		sum += *page_at(memory, p) - base(p);
	/* All say the same, but for those that were written. */
	if (sum != pages * now.generation + now.written * now.times)
		_exit(1);
	return (bench_now() - start);
}

/* Is it all what it must be? */
static bool
right(bool full)
{
	for (uint64_t p = 0; p < pages; p++) {
		volatile uint64_t *w = page_at(memory, p);
		uint64_t want = base(p) + now.generation;

		if (now.written != 0 && bench_rank(now.order, p, pages) < now.written)
			want += now.times;
		if (w[0] != want || w[WORDS - 1] != word(p, WORDS - 1))
			return (false);
		for (size_t i = 1; full && i < WORDS - 1; i++)
			if (w[i] != word(p, i))
				return (false);
	}
	return (true);
}

/*
 * The child
 */

static struct {
	pid_t pid;
	int ask;		/* the parent writes a line to it, or closes it */
} child;

typedef void child_fn(bool full);

static void
wait_for_the_end(bool full)
{
	(void)full;
}

static void
read_all(bool full)
{
	(void)full;
	bench_time("child reads every page", pages, read_pages() / (double)pages);
}

static void
write_all(bool full)
{
	if (!right(full))
		_exit(1);
	bench_time("child writes every page", pages, write_pages(RANDOM, pages) / (double)pages);
}

/* fork().  The child does fn when it is told to, and compares.  => microseconds */
static double
fork_for(child_fn *fn, bool full)
{
	double start, took;
	int fds[2];
	char c;

	if (pipe(fds) != 0)
		bench_die("pipe: %s", strerror(errno));
	start = bench_now();
	child.pid = fork();
	took = bench_now() - start;
	if (child.pid < 0)
		bench_skip("fork: %s", strerror(errno));
	if (child.pid == 0) {
		close(fds[1]);
		if (read(fds[0], &c, 1) < 0)
			_exit(1);
		fn(full);
		_exit(right(full) ? 0 : 1);
	}
	close(fds[0]);
	child.ask = fds[1];
	return (took);
}

static void
await(pid_t pid, const char *side)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			bench_die("waitpid: %s", strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_die("%s: the forked child %s", side,
		    WIFEXITED(status) ? "has a wrong byte" : strsignal(WTERMSIG(status)));
}

/* Let the child do it, and wait for its end; both are right. */
static void
finish(const char *side, bool full)
{
	close(child.ask);
	await(child.pid, side);
	if (!right(full))
		bench_die("%s: the parent has a wrong byte", side);
}

/*
 * Experiments
 */

static void
calls(const char *side, bool full)
{
	double start;
	pid_t pid;

	touch();
	bench_time("fork", 0, fork_for(read_all, full));
	finish(side, full);
	touch();
	start = bench_now();
	if ((pid = fork()) == 0)
		_exit(0);
	if (pid < 0)
		bench_skip("fork: %s", strerror(errno));
	await(pid, side);
	bench_time("fork, exit and wait", 0, bench_now() - start);
}

static void
in_a_row(const char *side, bool full)
{
	touch();
	for (unsigned i = 0; i < FORKS; i++) {
		double took = fork_for(wait_for_the_end, false);

		if (i < FEW)
			bench_time("fork, 1st to 10th in a row", 0, took);
		else if (i >= FORKS - FEW)
			bench_time("fork, 91st to 100th in a row", 0, took);
		write_pages(RANDOM, pages / 100 + 1);
		close(child.ask);
		await(child.pid, side);
	}
	if (!right(full))
		bench_die("%s: the parent has a wrong byte", side);
}

static void
write_after(const char *side, enum bench_order order, unsigned share, bool full)
{
	uint64_t n = pages * share / 100 != 0 ? pages * share / 100 : 1, before = 0;
	pid_t family[2] = { getpid() };
	double call, writes;
	char what[64];

	touch();
	if (share == 100)
		before = memory_of(family, 1);
	call = fork_for(wait_for_the_end, full);
	writes = write_pages(order, n);
	family[1] = child.pid;
	if (share == 100) {
		uint64_t after = memory_of(family, 2);

		snprintf(what, sizeof(what), "memory besides, all written %s", order_name[order]);
		bench_bytes(what, after > before ? after - before : 0, pages * BENCH_PAGE);
	}
	snprintf(what, sizeof(what), "write %u %% %s", share, order_name[order]);
	bench_time(what, n, writes / (double)n);
	snprintf(what, sizeof(what), "longest %u writes, of %u %% %s", ROW, share, order_name[order]);
	bench_time(what, 0, longest);
	snprintf(what, sizeof(what), "fork + write %u %% %s", share, order_name[order]);
	bench_time(what, 0, call + writes);
	finish(side, full);
	snprintf(what, sizeof(what), "rewrite after %u %% %s", share, order_name[order]);
	bench_time(what, pages, touch() / (double)pages);
}

static void
experiments(const char *side, bool full, enum what what)
{
	static const unsigned shares[] = { 1, 10, 100 };

	fill_pages(memory, pages);
	now = (struct contents){ 0 };
	if (what == CALLS) {
		calls(side, full);
		in_a_row(side, full);
		return;
	}
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		write_after(side, SEQUENTIAL, shares[i], full);
		write_after(side, RANDOM, shares[i], full);
	}
	touch();
	fork_for(write_all, full);
	finish(side, full);
}

static void
measure_vmfault(uint64_t size, bool full, unsigned what)
{
	void *addr;

	if (what == WRITES)
		bench_need(WRITES_MEMORY * (double)size);
	pages = size / BENCH_PAGE;
	must_fit(vmf_init(NULL), "vmf_init");
	must(fork_enable(false, true), "fork_enable");
	must_fit(vmf_allocate(VMF_TASK_DEFAULT, &addr, (size_t)size, 0), "vmf_allocate");
	memory = addr;
	experiments("vmfault", full, (enum what)what);
	must(vmf_fini(), "vmf_fini");
}

static void
measure_kernel(uint64_t size, bool full, unsigned what)
{
	if (what == WRITES)
		bench_need(WRITES_MEMORY * (double)size);
	pages = size / BENCH_PAGE;
	memory = bench_private((size_t)size);
	experiments("kernel", full, (enum what)what);
}

int
main(int argc, char **argv)
{
	static const struct bench_pair pairs[] = {
		{ { measure_vmfault, measure_kernel }, CALLS },
		{ { measure_vmfault, measure_kernel }, WRITES },
	};
	struct bench_options options = {
		.size = { UINT64_C(256) << 20, UINT64_C(1) << 30, UINT64_C(4) << 30, UINT64_C(8) << 30 },
		.sizes = 4, .rounds = 3,
	};

	bench_options(&options, argc, argv,
	    "What fork() costs with managed memory, and the writes after it, against fork() of the\n"
	    "same memory of the kernel's.  Rows marked /page are microseconds per page, others per call.\n");
	return (bench_main(&options, pairs, 2, CALLS_MEMORY, NULL));
}
