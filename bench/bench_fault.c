/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What a page fault costs, by kind, and where the time goes.
 *
 *	kind			vmfault				kernel
 *	zero-fill		first write to allocated	first write to anonymous
 *				memory				private memory
 *	copy-on-write		first write after a snapshot	first write after fork()
 *	soft			read of a resident page, after	read of a page of a memfd
 *				vmf_protect() none and back	that is not yet mapped
 *	pager			read of a pager's page; its	write to a private mapping
 *				callback copies it		of a memfd: copies it
 *
 * Each kind in sequential and in random order, and for vmfault with each advice: it
 * takes a SIGSEGV where the kernel takes a trap of its own, which is dearer by an order
 * of magnitude, and makes up for it by taking fewer (the last column, "pages a
 * fault").  The kernel's memory has 4 KB pages.
 *
 * The parts of one fault are measured by themselves, without the library: a trap to an
 * empty handler, the call that changes one mapping, the copy of a page.  What is
 * left of a fault of a single page (random order, advice RANDOM) is the price of the
 * library's own work.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>
#include <sys/wait.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "bench_fault.h"
#include "vmfault.h"

#define PARTS	4096u		/* pages that the parts are measured on, at most */

static const char *const order_name[] = { "sequential", "random" };
static const char *const advice_name[] = { "NORMAL", "RANDOM", "SEQUENTIAL" };

static uint64_t pages;

static uint64_t
stamp(uint64_t page)
{
	return ((page + 1) * UINT64_C(0xbf58476d1ce4e5b9));
}

static volatile uint64_t *
page_at(void *mem, uint64_t page)
{
	return ((volatile uint64_t *)(void *)((unsigned char *)mem + page * BENCH_PAGE));
}

static void
fill(void *mem)
{
	for (uint64_t p = 0; p < pages; p++)
		*page_at(mem, p) = stamp(p);
}

/* Write all pages in this order.  => microseconds a page; they hold stamp() + add. */
static double
write_all(void *mem, enum bench_order order, uint64_t add)
{
	double start = bench_now();

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t p = bench_page(order, i, pages);

		*page_at(mem, p) = stamp(p) + add;
	}
	return ((bench_now() - start) / (double)pages);
}

/* Read all pages in this order and compare them.  => microseconds a page. */
static double
read_all(void *mem, enum bench_order order, uint64_t add, const char *what)
{
	uint64_t wrong = 0;
	double start = bench_now();

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t p = bench_page(order, i, pages);

		wrong |= *page_at(mem, p) ^ (stamp(p) + add);
	}
	start = (bench_now() - start) / (double)pages;
	if (wrong != 0)
		bench_die("%s: wrong bytes", what);
	return (start);
}

/*
 * vmfault
 */

static uint64_t
fault_count(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	must_fit(vmf_statistics(&stats), "vmf_statistics");
	return (stats.v_vm_faults);
}

static void *
allocate(enum vmf_advice advice)
{
	void *mem;

	must_fit(vmf_allocate(VMF_TASK_DEFAULT, &mem, pages * BENCH_PAGE, 0), "vmf_allocate");
	must_fit(vmf_advise(mem, pages * BENCH_PAGE, advice), "vmf_advise");
	return (mem);
}

static void
unmap(void *mem)
{
	must_fit(vmf_unmap(mem, pages * BENCH_PAGE), "vmf_unmap");
}

/* The rows differ in advice; the kernel's side of each is the same. */
static const char *
row(const char *kind, enum bench_order order, enum vmf_advice advice)
{
	static char what[64];

	snprintf(what, sizeof(what), "%s %s, %s", kind, order_name[order], advice_name[advice]);
	return (what);
}

static void
vmfault_zero(enum bench_order order, enum vmf_advice advice)
{
	void *mem = allocate(advice);
	uint64_t faults = fault_count();
	double us = write_all(mem, order, 0);

	bench_faults(row("zero-fill", order, advice), pages, us, fault_count() - faults);
	read_all(mem, SEQUENTIAL, 0, "zero-fill");
	unmap(mem);
}

