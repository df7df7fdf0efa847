/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How long a writer is held up by snapshots that are taken beside it.
 *
 * A thread writes a word to one page after another, in random order, as fast as it can.
 * In the middle of every second the main thread takes a snapshot and then
 * releases the one before, as a program does that keeps its state of a second ago.
 * The kernel's side is the same with fork(), in a process that has nothing else; each child waits until
 * it may exit.
 *
 * The writer looks at the clock after each write.  The time between two looks is what one
 * write took, and what is long among them are the stalls: the call, which holds up a writer
 * who faults meanwhile, the first write to each page after it, the release.  Both sides run
 * the same loop, clock and all (some 50 nanoseconds).  A stall counts in the second in which
 * it began, and in each that it fills.  Reported are the longest of every second, the
 * longest of all, and between which times how many of the writes lie.
 *
 * The contents prove themselves.  The i-th write of all goes to page i modulo their
 * number of one permutation, and writes i + 1 to the page's own word; so what a page must hold
 * after n writes follows from n.  There is one writer, so a snapshot at one instant is the memory after
 * n writes for some n, the same for all pages, and n must be between what the writer had
 * counted before the call and after it.  All snapshots are held against that in the warm-up
 * round, while the writer goes on; later only the last one, when it has stopped.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/wait.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "contents.h"
#include "vmfault.h"

#define WINDOW		((size_t)64 << 20)	/* a snapshot is verified through views of this size */
#define WARMUP_SECONDS	2u
#define SECOND		UINT64_C(1000000000)	/* the writer counts nanoseconds */

/* Live, one snapshot, and for a moment the next one, each with all pages of their own. */
#define MEMORY		3.0

static unsigned char *memory;
static uint64_t pages;
static struct bench_options options = {
	.size = { UINT64_C(1) << 30 }, .sizes = 1, .rounds = 3, .seconds = 5,
};

/* A snapshot is the memory after n writes, least <= n <= most. */
struct cut {
	uint64_t least, most;
};

struct side {
	const char *name;
	void (*start)(size_t);
	void (*snapshot)(unsigned slot);
	void (*settle)(unsigned slot);		/* not part of the call; may be null */
	bool (*right)(unsigned slot, const struct cut *, bool full);
	void (*release)(unsigned slot);
};

/*
 * Contents
 */

/* Write number i of all. */
static void
write_one(uint64_t page, uint64_t i)
{
	*page_at(memory, page) = base(page) + i + 1;
}

/* What a page's first word says after n writes: when it was last written, and its own number. */
static uint64_t
last_written(uint64_t page, uint64_t n)
{
	uint64_t rank = bench_rank(RANDOM, page, pages), rounds;

	if (n <= rank)
		return (base(page));
	rounds = (n - rank - 1) / pages;
	return (base(page) + rounds * pages + rank + 1);
}

/*
 * The number of writes after which n pages from the first one were like this: the latest
 * that any of them shows.  mem is where the first one lies.
 */
static uint64_t
latest(void *mem, uint64_t first, uint64_t n)
{
	uint64_t most = 0;

	for (uint64_t p = first; p < first + n; p++) {
		uint64_t i = *page_at(mem, p - first) - base(p);

		most = i > most ? i : most;
	}
	return (most);
}

