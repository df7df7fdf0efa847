/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Robust mutexes of a thread that ends.
 *
 * The kernel goes through a dead thread's list of locks (set_robust_list(2)) and marks each of them, so that the next
 * one who wants it learns of that and does not wait for ever.  It passes over what it cannot reach, and a
 * lock on a page that is away would be held by a dead man.  So where any of it is managed memory
 * we do what the kernel would do, before the thread ends, and leave it an empty list.
 *
 * When the process ends as a whole there is nobody left who could want a lock in private memory.
 */

#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>

#include "gate_impl.h"
#include "shim.h"

#define MOST	2048u			/* entries, as in the kernel: lists of garbage may be circles */

typedef bool entry_fn(uintptr_t lock, bool pi, bool pending);

static bool
is_managed(uintptr_t lock, bool pi, bool pending)
{
	(void)pi;
	(void)pending;
	return shim_managed((void *)lock, sizeof(uint32_t));
}

/* The kernel's handle_futex_death().  => false, always */
static bool
bury(uintptr_t lock, bool pi, bool pending)
{
	struct gate_pin pin = { .addr = (void *)lock, .size = sizeof(uint32_t), .write = true };
	_Atomic uint32_t *word = (_Atomic uint32_t *)lock;
	uint32_t tid = (uint32_t)GATE_RAW(SYS_gettid, 0, 0, 0, 0, 0, 0), old;

	if (lock % sizeof(uint32_t) != 0 || !gate_copy(&old, (void *)lock, sizeof(old)))
		return false;
	if (shim_managed(pin.addr, pin.size) && gate_ops.pin(&pin) != 0)
		return false;
	old = atomic_load(word);
	while ((old & FUTEX_TID_MASK) == tid &&
	    !atomic_compare_exchange_strong(word, &old, (old & FUTEX_WAITERS) | FUTEX_OWNER_DIED))
		;
	/* Private or shared: a waiter may have come as either. */
	if (!pi && ((pending && old == 0) || ((old & FUTEX_TID_MASK) == tid && (old & FUTEX_WAITERS)))) {
		(void)GATE_RAW(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0);
		(void)GATE_RAW(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
	}
	if (shim_managed(pin.addr, pin.size))
		gate_ops.unpin(&pin);
	return false;
}

/* Call fn with each lock, until it says true.  => it did */
static bool
walk(const struct robust_list_head *at, entry_fn *fn)
{
	struct robust_list_head head;
	uintptr_t entry, pending, next;
	bool found = false;

	if (!gate_copy(&head, at, sizeof(head)))
		return false;
	pending = (uintptr_t)head.list_op_pending;
	entry = (uintptr_t)head.list.next;
	for (uint32_t i = 0; i < MOST && !found && (entry & ~(uintptr_t)1) != (uintptr_t)at; i++, entry = next) {
		uintptr_t p = entry & ~(uintptr_t)1;

		if (!gate_copy(&next, (void *)p, sizeof(next)))
			break;
		if (p != (pending & ~(uintptr_t)1))
			found = fn(p + (uintptr_t)head.futex_offset, entry & 1, false);
	}
	if (!found && (pending & ~(uintptr_t)1) != 0)
		found = fn((pending & ~(uintptr_t)1) + (uintptr_t)head.futex_offset, pending & 1, true);
	return found;
}

void
robust_leaves(void)
{
	struct robust_list_head *head = NULL;
	size_t size = 0;

	if (GATE_RAW(SYS_get_robust_list, 0, &head, &size, 0, 0, 0) != 0 || head == NULL || size != sizeof(*head) ||
	    !walk(head, is_managed))
		return;
	(void)walk(head, bury);
	(void)GATE_RAW(SYS_set_robust_list, NULL, sizeof(*head), 0, 0, 0, 0);
}
