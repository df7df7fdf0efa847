/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SNAPSHOT_H
#define SNAPSHOT_H

/*
 * Snapshots over maps and objects: see vmfault.h for what they promise, snapshot.c for how.
 * All functions are called with signals blocked (trap_enter) and touch no memory of the user's.
 */

#include <stddef.h>
#include <stdint.h>

#include "kern/handle.h"
#include "vm_map.h"
#include "vmfault.h"

struct snapshot;

void snapshot_fini(void);
void snapshot_release_all(void);
uint64_t snapshot_count(void);
uint64_t snapshot_longest(void);	/* nanoseconds that taking one took, at most */

/* ranges: n of them, in memory of the library's, aligned, not empty, not wrapping. */
int snapshot_create(const struct vmf_range *ranges, size_t n, uint64_t *name);
int snapshot_release(uint64_t name);
int snapshot_rollback(uint64_t name);
int snapshot_map(uint64_t name, size_t range, size_t offset, size_t size, struct vm_map *, vm_offset_t *va,
    bool fixed, vm_prot_t prot);
/* Inside one page; buf is memory of the library's. */
int snapshot_read(uint64_t name, size_t range, size_t offset, void *buf, size_t len);
/* As vmf_snapshot_diff(), for one extent: 1 and *extent, 0 at the end, or -errno. */
int snapshot_diff(uint64_t a, uint64_t b, size_t range, size_t *cursor, struct vmf_extent *extent);

/* -errno of a fault that failed. */
int errno_of(enum kern_return);

#endif