static bool
pages_right(void *mem, uint64_t first, uint64_t n, uint64_t writes, bool full)
{
	for (uint64_t p = first; p < first + n; p++) {
		volatile uint64_t *w = page_at(mem, p - first);

		if (w[0] != last_written(p, writes) || w[WORDS - 1] != word(p, WORDS - 1))
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

static void
vmfault_start(size_t size)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	void *addr;

	/* Where there is room the library places large ranges as suits the page tables best. */
	if (sizeof(void *) == 4)
		config.address_space = size + WINDOW + ((uint64_t)16 << 20);
	config.memory = (uint64_t)(MEMORY * (double)size) + ((uint64_t)64 << 20);
	must_fit(vmf_init(&config), "vmf_init");
	must_fit(vmf_allocate(VMF_TASK_DEFAULT, &addr, size, 0), "vmf_allocate");
	memory = addr;
}

static void
vmfault_snapshot(unsigned slot)
{
	struct vmf_range range = { memory, pages * BENCH_PAGE };

	must(vmf_snapshot_create(&range, 1, &snapshots[slot]), "vmf_snapshot_create");
}

static void *
view_of(unsigned slot, size_t off, size_t len)
{
	void *view;

	must(vmf_snapshot_map(snapshots[slot], 0, off, len, VMF_TASK_DEFAULT, &view, 0,
	    VMF_PROT_READ), "vmf_snapshot_map");
	return (view);
}

static bool
vmfault_right(unsigned slot, const struct cut *cut, bool full)
{
	size_t size = pages * BENCH_PAGE;
	uint64_t writes = 0;
	bool ok = true;

	for (unsigned pass = 0; pass < 2; pass++) {
		for (size_t off = 0; ok && off < size; off += WINDOW) {
			size_t len = size - off < WINDOW ? size - off : WINDOW;
			uint64_t first = off / BENCH_PAGE, n = len / BENCH_PAGE, latest_here;
			void *view = view_of(slot, off, len);

			if (pass == 0) {
				latest_here = latest(view, first, n);
				writes = latest_here > writes ? latest_here : writes;
			} else {
				ok = pages_right(view, first, n, writes, full);
			}
			must(vmf_unmap(view, len), "vmf_unmap");
		}
	}
	return (ok && writes >= cut->least && writes <= cut->most);
}

static void
vmfault_release(unsigned slot)
{
	must(vmf_snapshot_release(snapshots[slot]), "vmf_snapshot_release");
}

static const struct side vmfault_side = {
	.name = "vmfault",
	.start = vmfault_start,
	.snapshot = vmfault_snapshot,
	.right = vmfault_right,
	.release = vmfault_release,
};

/*
 * The kernel
 */

static struct {
	pid_t pid;
	int ask, answer;
} children[2];

static int child_ask[2], child_answer[2];	/* the next child's; made before the clock runs */

struct question {
	struct cut cut;
	bool full;
};

static void
kernel_pipes(void)
{
	if (pipe(child_ask) != 0 || pipe(child_answer) != 0)
		bench_die("pipe: %s", strerror(errno));
}

static void
kernel_start(size_t size)
{
	memory = bench_private(size);
	kernel_pipes();
}

/* Look at the memory when asked, until the parent closes the pipe. */
static void __attribute__((__noreturn__))
child(int ask, int answer)
{
	struct question q;
	char c = 'r';

	while (write(answer, &c, 1) == 1 && read(ask, &q, sizeof(q)) == (ssize_t)sizeof(q)) {
		uint64_t writes = latest(memory, 0, pages);

		c = writes >= q.cut.least && writes <= q.cut.most &&
		    pages_right(memory, 0, pages, writes, q.full) ? 'r' : 'w';
	}
	_exit(0);
}

/* The other slot's child may live: its pipe must not stay open because this one has it too. */
static void
kernel_snapshot(unsigned slot)
{
	pid_t pid;

	if ((pid = fork()) < 0)
		bench_skip("fork: %s", strerror(errno));
	if (pid == 0) {
		close(child_ask[1]);
		if (children[1 - slot].pid != 0)
			close(children[1 - slot].ask);
		child(child_ask[0], child_answer[1]);
	}
	children[slot].pid = pid;
}

static bool
kernel_hear(unsigned slot)
{
	char c;

	if (read(children[slot].answer, &c, 1) != 1)
		bench_die("kernel: the forked child died");
	return (c == 'r');
}

/* The child is at rest, and there are pipes for the next one. */
static void
kernel_settle(unsigned slot)
{
	close(child_ask[0]);
	close(child_answer[1]);
	children[slot].ask = child_ask[1];
	children[slot].answer = child_answer[0];
	kernel_hear(slot);
	kernel_pipes();
}

static bool
kernel_right(unsigned slot, const struct cut *cut, bool full)
{
	struct question q = { .cut = *cut, .full = full };

	if (write(children[slot].ask, &q, sizeof(q)) != (ssize_t)sizeof(q))
		bench_die("kernel: the forked child died");
	return (kernel_hear(slot));
}

static void
kernel_release(unsigned slot)
{
	close(children[slot].ask);
	while (waitpid(children[slot].pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(children[slot].answer);
	children[slot].pid = 0;
}

static const struct side kernel_side = {
	.name = "kernel",
	.start = kernel_start,
	.snapshot = kernel_snapshot,
	.settle = kernel_settle,
	.right = kernel_right,
	.release = kernel_release,
};

/*
 * The writer
 *
 * How many writes took how long is counted in classes, eight for each power of two of
 * nanoseconds: within an eighth of the truth.
 */

#define CLASSES		(8 * 61)

static unsigned seconds;
static uint64_t writes_done;		/* the writer stores it, whoever wants loads it */
static uint64_t worst[600];		/* of each second */
static uint64_t class[CLASSES];
static uint64_t began;			/* when the first second did */

static uint64_t
nanoseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec);
}

static unsigned
class_of(uint64_t ns)
{
	unsigned bits;

	if (ns < 8)
		return ((unsigned)ns);
	bits = 63 - (unsigned)__builtin_clzll(ns);
	return ((bits - 2) * 8 + (unsigned)(ns >> (bits - 3) & 7));
}

/* The longest time that falls into a class. */
static uint64_t
class_end(unsigned c)
{
	if (c < 8)
		return (c);
	return (((uint64_t)(c % 8 + 9) << (c / 8 - 1)) - 1);
}

static void *
writer(void *unused)
{
	uint64_t end = began + SECOND, last = nanoseconds(), longest = 0;
	unsigned second = 0;

	for (uint64_t i = 0, at = 0; second < seconds; i++, at++) {
		uint64_t t, took;

		if (at == pages)
			at = 0;
		write_one(bench_page(RANDOM, at, pages), i);
		__atomic_store_n(&writes_done, i + 1, __ATOMIC_RELEASE);
		t = nanoseconds();
		took = t - last;
		last = t;
		class[class_of(took)]++;
		longest = took > longest ? took : longest;
		while (t >= end && second < seconds) {
			worst[second++] = longest;
			end += SECOND;
			longest = t >= end ? took : 0;
		}
	}
	return (unused);
}

/*
 * The experiment, the same for both
 */

static void
sleep_until(uint64_t ns)
{
	struct timespec ts = { .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static struct cut
snapshot(const struct side *side, unsigned slot)
{
	struct cut cut = { .least = __atomic_load_n(&writes_done, __ATOMIC_ACQUIRE) };
	double start = bench_now();

	side->snapshot(slot);
	bench_time("snapshot, beside a writer", 0, bench_now() - start);
	/* One more may have been written and not yet counted. */
	cut.most = __atomic_load_n(&writes_done, __ATOMIC_ACQUIRE) + 1;
	if (side->settle != NULL)
		side->settle(slot);
	return (cut);
}

static void
must_be_right(const struct side *side, unsigned slot, const struct cut *cut, bool full)
{
	if (!side->right(slot, cut, full))
		bench_die("%s: a snapshot is not the memory at an instant", side->name);
}

static void
report(void)
{
	static const struct {
		const char *what;
		uint64_t of_a_million;
	} shares[] = {
		{ "50 % of the writes within", 500000 },
		{ "90 % of the writes within", 900000 },
		{ "99 % of the writes within", 990000 },
		{ "99.9 % of the writes within", 999000 },
		{ "99.99 % of the writes within", 999900 },
		{ "99.999 % of the writes within", 999990 },
	};
	uint64_t all = writes_done, seen = 0, longest = 0;
	unsigned c = 0;

	for (unsigned s = 0; s < seconds; s++) {
		bench_time("stall, longest of each second", 0, (double)worst[s] / 1e3);
		longest = worst[s] > longest ? worst[s] : longest;
	}
	bench_time("stall, longest of all", 0, (double)longest / 1e3);
	bench_time("write, a snapshot every second", all, seconds * 1e6 / (double)all);
	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		while (seen + class[c] < all / 1000000 * shares[i].of_a_million +
		    all % 1000000 * shares[i].of_a_million / 1000000)
			seen += class[c++];
		bench_time(shares[i].what, 0, (double)class_end(c) / 1e3);
	}
}

static void
stalls(const struct side *side, uint64_t size, bool full)
{
	struct cut cuts[2];
	pthread_t thread;
	unsigned slot = 0;

	pages = size / BENCH_PAGE;
	seconds = full ? WARMUP_SECONDS : options.seconds;
	side->start((size_t)size);
	fill_pages(memory, pages);
	began = nanoseconds();
	must(-pthread_create(&thread, NULL, writer, NULL), "pthread_create");
	for (unsigned s = 0; s < seconds; s++) {
		sleep_until(began + s * SECOND + SECOND / 2);
		slot = s % 2;
		cuts[slot] = snapshot(side, slot);
		if (full)
			must_be_right(side, slot, &cuts[slot], full);
		if (s > 0) {
			double start = bench_now();

			side->release(1 - slot);
			bench_time("release, beside a writer", 0, bench_now() - start);
		}
	}
	must(-pthread_join(thread, NULL), "pthread_join");
	must_be_right(side, slot, &cuts[slot], full);
	side->release(slot);
	if (!pages_right(memory, 0, pages, writes_done, full))
		bench_die("%s: the live memory has a wrong byte", side->name);
	report();
}

static void
measure_vmfault(uint64_t size, bool full, unsigned what)
{
	(void)what;
	stalls(&vmfault_side, size, full);
	must(vmf_fini(), "vmf_fini");
}

static void
measure_kernel(uint64_t size, bool full, unsigned what)
{
	(void)what;
	stalls(&kernel_side, size, full);
}

int
main(int argc, char **argv)
{
	static const struct bench_pair pair = { .side = { measure_vmfault, measure_kernel } };

	bench_options(&options, argc, argv,
	    "How long a writer is held up while another thread takes a snapshot every second,\n"
	    "against kernel fork() every second.  Microseconds.\n");
	return (bench_main(&options, &pair, 1, MEMORY, NULL));
}
