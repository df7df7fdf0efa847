/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SWAP_IMPL_H
#define SWAP_IMPL_H

/*
 * What swap.c (which page is in which slot) asks of swap_slots.c (which slots are free) and swap_file.c.
 *
 * A slot is a page of the file; a chunk is SWAP_CHUNK slots, aligned.  Slot 0 is never given: it stands for
 * none.
 */

#include "swap.h"

#define SWAP_CHUNK	32u		/* slots: 128 KB */
#define SWAP_SLOTS_MAX	(1u << 31)	/* 8 TB */
#define SWAP_LEAST	64u		/* slots */

/* A descriptor or -errno.  *size as in swap_init(), then what there is; *ours: the file has no name. */
int swap_file_open(const char *path, uint64_t *size, bool direct, bool *ours);

/* The same again, without a name, where the last one was or would have been.  A descriptor or -errno. */
int swap_file_another(bool direct);
void swap_file_close(void);		/* forget that place */

/* punch: freed chunks are given back to the file system. */
int swap_slots_init(int fd, uint32_t nslots, bool punch);
void swap_slots_fini(void);
uint64_t swap_slots_used(void);
/* The first slots in a row that are in use, from *slot on: *slot, and how many.  0: there are none. */
uint32_t swap_slots_next(uint32_t *slot);
void swap_slots_forked(int fd);		/* the file is another one */

/* Each takes a slot, or returns 0.  None of them blocks. */
uint32_t swap_slot_new(uint32_t i);		/* the ith of a chunk of which all are free */
uint32_t swap_slot_any(void);
bool swap_slot_take(uint32_t slot);		/* that one */
bool swap_slot_take_first(uint32_t slot);	/* that one, if all of its chunk are free */
bool swap_slot_is_free(uint32_t slot);
void swap_slots_give(uint32_t slot, uint32_t mask);	/* those of the slot's chunk */
void swap_slots_pass(uint32_t slot);		/* look further on for the next: this one does not work */

#endif
