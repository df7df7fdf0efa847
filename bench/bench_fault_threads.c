/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Faults of as many threads as there are cores, and of twice as many.
 *
 *	kind			vmfault				kernel
 *	soft, one object	read of resident pages after	read of a mapping of a memfd, whose
 *				vmf_protect() none and back	pages exist
 *	soft, objects apart	the same, each thread in	each thread in a mapping of its own
 *				memory of its own
 *	soft, the same pages	each thread reads all of them	each thread reads all of them
 *	zero-fill, objects	first writes, each thread in	the same, of anonymous private
 *	apart			memory of its own		memory
 *
 * In random order, and with the advice RANDOM, so that each page takes a fault.  All threads start together; a
 * sample is the time from the first one's start to the last one's end, for each page of all (so
 * perfect scaling halves it on two cores).
 *
 * What they meet at is not only the library: whoever changes a mapping has the kernel's lock of the whole
 * address space, and only its own faults get by without.  The part "mprotect of a page" is all threads doing that,
 * each in memory of its own, without the library: what a fault that changes a mapping costs at the least,
 * however it is made.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench_fault.h"
#include "vmfault.h"

enum kind { SOFT_ONE, SOFT_APART, SOFT_SAME, ZERO_APART, PART_MPROTECT, KINDS };

#define TWICE		16u		/* in `what', beside the kind: two threads for each core */
#define THREADS_MAX	256u

static const char *const kind_name[KINDS] = {
	"soft, one object", "soft, objects apart", "soft, the same pages", "zero-fill, objects apart",
	"part: mprotect of a page",
};

static enum kind kind;
static unsigned threads;
static uint64_t each;			/* pages of a thread's own */
static unsigned char *memory[THREADS_MAX];
static double began[THREADS_MAX], ended[THREADS_MAX];
static pthread_barrier_t line;

static uint64_t
stamp(unsigned thread, uint64_t page)
{
	return ((thread + 1) * UINT64_C(0x9e3779b97f4a7c15) + page * UINT64_C(0xbf58476d1ce4e5b9));
}

static volatile uint64_t *
page_of(unsigned thread, uint64_t page)
{
	return ((volatile uint64_t *)(void *)(memory[thread] + page * BENCH_PAGE));
}

static void
fill(void)
{
	for (unsigned t = 0; t < threads; t++)
		for (uint64_t p = 0; p < each; p++)
			*page_of(t, p) = stamp(t, p);
}

static uint64_t
read_part(unsigned t, bool random)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < each; i++) {
		uint64_t p = bench_page(random ? RANDOM : SEQUENTIAL, i, each);

		wrong |= *page_of(t, p) ^ stamp(t, p);
	}
	return (wrong);
}

static void
verify(void)
{
	for (unsigned t = 0; t < threads; t++)
		if (read_part(t, false) != 0)
			bench_die("%s: wrong bytes", kind_name[kind]);
}

static void *
work(void *arg)
{
	unsigned me = (unsigned)(uintptr_t)arg;
	uint64_t wrong = 0;

	(void)pthread_barrier_wait(&line);
	began[me] = bench_now();
	if (kind == ZERO_APART) {
		for (uint64_t i = 0; i < each; i++) {
			uint64_t p = bench_page(RANDOM, i, each);

			*page_of(me, p) = stamp(me, p);
		}
	} else if (kind == PART_MPROTECT) {
		for (uint64_t i = 0; i < each; i++) {
			uint64_t p = bench_page(RANDOM, i, each);

			wrong |= mprotect(memory[me] + p * BENCH_PAGE, BENCH_PAGE, PROT_READ) != 0;
			wrong |= *page_of(me, p) ^ stamp(me, p);
		}
	} else if (kind == SOFT_SAME) {
		for (unsigned t = 0; t < threads; t++)
			wrong |= read_part(t, true);
	} else {
		wrong = read_part(me, true);
	}
	ended[me] = bench_now();
	return ((void *)(uintptr_t)(wrong != 0));
}

/* Let them all run, and wait for the last.  => microseconds */
static double
race(void)
{
	pthread_t id[THREADS_MAX];
	void *wrong, *any = NULL;
	double first = 0, last = 0;

	must(-pthread_barrier_init(&line, NULL, threads), "pthread_barrier_init");
	for (unsigned t = 0; t < threads; t++)
		must(-pthread_create(&id[t], NULL, work, (void *)(uintptr_t)t), "pthread_create");
	for (unsigned t = 0; t < threads; t++) {
		must(-pthread_join(id[t], &wrong), "pthread_join");
		any = wrong != NULL ? wrong : any;
		first = t == 0 || began[t] < first ? began[t] : first;
		last = t == 0 || ended[t] > last ? ended[t] : last;
	}
	(void)pthread_barrier_destroy(&line);
	if (any != NULL)
		bench_die("%s: wrong bytes", kind_name[kind]);
	verify();
	return (last - first);
}

