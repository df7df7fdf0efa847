/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a snapshot costs, against kernel fork().
 *
 * Both give the same thing: the contents of memory at one instant, kept while the
 * writer goes on.  Both put the copying off until a page is written.  So three
 * prices matter: the call, each first write to a page after it, and giving the
 * snapshot back.
 *
 *	vmfault			kernel
 *	vmf_snapshot_create()	fork(); the child waits in read()
 *	write			write, while the child lives
 *	view of the snapshot	the child looks at its memory
 *	vmf_snapshot_release()	the child exits, waitpid()
 *	vmf_snapshot_rollback()	-
 *
 * The kernel's side is anonymous private memory without huge pages, in a process
 * that has nothing else.  Every page is written before every snapshot, so that all
 * of them are resident and writable when it is taken, on both sides.
 *
 * The calls are a measurement of their own: they need hardly more memory than there is to
 * snapshot, and so can be had at sizes where a machine has no room for a second copy of it all.
 *
 * What a strategy puts off must be paid one day.  So all is written once more when the snapshot is
 * gone: nothing is left to copy then, and what it costs more than plain writes is the rest of the price.
 *
 * The contents prove themselves: a word of each page says when it was last
 * written, the others follow from the page's number.  After each experiment the live
 * memory and the snapshot are compared with what they must be: two words of every
 * page, and all of them in the warm-up round.
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
#include "vmfault.h"

#define WINDOW	((size_t)64 << 20)	/* a snapshot is verified through views of this size */

/* What a pair measures, and how many times the size it needs. */
enum what { CALLS, WRITES };
#define CALLS_MEMORY	1.2
#define WRITES_MEMORY	2.5

/*
 * What the memory holds: the first word of a page is base + generation, and one
 * more in the first `written` pages of the order.
 */
struct contents {
	uint64_t generation;
	enum bench_order order;
	uint64_t written;
};

static unsigned char *memory;
static uint64_t pages;
static struct contents now;		/* of the live memory; a forked child has it of its own */

struct side {
	void (*start)(size_t);
	void (*snapshot)(unsigned slot);
	void (*verify)(unsigned slot, bool full);
	void (*release)(unsigned slot);
	void (*rollback)(unsigned slot);	/* null: does not exist */
	void (*home)(void);			/* likewise */
	void (*overhead)(const char *what);
};

static const char *const order_name[] = { "sequential", "random" };

/*
 * Contents
 */

static void
fill(void)
{
	fill_pages(memory, pages);
	now = (struct contents){ 0 };
}

/* Write every page: all are resident and writable now.  => microseconds it took. */
static double
touch(void)
{
	double start = bench_now();

	now = (struct contents){ .generation = now.generation + 2 };
	for (uint64_t p = 0; p < pages; p++)
		*page_at(memory, p) = base(p) + now.generation;
	return (bench_now() - start);
}

/* Write the first n pages of the order.  => microseconds it took. */
static double
write_pages(enum bench_order order, uint64_t n)
{
	double start = bench_now();

	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = bench_page(order, i, pages);

		*page_at(memory, p) = base(p) + now.generation + 1;
	}
	now.order = order;
	now.written = n;
	return (bench_now() - start);
}

/* Compare n pages from the first with what c says.  mem is where the first one lies. */
static bool
right(void *mem, uint64_t first, uint64_t n, const struct contents *c, bool full)
{
	for (uint64_t p = first; p < first + n; p++) {
		volatile uint64_t *w = page_at(mem, p - first);
		uint64_t want = base(p) + c->generation;

		if (c->written != 0 && bench_rank(c->order, p, pages) < c->written)
			want++;
		if (w[0] != want || w[WORDS - 1] != word(p, WORDS - 1))
			return (false);
		for (size_t i = 1; full && i < WORDS - 1; i++)
			if (w[i] != word(p, i))
				return (false);
	}
	return (true);
}

/*
 * vmfault
 */

static vmf_snapshot_t snapshots[2];
static struct contents snapshot_contents[2];

static void
vmfault_start(size_t size)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	void *addr;

	/* Where there is room the library places large ranges as suits the page tables best. */
	if (sizeof(void *) == 4)
		config.address_space = size + WINDOW + ((uint64_t)16 << 20);
	config.memory = (uint64_t)size * 9 / 4 + ((uint64_t)64 << 20);
	must_fit(vmf_init(&config), "vmf_init");
	must_fit(vmf_allocate(VMF_TASK_DEFAULT, &addr, size, 0), "vmf_allocate");
	memory = addr;
}

static void
vmfault_snapshot(unsigned slot)
{
	struct vmf_range range = { memory, pages * BENCH_PAGE };

	must(vmf_snapshot_create(&range, 1, &snapshots[slot]), "vmf_snapshot_create");
	snapshot_contents[slot] = now;
}

