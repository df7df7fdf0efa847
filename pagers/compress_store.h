/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PAGER_COMPRESS_STORE_H
#define PAGER_COMPRESS_STORE_H

/*
 * The memory of the compressing pager: a log of blobs.
 *
 *	segment: | blob | blob | (free) | blob | never used ... |
 *
 * A new blob goes to the end of the segment that is being filled, right after the one before: sizes
 * need no classes, and pages that left together lie together.  A freed blob leaves a hole.  A segment
 * of which all is free is taken for new blobs.  When there are none, the emptiest segments are CLEANED:
 * what lives in them is copied together, as long as an eighth of a segment is won by each.
 * So when the store says that it is full, seven eighths of it are.
 *
 * Segments are kept in the order of their blobs' ages.  What cleaning copies goes to a segment of
 * its own that takes the place of the one it came from.
 *
 * One lock guards it all, and the pagers' tables: compress_lock, a leaf, never held for
 * longer than it takes to copy a segment.  Who reads or fills the bytes of a blob pins its
 * segment and needs no lock.
 */

#include <stdbool.h>
#include <stdint.h>

#include "kern/lock.h"
#include "kern/types.h"

#define BLOB_MAX	PAGE_SIZE
#define LEAF_PAGES	64u

struct blob;
struct compress_pager;
struct segment;

/* What became of 64 pages of a pager.  Once made, it stays as long as the pager. */
struct compress_leaf {
	struct compress_pager *pager;	/* constant */
	uint64_t first;			/* constant: the pager's page that is our page 0 */
	uint8_t kind[LEAF_PAGES];	/* S: see compress.c */
	union {
		uint64_t word;		/* all words of the page */
		struct blob *blob;
	} at[LEAF_PAGES];		/* S */
};

struct blob {
	struct compress_leaf *leaf;	/* S: whose page it is; null: nobody's */
	uint32_t sum;			/* of the bytes; constant once they are there */
	uint16_t len;			/* constant; of the bytes */
	uint16_t page;			/* S: of the leaf */
	_Alignas(8) unsigned char bytes[];
};

extern struct kmutex compress_lock;	/* RANK_COMPRESS; S in comments */

int store_init(uint64_t size);
void store_fini(void);

/* All of these: => locked */

/*
 * A blob that nobody owns yet, its segment pinned.  Null: full.  May unlock in between.
 * Next: blob_fill(), unlocked; blob_publish(), or blob_free(); blob_unpin().
 */
struct blob *blob_alloc(uint16_t len);
void blob_publish(struct blob *, struct compress_leaf *, uint32_t page);
void blob_free(struct blob *);
void blob_pin(struct blob *);		/* its bytes stay where they are, even if it is freed */
void blob_unpin(struct blob *);

/* The oldest segment with blobs, but for the one that new ones go to; or null. */
struct segment *store_oldest(void);
void segment_pin(struct segment *);
void segment_unpin(struct segment *);
void segment_make_young(struct segment *);	/* look at it last */
/* The first blob with an owner after b, or of all where b is null. */
struct blob *segment_next(const struct segment *, const struct blob *b);

/* These: => not locked; the blob is pinned */

void blob_fill(struct blob *, const void *bytes);
bool blob_is_intact(const struct blob *);
/* Give memory that has become free back to the kernel, but for some. */
void store_trim(void);

struct store_counts {
	uint64_t limit, resident, used;	/* bytes */
};
void store_counts(struct store_counts *);	/* => locked */
#ifdef VMF_TESTING
uint64_t store_audit(void);		/* => locked; blobs with an owner */
struct blob *store_any_blob(void);	/* => locked; with an owner; null: there is none */
#endif

#endif
