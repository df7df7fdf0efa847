/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Memory that is four times its frames, under threads, for as long as it is told, every byte verified.
 *
 *	soak_pager --on swap|compress|both|file --io auto|uring|syscalls
 *	    --faults N --memory BYTES --threads N --seconds N
 *
 * Threads read and write pages at random, half and half.  A page is four quarters, each of which has a
 * generation and holds bytes that follow from it; a write makes a new generation of one quarter, a read
 * compares all four.  A lock of the test's for each page, and nothing else, orders the threads: so pages
 * leave and come back while others are being touched beside them.
 *
 * --faults N: of N calls that read, write or make safe, one fails with EIO or ENOSPC, or is
 * cut short.  A touch
 * that raises SIGBUS then is made again.  It may have been the middle of a write: the write is
 * made again as a whole.  What is verified never was on the way when the error came, so it must be right.
 *
 * --on file: the memory is a shared mapping of a file; one of the threads writes it back now and then, and
 * in the end, when the disk works again, the file must hold every byte.
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kern/sys.h"
#include "support.h"

enum { QUARTERS = 4, TRIES = 200, THREADS_MAX = 64 };
#define QUARTER		(PG / QUARTERS)

enum place { SWAP, COMPRESS, BOTH, ON_FILE };

static const char *const place_name[] = { "swap", "compress", "both", "file" };
static const char *const io_name[] = { "auto", "uring", "syscalls" };

static struct {
	enum place place;
	unsigned io, faults, threads, seconds;
	uint64_t memory;
} opt = { BOTH, 0, 0, 4, 10, (uint64_t)4 << 20 };

static char *memory;
static size_t pages;
static uint32_t (*generation)[QUARTERS];	/* under the page's lock */
static pthread_mutex_t *lock;
static _Atomic bool over;
static _Atomic uint64_t reads, writes, again, synced, sync_failed, injected;

/*
 * Touches that may fail
 */

static _Thread_local sigjmp_buf env;
static _Thread_local volatile sig_atomic_t armed;

/* Only when the disk fails now and then is an error of it to be expected. */
static bool
retry(int signo, int code, const void *addr)
{
	if (!armed || signo != SIGBUS || opt.faults == 0)
		return false;
	(void)code;
	(void)addr;
	armed = 0;
	again++;
	siglongjmp(env, 1);
}

/* Copy to or from managed memory, as often as it takes. */
static void
copy(void *dst, const void *src, size_t len)
{
	for (volatile unsigned n = 0;; n++) {
		if (sigsetjmp(env, 1) == 0) {
			armed = 1;
			memcpy(dst, src, len);
			armed = 0;
			return;
		}
		if (n == TRIES)
			die("an error that does not pass");
	}
}

/*
 * Contents: noise, equal words, and what lies between
 */

static void
make(char *buf, size_t page, unsigned quarter, uint32_t gen)
{
	uint64_t key = mix(page * QUARTERS + quarter, gen), word = mix(key, 1);

	if (gen == 0) {
		memset(buf, 0, QUARTER);
	} else if (mix(page, 0) % 4 == 0) {
		fill(buf, QUARTER, key);
	} else {
		for (size_t i = 0; i < QUARTER; i += sizeof(word))
			memcpy(buf + i, &word, sizeof(word));
		if (mix(page, 0) % 4 != 1)
			fill(buf + key % (QUARTER / 2), QUARTER / 2, key);
	}
}

static void
check_bytes(const char *got, size_t page)
{
	char want[VMF_PAGE_SIZE];

	for (unsigned q = 0; q < QUARTERS; q++)
		make(want + q * QUARTER, page, q, generation[page][q]);
	for (size_t i = 0; memcmp(got, want, PG) != 0 && i < PG; i++)
		if (got[i] != want[i])
			die("page %zu, byte %zu: %#x, not %#x, of generation %u", page, i,
			    (unsigned char)got[i], (unsigned char)want[i], generation[page][i / QUARTER]);
}