static void
vmfault_cow(enum bench_order order, enum vmf_advice advice)
{
	void *mem = allocate(advice), *view;
	size_t size = pages * BENCH_PAGE;
	struct vmf_range range = { mem, size };
	vmf_snapshot_t snapshot;
	uint64_t faults;
	double us;

	fill(mem);
	must_fit(vmf_snapshot_create(&range, 1, &snapshot), "vmf_snapshot_create");
	faults = fault_count();
	us = write_all(mem, order, 1);
	bench_faults(row("copy-on-write", order, advice), pages, us, fault_count() - faults);
	read_all(mem, SEQUENTIAL, 1, "copy-on-write");
	must_fit(vmf_snapshot_map(snapshot, 0, 0, size, VMF_TASK_DEFAULT, &view, 0, VMF_PROT_READ),
	    "vmf_snapshot_map");
	read_all(view, SEQUENTIAL, 0, "snapshot");
	unmap(view);
	must_fit(vmf_snapshot_release(snapshot), "vmf_snapshot_release");
	unmap(mem);
}

static void
vmfault_soft(enum bench_order order, enum vmf_advice advice)
{
	void *mem = allocate(advice);
	size_t size = pages * BENCH_PAGE;
	uint64_t faults;
	double us;

	fill(mem);
	must_fit(vmf_protect(mem, size, VMF_PROT_NONE), "vmf_protect");
	must_fit(vmf_protect(mem, size, VMF_PROT_DEFAULT), "vmf_protect");
	faults = fault_count();
	us = read_all(mem, order, 0, "soft");
	bench_faults(row("soft", order, advice), pages, us, fault_count() - faults);
	unmap(mem);
}

static int64_t
source_get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	memcpy(buf, (unsigned char *)cookie + offset, len);
	return ((int64_t)len);
}

static void
vmfault_pager(void *source, enum bench_order order, enum vmf_advice advice)
{
	static const struct vmf_pager_ops ops = { .size = sizeof(ops), .get = source_get };
	vmf_pager_t pager;
	uint64_t faults;
	void *mem;
	double us;

	must_fit(vmf_pager_create(&ops, source, pages * BENCH_PAGE, 0, &pager), "vmf_pager_create");
	must_fit(vmf_map(VMF_TASK_DEFAULT, &mem, pages * BENCH_PAGE, VMF_MAP_PRIVATE, pager, 0,
	    VMF_PROT_READ), "vmf_map");
	must_fit(vmf_advise(mem, pages * BENCH_PAGE, advice), "vmf_advise");
	faults = fault_count();
	us = read_all(mem, order, 0, "pager");
	bench_faults(row("pager", order, advice), pages, us, fault_count() - faults);
	unmap(mem);
	must_fit(vmf_pager_release(pager), "vmf_pager_release");
}

/*
 * The parts of one fault
 */

static volatile greg_t resume_at;

static void
empty_handler(int sig, siginfo_t *info, void *context)
{
#ifdef __x86_64__
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = resume_at;
#else
	((ucontext_t *)context)->uc_mcontext.gregs[REG_EIP] = resume_at;
#endif
}

/* Read a byte at p; where that faults, the handler goes on after it. */
static void
touch_and_go(const volatile unsigned char *p)
{
	unsigned char c;

#ifdef __x86_64__
	__asm__ __volatile__("leaq 1f(%%rip), %%rax\n\tmovq %%rax, %0\n\tmovb %2, %1\n1:"
	    : "=m"(resume_at), "=&q"(c) : "m"(*p) : "rax", "memory");
#else
	__asm__ __volatile__("call 0f\n0:\tpopl %%eax\n\taddl $(1f - 0b), %%eax\n\t"
	    "movl %%eax, %0\n\tmovb %2, %1\n1:"
	    : "=m"(resume_at), "=&q"(c) : "m"(*p) : "eax", "memory");
#endif
}

static void
part_trap(unsigned char *mem)
{
	struct sigaction sa = { .sa_sigaction = empty_handler,
	    .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART }, old;
	double start;

	sigfillset(&sa.sa_mask);
	if (mprotect(mem, BENCH_PAGE, PROT_NONE) != 0 || sigaction(SIGSEGV, &sa, &old) != 0)
		bench_die("part trap: %s", strerror(errno));
	start = bench_now();
	for (unsigned i = 0; i < PARTS; i++)
		touch_and_go(mem);
	bench_time("part: trap, SIGSEGV and back", PARTS, (bench_now() - start) / PARTS);
	sigaction(SIGSEGV, &old, NULL);
	if (mprotect(mem, BENCH_PAGE, PROT_READ | PROT_WRITE) != 0)
		bench_die("part trap: %s", strerror(errno));
}

/*
 * Make single pages of a resident, shared mapping writable.  Next to the last one the
 * mapping before it grows; elsewhere it is split in three.
 */