/* Take apart what is asked for. */
static void
begin(uint64_t size, unsigned what)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);

	kind = what % TWICE;
	threads = (unsigned)(cores > 0 ? cores : 1) * (what & TWICE ? 2 : 1);
	if (threads > THREADS_MAX)
		threads = THREADS_MAX;
	each = size / BENCH_PAGE / threads;
	if (each == 0)
		bench_skip("%u threads have less than a page each", threads);
}

static const char *
row(unsigned what, const char *of)
{
	static char name[96];

	snprintf(name, sizeof(name), "threads = %scores: %s", what & TWICE ? "2 x " : "", of);
	return (name);
}

/*
 * vmfault
 */

static uint64_t
fault_count(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	must(vmf_statistics(&stats), "vmf_statistics");
	return (stats.v_vm_faults);
}

static void
measure_vmfault(uint64_t size, bool full, unsigned what)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	uint64_t faults;
	double us;

	(void)full;
	begin(size, what);
	config.address_space = 2 * size + ((uint64_t)64 << 20);
	config.memory = size + ((uint64_t)64 << 20);
	must_fit(vmf_init(&config), "vmf_init");
	for (unsigned t = 0; t < threads; t++) {
		void *p = NULL;

		if (kind != SOFT_ONE || t == 0)
			must_fit(vmf_allocate(VMF_TASK_DEFAULT, &p,
			    (kind == SOFT_ONE ? threads : 1) * each * BENCH_PAGE, 0), "vmf_allocate");
		memory[t] = p != NULL ? p : memory[0] + t * each * BENCH_PAGE;
		must(vmf_advise(memory[t], each * BENCH_PAGE, VMF_ADVICE_RANDOM), "vmf_advise");
		/* Neighbours would be one entry else, with one object. */
		if (kind != SOFT_ONE)
			must(vmf_inherit(memory[t], each * BENCH_PAGE, t % 2 ? VMF_INHERIT_COPY :
			    VMF_INHERIT_SHARE), "vmf_inherit");
	}
	if (kind != ZERO_APART) {
		fill();
		for (unsigned t = 0; t < threads; t++) {
			must(vmf_protect(memory[t], each * BENCH_PAGE, VMF_PROT_NONE), "vmf_protect");
			must(vmf_protect(memory[t], each * BENCH_PAGE, VMF_PROT_DEFAULT), "vmf_protect");
		}
	}
	faults = fault_count();
	us = race();
	bench_faults(row(what, kind_name[kind]), threads * each, us / (double)(threads * each),
	    fault_count() - faults);
	must(vmf_fini(), "vmf_fini");
}

/*
 * The kernel
 */

/* The threads' memory: of a memfd, whose pages exist, in one mapping or in one for each. */
static void
map_memfd(bool one, int prot)
{
	size_t bytes = (size_t)each * BENCH_PAGE;
	int fd = memfd_create("bench", MFD_CLOEXEC);
	unsigned char *all;

	if (fd < 0 || ftruncate(fd, (off_t)(threads * bytes)) != 0)
		bench_die("memfd: %s", strerror(errno));
	all = mmap(NULL, threads * bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (all == MAP_FAILED)
		bench_skip("mmap: %s", strerror(errno));
	for (unsigned t = 0; t < threads; t++)
		memory[t] = all + t * bytes;
	fill();
	munmap(all, threads * bytes);
	for (unsigned t = 0; t < threads; t++) {
		memory[t] = one && t > 0 ? memory[0] + t * bytes : mmap(NULL, one ? threads * bytes : bytes, prot,
		    MAP_SHARED, fd, (off_t)(t * bytes));
		if (memory[t] == MAP_FAILED)
			bench_skip("mmap: %s", strerror(errno));
	}
}

static void
measure_kernel(uint64_t size, bool full, unsigned what)
{
	(void)full;
	begin(size, what);
	if (kind == ZERO_APART) {
		for (unsigned t = 0; t < threads; t++)
			memory[t] = bench_private((size_t)each * BENCH_PAGE);
	} else {
		map_memfd(kind == SOFT_ONE, PROT_READ);
	}
	bench_time(row(what, kind_name[kind]), threads * each, race() / (double)(threads * each));
}

static void
measure_part(uint64_t size, bool full, unsigned what)
{
	(void)full;
	begin(size, what);
	map_memfd(true, PROT_NONE);
	bench_time(row(what, kind_name[kind]), threads * each, race() / (double)(threads * each));
}

void
bench_fault_threads(struct bench_pair pairs[FAULT_THREADS_PAIRS])
{
	for (unsigned i = 0; i < FAULT_THREADS_PAIRS; i++) {
		unsigned what = i % KINDS | (i / KINDS != 0 ? TWICE : 0);

		pairs[i] = (struct bench_pair){ .side = { measure_vmfault, measure_kernel }, .what = what };
		if (i % KINDS == PART_MPROTECT)
			pairs[i] = (struct bench_pair){ .side = { measure_part, NULL }, .what = what };
	}
}
