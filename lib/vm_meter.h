/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_METER_H
#define VM_METER_H

/*
 * Counters, named as in 4.4BSD's struct vmmeter.  They are relaxed atomics in
 * a few cache-line-sized shards, so that counting never makes two
 * faulting threads meet.
 */

#include <stdatomic.h>
#include <stdint.h>

#define VM_COUNTERS(X) \
	X(v_vm_faults) X(v_lookups) X(v_hits) X(v_zfod) X(v_cow_faults) X(v_pushes) \
	X(v_pageins) X(v_pageouts) X(v_reactivated) X(v_scan) X(v_swpin) X(v_swpout) \
	X(v_collapses) X(v_bypasses) X(v_clustered) X(v_restarts) X(v_soft) X(v_intrans) \
	X(v_pager_errors) X(v_frame_waits) X(v_forgets) X(v_map_calls) X(v_snapshots) \
	X(v_rollbacks) X(v_dfree) X(v_refused) X(v_pdwakeups) \
	X(v_readahead) X(v_readahead_hits) X(v_write_behind) X(v_drop_behind) \
	X(v_incompressible) X(v_compress_evicted) X(v_compress_errors) X(v_parked) \
	X(v_views) X(v_views_home) X(v_views_dense) X(v_dense) X(v_homed) X(v_unfrozen) X(v_forks) X(v_fork_ns) X(v_already) \
	X(v_snapshot_ns)

enum vm_counter {
#define X(name) VMC_##name,
	VM_COUNTERS(X)
#undef X
	VMC_COUNT
};

#define VM_METER_SHARDS	8

struct vm_meter_shard {
	_Atomic uint64_t n[VMC_COUNT];
} __attribute__((__aligned__(64)));

extern struct vm_meter_shard vm_meter[VM_METER_SHARDS];
unsigned vm_meter_shard(void);

#define vm_count_n(name, by) \
	((void)atomic_fetch_add_explicit(&vm_meter[vm_meter_shard()].n[VMC_##name], (by), \
	    memory_order_relaxed))
#define vm_count(name)	vm_count_n(name, 1)

uint64_t vm_meter_read(enum vm_counter);
void vm_meter_reset(void);

#endif
