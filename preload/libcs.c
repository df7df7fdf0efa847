/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What libc allocates for itself, where its system calls are not seen (the gate of the PLT).
 *
 * libc reads into buffers of its own (stdio, readdir), reads its locale while it has all signals blocked (the start of a
 * thread), and so on, by no name that could stand before it.  None of that is the program's data.  So what
 * libc or the dynamic linker ask malloc() for is the kernel's memory, which nobody takes away: an arena of its own in
 * jemalloc.  What a function allocates for the program (getline, strdup) is among it: it is right, and counts
 * towards no limit.
 */

#include <elf.h>
#include <errno.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#include "gate_impl.h"
#include "shim.h"

/* jemalloc's: a flag is an arena's number, and one for each of these. */
#define ARENA(n)	((int)((n) + 1) << 20)
#define ZERO		0x40
#define NO_CACHE	0x100

void *mallocx(size_t, int);
void *rallocx(void *, size_t, int);
int mallctl(const char *, void *, size_t *, void *, size_t);

/* jemalloc's extent_hooks_t. */
struct hooks {
	void *(*alloc)(struct hooks *, void *, size_t, size_t, bool *, bool *, unsigned);
	bool (*dalloc)(struct hooks *, void *, size_t, bool, unsigned);
	void (*destroy)(struct hooks *, void *, size_t, bool, unsigned);
	bool (*commit)(struct hooks *, void *, size_t, size_t, size_t, unsigned);
	bool (*decommit)(struct hooks *, void *, size_t, size_t, size_t, unsigned);
	bool (*purge_lazy)(struct hooks *, void *, size_t, size_t, size_t, unsigned);
	bool (*purge_forced)(struct hooks *, void *, size_t, size_t, size_t, unsigned);
	bool (*split)(struct hooks *, void *, size_t, size_t, size_t, bool, unsigned);
	bool (*merge)(struct hooks *, void *, size_t, void *, size_t, bool, unsigned);
};

bool libcs_apart;
static struct { uintptr_t start, end; } text[2];	/* libc, and the dynamic linker; constant once libcs_apart is */
static _Atomic unsigned arena;				/* 0: not yet made */
static _Atomic bool making;

static void *
alloc(struct hooks *h, void *at, size_t size, size_t align, bool *zero, bool *commit, unsigned n)
{
	char *p = at == NULL ? gate_map(size + align, MAP_NORESERVE) : NULL, *q;

	(void)h;
	(void)n;
	if (p == NULL)
		return NULL;
	q = (char *)(((uintptr_t)p + align - 1) & -(uintptr_t)align);
	if (q > p)
		gate_unmap(p, (size_t)(q - p));
	gate_unmap(q + size, (size_t)(p + align - q));
	*zero = *commit = true;
	return q;
}

static bool
dalloc(struct hooks *h, void *p, size_t size, bool committed, unsigned n)
{
	(void)h;
	(void)committed;
	(void)n;
	gate_unmap(p, size);
	return false;
}

static bool
split(struct hooks *h, void *p, size_t size, size_t a, size_t b, bool committed, unsigned n)
{
	(void)h, (void)p, (void)size, (void)a, (void)b, (void)committed, (void)n;
	return false;
}

static bool
merge(struct hooks *h, void *p, size_t a, void *q, size_t b, bool committed, unsigned n)
{
	(void)h, (void)p, (void)a, (void)q, (void)b, (void)committed, (void)n;
	return false;
}

static struct hooks hooks = { .alloc = alloc, .dalloc = dalloc, .split = split, .merge = merge };

/* Its number, or 0: there is none. */
static unsigned
the_arena(void)
{
	struct hooks *h = &hooks;
	unsigned n = atomic_load_explicit(&arena, memory_order_acquire);
	size_t size = sizeof(n);

	while (n == 0) {
		if (!atomic_exchange(&making, true)) {
			if (mallctl("arenas.create", &n, &size, &h, sizeof(h)) != 0)
				n = 0;
			atomic_store(&arena, n);
			atomic_store(&making, false);
			return n;
		}
		(void)GATE_RAW(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
		n = atomic_load_explicit(&arena, memory_order_acquire);
	}
	return n;
}

bool
libcs_caller(const void *pc)
{
	uintptr_t a = (uintptr_t)pc;

	return (a >= text[0].start && a < text[0].end) || (a >= text[1].start && a < text[1].end);
}

void *
libcs_alloc(void *old, size_t size, bool zero)
{
	unsigned n = the_arena();
	int flags = (n != 0 ? ARENA(n) : 0) | NO_CACHE | (zero ? ZERO : 0);
	void *p = old == NULL ? mallocx(size != 0 ? size : 1, flags) : rallocx(old, size != 0 ? size : 1, flags);

	if (p == NULL)
		errno = ENOMEM;
	return p;
}

static int
find_text(struct dl_phdr_info *object, size_t size, void *arg)
{
	uintptr_t libc = (uintptr_t)gnu_get_libc_version, start = UINTPTR_MAX, end = 0;

	(void)size;
	(void)arg;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &object->dlpi_phdr[i];

		if (ph->p_type == PT_LOAD && object->dlpi_addr + ph->p_vaddr < start)
			start = object->dlpi_addr + ph->p_vaddr;
		if (ph->p_type == PT_LOAD && object->dlpi_addr + ph->p_vaddr + ph->p_memsz > end)
			end = object->dlpi_addr + ph->p_vaddr + ph->p_memsz;
	}
	for (int i = 0; i < 2; i++)
		if (i == 0 ? libc >= start && libc < end : object->dlpi_addr == getauxval(AT_BASE) && end != 0) {
			text[i].start = start;
			text[i].end = end;
		}
	return 0;
}

void
libcs_start(void)
{
	(void)dl_iterate_phdr(find_text, NULL);
	libcs_apart = true;
}