static void *
work(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;
	char buf[VMF_PAGE_SIZE];

	while (!over) {
		uint64_t r = rng_next(&seed);
		size_t page = (size_t)(r >> 8) % pages;
		unsigned q = (unsigned)r % QUARTERS;

		(void)pthread_mutex_lock(&lock[page]);
		if (r & 16) {
			copy(buf, memory + page * PG, PG);
			check_bytes(buf, page);
			reads++;
		} else {
			make(buf, page, q, ++generation[page][q]);
			copy(memory + page * PG + q * QUARTER, buf, QUARTER);
			writes++;
		}
		(void)pthread_mutex_unlock(&lock[page]);
	}
	return NULL;
}

/* Now and then all of it is written back; an error says so, and loses nothing. */
static void *
sync_often(void *arg)
{
	(void)arg;
	while (!over) {
		int error;

		usleep(300000);
		error = vmf_sync(memory, pages * PG, 0);
		if (error == 0)
			synced++;
		else if (opt.faults != 0 && (error == -EIO || error == -ENOSPC))
			sync_failed++;
		else
			expect(error, 0);
	}
	return NULL;
}

/*
 * Faults
 */

static int
inject(enum sys_call call)
{
	static _Atomic uint64_t serial;
	uint64_t r;

	switch (call) {
	case SYS_CALL_PREAD:
	case SYS_CALL_PWRITE:
	case SYS_CALL_PREADV:
	case SYS_CALL_PWRITEV:
	case SYS_CALL_FDATASYNC:
		break;
	default:
		return 0;
	}
	r = mix(serial++, 7);
	if (r % opt.faults != 0)
		return 0;
	injected++;
	switch (r >> 32 & 3) {
	case 0:
		return -EIO;
	case 1:
		return call == SYS_CALL_PWRITE || call == SYS_CALL_PWRITEV ? -ENOSPC : -EIO;
	case 2:
		return call == SYS_CALL_FDATASYNC ? -EIO : -EINTR;
	default:
		return call == SYS_CALL_FDATASYNC ? -EIO : 1 + (int)(r >> 40 & 8191);
	}
}

static int
open_file(void)
{
	char name[] = "/var/tmp/soak_pager.XXXXXX";
	int fd = mkstemp(name);

	check(fd >= 0 && unlink(name) == 0 && ftruncate(fd, (off_t)(pages * PG)) == 0);
	return fd;
}

static int
number(const char *s, uint64_t max, uint64_t *value)
{
	char *end;

	*value = strtoull(s, &end, 10);
	return *s != '\0' && *end == '\0' && *value <= max;
}

static int
one_of(const char *s, const char *const *names, size_t n, uint64_t *value)
{
	for (*value = 0; *value < n; ++*value)
		if (strcmp(s, names[*value]) == 0)
			return 1;
	return 0;
}

static void
options(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "on", required_argument, NULL, 'o' }, { "io", required_argument, NULL, 'i' },
		{ "faults", required_argument, NULL, 'f' }, { "memory", required_argument, NULL, 'm' },
		{ "threads", required_argument, NULL, 't' }, { "seconds", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 }
	};
	uint64_t v = 0;
	int c, ok = 1;

	while (ok && (c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case 'o': ok = one_of(optarg, place_name, nitems(place_name), &v); opt.place = (enum place)v; break;
		case 'i': ok = one_of(optarg, io_name, nitems(io_name), &v); opt.io = (unsigned)v; break;
		case 'f': ok = number(optarg, 1000000, &v); opt.faults = (unsigned)v; break;
		case 'm': ok = number(optarg, UINT64_C(1) << 30, &v) && v >= 1 << 20; opt.memory = v; break;
		case 't': ok = number(optarg, THREADS_MAX, &v) && v > 0; opt.threads = (unsigned)v; break;
		case 's': ok = number(optarg, 1000000, &v); opt.seconds = (unsigned)v; break;
		default: ok = 0;
		}
	}
	if (!ok || optind < argc) {
		fprintf(stderr, "usage: soak_pager [--on swap|compress|both|file] [--io auto|uring|syscalls]\n"
		    "    [--faults N] [--memory BYTES] [--threads N] [--seconds N]\n");
		exit(2);
	}
}

