/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Light pins.
 *
 * Who gives a page to the kernel for the time of a system call holds it (vm_fault_hold): he takes locks, counts,
 * marks the page wired, and all of that once more to let it go.  That is dearer than many a call.  But where
 * nothing bounds memory, and no copy of it has been made, nobody is going to take any right from a page, and then a hold
 * says what is so anyway.  A light pin is a note of it, in case that changes.
 *
 *	who pins				who is going to take rights away (a fork)
 *	1  writes his range into a slot		1  closes
 *	2  are they open?			2  looks into every slot: what he finds there
 *	3  has each page its rights?		   he holds, in the name of who wrote it
 *	   no to 2 or 3: no pin			3  takes them
 *
 * 1 before 2 on either side: so either he who pins sees that they are closed, or he who closes sees the slot.
 * Between 2 and 3 of his, and later, the page keeps its rights, or gets them back, by the hold.  The end of a pin and its
 * becoming a hold are one change of the slot's state, which either comes first; in the first case there is
 * nothing to hold, in the second there is a hold to release.
 *
 *	FREE --take--> TAKEN --> LIGHT --end--> FREE
 *				   |
 *				   +--close--> MOVING --> HELD --end, release--> FREE
 *
 * What the program does itself to the range that a call of another thread is at work on (it unmaps it, takes its
 * rights) is its own business, as with the kernel's memory; what looks whether a range is held finds the pins, too.
 *
 * MAPPINGS.  When they run short any page may be forgotten that is not held (pmap_budget.c), or moved (vm_homecoming.c).
 * That begins when a good part of the budget is used, so they are closed before; each way out of the library looks.
 *
 * After a fork frames change under pages, and views come and go.  When no child sees our frames any more, and all that was
 * away is home, pins are opened again.  A child's frames are never its own alone: it has none.
 */

#include "vm_pin.h"

#include <stdatomic.h>

#include "kern/event.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "physmem.h"
#include "pmap.h"
#include "vm_fault.h"
#include "vm_map.h"
#include "vm_object.h"
#include "vm_view.h"

#define SLOTS		256u		/* a power of two */
#define TRIES		4u		/* slots that are tried for one pin */
#define SHARE		64u		/* of the budget of mappings: so many, and they are closed; half of them, and they may be opened */
#define AGAIN_NS	((int64_t)250 * 1000 * 1000)

enum { FREE, TAKEN, LIGHT, MOVING, HELD };

static struct slot {
	_Atomic uint32_t state;
	_Atomic vm_prot_t prot;		/* the rest is the taker's until LIGHT, constant afterwards */
	_Atomic vm_offset_t s, e;
} __attribute__((__aligned__(32))) slot[SLOTS];

static struct vm_map *_Atomic map;		/* constant from the first opening on; null: there was none */
static _Atomic bool wanted;		/* they may be opened again */
static _Atomic uint32_t open_state;	/* FREE: closed; LIGHT: open; MOVING: being closed */

/* Each thread has its own TLS, some pages from the next one's. */
static __thread char mine __attribute__((__tls_model__("initial-exec")));

static bool
is_open(void)
{
	return atomic_load(&open_state) == LIGHT;
}

void
vm_pin_open(struct vm_map *m)
{
	map = m;
	atomic_store(&wanted, true);
	atomic_store(&open_state, LIGHT);
}

static bool
has_rights(vm_offset_t s, vm_offset_t e, vm_prot_t prot)
{
	for (vm_offset_t va = trunc_page(s); va < e; va += PAGE_SIZE)
		if ((prot & ~pmap_peek(map->pmap, va)) != 0)
			return false;
	return true;
}

/* false: it has become a hold, and is one still */
static bool
withdraw(struct slot *p)
{
	for (;;) {
		uint32_t state = LIGHT;

		if (atomic_compare_exchange_strong(&p->state, &state, FREE))
			return true;
		if (state == HELD)
			return false;
		sys_yield();
	}
}

uint32_t
vm_pin_take(vm_offset_t s, vm_offset_t e, vm_prot_t prot)
{
	uint32_t first = ((uint32_t)((uintptr_t)&mine >> 12) * 0x9e3779b1u) >> 16, i, n;

	if (!is_open() || s < map->base || e > map->end)
		return 0;
	for (n = 0; n < TRIES; n++) {
		uint32_t expected = FREE;

		i = (first + n) % SLOTS;
		if (atomic_compare_exchange_strong(&slot[i].state, &expected, TAKEN))
			break;
	}
	if (n == TRIES)
		return 0;
	PROBE("vm_pin: not noted yet");
	atomic_store_explicit(&slot[i].s, s, memory_order_relaxed);
	atomic_store_explicit(&slot[i].e, e, memory_order_relaxed);
	atomic_store_explicit(&slot[i].prot, prot, memory_order_relaxed);
	atomic_store(&slot[i].state, LIGHT);
	PROBE("vm_pin: noted");
	/* Who closes may have been faster, and have held it: that will do as well. */
	if ((is_open() && has_rights(s, e, prot)) || !withdraw(&slot[i]))
		return i + 1;
	return 0;
}

bool
vm_pin_end(uint32_t pin)
{
	if (withdraw(&slot[pin - 1]))
		return true;
	atomic_store(&slot[pin - 1].state, FREE);
	return false;
}

bool
vm_pin_is_in(vm_offset_t s, vm_offset_t e)
{
	for (uint32_t i = 0; map != NULL && i < SLOTS; i++)
		if (atomic_load(&slot[i].state) >= LIGHT && slot[i].s < e && slot[i].e > s)
			return true;
	return false;
}

/* Hold what is in the slot.  What cannot be held has no rights that could be taken. */
static void
harden(struct slot *p)
{
	uint32_t expected = LIGHT;
	bool held;

	if (!atomic_compare_exchange_strong(&p->state, &expected, MOVING))
		return;
	PROBE("vm_pin: becomes a hold");
	held = vm_fault_hold(map, trunc_page(p->s), round_page(p->e), p->prot) == KERN_SUCCESS;
	atomic_store(&p->state, held ? HELD : LIGHT);
}

void
vm_pin_close(void)
{
	uint32_t expected = LIGHT;

	if (atomic_compare_exchange_strong(&open_state, &expected, MOVING)) {
		for (uint32_t i = 0; i < SLOTS; i++)
			harden(&slot[i]);
		atomic_store(&open_state, FREE);
	}
	while (atomic_load(&open_state) == MOVING)
		sys_yield();
}

void
vm_pin_close_for_good(void)
{
	atomic_store(&wanted, false);
	vm_pin_close();
}

int64_t
vm_pin_tend(void)
{
	uint32_t expected = FREE;

	/* Children see the frames: what is written moves, or is in views. */
	if (!atomic_load(&wanted) || is_open() || physmem_has_frozen() ||
	    pmap_mappings() > pmap_mappings_max() / (2 * SHARE))
		return EVENT_FOREVER;
	if (vm_view_any() || !vm_homecoming_rest())
		return AGAIN_NS;
	(void)atomic_compare_exchange_strong(&open_state, &expected, LIGHT);
	PROBE("vm_pin: open again");
	/* He who wants none ever again may have come between. */
	if (!atomic_load(&wanted))
		vm_pin_close();
	return EVENT_FOREVER;
}

void
vm_pin_look(void)
{
	if (is_open() && pmap_mappings() > pmap_mappings_max() / SHARE)
		vm_pin_close();
}

void
vm_pin_reset(void)
{
	atomic_store(&wanted, false);
	atomic_store(&open_state, FREE);
	for (uint32_t i = 0; i < SLOTS; i++)
		atomic_store(&slot[i].state, FREE);
}
