/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef API_IMPL_H
#define API_IMPL_H

/*
 * What the files of the facade share: checks of arguments, and the shapes of calls.
 */

#include "kern/types.h"

struct vm_map;
struct vm_map_attr;
struct vm_object;
struct vm_pager;
struct vmf_stats;

/* A range of whole pages that is not empty and does not wrap around. */
bool api_range_ok(const void *addr, size_t size);
bool api_prot_ok(int prot);
/* What a protection means: who may write may read. */
vm_prot_t api_prot_of(int prot);
/* Check what vmf_map() and vmf_map_file() share: shared or private, no flags but those and `more'. */
bool api_map_ok(unsigned flags, unsigned more, int prot, uint64_t offset);
/* Check where something is to be mapped; *va: the place asked for, with VMF_FIXED. */
int api_check_place(void *const *addr, size_t size, unsigned flags, vm_offset_t *va);

/* The common shape: an operation on one range of one map.  *error, where it is set, is what the user gets. */
typedef enum kern_return api_range_op(struct vm_map *, vm_offset_t s, vm_offset_t e, int arg, int *error);
int api_on_range(const void *addr, size_t size, api_range_op *, int arg);

bool api_in_map(const struct vm_map *, vm_offset_t va, size_t size);
/* Map an object; takes over its reference.  => entered */
int api_insert(struct vm_map *, vm_offset_t *va, size_t size, bool fixed, struct vm_object *, vm_pindex_t,
    const struct vm_map_attr *);
/*
 * Wired pages are copied at once, with maps and objects locked, so the frames have to be there.  If
 * they were not: have them paged out.  => entered; true: try again
 */
bool api_frames_for_wired(int error, int *tries);

/* Map [offset, offset + size) of a pager, shared or private as the VMF_MAP_* in flags say.  => entered */
int api_map_pager(struct vm_map *, vm_offset_t *va, size_t size, unsigned flags, struct vm_pager *,
    uint64_t offset, vm_prot_t prot, vm_prot_t max_prot);

/* The statistics of now.  => signals blocked; need not have entered, but the library must be running */
void api_statistics(struct vmf_stats *);

#endif
