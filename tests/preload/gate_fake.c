/* SPDX-License-Identifier: BSD-2-Clause */

#include "gate_fake.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "gate_impl.h"
#include "signals_impl.h"

/* A page: how many pins; inaccessible; being changed. */
#define PINS	0xffffffu
#define EVICTED	0x1000000u
#define RDONLY	0x2000000u
#define BUSY	0x80000000u

#define PAGES	(FAKE_SIZE / FAKE_PAGE)

struct fake_stats fake_stats;
char *fake_base;
size_t fake_used;
_Atomic int fake_refuse;
bool fake_blind;
static _Atomic uint32_t *pages;
static struct gate_ops ops;
static _Atomic uint32_t evicted_now;

static uint32_t
page_lock(size_t i)
{
	uint32_t s;

	for (;;) {
		s = pages[i] & ~BUSY;
		if (__atomic_compare_exchange_n((uint32_t *)&pages[i], &s, s | BUSY, false, __ATOMIC_ACQ_REL,
		    __ATOMIC_RELAXED))
			return s;
		if (s & BUSY)
			(void)GATE_RAW(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
	}
}

static void
page_protect(size_t i, int prot)
{
	(void)GATE_RAW(SYS_mprotect, fake_base + i * FAKE_PAGE, FAKE_PAGE, prot, 0, 0, 0);
}

/* No more than is asked for: who pins for reading gets no writable page. */
static uint32_t
page_bring(size_t i, uint32_t s, bool write)
{
	if (!write) {
		if (!(s & EVICTED))
			return s;
		page_protect(i, PROT_READ);
		return (s & ~EVICTED) | RDONLY;
	}
	if (s & (EVICTED | RDONLY)) {
		page_protect(i, PROT_READ | PROT_WRITE);
		evicted_now--;
	}
	return s & ~(EVICTED | RDONLY);
}

static bool
page_evict(size_t i, bool readable)
{
	uint32_t s = page_lock(i);
	bool yes = s == 0 && evicted_now < 20000;

	if (yes) {
		page_protect(i, readable ? PROT_READ : PROT_NONE);
		s = readable ? RDONLY : EVICTED;
		evicted_now++;
		fake_stats.evictions++;
	}
	pages[i] = s;
	return yes;
}

static size_t
page_of(const void *p)
{
	return (size_t)((const char *)p - fake_base) / FAKE_PAGE;
}

size_t
fake_evict(void *p, size_t n, bool readable)
{
	size_t count = 0;

	for (size_t i = page_of(p); n != 0 && i <= page_of((char *)p + n - 1); i++)
		count += page_evict(i, readable);
	return count;
}

bool
fake_pinned(const void *p, size_t n)
{
	for (size_t i = page_of(p); i <= page_of((const char *)p + n - 1); i++)
		if (!(pages[i] & PINS))
			return false;
	return true;
}

static bool
fake_managed(const void *p, size_t n)
{
	uintptr_t a = (uintptr_t)p, b = (uintptr_t)fake_base;

	return !fake_blind && a < b + FAKE_SIZE && (a >= b || (n > 0 && a + n > b && a + n > a));
}

static int
fake_pin(struct gate_pin *pin)
{
	size_t first = page_of(pin->addr);
	char *end = (char *)pin->addr + pin->size;

	if ((char *)pin->addr < fake_base || end > fake_base + fake_used)
		return -EFAULT;
	if (fake_refuse > 0) {
		fake_refuse--;
		return -ENOMEM;
	}
	for (size_t i = first; i <= page_of(end - 1); i++) {
		uint32_t s = page_bring(i, page_lock(i), pin->write);

		pages[i] = s + 1;
		fake_stats.pinned++;
	}
	fake_stats.pins++;
	return 0;
}

static void
fake_unpin(struct gate_pin *pin)
{
	for (size_t i = page_of(pin->addr); i <= page_of((char *)pin->addr + pin->size - 1); i++) {
		uint32_t s = page_lock(i);

		pages[i] = s - 1;
		fake_stats.pinned--;
	}
}

static void
fault(int sig, siginfo_t *si, void *context)
{
	size_t i = page_of(si->si_addr);

	if (sig == SIGSEGV && si->si_code > 0 && si->si_code != SI_KERNEL &&
	    (char *)si->si_addr >= fake_base && (char *)si->si_addr < fake_base + fake_used) {
		pages[i] = page_bring(i, page_lock(i), true);
		fake_stats.faults++;
		return;
	}
	signals_deliver(sig, si, context);
}

static void
take(int sig)
{
	struct kaction old, a = {
		.handler = (void (*)(int))(uintptr_t)fault,
		.flags = (unsigned)(SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART) |
		    (GATE_ARCH_FRAMES ? SA_RESTORER_FLAG : 0),
		.restorer = GATE_ARCH_FRAMES ? signals_restorer : NULL,
		.mask = ~(HIDDEN),
	};
	struct sigaction sa = { 0 };

	(void)GATE_RAW(SYS_rt_sigaction, sig, &a, &old, sizeof(kset), 0, 0);
	sa.sa_handler = old.handler;
	sa.sa_flags = (int)old.flags;
	memcpy(&sa.sa_mask, &old.mask, sizeof(old.mask));
	signals_adopt(sig, &sa);
}

static void
map(void)
{
	if (fake_base != NULL)
		return;
	pages = gate_map(PAGES * sizeof(*pages), MAP_NORESERVE);
	fake_base = gate_map(FAKE_SIZE, MAP_NORESERVE);
}

int
fake_start(int mode, size_t pin_max, struct gate_info *info)
{
	map();
	ops = (struct gate_ops){ .managed = fake_managed, .pin = fake_pin, .unpin = fake_unpin, .pin_max = pin_max };
	if (signals_init() != 0)
		return -ENOMEM;
	take(SIGSEGV);
	take(SIGBUS);
	return gate_install(&ops, (enum gate_mode)mode, info);
}

void *
fake_pages(size_t n)
{
	size_t size = (n + FAKE_PAGE - 1) & ~(size_t)(FAKE_PAGE - 1);
	size_t at;

	map();
	at = __atomic_fetch_add(&fake_used, size, __ATOMIC_ACQ_REL);
	return at + size <= FAKE_SIZE ? fake_base + at : NULL;
}

/* In a forked child: what other threads of the parent were at with a page is not known; it may be anything. */
void
fake_forked(void)
{
	for (size_t i = 0; i < fake_used / FAKE_PAGE; i++)
		if (pages[i] & BUSY)
			pages[i] = (pages[i] & ~BUSY) | EVICTED;
}

static void *
evictor(void *arg)
{
	uint64_t x = 88172645463325252u;
	unsigned pause_us = (unsigned)(uintptr_t)arg;
	struct { long sec, nsec; } pause = { pause_us / 1000000, pause_us % 1000000 * 1000 };

	for (;;) {
		size_t used = fake_used / FAKE_PAGE;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (used > 0)
			for (size_t i = (x >> 20) % used, k = 0; k < (x & 7) + 1 && i < used; i++, k++)
				(void)page_evict(i, (x & 0x300) == 0);
		if (pause_us > 0)
			(void)GATE_RAW(SYS_nanosleep, &pause, NULL, 0, 0, 0, 0);
	}
	return NULL;
}

void
fake_evictor_start(unsigned pause_us)
{
	sigset_t all, old;
	pthread_t t;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	(void)pthread_create(&t, NULL, evictor, (void *)(uintptr_t)pause_us);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static bool
sleeps_in(const char *tid, long nr, unsigned long arg)
{
	unsigned long got_arg;
	char path[320];
	long got;
	FILE *f;
	bool in;

	(void)snprintf(path, sizeof(path), "/proc/self/task/%s/syscall", tid);
	f = fopen(path, "r");
	in = f != NULL && fscanf(f, "%ld %lx", &got, &got_arg) == 2 && got == nr && got_arg == arg;
	if (f != NULL)
		(void)fclose(f);
	return in;
}

void
fake_await_call(long nr, unsigned long arg)
{
	bool in = false;

	while (!in) {
		DIR *d = opendir("/proc/self/task");

		for (struct dirent *e; d != NULL && !in && (e = readdir(d)) != NULL;)
			in = e->d_name[0] != '.' && sleeps_in(e->d_name, nr, arg);
		(void)closedir(d);
		if (!in)
			usleep(500);
	}
}
