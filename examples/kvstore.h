/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KVSTORE_H
#define KVSTORE_H

/*
 * A key-value index that is one block of bytes.
 *
 * A key is a file and the number of a block of it, a value is what is in that
 * block.  Everything refers to everything by offset, so the same bytes are an index
 * wherever they lie: in the live memory, in a view of a snapshot, in a saved file.
 *
 *	KV_INDEX  header | hash table | directory | paths | record record record ...
 *	KV_LOG    a log for each writer: how many updates it began and finished, and
 *		  what they were
 *
 * An update moves an amount from one record's balance to another's and rewrites both
 * from the first word to the last.  It goes into the log first:
 *
 *	lock both records (locks are futexes: a matter of the kernel, kept outside)
 *	write the entry, count it as begun
 *	rewrite the first record, then the second, word by word in order
 *	count it as finished
 *	unlock
 *
 * What a record holds follows from what it was loaded with and its version.  So an
 * image of any instant can be verified to the last bit from the image of the
 * beginning and its own log: each record must be what the finished updates made it,
 * and the one update that a writer may have been in the middle of must have
 * stopped at one point, with everything new before it and everything old after it.
 * An image that mixes two instants cannot pass: a version would be
 * there without its entry, an entry without the one it built upon, or a new
 * word behind an old one.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kvmem.h"

#define KV_BLOCK	4096u		/* bytes of a file in one record */
#define KV_STRIPES	1024u
#define KV_BALANCE	1000000		/* of every record at first */

struct kv_header {
	uint64_t magic;
	uint64_t table;			/* offsets of what follows, from the header */
	uint64_t directory;
	uint64_t used;			/* bytes of the index */
	uint32_t table_size;		/* a power of two; of uint32_t, record number + 1 */
	uint32_t records;
	uint32_t writers;
	uint32_t log_stride;		/* bytes from one log to the next */
	_Atomic uint32_t sequence;	/* updates ever begun; the rest never changes */
};

/* Followed by `words` words of value, and the checksum of all from version on. */
struct kv_record {
	uint64_t path;			/* offset of the file's name */
	uint32_t block;
	uint32_t length;		/* bytes of the value */
	uint64_t version;		/* how often it was updated; all from here on changes */
	int64_t balance;
	uint64_t word[];
};

struct kv_entry {
	uint32_t sequence;
	uint32_t from, to;		/* record numbers */
	uint32_t from_version, to_version;	/* that they have after it */
	uint32_t amount;
};

struct kv_log {
	_Atomic uint32_t begun, finished;
	struct kv_entry entry[];
};

struct kv_store {
	struct kv_area area[KV_AREAS];
	pthread_mutex_t stripe[KV_STRIPES];	/* record n: stripe n % KV_STRIPES */
	uint64_t *digest;		/* of each record's value as it was read from the file */
};

/* Bytes of index for so many files, blocks and bytes of names. */
size_t kv_index_size(uint64_t files, uint64_t blocks, uint64_t names);
/* Make an empty index in area, which is zero. */
int kv_create(struct kv_store *, uint64_t blocks, unsigned writers);
void kv_destroy(struct kv_store *);
/* Store a file's name, => its offset; and a block of it (loading: one thread). */
uint64_t kv_add_path(struct kv_store *, const char *path);
void kv_add(struct kv_store *, uint64_t path, uint32_t block, const void *value, size_t length);
/* The number of a record, or UINT32_MAX. */
uint32_t kv_find(const struct kv_store *, const char *path, uint32_t block);
/* Move amount between two different records.  => false: the writer's log is full. */
bool kv_transfer(struct kv_store *, unsigned writer, uint32_t from, uint32_t to, uint32_t amount);

/* Memory that a system call is to read may have to be held for it. */
struct kv_hold {
	int (*hold)(const void *, size_t);
	void (*let_go)(const void *, size_t);
};

/*
 * Write the image of both areas: the index, and at the offset of its area's size
 * the used part of the logs.  hold may be null.  Only plain system calls are made.
 */
int kv_image_write(int fd, const struct kv_area area[KV_AREAS], const struct kv_hold *hold,
    kv_progress *progress);

struct kv_verdict {
	uint64_t updates;		/* finished ones in the image */
	unsigned halfway;		/* updates that the instant cut in two */
	char wrong[128];		/* empty if everything is right */
};

/* The first image, against what the files held when they were read. */
bool kv_verify_base(const struct kv_store *, const struct kv_area base[KV_AREAS],
    struct kv_verdict *);
/* An image of any later instant, against the first. */
bool kv_verify(const struct kv_area base[KV_AREAS], const struct kv_area image[KV_AREAS],
    struct kv_verdict *);

#endif
