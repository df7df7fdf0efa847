/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The first look: is there anything to be done at all?
 *
 * Where many threads work on the same memory, most of those that fault at about the same time want the same
 * page, or one that came with it.  The first to come resolves the fault for all of them:
 *
 *	A	trap ... lookup, walk, ENTER
 *	B	   trap ......................... look: the page is entered.  Try again
 *
 * B needs nothing of the map, of the objects or of the pages: the pmap says what the kernel has been told, and if that
 * is what B needs, B tries its instruction again.  So a fault that somebody has resolved takes no
 * lock.
 *
 * WHY THAT IS SAFE.  Nothing is entered, and nothing is promised: the processor has the last word.  Were the
 * answer wrong, for rights may be taken at any moment, the instruction faults again.
 *
 * WHY THAT ENDS.  The pmap tells the kernel first, and writes down afterwards; who takes rights away may be
 * interrupted in between, and by a thread that faults and has a higher priority, for ever.  So a thread believes
 * the answer once: who faults at the same address twice in a row goes the long way, where he waits for locks.
 *
 *	the pmap says	the kernel	what comes of it
 *	yes		yes		the instruction goes on
 *	yes		no		it faults again; then the long way
 *	no		yes		the long way, which finds that nothing is to be entered
 *	no		no		the long way
 */

#include "kern/probe.h"
#include "pmap.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_meter.h"

/* Of this thread: where it was told to try again; 0: nowhere, lately. */
static __thread vm_offset_t believed __attribute__((__tls_model__("initial-exec")));

bool
vm_fault_is_done(const struct vm_map *map, vm_offset_t va, vm_prot_t fault_type)
{
	PROBE("vm_fault: begins");
	if (va == believed || (fault_type & ~pmap_peek(map->pmap, va)) != 0) {
		believed = 0;
		return false;
	}
	believed = va;
	vm_count(v_vm_faults);
	vm_count(v_already);
	PROBE("vm_fault: is done already");
	return true;
}