static void
vmfault_verify(unsigned slot, bool full)
{
	size_t size = pages * BENCH_PAGE;

	for (size_t off = 0; off < size; off += WINDOW) {
		size_t len = size - off < WINDOW ? size - off : WINDOW;
		void *view;

		must(vmf_snapshot_map(snapshots[slot], 0, off, len, VMF_TASK_DEFAULT, &view, 0,
		    VMF_PROT_READ), "vmf_snapshot_map");
		if (!right(view, off / BENCH_PAGE, len / BENCH_PAGE, &snapshot_contents[slot],
		    full))
			bench_die("vmfault: the snapshot has a wrong byte");
		must(vmf_unmap(view, len), "vmf_unmap");
	}
}

static void
vmfault_release(unsigned slot)
{
	must(vmf_snapshot_release(snapshots[slot]), "vmf_snapshot_release");
}

static void
vmfault_rollback(unsigned slot)
{
	must(vmf_snapshot_rollback(snapshots[slot]), "vmf_snapshot_rollback");
	now = snapshot_contents[slot];
}

static void
vmfault_home(void)
{
	/* A change of the map wants everything in its place. */
	must(vmf_advise(memory, pages * BENCH_PAGE, VMF_ADVICE_NORMAL), "vmf_advise");
}

static void
vmfault_overhead(const char *what)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	must(vmf_statistics(&stats), "vmf_statistics");
	bench_bytes(what, stats.metadata, (stats.v_page_count - stats.v_free_count) * BENCH_PAGE);
}

static const struct side vmfault_side = {
	.start = vmfault_start,
	.snapshot = vmfault_snapshot,
	.verify = vmfault_verify,
	.release = vmfault_release,
	.rollback = vmfault_rollback,
	.home = vmfault_home,
	.overhead = vmfault_overhead,
};

/*
 * The kernel
 */

static struct {
	pid_t pid;
	int ask, answer;
} children[2];

static void
kernel_start(size_t size)
{
	memory = bench_private(size);
}

/* The child: look at the memory when asked, until the parent closes the pipe. */
static void __attribute__((__noreturn__))
child(int ask, int answer)
{
	char c = 'r';

	do {
		if (c != 'r')
			c = right(memory, 0, pages, &now, c == 'f') ? 'r' : 'w';
		if (write(answer, &c, 1) != 1)
			break;
	} while (read(ask, &c, 1) == 1);
	_exit(0);
}

static char
hear(unsigned slot)
{
	char c;

	if (read(children[slot].answer, &c, 1) != 1)
		bench_die("kernel: the forked child died");
	return (c);
}

static void
kernel_pipes(int ask[2], int answer[2])
{
	if (pipe(ask) != 0 || pipe(answer) != 0)
		bench_die("pipe: %s", strerror(errno));
}

static int next_ask[2] = { -1, -1 }, next_answer[2];

static void
kernel_snapshot(unsigned slot)
{
	pid_t pid;

	if ((pid = fork()) < 0)
		bench_skip("fork: %s", strerror(errno));
	if (pid == 0) {
		close(next_ask[1]);
		for (unsigned i = 0; i < slot; i++)
			close(children[i].ask);
		child(next_ask[0], next_answer[1]);
	}
	children[slot].pid = pid;
	children[slot].ask = next_ask[1];
	children[slot].answer = next_answer[0];
}

static void
kernel_verify(unsigned slot, bool full)
{
	char c = full ? 'f' : 'q';

	if (write(children[slot].ask, &c, 1) != 1 || hear(slot) != 'r')
		bench_die("kernel: the forked child has a wrong byte");
}

