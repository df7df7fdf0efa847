/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Threads whose stack is managed memory (pthread_attr_setstack()).
 *
 * libc puts the thread's own storage on top of such a stack: what the fault handler itself works with, and what the
 * kernel writes to when the thread is scheduled and when it ends.  And until the thread has an alternate stack, which
 * it gets with its first system call, a fault on its stack could not be heard.  So these two are wired before
 * the thread is made; the rest of the stack may go and come.
 *
 *	low	the stack ........ first frames | thread-local storage | struct pthread	high
 *		args->stack	   <-- WIRED ---------- wired ---------- wired -->
 *
 * They stay so until the thread is seen to have ended (the kernel writes a zero to its child_tid), which is looked
 * for when another one is made; or until they are unmapped.
 */

#include <linux/sched.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#include "gate_impl.h"
#include "shim.h"
#include "vmfault.h"

#define PAGE		((uintptr_t)VMF_PAGE_SIZE)
#define FIRST		(16 * PAGE)		/* of the stack */
#define STORAGE		PAGE			/* struct pthread, above the thread pointer */
#define STATIC		(4 * PAGE)		/* thread-local storage, where nobody says where it begins */
#define MOST		64

enum { FREE, TAKEN, MADE, SEEN };

static struct {
	_Atomic int state;
	uintptr_t start, end, tid;		/* tid: its address; constant from MADE on */
} stack[MOST];

static void
unwire_dead(void)
{
	for (unsigned i = 0; i < MOST; i++) {
		int state = atomic_load(&stack[i].state), tid = 0;

		if (state < MADE)
			continue;
		/* Not yet set, or not any more? */
		if (gate_copy(&tid, (void *)stack[i].tid, sizeof(tid)) && tid != 0) {
			(void)atomic_compare_exchange_strong(&stack[i].state, &state, SEEN);
		} else if (state == SEEN && atomic_compare_exchange_strong(&stack[i].state, &state, TAKEN)) {
			(void)vmf_unwire((void *)stack[i].start, stack[i].end - stack[i].start);
			atomic_store(&stack[i].state, FREE);
		}
	}
}

/* Who finds no room is wired for ever, which does no other harm. */
static void
note(uintptr_t start, uintptr_t end, uintptr_t tid)
{
	for (unsigned i = 0; i < MOST; i++) {
		int state = FREE;

		if (!atomic_compare_exchange_strong(&stack[i].state, &state, TAKEN))
			continue;
		stack[i].start = start;
		stack[i].end = end;
		stack[i].tid = tid;
		atomic_store(&stack[i].state, MADE);
		return;
	}
}

void
stacks_thread(const struct gate_call *call)
{
	struct clone_args args = { 0 };
	uintptr_t start, end;

	if (call->nr == SYS_clone3) {
		size_t n = (size_t)call->arg[1] < sizeof(args) ? (size_t)call->arg[1] : sizeof(args);

		if (!gate_copy(&args, (const void *)call->arg[0], n))
			return;
		end = (uintptr_t)(args.stack + args.stack_size);
	} else {
		args.flags = (uint64_t)call->arg[0];
		args.child_tid = (uint64_t)call->arg[3];
		args.tls = (uint64_t)call->arg[4];
		end = (uintptr_t)call->arg[1];
	}
	if (!(args.flags & CLONE_THREAD) || !(args.flags & CLONE_SETTLS) || !shim_managed((void *)(uintptr_t)args.tls, 1))
		return;
	unwire_dead();
	start = end <= args.tls && args.tls - end < ((uintptr_t)1 << 20) ? end - FIRST : (uintptr_t)args.tls - STATIC;
	start &= -PAGE;
	end = ((uintptr_t)args.tls + STORAGE + PAGE - 1) & -PAGE;
	if (vmf_wire((void *)start, end - start) == 0)
		note(start, end, (uintptr_t)args.child_tid);
}
