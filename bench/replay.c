/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which policy keeps the right pages: traces of faults, replayed.
 *
 * A few small programs are run on managed memory.  They close each page after they have touched it, so
 * every touch is a fault, and the faults are recorded.  Each trace is then replayed with several
 * budgets through
 *
 *	warm, clock	the library's policies: their very code, lib/vm_pdpolicy_*.c, with pages that have
 *			no bytes, and a daemon that does what lib/vm_pageout.c does
 *	lru		the least recently used page goes, all touches being known
 *	opt		the page goes that will be used last of all (Belady 1966): the bound
 *
 * A miss is a page that must be read.  A soft fault is what it costs a policy to see a touch;
 * LRU has none here because it could not exist: it would have to see every one.
 *
 *	zipf + scan	popular pages, and now and then a file read from end to end
 *	loop		again and again through a little more than most budgets
 *	random		all pages alike: nothing to be gained
 *	phases		a working set that is replaced by another
 *
 * The traces are made anew each time, from a fixed seed.  With --save they are written to files, a line
 * "object page r|w" for each fault; files that are named are replayed instead.
 */

#include <sys/queue.h>

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm_page.h"
#include "vm_pdpolicy.h"
#include "vm_trace.h"
#include "vmfault.h"

#define FREE_MIN_SHARE		64	/* as in lib/vm_pageout.c */
#define FREE_TARGET_SHARE	32
#define SMALL			1024u	/* pages of the programs' working sets */
#define LARGE			4096u
#define OBJECTS			64
#define NEVER			UINT32_MAX

static uint32_t nreferences = 60000;
static const uint32_t budgets[] = { 256, 512, 1024 };

struct reference {
	uint32_t page;			/* numbered in the order of the first touch */
	uint32_t next;			/* when it is used again */
	bool write;
};

static struct trace {
	char name[64];
	struct reference *ref;
	uint32_t n, room;
	uint32_t npages;
	/* By number: where the page is. */
	uint32_t *object, *pindex;
} trace;

struct result {
	uint32_t misses, soft;
};

