/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Is this image what the index was at one instant?
 *
 * The image of the beginning (base) and the logs in the image itself say what every
 * word must be; nothing of the live index is consulted.
 *
 *	replay	the logs: how often each record was updated, and its balance.  Every
 *		update built on versions that other finished updates made, by whichever
 *		writer: a cause that is missing while its effect is there is found here.
 *	records	every word of every record, and every byte between them
 *
 * The image is not trusted: a wrong one may hold anything.
 */

#define _FILE_OFFSET_BITS 64

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvstore.h"
#include "kvrecord.h"

#define MOST_WRITERS	64u
#define MOST_WORDS	(KV_BLOCK / sizeof(uint64_t) + 3)

/* What the finished updates made of a record. */
struct fate {
	uint32_t count;			/* of them */
	uint32_t last;			/* version */
	uint64_t sum;			/* of all versions they made */
	int64_t balance;
};

struct replay {
	struct fate *fate;
	unsigned char *seen;		/* bit map of sequence numbers */
	uint32_t sequence;		/* the header's */
	uint32_t known;			/* sequence numbers seen */
	const struct kv_entry *halfway[MOST_WRITERS];
	unsigned halfways;
};

static bool __attribute__((__format__(__printf__, 2, 3)))
wrong(struct kv_verdict *v, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(v->wrong, sizeof(v->wrong), fmt, ap);
	va_end(ap);
	return (false);
}

bool
kv_verify_base(const struct kv_store *store, const struct kv_area base[KV_AREAS],
    struct kv_verdict *v)
{
	const struct kv_header *h = kv_header(base);

	*v = (struct kv_verdict){ 0 };
	if (h->magic != KV_MAGIC || h->sequence != 0)
		return (wrong(v, "the header is wrong"));
	for (uint32_t i = 0; i < h->records; i++) {
		const struct kv_record *r = kv_record(base, i);

		if (r->version != 0 || r->balance != KV_BALANCE ||
		    kv_digest(r->word, r->length) != store->digest[i])
			return (wrong(v, "record %u is not what the file held", i));
	}
	return (true);
}

/*
 * Replay
 */

static bool
replay_entry(struct replay *rp, const struct kv_entry *e, uint32_t records, uint32_t *previous)
{
	unsigned bit = 1u << e->sequence % 8;

	if (e->from >= records || e->to >= records || e->from == e->to ||
	    e->sequence <= *previous || e->sequence > rp->sequence ||
	    (rp->seen[e->sequence / 8] & bit) != 0)
		return (false);
	rp->seen[e->sequence / 8] |= (unsigned char)bit;
	rp->known++;
	*previous = e->sequence;
	return (true);
}

static void
replay_record(struct fate *f, uint32_t version, int64_t amount)
{
	f->count++;
	f->sum += version;
	f->last = version > f->last ? version : f->last;
	f->balance += amount;
}

static bool
replay(struct replay *rp, const struct kv_area *image, struct kv_verdict *v)
{
	const struct kv_header *h = kv_header(image);
	unsigned missing;

	for (unsigned w = 0; w < h->writers; w++) {
		const struct kv_log *log = kv_log(image, w);
		uint32_t begun = log->begun, finished = log->finished, previous = 0;

		if (begun > kv_log_capacity(h) || (begun != finished && begun != finished + 1))
			return (wrong(v, "writer %u began %u updates and finished %u", w, begun,
			    finished));
		for (uint32_t i = 0; i < begun; i++) {
			const struct kv_entry *e = &log->entry[i];

			if (!replay_entry(rp, e, h->records, &previous))
				return (wrong(v, "update %u of writer %u is no update", i, w));
			if (i == finished) {
				rp->halfway[rp->halfways++] = e;
				continue;
			}
			replay_record(&rp->fate[e->from], e->from_version, -(int64_t)e->amount);
			replay_record(&rp->fate[e->to], e->to_version, e->amount);
		}
		v->updates += finished;
	}
	v->halfway = rp->halfways;

	/* A writer draws a number, then logs the update: one each may be missing. */
	missing = rp->sequence - rp->known;
	if (missing > h->writers - rp->halfways)
		return (wrong(v, "%u updates up to number %u are missing", missing, rp->sequence));
	for (uint32_t i = 0; i < h->records; i++) {
		struct fate *f = &rp->fate[i];

		if (f->last != f->count || f->sum != (uint64_t)f->last * (f->last + 1ull) / 2)
			return (wrong(v, "record %u: %u updates made version %u: one is missing", i,
			    f->count, f->last));
	}
	for (unsigned i = 0; i < rp->halfways; i++) {
		const struct kv_entry *e = rp->halfway[i];

		if (e->from_version != rp->fate[e->from].last + 1 ||
		    e->to_version != rp->fate[e->to].last + 1)
			return (wrong(v, "update %u was made without what it built on",
			    e->sequence));
	}
	return (true);
}

/*
 * Records
 */

/* The words of a record from its version on.  => their number. */
static size_t
expect(uint64_t *out, const struct kv_record *base, uint32_t number, uint32_t version,
    int64_t balance)
{
	uint64_t mask = kv_mask(number, version), sum;
	size_t n = kv_words(base);

	out[0] = version;
	out[1] = (uint64_t)balance;
	sum = kv_sum(0, out[0]) + kv_sum(1, out[1]);
	for (size_t i = 0; i < n; i++) {
		out[i + 2] = base->word[i] ^ kv_mask_word(mask, i);
		sum += kv_sum(i + 2, out[i + 2]);
	}
	out[n + 2] = sum;
	return (n + 3);
}

