/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The job of kvsnap, from loading the files to verifying the saved images.
 *
 *	load the files, block by block, into the index (kvstore.h)
 *	save a first image, nobody writing: the base
 *	let the writers go, and leave them alone for a moment
 *	a few times:  take a snapshot, save it in the background, release it
 *	stop the writers
 *	verify every saved image, and the live index (kvverify.c)
 *
 * The writers look records up by key and update two at a time, at a steady rate; each
 * update is timed.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kvjob.h"
#include "kvstore.h"

#define LOG_SIZE	(sizeof(void *) == 8 ? 256 * MB : 32 * MB)
#define CALM		500000		/* microseconds without a snapshot, between two */

char image_dir[PATH_MAX - 64];

/*
 * Files
 */

struct file {
	char *path;
	uint64_t size;
	uint32_t first;			/* number of its first block */
	uint32_t blocks;
};

static struct file *files;
static size_t nfiles, room;
static uint64_t bytes, blocks, names;	/* of all files; all blocks; all names */

int
add_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	uint64_t size = (uint64_t)st->st_size;

	if (bytes >= options.data)
		return (1);			/* enough */
	if (type != FTW_F || !S_ISREG(st->st_mode) || size == 0 || access(path, R_OK) != 0)
		return (0);
	if (size > options.data - bytes)
		size = options.data - bytes;
	if (nfiles == room) {
		room = room == 0 ? 1024 : 2 * room;
		files = reallocarray(files, room, sizeof(*files));
		if (files == NULL)
			return (-1);
	}
	files[nfiles] = (struct file){ .path = strdup(path), .size = size };
	if (files[nfiles++].path == NULL)
		return (-1);
	bytes += size;
	blocks += (size + KV_BLOCK - 1) / KV_BLOCK;
	names += strlen(path) + 1;
	return (0);
}

size_t
file_count(void)
{
	return (nfiles);
}

uint64_t
file_bytes(void)
{
	return (bytes);
}

uint64_t
file_blocks(void)
{
	return (blocks);
}

static void
load_file(struct kv_store *store, struct file *f, uint32_t *next)
{
	static unsigned char block[KV_BLOCK];
	uint64_t path = kv_add_path(store, f->path), left = f->size;
	size_t got = 0;
	int fd;

	f->first = *next;
	f->blocks = 0;
	if ((fd = open(f->path, O_RDONLY | O_CLOEXEC)) < 0)
		return;				/* it is gone: no blocks */
	while (left > 0) {
		size_t want = left < KV_BLOCK ? (size_t)left : KV_BLOCK;
		ssize_t n = read(fd, block + got, want - got);

		if (n < 0 && errno == EINTR)
			continue;
		got += n > 0 ? (size_t)n : 0;
		if (n > 0 && got < want)
			continue;
		if (got == 0)
			break;
		kv_add(store, path, f->blocks++, block, got);
		(*next)++;
		left -= got;
		got = 0;
	}
	close(fd);
}

/*
 * Times
 */

static unsigned
bucket_of(uint64_t ns)
{
	unsigned top;

	if (ns < 32)
		return ((unsigned)ns);
	top = 63 - (unsigned)__builtin_clzll(ns);
	return ((top - 4) * 32 + (unsigned)(ns >> (top - 5) & 31));
}

/* The middle of a bucket, in microseconds. */
static double
bucket_us(unsigned b)
{
	if (b < 32)
		return (b / 1e3);
	return ((double)((32 + b % 32 + 0.5) * (double)(UINT64_C(1) << (b / 32 - 1))) / 1e3);
}

static void
times_add(struct times *t, uint64_t ns)
{
	t->bucket[bucket_of(ns)]++;
	t->count++;
	t->worst = ns > t->worst ? ns : t->worst;
}

