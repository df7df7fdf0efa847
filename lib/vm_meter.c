/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Counters.  A thread picks its shard once, in turn.
 */

#include "vm_meter.h"

struct vm_meter_shard vm_meter[VM_METER_SHARDS];

unsigned
vm_meter_shard(void)
{
	static __thread unsigned mine __attribute__((__tls_model__("initial-exec")));
	static _Atomic unsigned next;

	if (mine == 0)
		mine = 1 + atomic_fetch_add_explicit(&next, 1, memory_order_relaxed) %
		    VM_METER_SHARDS;
	return mine - 1;
}

uint64_t
vm_meter_read(enum vm_counter c)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < VM_METER_SHARDS; i++)
		sum += atomic_load_explicit(&vm_meter[i].n[c], memory_order_relaxed);
	return sum;
}

void
vm_meter_reset(void)
{
	for (unsigned i = 0; i < VM_METER_SHARDS; i++)
		for (unsigned c = 0; c < VMC_COUNT; c++)
			atomic_store_explicit(&vm_meter[i].n[c], 0, memory_order_relaxed);
}