static void
begin(void)
{
	static const uint32_t flags[] = { 0, VMF_CONFIG_IO_URING, VMF_CONFIG_IO_SYSCALLS };
	struct vmf_config c = VMF_CONFIG_INIT;
	int error;

	c.memory = opt.memory;
	c.flags = VMF_CONFIG_QUIET | flags[opt.io];
	/* A page keeps its place while it is in memory, and the store is small enough to overflow. */
	c.swap_size = opt.place == SWAP || opt.place == BOTH ? 8 * opt.memory : 0;
	c.compress_size = opt.place == COMPRESS ? 8 * opt.memory : opt.place == BOTH ? opt.memory / 2 : 0;
	if (opt.place == BOTH && c.compress_size < 1 << 20)
		c.compress_size = 1 << 20;
	error = vmf_init(&c);
	if (opt.io == 1 && (error == -EPERM || error == -ENOSYS)) {
		printf("skip: no io_uring here\n");
		exit(77);
	}
	expect(error, 0);
	touch_install();
	on_stray = retry;
}

static void
verify_file(int fd)
{
	char buf[VMF_PAGE_SIZE];

	expect(vmf_sync(memory, pages * PG, 0), 0);
	for (size_t i = 0; i < pages; i++) {
		check(pread(fd, buf, PG, (off_t)(i * PG)) == (ssize_t)PG);
		check_bytes(buf, i);
	}
}

int
main(int argc, char **argv)
{
	pthread_t thread[THREADS_MAX], syncer;
	struct vmf_stats s = { .size = sizeof(s) };
	void *p = NULL;
	int fd = -1;

	options(argc, argv);
	begin();
	pages = 4 * opt.memory / PG;
	generation = calloc(pages, sizeof(generation[0]));
	lock = calloc(pages, sizeof(lock[0]));
	check(generation != NULL && lock != NULL);
	for (size_t i = 0; i < pages; i++)
		check(pthread_mutex_init(&lock[i], NULL) == 0);
	if (opt.place == ON_FILE) {
		fd = open_file();
		expect(vmf_map_file(VMF_TASK_DEFAULT, &p, pages * PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_DEFAULT), 0);
		memory = p;
	} else {
		memory = alloc(pages);
	}
	if (opt.faults != 0)
		sys_inject = inject;

	for (unsigned i = 0; i < opt.threads; i++)
		check(pthread_create(&thread[i], NULL, work, (void *)(uintptr_t)(i + 1)) == 0);
	if (opt.place == ON_FILE)
		check(pthread_create(&syncer, NULL, sync_often, NULL) == 0);
	sleep(opt.seconds);
	/* On a busy machine it may take longer until memory has been full at all. */
	do {
		usleep(1000);
		expect(vmf_statistics(&s), 0);
	} while (opt.seconds != 0 && (s.v_pageouts == 0 || s.v_pageins == 0));
	over = true;
	for (unsigned i = 0; i < opt.threads; i++)
		check(pthread_join(thread[i], NULL) == 0);
	if (opt.place == ON_FILE)
		check(pthread_join(syncer, NULL) == 0);

	sys_inject = NULL;
	for (size_t i = 0; i < pages; i++) {
		char buf[VMF_PAGE_SIZE];

		copy(buf, memory + i * PG, PG);
		check_bytes(buf, i);
	}
	if (opt.place == ON_FILE)
		verify_file(fd);
	expect(vmf_statistics(&s), 0);
	printf("on %s, %s: %llu reads, %llu writes; %llu pages out, %llu in, of %zu; injected %llu, touched again %llu; "
	    "synced %llu times, %llu failed; compressed %llu, equal %llu, evicted %llu, raw %llu\n",
	    place_name[opt.place], s.io_uring ? "io_uring" : "system calls",
	    (unsigned long long)reads, (unsigned long long)writes, (unsigned long long)s.v_pageouts,
	    (unsigned long long)s.v_pageins, pages, (unsigned long long)injected, (unsigned long long)again,
	    (unsigned long long)synced, (unsigned long long)sync_failed,
	    (unsigned long long)s.compress_pages, (unsigned long long)s.compress_same,
	    (unsigned long long)s.v_compress_evicted, (unsigned long long)s.v_incompressible);
	check(s.v_compress_errors == 0);
	expect(vmf_unmap(memory, pages * PG), 0);
	stop();
	return 0;
}