/* On a 32-bit machine a word is written by halves, in either order. */
static bool
torn(uint64_t w, uint64_t old, uint64_t new)
{
	uint64_t low = UINT32_MAX, high = ~low;

	return (sizeof(long) == 4 && (w == ((old & low) | (new & high)) ||
	    w == ((new & low) | (old & high))));
}

/*
 * A record in the middle of an update: new words, then old ones.  *stopped carries
 * over from the first record of the update to the second.
 */
static bool
check_halfway(const struct kv_area *base, const struct kv_area *image, uint32_t number,
    const struct fate *f, int64_t amount, bool *stopped)
{
	const struct kv_record *b = kv_record(base, number);
	const uint64_t *w = &kv_record(image, number)->version;
	uint64_t old[MOST_WORDS], new[MOST_WORDS];
	size_t n;

	n = expect(old, b, number, f->last, KV_BALANCE + f->balance);
	expect(new, b, number, f->last + 1, KV_BALANCE + f->balance + amount);
	for (size_t i = 0; i < n; i++) {
		if (!*stopped) {
			if (w[i] == new[i])
				continue;
			*stopped = true;
			if (torn(w[i], old[i], new[i]))
				continue;
		}
		if (w[i] != old[i])
			return (false);
	}
	return (true);
}

static bool
records(const struct replay *rp, const struct kv_area *base, const struct kv_area *image,
    struct kv_verdict *v)
{
	const struct kv_header *h = kv_header(base);
	uint64_t want[MOST_WORDS], at = sizeof(*h);
	int64_t sum = 0;

	for (unsigned i = 0; i < rp->halfways; i++) {
		const struct kv_entry *e = rp->halfway[i];
		bool stopped = false;

		if (!check_halfway(base, image, e->from, &rp->fate[e->from], -(int64_t)e->amount,
		    &stopped) || !check_halfway(base, image, e->to, &rp->fate[e->to], e->amount,
		    &stopped))
			return (wrong(v, "update %u did not stop at one point", e->sequence));
		/* What has left one balance and has not come to the other. */
		sum += kv_record(image, e->from)->balance ==
		    KV_BALANCE + rp->fate[e->from].balance - e->amount ? e->amount : 0;
		sum -= kv_record(image, e->to)->balance ==
		    KV_BALANCE + rp->fate[e->to].balance + e->amount ? e->amount : 0;
	}
	for (uint32_t i = 0; i < h->records; i++) {
		const struct kv_record *b = kv_record(base, i), *r = kv_record(image, i);
		const struct fate *f = &rp->fate[i];
		uint64_t changes = (uint64_t)((const unsigned char *)&b->version - kv_at(base, 0));
		bool halfway = false;
		size_t n;

		if (memcmp(kv_at(base, at), kv_at(image, at), changes - at) != 0)
			return (wrong(v, "bytes %llu to %llu are not what they were at first",
			    (unsigned long long)at, (unsigned long long)changes));
		for (unsigned k = 0; k < rp->halfways; k++)
			halfway |= rp->halfway[k]->from == i || rp->halfway[k]->to == i;
		n = expect(want, b, i, f->last, KV_BALANCE + f->balance);
		if (!halfway && memcmp(want, &r->version, n * sizeof(uint64_t)) != 0)
			return (wrong(v, "record %u has a wrong byte, or is of another instant",
			    i));
		sum += r->balance;
		at = changes + n * sizeof(uint64_t);
	}
	if (memcmp(kv_at(base, at), kv_at(image, at), h->used - at) != 0)
		return (wrong(v, "the end is not what it was at first"));
	if (sum != (int64_t)h->records * KV_BALANCE)
		return (wrong(v, "the balances do not add up"));
	return (true);
}

bool
kv_verify(const struct kv_area base[KV_AREAS], const struct kv_area image[KV_AREAS],
    struct kv_verdict *v)
{
	const struct kv_header *b = kv_header(base), *h = kv_header(image);
	struct replay rp = { .sequence = h->sequence };
	bool right;

	*v = (struct kv_verdict){ 0 };
	/* The records are found by the directory; it and all before it never change. */
	if (memcmp(b, h, offsetof(struct kv_header, sequence)) != 0 || b->writers > MOST_WRITERS ||
	    memcmp(kv_at(base, b->table), kv_at(image, b->table),
	    b->directory + b->records * sizeof(uint64_t) - b->table) != 0)
		return (wrong(v, "the header or the directory is wrong"));
	if (rp.sequence > (uint64_t)kv_log_capacity(b) * b->writers)
		return (wrong(v, "there never were %u updates", rp.sequence));
	rp.fate = calloc(b->records, sizeof(*rp.fate));
	rp.seen = calloc(rp.sequence / 8 + 1, 1);
	if (rp.fate == NULL || rp.seen == NULL)
		right = wrong(v, "no memory to verify it");
	else
		right = replay(&rp, image, v) && records(&rp, base, image, v);
	free(rp.fate);
	free(rp.seen);
	return (right);
}