static void
kernel_release(unsigned slot)
{
	close(children[slot].ask);
	while (waitpid(children[slot].pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(children[slot].answer);
}

/* What the kernel spends for the same memory: page tables. */
static void
kernel_overhead(const char *what)
{
	unsigned long long kb;
	char line[256];
	FILE *f;

	if ((f = fopen("/proc/self/status", "re")) == NULL)
		return;
	while (fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, "VmPTE: %llu kB", &kb) == 1)
			bench_bytes(what, kb * 1024, pages * BENCH_PAGE);
	fclose(f);
}

static const struct side kernel_side = {
	.start = kernel_start,
	.snapshot = kernel_snapshot,
	.verify = kernel_verify,
	.release = kernel_release,
	.overhead = kernel_overhead,
};

/*
 * Experiments, the same for both
 */

/* Take a snapshot.  => microseconds that the call took; the child is at rest. */
static double
snapshot(const struct side *side, unsigned slot)
{
	double start, took;

	if (side == &kernel_side)
		kernel_pipes(next_ask, next_answer);
	start = bench_now();
	side->snapshot(slot);
	took = bench_now() - start;
	if (side == &kernel_side) {
		close(next_ask[0]);
		close(next_answer[1]);
		hear(slot);
	}
	return (took);
}

static void
verify(const struct side *side, unsigned slot, bool full)
{
	if (!right(memory, 0, pages, &now, full))
		bench_die("%s: the live memory has a wrong byte",
		    side == &kernel_side ? "kernel" : "vmfault");
	side->verify(slot, full);
}

static void
release(const struct side *side, unsigned slot, const char *what)
{
	double start = bench_now();

	side->release(slot);
	if (what != NULL)
		bench_time(what, 0, bench_now() - start);
}

static uint64_t
percent(unsigned n)
{
	uint64_t k = pages * n / 100;

	return (k != 0 ? k : 1);
}

static void
write_after(const struct side *side, enum bench_order order, unsigned share, bool full)
{
	char what[64];
	uint64_t n = percent(share);
	double call, writes;

	touch();
	call = snapshot(side, 0);
	writes = write_pages(order, n);
	bench_time("snapshot first", 0, call);
	snprintf(what, sizeof(what), "write %u %% %s", share, order_name[order]);
	bench_time(what, n, writes / (double)n);
	snprintf(what, sizeof(what), "snapshot + write %u %% %s", share, order_name[order]);
	bench_time(what, 0, call + writes);
	verify(side, 0, full);
	snprintf(what, sizeof(what), "release after %u %% %s", share, order_name[order]);
	release(side, 0, what);
	snprintf(what, sizeof(what), "rewrite after %u %% %s", share, order_name[order]);
	bench_time(what, pages, touch() / (double)pages);
}

/* A second snapshot beside the first, when 1 % has been written. */
static void
again(const struct side *side, enum bench_order order, bool full)
{
	char what[64];
	double call;

	touch();
	bench_time("snapshot first", 0, snapshot(side, 0));
	write_pages(order, percent(1));
	call = snapshot(side, 1);
	snprintf(what, sizeof(what), "snapshot again after 1 %% %s", order_name[order]);
	bench_time(what, 0, call);
	verify(side, 0, full);
	side->verify(1, full);
	if (order == RANDOM)
		side->overhead("metadata, two snapshots");
	release(side, 1, NULL);
	release(side, 0, NULL);
}

static void
rollback_after(const struct side *side, enum bench_order order, unsigned share, bool full)
{
	char what[64];
	double start;

	touch();
	snapshot(side, 0);
	write_pages(order, percent(share));
	start = bench_now();
	side->rollback(0);
	snprintf(what, sizeof(what), "rollback after %u %% %s", share, order_name[order]);
	bench_time(what, 0, bench_now() - start);
	verify(side, 0, full);
	release(side, 0, NULL);
}

/*
 * What the writers did not pay at once: pages that the kernel copied for them are brought back into their frames later, in
 * the background or by who comes first.  Here all of it at a time, with the snapshot still there.
 */
static void
home_after(const struct side *side, enum bench_order order, unsigned share, bool full)
{
	char what[64];
	double start;

	touch();
	snapshot(side, 0);
	write_pages(order, percent(share));
	start = bench_now();
	side->home();
	snprintf(what, sizeof(what), "bring home after %u %% %s", share, order_name[order]);
	bench_time(what, percent(share), (bench_now() - start) / (double)percent(share));
	verify(side, 0, full);
	release(side, 0, NULL);
}

static void
experiments(const struct side *side, uint64_t size, bool full, enum what what)
{
	static const unsigned shares[] = { 1, 10, 100 };

	if (what == WRITES)
		bench_need(WRITES_MEMORY * (double)size);
	pages = size / BENCH_PAGE;
	side->start((size_t)size);
	fill();
	if (what == CALLS) {
		side->overhead("metadata");
		again(side, SEQUENTIAL, full);
		again(side, RANDOM, full);
		return;
	}
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		write_after(side, SEQUENTIAL, shares[i], full);
		write_after(side, RANDOM, shares[i], full);
		if (side->home != NULL)
			home_after(side, RANDOM, shares[i], full);
	}
	if (side->rollback != NULL) {
		rollback_after(side, SEQUENTIAL, 1, full);
		rollback_after(side, RANDOM, 1, full);
		rollback_after(side, RANDOM, 10, full);
	}
}

static void
measure_vmfault(uint64_t size, bool full, unsigned what)
{
	experiments(&vmfault_side, size, full, (enum what)what);
	must(vmf_fini(), "vmf_fini");
}

static void
measure_kernel(uint64_t size, bool full, unsigned what)
{
	experiments(&kernel_side, size, full, (enum what)what);
}

int
main(int argc, char **argv)
{
	static const struct bench_pair pairs[] = {
		{ { measure_vmfault, measure_kernel }, CALLS },
		{ { measure_vmfault, measure_kernel }, WRITES },
	};
	struct bench_options options = {
		.size = { UINT64_C(64) << 20, UINT64_C(256) << 20, UINT64_C(1) << 30,
		    UINT64_C(4) << 30 },
		.sizes = 4, .rounds = 3,
	};

	bench_options(&options, argc, argv,
	    "What a snapshot costs, and the writes after it, against kernel fork() of the\n"
	    "same memory.  Rows marked /page are microseconds per page, others per call.\n");
	return (bench_main(&options, pairs, 2, CALLS_MEMORY, NULL));
}
