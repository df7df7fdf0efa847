/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The mapping budget against a program that spends it: every page of 8 GB of address space is
 * written, one at a time, in random order; then a snapshot is taken, and all is written again.
 *
 *	soak_budget --size BYTES --snapshots N --again N --mappings N
 *	    --memory BYTES --compress BYTES
 *
 * Each single page that is written cuts a mapping in two or three, and the kernel allows 65,530 in all, of
 * which 8 GB in single pages would need four million.
 *
 * --memory, --compress: so many bytes of frames, and of memory for compressed pages in front of a swap file.  Each
 * page is filled with one word, so that compressed it costs nothing, and any machine holds the 8 GB.
 * Without, all pages stay in memory, and the size is what a share of the memory that is available
 * allows.
 *
 * Whatever happens, the kernel's own count of this process's mappings stays below its limit,
 * every byte is what was written last, and each snapshot shows what it did.
 */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "support.h"

enum { SNAPSHOTS_MAX = 8 };

static struct {
	uint64_t size, memory, compress;
	unsigned snapshots, mappings, again;
} opt = { .size = (uint64_t)8 << 30, .snapshots = 1 };

static char *memory;
static uint64_t pages;		/* a power of two */
static unsigned bits;

/* The i-th page of a round: a permutation, and none that a pattern could be seen in. */
static uint64_t
nth(uint64_t i, uint64_t round)
{
	uint64_t mask = pages - 1, x = i ^ (mix(round, 1) & mask);

	for (unsigned n = 0; n < 3; n++) {
		x = x * (mix(round, n + 2) | 1) & mask;
		x ^= x >> (bits + 1) / 2;
	}
	return x;
}

static uint64_t
word_of(uint64_t page, uint64_t round)
{
	return mix(page, round + 1);
}

/* Without compression one word is enough, and the time is that of the fault. */
static size_t
words(void)
{
	return opt.compress != 0 ? PG / sizeof(uint64_t) : 1;
}

static void
check_page(const char *at, uint64_t page, uint64_t round)
{
	const uint64_t *p = (const void *)at;

	for (size_t w = 0; w < words(); w++)
		if (p[w] != word_of(page, round))
			die("page %llu, word %zu of round %llu: %#llx, not %#llx", (unsigned long long)page, w,
			    (unsigned long long)round, (unsigned long long)p[w],
			    (unsigned long long)word_of(page, round));
}

static struct vmf_stats
look(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	check(s.mappings <= s.mappings_max);
	return s;
}

/* Write every page, once, in random order. */
static void
write_round(uint64_t round)
{
	struct vmf_stats was = look(), is;
	uint64_t began = now_ms(), took, most = 0;

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t page = nth(i, round);
		uint64_t *p = (void *)(memory + page * PG);

		for (size_t w = 0; w < words(); w++)
			p[w] = word_of(page, round);
		if (i % 65536 == 0) {
			is = look();
			most = is.mappings > most ? is.mappings : most;
		}
	}
	took = now_ms() - began;
	is = look();
	printf("round %llu: %llu pages, %.2f us each; %llu mappings at most, of %llu; for each page "
	    "%.2f faults, %.2f calls, %.2f forgotten\n",
	    (unsigned long long)round, (unsigned long long)pages, 1e3 * (double)took / (double)pages,
	    (unsigned long long)most, (unsigned long long)is.mappings_max,
	    (double)(is.v_vm_faults - was.v_vm_faults) / (double)pages,
	    (double)(is.v_map_calls - was.v_map_calls) / (double)pages,
	    (double)(is.v_forgets - was.v_forgets) / (double)pages);
	fflush(stdout);
}

static void
verify(const vmf_snapshot_t *snapshot)
{
	char buf[VMF_PAGE_SIZE];

	for (uint64_t page = 0; page < pages; page++) {
		check_page(memory + page * PG, page, opt.snapshots + opt.again);
		for (unsigned s = 0; s < opt.snapshots; s++) {
			expect(vmf_snapshot_read(snapshot[s], 0, page * PG, buf, PG), 0);
			check_page(buf, page, s);
		}
	}
}

/*
 * Options
 */

static uint64_t
available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	unsigned long long kb = 0;
	char line[128];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL && sscanf(line, "MemAvailable: %llu", &kb) != 1)
		;
	if (f != NULL)
		fclose(f);
	return kb << 10;
}

static void
usage(void)
{
	fprintf(stderr, "usage: soak_budget [--size BYTES] [--snapshots N] [--again N] [--mappings N] "
	    "[--memory BYTES --compress BYTES]\n");
	exit(2);
}

static uint64_t
number(const char *s)
{
	char *end;
	uint64_t n;

	errno = 0;
	n = strtoull(s, &end, 0);
	if (errno != 0 || end == s || *end != '\0')
		usage();
	return n;
}

static void
options(int argc, char **argv)
{
	static const struct option table[] = {
		{ "size", required_argument, NULL, 's' }, { "snapshots", required_argument, NULL, 'n' },
		{ "mappings", required_argument, NULL, 'm' }, { "again", required_argument, NULL, 'a' }, { "memory", required_argument, NULL, 'f' },
		{ "compress", required_argument, NULL, 'c' }, { NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		switch (c) {
		case 's':	opt.size = number(optarg); break;
		case 'n':	opt.snapshots = (unsigned)number(optarg); break;
		case 'a':	opt.again = (unsigned)number(optarg); break;
		case 'm':	opt.mappings = (unsigned)number(optarg); break;
		case 'f':	opt.memory = number(optarg); break;
		case 'c':	opt.compress = number(optarg); break;
		default:	usage();
		}
	}
	if (optind != argc || opt.snapshots > SNAPSHOTS_MAX || (opt.memory == 0) != (opt.compress == 0))
		usage();
}

static void
begin(void)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	/* All rounds at once, in at most half of what there is. */
	while (opt.memory == 0 && opt.size > PG && opt.size * (1 + opt.snapshots) > available() / 2)
		opt.size /= 2;
	for (pages = 1, bits = 0; pages < opt.size / PG; pages *= 2)
		bits++;
	config.address_space = pages * PG + ((uint64_t)1 << 30);
	config.memory = opt.memory;
	config.mappings = opt.mappings;
	config.compress_size = opt.compress;
	config.swap_size = opt.compress != 0 ? pages * PG : 0;
	config.flags = VMF_CONFIG_QUIET;
	expect(vmf_init(&config), 0);
	memory = alloc(pages);
}

int
main(int argc, char **argv)
{
	vmf_snapshot_t snapshot[SNAPSHOTS_MAX];

	options(argc, argv);
	begin();
	write_round(0);
	for (unsigned s = 0; s < opt.snapshots; s++) {
		snapshot[s] = snap(memory, pages);
		write_round(s + 1);
	}
	for (unsigned n = 0; n < opt.again; n++)
		write_round(opt.snapshots + n + 1);
	verify(snapshot);
	for (unsigned s = 0; s < opt.snapshots; s++)
		expect(vmf_snapshot_release(snapshot[s]), 0);
	stop();
	return 0;
}
