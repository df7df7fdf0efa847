/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The index of kvsnap: see kvstore.h.  First how it is built and updated, then how
 * its image is written.  How an image is verified is in kvverify.c.
 */

#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvstore.h"
#include "kvrecord.h"

#define CHUNK	((size_t)1 << 20)	/* bytes that are written and held at once */

static uint64_t
table_size_for(uint64_t blocks)
{
	uint64_t n = 1024;

	while (n < 2 * blocks)
		n *= 2;
	return (n);
}

size_t
kv_index_size(uint64_t files, uint64_t blocks, uint64_t names)
{
	uint64_t size;

	size = sizeof(struct kv_header) + 64 + table_size_for(blocks) * sizeof(uint32_t) +
	    blocks * (sizeof(uint64_t) + sizeof(struct kv_record) + sizeof(uint64_t) + KV_BLOCK) +
	    names + files * sizeof(uint64_t);
	return ((size_t)((size + 4095) & ~UINT64_C(4095)));
}

int
kv_create(struct kv_store *store, uint64_t blocks, unsigned writers)
{
	struct kv_header *h = kv_header(store->area);

	store->digest = calloc(blocks, sizeof(*store->digest));
	if (store->digest == NULL)
		return (-ENOMEM);
	for (unsigned i = 0; i < KV_STRIPES; i++)
		pthread_mutex_init(&store->stripe[i], NULL);
	h->magic = KV_MAGIC;
	h->writers = writers;
	h->log_stride = (uint32_t)(store->area[KV_LOG].size / writers) & ~4095u;
	h->table_size = (uint32_t)table_size_for(blocks);
	h->table = (sizeof(*h) + 63) & ~(size_t)63;
	h->directory = h->table + h->table_size * sizeof(uint32_t);
	h->used = h->directory + blocks * sizeof(uint64_t);
	return (0);
}

void
kv_destroy(struct kv_store *store)
{
	for (unsigned i = 0; i < KV_STRIPES; i++)
		pthread_mutex_destroy(&store->stripe[i]);
	free(store->digest);
}

/*
 * Keys
 */

static uint32_t
key_hash(const char *path, uint32_t block)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);	/* FNV-1a */

	for (; *path != '\0'; path++)
		h = (h ^ (unsigned char)*path) * UINT64_C(0x100000001b3);
	return ((uint32_t)(kv_mix(h + block) >> 32));
}

/* The slot of the hash table where the key is, or where it would go. */
static uint32_t *
key_slot(const struct kv_area *area, const char *path, uint32_t block)
{
	const struct kv_header *h = kv_header(area);
	uint32_t *table = (void *)kv_at(area, h->table);

	for (uint32_t i = key_hash(path, block);; i++) {
		uint32_t *slot = &table[i & (h->table_size - 1)];
		const struct kv_record *r;

		if (*slot == 0)
			return (slot);
		r = kv_record(area, *slot - 1);
		if (r->block == block && strcmp((const char *)kv_at(area, r->path), path) == 0)
			return (slot);
	}
}

uint32_t
kv_find(const struct kv_store *store, const char *path, uint32_t block)
{
	return (*key_slot(store->area, path, block) - 1);
}

/*
 * Loading
 */

uint64_t
kv_add_path(struct kv_store *store, const char *path)
{
	struct kv_header *h = kv_header(store->area);
	uint64_t offset = h->used;

	strcpy((char *)kv_at(store->area, offset), path);
	h->used = (h->used + strlen(path) + 1 + 7) & ~UINT64_C(7);
	return (offset);
}

void
kv_add(struct kv_store *store, uint64_t path, uint32_t block, const void *value, size_t length)
{
	struct kv_header *h = kv_header(store->area);
	uint64_t *directory = (void *)kv_at(store->area, h->directory);
	struct kv_record *r = (void *)kv_at(store->area, h->used);
	uint32_t *slot;

	slot = key_slot(store->area, (const char *)kv_at(store->area, path), block);
	r->path = path;
	r->block = block;
	r->length = (uint32_t)length;
	r->balance = KV_BALANCE;
	memcpy(r->word, value, length);
	r->word[kv_words(r)] = kv_checksum(r);
	directory[h->records] = h->used;
	store->digest[h->records] = kv_digest(value, length);
	h->used += kv_record_size(r);
	*slot = ++h->records;
}

/*
 * Updates
 */

