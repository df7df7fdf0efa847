/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The fake as a library to preload: malloc in "managed" memory, the gate, and a thread that takes pages away
 * all the time.
 *
 *	FAKE_PAUSE	microseconds between two evictions (0: none; -1: no evictor)
 *	FAKE_GATE	patch, plt, blind (a gate that lets everything pass unpinned) or none
 *	FAKE_PIN_MAX	bytes
 *	FAKE_REPORT	append what was done to this file at exit
 */

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gate.h"
#include "gate_fake.h"

#pragma GCC visibility push(default)	/* what is exported is named by gate_fake.map */

/* Powers of two, from 32 bytes; a header of 16 tells the size.  Freed blocks go on a list of their size. */
#define HEADER	16
#define CLASSES	40

struct block {
	size_t class;
	struct block *next;
};

static _Atomic int lock;
static struct block *freed[CLASSES];
static char *chunk, *chunk_end;
static int pause_us = -1;
static const char *report_path;
static struct gate_info info;

static void
take_lock(void)
{
	while (__atomic_exchange_n((int *)&lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

void *
malloc(size_t n)
{
	size_t class = 5;
	struct block *b;

	if (n > PTRDIFF_MAX / 4) {
		errno = ENOMEM;
		return NULL;
	}
	while (((size_t)1 << class) < n + HEADER)
		class++;
	take_lock();
	b = freed[class];
	if (b != NULL) {
		freed[class] = b->next;
	} else if (class >= 12) {
		b = fake_pages((size_t)1 << class);
	} else {
		if (chunk == NULL || (size_t)(chunk_end - chunk) < (size_t)1 << class) {
			chunk = fake_pages(65536);
			chunk_end = chunk != NULL ? chunk + 65536 : NULL;
		}
		b = (struct block *)(void *)chunk;
		if (chunk != NULL)
			chunk += (size_t)1 << class;
	}
	__atomic_store_n((int *)&lock, 0, __ATOMIC_RELEASE);
	if (b == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	b->class = class;
	return (char *)b + HEADER;
}

/* A pointer of memalign() has a header that leads to the block's. */
static struct block *
block_of(void *p)
{
	struct block *b = (struct block *)(void *)((char *)p - HEADER);

	return b->class == CLASSES ? b->next : b;
}

void
free(void *p)
{
	struct block *b;

	if (p == NULL)
		return;
	b = block_of(p);
	take_lock();
	b->next = freed[b->class];
	freed[b->class] = b;
	__atomic_store_n((int *)&lock, 0, __ATOMIC_RELEASE);
}

void *
calloc(size_t n, size_t size)
{
	size_t total;
	void *p;

	if (__builtin_mul_overflow(n, size, &total)) {
		errno = ENOMEM;
		return NULL;
	}
	p = malloc(total);
	if (p != NULL) {
		volatile char *q = p;	/* gcc would make this function of malloc and memset */

		for (size_t i = 0; i < total; i++)
			q[i] = 0;
	}
	return p;
}

size_t
malloc_usable_size(void *p)
{
	struct block *b;

	if (p == NULL)
		return 0;
	b = block_of(p);
	return (size_t)((char *)b + ((size_t)1 << b->class) - (char *)p);
}

void *
realloc(void *p, size_t n)
{
	void *q;

	if (p == NULL)
		return malloc(n);
	if (n == 0) {
		free(p);
		return NULL;
	}
	if (malloc_usable_size(p) >= n)
		return p;
	q = malloc(n);
	if (q != NULL) {
		memcpy(q, p, malloc_usable_size(p));
		free(p);
	}
	return q;
}

void *
memalign(size_t align, size_t n)
{
	char *p, *q;
	struct block *b;

	if (align <= HEADER)
		return malloc(n);
	p = malloc(n + align + HEADER);
	__asm__("" : "+r"(p));		/* there is something below it, whatever a compiler knows of malloc */
	if (p == NULL)
		return NULL;
	q = (char *)(((uintptr_t)p + HEADER + align - 1) & ~(align - 1));
	b = (struct block *)(void *)(q - HEADER);
	b->next = block_of(p);
	b->class = CLASSES;
	return q;
}

void *
aligned_alloc(size_t align, size_t n)
{
	return memalign(align, n);
}

int
posix_memalign(void **p, size_t align, size_t n)
{
	*p = memalign(align, n);
	return *p != NULL ? 0 : ENOMEM;
}

void *
valloc(size_t n)
{
	return memalign(4096, n);
}

void *
pvalloc(size_t n)
{
	return memalign(4096, (n + 4095) & ~(size_t)4095);
}

static void
child(void)
{
	fake_forked();
	__atomic_store_n((int *)&lock, 0, __ATOMIC_RELEASE);
	if (pause_us >= 0)
		fake_evictor_start((unsigned)pause_us);
}

static void
prepare(void)
{
	take_lock();
}

static void
parent(void)
{
	__atomic_store_n((int *)&lock, 0, __ATOMIC_RELEASE);
}

/* A program may end with a stack for its signals that is held while it has it. */
static void
report(void)
{
	stack_t none = { .ss_flags = SS_DISABLE };
	char line[200];
	int fd = open(report_path, O_WRONLY | O_APPEND | O_CREAT, 0600);
	int n, error = sigaltstack(&none, NULL);

	n = snprintf(line, sizeof(line), "%s: %u jumps, %u traps; %llu evictions, %llu faults, %llu pins, "
	    "%llu pages pinned\n", program_invocation_short_name, info.jumps, info.traps,
	    (unsigned long long)fake_stats.evictions, (unsigned long long)fake_stats.faults,
	    (unsigned long long)fake_stats.pins, (unsigned long long)fake_stats.pinned);

	if (error != 0 || write(fd, line, (size_t)n) != n)
		return;
	close(fd);
}

__attribute__((__constructor__)) static void
start(void)
{
	const char *gate = getenv("FAKE_GATE"), *s = getenv("FAKE_PAUSE"), *max = getenv("FAKE_PIN_MAX");
	int error;

	if (gate != NULL && strcmp(gate, "none") == 0)
		return;
	fake_blind = gate != NULL && strcmp(gate, "blind") == 0;
	error = fake_start(gate != NULL && strcmp(gate, "plt") == 0 ? GATE_PLT : GATE_PATCH,
	    max != NULL ? strtoul(max, NULL, 0) : 0, &info);
	if (error != 0) {
		fprintf(stderr, "fake: no gate: %s\n", strerror(-error));
		_exit(126);
	}
	pause_us = s != NULL ? atoi(s) : 50;
	report_path = getenv("FAKE_REPORT");
	if (report_path != NULL)
		(void)atexit(report);
	(void)pthread_atfork(prepare, parent, child);
	if (pause_us >= 0)
		fake_evictor_start((unsigned)pause_us);
}