static void __attribute__((__format__(__printf__, 1, 2), __noreturn__))
fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("replay: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static void *
need(void *p)
{
	if (p == NULL)
		fail("out of memory");
	return p;
}

/* splitmix64 */
static uint64_t
rng(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/*
 * Traces
 */

/* The page's number; linear probing over (object, page). */
static uint32_t
number(uint32_t object, uint32_t pindex)
{
	static uint32_t *table, size;
	uint64_t h = ((uint64_t)object << 32 | pindex) * UINT64_C(0x9e3779b97f4a7c15);
	uint32_t i;

	if (trace.npages == 0) {
		free(table);
		size = 1;
		while (size < 2 * trace.n + 2)
			size *= 2;
		table = need(malloc(size * sizeof(*table)));
		memset(table, 0xff, size * sizeof(*table));
	}
	for (i = (uint32_t)(h >> 32) & (size - 1); table[i] != NEVER; i = (i + 1) & (size - 1))
		if (trace.object[table[i]] == object && trace.pindex[table[i]] == pindex)
			return table[i];
	trace.object[trace.npages] = object;
	trace.pindex[trace.npages] = pindex;
	return table[i] = trace.npages++;
}

/* Number the pages, and say when each is used next.  ref[i].page is the object, .next the page, so far. */
static void
digest(void)
{
	uint32_t *last;

	trace.npages = 0;
	trace.object = need(realloc(trace.object, trace.n * sizeof(uint32_t)));
	trace.pindex = need(realloc(trace.pindex, trace.n * sizeof(uint32_t)));
	for (uint32_t i = 0; i < trace.n; i++)
		trace.ref[i].page = number(trace.ref[i].page, trace.ref[i].next);
	last = need(malloc(trace.npages * sizeof(*last)));
	memset(last, 0xff, trace.npages * sizeof(*last));
	for (uint32_t i = trace.n; i-- > 0;) {
		trace.ref[i].next = last[trace.ref[i].page];
		last[trace.ref[i].page] = i;
	}
	free(last);
}

static void
trace_begin(const char *name)
{
	(void)snprintf(trace.name, sizeof(trace.name), "%s", name);
	trace.n = 0;
}

static void
trace_add(uint32_t object, uint32_t pindex, bool write)
{
	trace.ref[trace.n++] = (struct reference){ object, pindex, write };
}

static void
trace_room(uint32_t n)
{
	if (n <= trace.room)
		return;
	trace.ref = need(realloc(trace.ref, n * sizeof(*trace.ref)));
	trace.room = n;
}

static void
trace_read(const char *path)
{
	FILE *f = fopen(path, "re");
	unsigned object, pindex;
	char how;

	if (f == NULL)
		fail("%s: %s", path, strerror(errno));
	trace_begin(path);
	while (fscanf(f, "%u %u %c", &object, &pindex, &how) == 3) {
		trace_room(trace.n == trace.room ? 2 * trace.room + 1024 : trace.room);
		trace_add(object, pindex, how == 'w');
	}
	if (!feof(f) || trace.n == 0)
		fail("%s: no trace", path);
	fclose(f);
	digest();
}

static void
trace_save(void)
{
	char path[80];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s.trace", trace.name);
	for (char *c = path; *c != '\0'; c++)
		if (*c == ' ' || *c == '+')
			*c = '_';
	f = fopen(path, "we");
	if (f == NULL)
		fail("%s: %s", path, strerror(errno));
	for (uint32_t i = 0; i < trace.n; i++)
		fprintf(f, "%u %u %c\n", trace.object[trace.ref[i].page],
		    trace.pindex[trace.ref[i].page], trace.ref[i].write ? 'w' : 'r');
	if (fclose(f) != 0)
		fail("%s: %s", path, strerror(errno));
}

/*
 * Recording
 */

static void
recorder(const struct vm_object *o, vm_pindex_t pindex, bool write)
{
	static const struct vm_object *seen[OBJECTS];
	uint32_t i = 0;

	if (trace.n == trace.room)
		return;
	while (i < OBJECTS - 1 && seen[i] != o && seen[i] != NULL)
		i++;
	seen[i] = o;
	trace_add(i, pindex, write);
}

static volatile unsigned char *memory;
static uint64_t seed;

static void
touch(uint32_t page)
{
	volatile unsigned char *p = memory + (size_t)page * VMF_PAGE_SIZE;
	void *addr = (void *)(uintptr_t)p;

	if (rng(&seed) % 4 == 0)
		*p = (unsigned char)page;
	else
		(void)*p;
	/* Close the page, so that the next touch is a fault. */
	if (vmf_protect(addr, VMF_PAGE_SIZE, VMF_PROT_NONE) != 0 ||
	    vmf_protect(addr, VMF_PAGE_SIZE, VMF_PROT_DEFAULT) != 0)
		fail("cannot protect a page");
}

/* Four fifths of the choices are from the first fifth, and so on within both parts. */
static uint32_t
popular(uint32_t n)
{
	uint32_t lo = 0;

	while (n > 4) {
		if (rng(&seed) % 5 != 0) {
			n /= 5;
		} else {
			lo += n / 5;
			n -= n / 5;
		}
	}
	/* Neighbours in rank are none in memory. */
	return (lo + (uint32_t)(rng(&seed) % n)) * 389 % SMALL;
}

static void
zipf_and_scan(void)
{
	while (trace.n < trace.room) {
		for (int i = 0; i < 6000; i++)
			touch(popular(SMALL));
		for (uint32_t i = SMALL; i < LARGE && trace.n < trace.room; i++) {
			touch(i);
			if (i % 4 == 0)
				touch(popular(SMALL));
		}
	}
}

static void
loop(void)
{
	while (trace.n < trace.room)
		for (uint32_t i = 0; i < SMALL * 5 / 4; i++)
			touch(i);
}

static void
uniform(void)
{
	while (trace.n < trace.room)
		touch((uint32_t)(rng(&seed) % (2 * SMALL)));
}

static void
phases(void)
{
	for (uint32_t phase = 0; trace.n < trace.room; phase++) {
		uint32_t lo = phase * SMALL / 2 % (LARGE - SMALL);

		for (uint32_t i = 0; i < 8000; i++)
			touch(lo + (uint32_t)(rng(&seed) % (SMALL / 2)));
	}
}

static const struct program {
	const char *name;
	void (*run)(void);
} programs[] = {
	{ "zipf + scan", zipf_and_scan },
	{ "loop", loop },
	{ "random", uniform },
	{ "phases", phases },
};

static void
record(const struct program *p)
{
	const size_t size = (size_t)LARGE * VMF_PAGE_SIZE;
	void *addr;
	int error;

	error = vmf_init(NULL);
	if (error == 0)
		error = vmf_allocate(VMF_TASK_DEFAULT, &addr, size, 0);
	if (error == 0)
		error = vmf_advise(addr, size, VMF_ADVICE_RANDOM);
	if (error != 0)
		fail("%s", strerror(-error));
	memory = addr;
	seed = 1;
	trace_begin(p->name);
	trace_room(nreferences);
	trace.room = nreferences;
	vm_trace = recorder;
	p->run();
	vm_trace = NULL;
	(void)vmf_fini();
	digest();
}

/*
 * Replaying
 */

static struct result
replay_policy(const struct vm_pdpolicy *policy, uint32_t frames)
{
	struct vm_page *pages = need(calloc(trace.npages, sizeof(*pages)));
	uint32_t nfree = frames;
	struct result r = { 0 };

	vm_page_active_count = vm_page_inactive_count = vm_page_wire_count = 0;
	policy->init();
	policy->tune(frames);
	for (uint32_t i = 0; i < trace.npages; i++) {
		pages[i].object = (struct vm_object *)(uintptr_t)((trace.object[i] + 1) * 4096);
		pages[i].pindex = trace.pindex[i];
	}
	for (uint32_t i = 0; i < trace.n; i++) {
		struct vm_page *m = &pages[trace.ref[i].page];

		if (m->queue == PQ_ACTIVE)
			continue;
		if (m->queue == PQ_INACTIVE) {
			r.soft++;
			policy->touch(m);
			continue;
		}
		r.misses++;
		for (int pass = 0; nfree < MAX(frames / FREE_MIN_SHARE, 1) && pass < 3; pass++) {
			policy->begin(pass != 0);
			while ((m = policy->next_to_watch()) != NULL)
				policy->watch(m);
			while (nfree < MAX(frames / FREE_TARGET_SHARE, 2) &&
			    (m = policy->next_victim()) != NULL) {
				policy->evict(m);
				nfree++;
			}
		}
		if (nfree == 0)
			fail("%s took no page", policy->name);
		nfree--;
		policy->enqueue(&pages[trace.ref[i].page]);
	}
	policy->fini();
	free(pages);
	return r;
}

static struct result
replay_warm(uint32_t frames)
{
	return replay_policy(&vm_pdpolicy_warm, frames);
}

static struct result
replay_clock(uint32_t frames)
{
	return replay_policy(&vm_pdpolicy_clock, frames);
}

/* With all frames full the resident page goes that is worst: of the least (lru) or the greatest (opt) key. */
static struct result
replay_ideal(uint32_t frames, bool opt)
{
	uint32_t *resident = need(calloc(frames, sizeof(*resident))), n = 0;
	uint32_t *key = need(calloc(trace.npages, sizeof(*key)));	/* 0: not resident */
	struct result r = { 0 };

	for (uint32_t i = 0; i < trace.n; i++) {
		uint32_t page = trace.ref[i].page, worst = 0;

		if (key[page] == 0) {
			r.misses++;
			if (n < frames) {
				resident[n++] = page;
			} else {
				for (uint32_t k = 1; k < n; k++)
					if (opt ? key[resident[k]] > key[resident[worst]] :
					    key[resident[k]] < key[resident[worst]])
						worst = k;
				key[resident[worst]] = 0;
				resident[worst] = page;
			}
		}
		key[page] = opt ? trace.ref[i].next : i + 1;
	}
	free(key);
	free(resident);
	return r;
}

static struct result
replay_lru(uint32_t frames)
{
	return replay_ideal(frames, false);
}

static struct result
replay_opt(uint32_t frames)
{
	return replay_ideal(frames, true);
}

static const struct {
	const char *name;
	struct result (*replay)(uint32_t frames);
} policies[] = {
	{ "warm", replay_warm },
	{ "clock", replay_clock },
	{ "lru", replay_lru },
	{ "opt", replay_opt },
};

static void
report(bool json, bool first)
{
	if (!json)
		printf("%s: %u faults on %u pages\n%8s", trace.name, trace.n, trace.npages, "frames");
	for (size_t p = 0; p < nitems(policies) && !json; p++)
		printf("  %8s%6s%7s", policies[p].name, "miss", "soft");
	if (!json)
		putchar('\n');
	for (size_t b = 0; b < nitems(budgets); b++) {
		if (!json)
			printf("%8u", budgets[b]);
		for (size_t p = 0; p < nitems(policies); p++) {
			struct result r = policies[p].replay(budgets[b]);

			if (json)
				printf("%s    {\"trace\": \"%s\", \"faults\": %u, \"pages\": %u, \"frames\": %u, "
				    "\"policy\": \"%s\", \"misses\": %u, \"soft\": %u}",
				    first && b == 0 && p == 0 ? "" : ",\n", trace.name, trace.n,
				    trace.npages, budgets[b], policies[p].name, r.misses, r.soft);
			else
				printf("  %8u%5.1f%%%7u", r.misses, 100.0 * r.misses / trace.n, r.soft);
		}
		if (!json)
			putchar('\n');
	}
	if (!json)
		putchar('\n');
}

static void __attribute__((__noreturn__))
usage(int code)
{
	fprintf(code == 0 ? stdout : stderr,
	    "usage: replay [--references N] [--save] [--json] [TRACE...]\n\n"
	    "  --references N  faults to record of each program (60000)\n"
	    "  --save          write the traces to NAME.trace in the current directory\n"
	    "  --json          print JSON instead of a table\n");
	exit(code);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "references", required_argument, NULL, 'n' },
		{ "save", no_argument, NULL, 's' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool json = false, save = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'n': nreferences = (uint32_t)strtoul(optarg, NULL, 0); break;
		case 's': save = true; break;
		case 'j': json = true; break;
		case 'h': usage(0);
		default: usage(2);
		}
	}
	if (nreferences == 0)
		usage(2);
	if (json)
		printf("{\n  \"bench\": \"replay\",\n  \"rows\": [\n");
	for (int i = optind; i < argc; i++) {
		trace_read(argv[i]);
		report(json, i == optind);
	}
	for (size_t i = 0; i < nitems(programs) && optind == argc; i++) {
		record(&programs[i]);
		if (save)
			trace_save();
		report(json, i == 0);
	}
	if (json)
		printf("\n  ]\n}\n");
	return 0;
}