double
times_at(const struct times *t, double share)
{
	uint64_t seen = 0, want = (uint64_t)((double)t->count * share);

	for (unsigned b = 0; b < BUCKETS; b++)
		if ((seen += t->bucket[b]) > want)
			return (bucket_us(b));
	return ((double)t->worst / 1e3);
}

/*
 * Writers
 */

static struct kv_store store;
static uint32_t nrecords;
static atomic_bool stop;
static atomic_int phase;

struct writer {
	pthread_t thread;
	unsigned number;
	uint64_t seed;
	struct times times[PHASES];
	uint64_t stalls, stalled;
	bool log_full, lost_key;
};

static uint64_t
nanoseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
}

static uint32_t
dice(struct writer *w, uint32_t n)
{
	w->seed = w->seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
	return ((uint32_t)(((w->seed >> 32) * n) >> 32));
}

/* Draw a key, and look it up as any client would. */
static uint32_t
draw(struct writer *w)
{
	uint32_t n = dice(w, nrecords), record;
	size_t low = 0, high = nfiles;

	while (high - low > 1) {
		size_t middle = (low + high) / 2;

		if (files[middle].first <= n)
			low = middle;
		else
			high = middle;
	}
	record = kv_find(&store, files[low].path, n - files[low].first);
	w->lost_key |= record != n;
	return (record);
}

static void
update(struct writer *w)
{
	uint64_t start = nanoseconds(), took;
	int at_start = phase;
	uint32_t from = draw(w), to = draw(w);

	if (w->lost_key)
		return;
	if (from != to && !kv_transfer(&store, w->number, from, to, 1 + dice(w, 100))) {
		w->log_full = true;
		return;
	}
	took = nanoseconds() - start;
	if (at_start == CALMLY && phase == CALMLY) {
		times_add(&w->times[CALMLY], took);
		return;
	}
	times_add(&w->times[SAVING], took);
	if (took > 1000000) {
		w->stalls++;
		w->stalled += took;
	}
}

/* Do what is due each millisecond; who was held up catches up. */
static void *
writer_main(void *arg)
{
	struct writer *w = arg;
	uint64_t begin = nanoseconds(), done = 0;

	while (!stop && !w->log_full && !w->lost_key) {
		uint64_t elapsed = nanoseconds() - begin;
		struct timespec pause = { .tv_nsec = 1000000 };

		if (options.rate == 0 || done < elapsed * options.rate / 1000000000u) {
			update(w);
			done++;
		} else {
			clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
		}
	}
	return (NULL);
}

/*
 * Saving
 */

static const struct kv_memory *memory;
static unsigned saving_number;
static uint64_t saved;			/* bytes, so far */

const char *
image_name(char *buf, size_t len, const struct kv_memory *m, unsigned n)
{
	snprintf(buf, len, "%s/%s-%u.img", image_dir, m->file, n);
	return (buf);
}

static void
show_progress(uint64_t done, uint64_t total)
{
	static double last;
	double now = kv_clock();

	saved = done;
	if (!isatty(STDOUT_FILENO) || now - last < 50000)
		return;
	last = now;
	printf("\r\033[K  snapshot %u: %3.0f %% of %.0f MB saved", saving_number,
	    100.0 * (double)done / (double)total, (double)total / 1e6);
	fflush(stdout);
}

struct saver {
	int fd;
	int error;
	double took;
};

static void *
saver_main(void *arg)
{
	struct saver *s = arg;
	double start = kv_clock();

	s->error = memory->save(s->fd, show_progress);
	s->took = kv_clock() - start;
	return (NULL);
}

/*
 * Make the files, full of zeros, before anything is measured: so that saving
 * overwrites what is in the page cache, and the disk has no part in it.
 */