static void
part_mprotect(unsigned char *mem, uint64_t n, enum bench_order order, const char *what)
{
	double start;

	if (mprotect(mem, n * BENCH_PAGE, PROT_READ) != 0)
		bench_die("%s: %s", what, strerror(errno));
	start = bench_now();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = bench_page(order, i, n);

		if (mprotect(mem + p * BENCH_PAGE, BENCH_PAGE, PROT_READ | PROT_WRITE) != 0)
			bench_die("%s: %s", what, strerror(errno));
		*page_at(mem, p) = stamp(p);
	}
	bench_time(what, n, (bench_now() - start) / (double)n);
}

/* Map single pages of a memfd, and touch them: populating is part of what it costs. */
static void
part_mmap(unsigned char *mem, int fd, uint64_t n, enum bench_order order, const char *what)
{
	double start;

	if (mmap(mem, n * BENCH_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED |
	    MAP_NORESERVE, -1, 0) == MAP_FAILED)
		bench_die("%s: %s", what, strerror(errno));
	start = bench_now();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = bench_page(order, i, n);

		if (mmap(mem + p * BENCH_PAGE, BENCH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED |
		    MAP_FIXED | MAP_POPULATE, fd, (off_t)(p * BENCH_PAGE)) == MAP_FAILED)
			bench_die("%s: %s", what, strerror(errno));
		*page_at(mem, p) = stamp(p);
	}
	bench_time(what, n, (bench_now() - start) / (double)n);
}

/* Copy and clear pages that are not in the cache. */
static void
part_copy(unsigned char *from, unsigned char *to, uint64_t n)
{
	double start = bench_now();

	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = bench_page(RANDOM, i, n);

		memcpy(to + p * BENCH_PAGE, from + p * BENCH_PAGE, BENCH_PAGE);
		__asm__ __volatile__("" : : "r"(to) : "memory");
	}
	bench_time("part: copy of a page", n, (bench_now() - start) / (double)n);
	start = bench_now();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t p = bench_page(RANDOM, i, n);

		memset(to + p * BENCH_PAGE, 0, BENCH_PAGE);
		__asm__ __volatile__("" : : "r"(to) : "memory");
	}
	bench_time("part: zeros in a page", n, (bench_now() - start) / (double)n);
}

static int
memfd(void **mem)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)(pages * BENCH_PAGE)) != 0)
		bench_die("memfd: %s", strerror(errno));
	*mem = mmap(NULL, pages * BENCH_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (*mem == MAP_FAILED)
		bench_skip("mmap: %s", strerror(errno));
	fill(*mem);
	return (fd);
}

/* Measured before the library is started, on memory that goes again. */
static void
parts(void)
{
	uint64_t n = pages < PARTS ? pages : PARTS;
	void *shared, *plain;
	int fd = memfd(&shared);

	plain = bench_private(pages * BENCH_PAGE);
	fill(plain);
	part_trap(plain);
	part_mprotect(shared, n, SEQUENTIAL, "part: mprotect of a page, sequential");
	part_mprotect(shared, n, RANDOM, "part: mprotect of a page, random");
	part_mmap(shared, fd, n, SEQUENTIAL, "part: mmap of a page, sequential");
	part_mmap(shared, fd, n, RANDOM, "part: mmap of a page, random");
	part_copy(shared, plain, n);
	munmap(plain, pages * BENCH_PAGE);
	munmap(shared, pages * BENCH_PAGE);
	close(fd);
}

static void
measure_vmfault(uint64_t size, bool full, unsigned what)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	void *source;

	(void)what;
	pages = size / BENCH_PAGE;
	parts();
	source = bench_private((size_t)size);
	fill(source);
	config.address_space = 2 * size + ((uint64_t)64 << 20);
	config.memory = 2 * size + ((uint64_t)64 << 20);
	must_fit(vmf_init(&config), "vmf_init");
	for (unsigned order = SEQUENTIAL; order <= RANDOM; order++) {
		for (unsigned a = VMF_ADVICE_NORMAL; a <= VMF_ADVICE_SEQUENTIAL; a++)
			vmfault_zero(order, a);
		for (unsigned a = VMF_ADVICE_NORMAL; a <= VMF_ADVICE_SEQUENTIAL; a++)
			vmfault_cow(order, a);
		for (unsigned a = VMF_ADVICE_NORMAL; a <= VMF_ADVICE_SEQUENTIAL; a++)
			vmfault_soft(order, a);
		for (unsigned a = VMF_ADVICE_NORMAL; a <= VMF_ADVICE_SEQUENTIAL; a++)
			vmfault_pager(source, order, a);
	}
	must_fit(vmf_fini(), "vmf_fini");
}

