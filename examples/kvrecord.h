/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KVRECORD_H
#define KVRECORD_H

/*
 * Where things are in an index, and what the words of a record must be: shared by
 * those who write it and those who verify it.
 */

#include <string.h>

#include "kvstore.h"

#define KV_MAGIC	UINT64_C(0x70616e73766b3176)

static inline unsigned char *
kv_at(const struct kv_area *area, uint64_t offset)
{
	return ((unsigned char *)area[KV_INDEX].addr + offset);
}

static inline struct kv_header *
kv_header(const struct kv_area *area)
{
	return (area[KV_INDEX].addr);
}

static inline struct kv_record *
kv_record(const struct kv_area *area, uint32_t number)
{
	const void *directory = kv_at(area, kv_header(area)->directory);

	return ((void *)kv_at(area, ((const uint64_t *)directory)[number]));
}

static inline struct kv_log *
kv_log(const struct kv_area *area, unsigned writer)
{
	size_t offset = (size_t)kv_header(area)->log_stride * writer;

	return ((void *)((unsigned char *)area[KV_LOG].addr + offset));
}

static inline uint32_t
kv_log_capacity(const struct kv_header *h)
{
	return ((uint32_t)((h->log_stride - sizeof(struct kv_log)) / sizeof(struct kv_entry)));
}

static inline size_t
kv_log_used(const struct kv_area *area, unsigned writer)
{
	const struct kv_log *log = kv_log(area, writer);

	return (sizeof(*log) + (size_t)log->begun * sizeof(struct kv_entry));
}

static inline size_t
kv_words(const struct kv_record *r)
{
	return ((r->length + 7) / 8);
}

static inline size_t
kv_record_size(const struct kv_record *r)
{
	return (sizeof(*r) + (kv_words(r) + 1) * sizeof(uint64_t));
}

static inline uint64_t
kv_mix(uint64_t x)			/* splitmix64 */
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return (x ^ x >> 31);
}

/*
 * Word i of a value in its version v is the word it was loaded with, masked:
 * kv_mask_word(kv_mask(number, v), i).  Version 0 is not masked.
 */
static inline uint64_t
kv_mask(uint32_t number, uint32_t version)
{
	return (version == 0 ? 0 : kv_mix((uint64_t)number << 32 | version) | 1);
}

static inline uint64_t
kv_mask_word(uint64_t mask, size_t i)
{
	return (mask * (2 * i + 1));
}

/* The checksum is the sum of these over version, balance and words. */
static inline uint64_t
kv_sum(size_t i, uint64_t word)
{
	return ((word ^ word >> 29) * (2 * i + 3));
}

static inline uint64_t
kv_checksum(const struct kv_record *r)
{
	uint64_t sum = kv_sum(0, r->version) + kv_sum(1, (uint64_t)r->balance);

	for (size_t i = 0; i < kv_words(r); i++)
		sum += kv_sum(i + 2, r->word[i]);
	return (sum);
}

static inline uint64_t
kv_digest(const void *value, size_t length)
{
	const unsigned char *p = value;
	uint64_t h = length, w;

	for (; length >= 8; p += 8, length -= 8) {
		memcpy(&w, p, 8);
		h = (h ^ w) * UINT64_C(0x9fb21c651e98df25);
		h ^= h >> 32;
	}
	w = 0;
	memcpy(&w, p, length);
	return (kv_mix(h ^ w));
}

#endif
