/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_PIN_H
#define VM_PIN_H

/*
 * Light pins: see vm_pin.c.
 */

#include <stdbool.h>
#include <stdint.h>

#include "kern/types.h"

struct vm_map;

/* From now on there are some in this map, which stays.  => nobody takes rights from its pages unless he is told to, or closes */
void vm_pin_open(struct vm_map *);
/*
 * Closed for a while: can they be opened again?  The pageout daemon asks.  => how long until it is to ask again;
 * EVENT_FOREVER: it will be woken
 */
int64_t vm_pin_tend(void);
/*
 * No more; those that there are become holds.
 * => nothing locked, and no fault of this thread's under way
 */
void vm_pin_close(void);
void vm_pin_close_for_good(void);	/* likewise, and they stay closed */
/* That many mappings make those that are forgotten a matter of time: close.  => likewise */
void vm_pin_look(void);
void vm_pin_reset(void);	/* none, and closed: at the end, and in a child, of which they are not */

/*
 * Keep [s, e) accessible with rights prot if it is already.
 * => what vm_pin_end() wants; 0: it is not, or there is no room, or they are closed
 */
uint32_t vm_pin_take(vm_offset_t s, vm_offset_t e, vm_prot_t prot);
/* => false: it has become a hold, which the caller has to release */
bool vm_pin_end(uint32_t);

/* Is there one in [s, e)?  A moment's truth. */
bool vm_pin_is_in(vm_offset_t s, vm_offset_t e);

#endif