static int
prepare(void)
{
	static const unsigned char zeros[1 << 16];
	char name[PATH_MAX];

	for (unsigned n = 0; n <= options.snapshots; n++) {
		ssize_t wrote = 1;
		int fd;

		image_name(name, sizeof(name), memory, n);
		fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		for (size_t i = 0; fd >= 0 && wrote > 0 && i < store.area[KV_INDEX].size;
		    i += (size_t)wrote)
			wrote = write(fd, zeros, sizeof(zeros));
		if (fd < 0 || wrote <= 0 || fdatasync(fd) != 0 || close(fd) != 0) {
			fprintf(stderr, "kvsnap: %s: %s\n", name, strerror(errno));
			return (-1);
		}
	}
	return (0);
}

/*
 * A virtual machine gets its memory from its host page by page, as it is first
 * used, and gives back what it does not use: who comes first would pay for all.  So
 * before each snapshot as much memory is touched, and freed, as it can cost.
 */
static void
warm_up(void)
{
	size_t size = store.area[KV_INDEX].size, most;
	void *p;

	most = (size_t)sysconf(_SC_AVPHYS_PAGES) / 2 * (size_t)sysconf(_SC_PAGESIZE);
	p = mmap(NULL, size < most ? size : most, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (p != MAP_FAILED)
		munmap(p, size < most ? size : most);
}

/* Image 0 is the base.  => 0, or an error that was printed. */
static int
snapshot(unsigned n, struct result *result)
{
	char name[PATH_MAX];
	struct saver saver;
	pthread_t thread;
	double call;
	uint64_t extra;
	int error;

	saving_number = n;
	image_name(name, sizeof(name), memory, n);
	saver.fd = open(name, O_RDWR | O_CLOEXEC);
	if (saver.fd < 0) {
		fprintf(stderr, "kvsnap: %s: %s\n", name, strerror(errno));
		return (-errno);
	}
	warm_up();
	phase = SAVING;
	if ((error = memory->take(saver.fd, &call)) != 0)
		return (error);
	if ((error = pthread_create(&thread, NULL, saver_main, &saver)) != 0) {
		fprintf(stderr, "kvsnap: a thread: %s\n", strerror(error));
		return (-error);
	}
	pthread_join(thread, NULL);		/* a server would do its work here */
	phase = CALMLY;
	extra = memory->extra();
	if ((error = memory->drop()) != 0 || (error = saver.error) != 0)
		return (error);
	if (n > 0) {
		result->call[n - 1] = call;
		result->save[n - 1] = saver.took;
		result->extra[n - 1] = extra;
	}
	printf("%s  %s %u: taken in %.3f ms, %.0f MB saved in %.2f s, %.0f MB of extra memory\n",
	    isatty(STDOUT_FILENO) ? "\r\033[K" : "", n == 0 ? "base    " : "snapshot", n,
	    call / 1e3, (double)saved / 1e6, saver.took / 1e6, (double)extra / 1e6);
	fflush(stdout);
	close(saver.fd);
	return (0);
}

/*
 * Verifying
 */

static void *
map_image(unsigned n, size_t size)
{
	char name[PATH_MAX];
	struct stat st;
	void *p;
	int fd;

	fd = open(image_name(name, sizeof(name), memory, n), O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) != 0 || (uint64_t)st.st_size != size ||
	    (p = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0)) == MAP_FAILED) {
		fprintf(stderr, "kvsnap: %s: it cannot be read, or has a wrong size\n", name);
		exit(1);
	}
	close(fd);
	return (p);
}

static bool
verdict(const char *what, unsigned n, bool right, const struct kv_verdict *v)
{
	printf("  %s %u: ", what, n);
	if (right)
		printf("right: %llu updates, %u cut in two by the instant\n",
		    (unsigned long long)v->updates, v->halfway);
	else
		printf("WRONG: %s\n", v->wrong);
	fflush(stdout);
	return (right);
}