/*
 * The kernel
 */

/* A sample for the rows of every advice. */
static void
kernel_report(const char *kind, enum bench_order order, double us)
{
	for (unsigned a = VMF_ADVICE_NORMAL; a <= VMF_ADVICE_SEQUENTIAL; a++)
		bench_time(row(kind, order, a), pages, us);
}

static void
kernel_zero_and_cow(enum bench_order order)
{
	size_t size = pages * BENCH_PAGE;
	void *mem = bench_private(size);
	int hold[2], ready[2], status;
	pid_t pid;
	char c = 0;

	kernel_report("zero-fill", order, write_all(mem, order, 0));
	if (pipe(hold) != 0 || pipe(ready) != 0 || (pid = fork()) < 0)
		bench_die("fork: %s", strerror(errno));
	if (pid == 0) {
		close(hold[1]);
		if (write(ready[1], &c, 1) == 1 && read(hold[0], &c, 1) == 0)
			read_all(mem, SEQUENTIAL, 0, "kernel: forked child");
		_exit(0);
	}
	close(hold[0]);
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		bench_die("the forked child died");
	close(ready[0]);
	kernel_report("copy-on-write", order, write_all(mem, order, 1));
	read_all(mem, SEQUENTIAL, 1, "kernel: copy-on-write");
	close(hold[1]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		bench_die("kernel: the forked child failed");
	munmap(mem, size);
}

/* A memfd whose pages exist already: the faults only map them, or copy them. */
static void
kernel_memfd(enum bench_order order)
{
	size_t size = pages * BENCH_PAGE;
	void *mem, *again;
	int fd = memfd(&mem);

	again = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (again == MAP_FAILED)
		bench_skip("mmap: %s", strerror(errno));
	kernel_report("soft", order, read_all(again, order, 0, "kernel: memfd"));
	munmap(again, size);
	again = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	if (again == MAP_FAILED)
		bench_skip("mmap: %s", strerror(errno));
	kernel_report("pager", order, write_all(again, order, 1));
	read_all(again, SEQUENTIAL, 1, "kernel: private memfd");
	munmap(again, size);
	munmap(mem, size);
	close(fd);
}

static void
measure_kernel(uint64_t size, bool full, unsigned what)
{
	(void)what;
	pages = size / BENCH_PAGE;
	for (unsigned order = SEQUENTIAL; order <= RANDOM; order++) {
		kernel_zero_and_cow(order);
		kernel_memfd(order);
	}
}

/*
 * What is left of a fault of one page when its parts are taken off
 */

static struct bench_options options = {
	.size = { UINT64_C(64) << 20 }, .sizes = 1, .rounds = 7,
};

static void
rest(uint64_t size, const char *what, const char *total, const char *mapping, const char *bytes)
{
	double t = bench_median(total, size, VMFAULT);

	if (t < 0)
		return;
	t -= bench_median("part: trap, SIGSEGV and back", size, VMFAULT) +
	    bench_median(mapping, size, VMFAULT) + bench_median(bytes, size, VMFAULT);
	bench_derived(what, size, t < 0 ? 0 : t);
}

static void
rests(void)
{
	for (size_t i = 0; i < options.sizes; i++) {
		uint64_t size = options.size[i];

		rest(size, "rest of a copy-on-write fault", "copy-on-write random, RANDOM",
		    "part: mprotect of a page, random", "part: copy of a page");
		rest(size, "rest of a zero-fill fault", "zero-fill random, RANDOM",
		    "part: mmap of a page, random", "part: zeros in a page");
	}
}

int
main(int argc, char **argv)
{
	static struct bench_pair pairs[1 + FAULT_THREADS_PAIRS] = {
		{ .side = { measure_vmfault, measure_kernel } },
	};

	bench_fault_threads(pairs + 1);
	bench_options(&options, argc, argv,
	    "What a page fault costs, by kind, order and advice, against the kernel's own,\n"
	    "and the parts of one fault; and of many threads at a time.  All rows are microseconds per page.\n");
	return (bench_main(&options, pairs, 1 + FAULT_THREADS_PAIRS, 3, rests));
}