/*
 * Give a record its next version.  The stores are volatile, so that they
 * happen one by one in this order, and whoever looks at an instant can tell where
 * it was.
 */
static void
rewrite(struct kv_record *r, uint32_t number, uint32_t version, int64_t balance)
{
	volatile uint64_t *w = r->word;
	uint64_t old = kv_mask(number, (uint32_t)r->version), new = kv_mask(number, version);
	size_t n = kv_words(r);
	uint64_t sum = kv_sum(0, version) + kv_sum(1, (uint64_t)balance);

	*(volatile uint64_t *)&r->version = version;
	*(volatile int64_t *)&r->balance = balance;
	for (size_t i = 0; i < n; i++) {
		uint64_t v = w[i] ^ kv_mask_word(old, i) ^ kv_mask_word(new, i);

		w[i] = v;
		sum += kv_sum(i + 2, v);
	}
	w[n] = sum;
}

bool
kv_transfer(struct kv_store *store, unsigned writer, uint32_t from, uint32_t to, uint32_t amount)
{
	struct kv_header *h = kv_header(store->area);
	struct kv_log *log = kv_log(store->area, writer);
	struct kv_record *a = kv_record(store->area, from), *b = kv_record(store->area, to);
	uint32_t first = from % KV_STRIPES, second = to % KV_STRIPES, n;
	struct kv_entry *e;

	n = atomic_load_explicit(&log->begun, memory_order_relaxed);
	if (n == kv_log_capacity(h))
		return (false);
	if (first > second) {			/* the order of the locks */
		first = to % KV_STRIPES;
		second = from % KV_STRIPES;
	}
	pthread_mutex_lock(&store->stripe[first]);
	if (second != first)
		pthread_mutex_lock(&store->stripe[second]);

	e = &log->entry[n];
	e->sequence = atomic_fetch_add(&h->sequence, 1) + 1;
	e->from = from;
	e->to = to;
	e->from_version = (uint32_t)a->version + 1;
	e->to_version = (uint32_t)b->version + 1;
	e->amount = amount;
	atomic_store_explicit(&log->begun, n + 1, memory_order_release);
	atomic_signal_fence(memory_order_seq_cst);
	rewrite(a, from, e->from_version, a->balance - amount);
	rewrite(b, to, e->to_version, b->balance + amount);
	atomic_signal_fence(memory_order_seq_cst);
	atomic_store_explicit(&log->finished, n + 1, memory_order_release);

	if (second != first)
		pthread_mutex_unlock(&store->stripe[second]);
	pthread_mutex_unlock(&store->stripe[first]);
	return (true);
}

/*
 * Images
 */

static int
write_all(int fd, const unsigned char *p, size_t size, off_t offset)
{
	while (size > 0) {
		ssize_t n = pwrite(fd, p, size, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return (n < 0 ? -errno : -EIO);
		p += n;
		size -= (size_t)n;
		offset += n;
	}
	return (0);
}

int
kv_image_write(int fd, const struct kv_area area[KV_AREAS], const struct kv_hold *hold,
    kv_progress *progress)
{
	const struct kv_header *h = kv_header(area);
	uint64_t done = 0, total = h->used;
	int error;

	for (unsigned i = 0; i < h->writers; i++)
		total += kv_log_used(area, i);
	if (ftruncate(fd, (off_t)(area[KV_INDEX].size + area[KV_LOG].size)) != 0)
		return (-errno);
	/* The index is part -1, the logs are parts 0, 1, ... */
	for (int part = -1; part < (int)h->writers; part++) {
		const unsigned char *p = area[KV_INDEX].addr;
		size_t size = (size_t)h->used, n;
		off_t to = 0;

		if (part >= 0) {
			p = (const unsigned char *)kv_log(area, (unsigned)part);
			size = kv_log_used(area, (unsigned)part);
			to = (off_t)area[KV_INDEX].size + (off_t)h->log_stride * part;
		}
		for (; size > 0; p += n, to += (off_t)n, size -= n) {
			n = size < CHUNK ? size : CHUNK;
			if (hold != NULL && (error = hold->hold(p, n)) != 0)
				return (error);
			error = write_all(fd, p, n, to);
			if (hold != NULL)
				hold->let_go(p, n);
			if (error != 0)
				return (error);
			done += n;
			progress(done, total);
		}
	}
	return (0);
}