/* Every saved image, and the live index. */
static bool
verify(void)
{
	size_t size = store.area[KV_INDEX].size + store.area[KV_LOG].size;
	struct kv_area base[KV_AREAS], image[KV_AREAS];
	struct kv_verdict v;
	bool right;

	for (unsigned i = 0; i < KV_AREAS; i++)
		base[i] = image[i] = store.area[i];
	base[KV_INDEX].addr = map_image(0, size);
	base[KV_LOG].addr = (unsigned char *)base[KV_INDEX].addr + base[KV_INDEX].size;
	right = verdict("base    ", 0, kv_verify_base(&store, base, &v), &v);
	for (unsigned n = 1; n <= options.snapshots; n++) {
		image[KV_INDEX].addr = map_image(n, size);
		image[KV_LOG].addr = (unsigned char *)image[KV_INDEX].addr + image[KV_INDEX].size;
		right &= verdict("snapshot", n, kv_verify(base, image, &v), &v);
		munmap(image[KV_INDEX].addr, size);
	}
	right &= verdict("live index after snapshot", options.snapshots,
	    kv_verify(base, store.area, &v), &v);
	munmap(base[KV_INDEX].addr, size);
	return (right);
}

/*
 * The job
 */

static void
load(void)
{
	uint32_t next = 0;

	for (size_t i = 0; i < nfiles; i++)
		load_file(&store, &files[i], &next);
	nrecords = next;
}

static void
collect(struct result *result, const struct writer *w)
{
	for (unsigned p = 0; p < PHASES; p++) {
		struct times *t = &result->times[p];

		for (unsigned b = 0; b < BUCKETS; b++)
			t->bucket[b] += w->times[p].bucket[b];
		t->count += w->times[p].count;
		t->worst = w->times[p].worst > t->worst ? w->times[p].worst : t->worst;
	}
	result->stalls += w->stalls;
	result->stalled += w->stalled;
	result->log_full |= w->log_full;
}

int
job(const struct kv_memory *m, struct result *result)
{
	static struct writer writers[MOST_THREADS];
	struct timespec calm = { .tv_nsec = CALM * 1000L };
	double start, began;
	unsigned n;
	int error;

	memory = m;
	printf("%s\n", memory->name);
	store.area[KV_INDEX].size = kv_index_size(nfiles, blocks, names);
	store.area[KV_LOG].size = LOG_SIZE;
	if (prepare() != 0 || memory->start(store.area) != 0)
		return (1);
	start = kv_clock();
	if ((error = kv_create(&store, blocks, options.threads)) != 0) {
		fprintf(stderr, "kvsnap: %s\n", strerror(-error));
		return (1);
	}
	load();
	if (nrecords < 2) {
		fprintf(stderr, "kvsnap: the files have not even two blocks\n");
		return (1);
	}
	printf("  loaded %u blocks in %.2f s\n", nrecords, (kv_clock() - start) / 1e6);
	fflush(stdout);
	if (snapshot(0, result) != 0)
		return (1);

	began = kv_clock();
	for (n = 0; n < options.threads; n++) {
		writers[n].number = n;
		writers[n].seed = n + 1;
		if (pthread_create(&writers[n].thread, NULL, writer_main, &writers[n]) != 0) {
			fprintf(stderr, "kvsnap: cannot make a thread\n");
			return (1);
		}
	}
	for (n = 1; n <= options.snapshots; n++) {
		clock_nanosleep(CLOCK_MONOTONIC, 0, &calm, NULL);
		if (snapshot(n, result) != 0)
			return (1);
		result->span[SAVING] += result->call[n - 1] + result->save[n - 1];
	}
	stop = true;
	for (n = 0; n < options.threads; n++) {
		pthread_join(writers[n].thread, NULL);
		collect(result, &writers[n]);
		if (writers[n].lost_key) {
			fprintf(stderr, "kvsnap: a key was not found\n");
			return (1);
		}
	}
	result->span[CALMLY] = kv_clock() - began - result->span[SAVING];
	if (result->log_full)
		printf("  the log is full: the writers stopped before the end\n");
	if (!verify())
		return (1);
	kv_destroy(&store);
	memory->stop();
	return (0);
}
