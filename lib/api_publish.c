/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The statistics under their names; vmf_publish(), which shows them to others, and numbers of the
 * program's own.
 */

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "api_impl.h"
#include "task.h"
#include "trap.h"
#include "vm_init.h"
#include "vm_pageout.h"
#include "vm_publish.h"
#include "vmfault.h"

/* Every member of struct vmf_stats but its size, in the order that it has there. */
#define STATS(X) \
	X(v_vm_faults) X(v_lookups) X(v_hits) X(v_zfod) X(v_cow_faults) X(v_pushes) \
	X(v_pageins) X(v_pageouts) X(v_reactivated) X(v_scan) X(v_swpin) X(v_swpout) \
	X(v_collapses) X(v_bypasses) X(v_clustered) X(v_restarts) X(v_soft) X(v_intrans) \
	X(v_pager_errors) X(v_frame_waits) X(v_forgets) X(v_map_calls) X(v_snapshots) \
	X(v_rollbacks) X(v_page_count) X(v_free_count) X(v_active_count) \
	X(v_inactive_count) X(v_wire_count) X(v_dirty_free_count) X(mappings) \
	X(mappings_max) X(objects) X(entries) X(snapshots) X(metadata) X(swap_size) \
	X(swap_used) X(swap_errors) X(io_uring) X(v_dfree) X(v_refused) X(v_pdwakeups) \
	X(v_laundry_count) X(v_readahead) X(v_readahead_hits) X(v_write_behind) \
	X(v_drop_behind) X(v_incompressible) X(v_compress_evicted) X(v_compress_errors) \
	X(compress_pages) X(compress_same) X(compress_used) X(compress_resident) \
	X(compress_limit) X(v_parked) X(v_views) X(v_views_home) X(v_views_dense) \
	X(v_dense) X(v_homed) X(v_already) X(v_snapshot_ns) X(snapshot_ns_max) \
	X(v_forks) X(v_fork_ns) X(v_fork_ns_max) X(v_unfrozen) X(frames_frozen) X(frames_private) X(frames_superseded)

static const char stats_name[][24] = {
#define X(name) #name,
	STATS(X)
#undef X
};
#define NSTATS	(sizeof(stats_name) / sizeof(stats_name[0]))

_Static_assert(offsetof(struct vmf_stats, v_vm_faults) + NSTATS * sizeof(uint64_t) == sizeof(struct vmf_stats),
    "every member has a name");
_Static_assert(NSTATS + VMF_COUNTERS_MAX <= PUBLISH_NUMBERS, "the page has room for all");

const char *
vmf_statistics_name(size_t i)
{
	return i < NSTATS ? stats_name[i] : NULL;
}

/* Constant while something is published. */
static const uint64_t *counter[VMF_COUNTERS_MAX];
static uint32_t ncounters;
static _Atomic bool starting;

/* The daemon does not come in by the door of the API: who has that closed may be waiting for it. */
static void
values(uint64_t *v)
{
	struct vmf_stats s;

	api_statistics(&s);
	memcpy(v, &s.v_vm_faults, NSTATS * sizeof(*v));
	for (uint32_t i = 0; i < ncounters; i++)
		v[NSTATS + i] = __atomic_load_n(counter[i], __ATOMIC_RELAXED);
}

static bool
name_ok(const char name[24])
{
	size_t i;

	for (i = 0; i < 24 && name[i] != '\0'; i++)
		if (!(name[i] >= 'a' && name[i] <= 'z') && !(name[i] >= 'A' && name[i] <= 'Z') &&
		    !(name[i] >= '0' && name[i] <= '9') && name[i] != '_')
			return false;
	return i > 0 && i < 24;
}

static bool
value_ok(const uint64_t *value)
{
	struct vm_map *map;

	if (value == NULL || (uintptr_t)value % sizeof(*value) != 0)
		return false;
	map = task_at((vm_offset_t)value);
	if (map != NULL)
		task_put(map);
	return map == NULL;
}

int
vmf_publish(const struct vmf_counter *counters, size_t n)
{
	struct vmf_counter own[VMF_COUNTERS_MAX];
	char name[NSTATS + VMF_COUNTERS_MAX][24];
	sys_sigset_t old;
	int error = 0;

	if (!vm_running())
		return -ENODEV;
	if (n > VMF_COUNTERS_MAX || (counters == NULL && n != 0))
		return -EINVAL;
	if (n != 0)
		memcpy(own, counters, n * sizeof(*own));
	memcpy(name, stats_name, sizeof(stats_name));
	trap_enter(&old);
	for (size_t i = 0; i < n; i++) {
		if (!name_ok(own[i].name) || !value_ok(own[i].value))
			error = -EINVAL;
		memcpy(name[NSTATS + i], own[i].name, sizeof(own[i].name));
	}
	if (error == 0 && (vm_publish_running() || atomic_exchange(&starting, true)))
		error = -EALREADY;
	if (error == 0) {
		for (size_t i = 0; i < n; i++)
			counter[i] = own[i].value;
		ncounters = (uint32_t)n;
		error = vm_publish_start(vmf_version(), (const char (*)[24])name, (uint32_t)(NSTATS + n), values);
		if (error == 0)
			vm_pageout_published();
		atomic_store(&starting, false);
	}
	trap_leave(&old);
	return error;
}
