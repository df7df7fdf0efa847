/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * One system call through the gate.
 *
 *	gate_bare[nr]		no pointers: nobody is asked
 *	gate_wanted()		is any of it ours?  If not, the call is made where it stands, with the caller's
 *				stack and registers: a signal that comes finds what it would have found
 *	gate_run()		pin, call, unpin; or whose turn it is (signals, exec, the shim's hook)
 *
 * After EFAULT a call is made again only if a piece of it could not be pinned for want of frames, and only
 * where the table says that nothing was consumed (GATE_RETRY).  Everything else the pins must do.
 */

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>

#include "gate_command.h"
#include "gate_impl.h"
#include "signals.h"

#define RETRIES	1000

unsigned char gate_bare[GATE_NR];

static const struct gate_desc unknown = {
	NULL, 0, {
		{ ARG_OPAQUE, 1, 0, 0 }, { ARG_OPAQUE, 1, 0, 0 }, { ARG_OPAQUE, 1, 0, 0 },
		{ ARG_OPAQUE, 1, 0, 0 }, { ARG_OPAQUE, 1, 0, 0 }, { ARG_OPAQUE, 1, 0, 0 },
	}
};

static const struct gate_desc *
desc_of(long nr)
{
	if ((unsigned long)nr >= GATE_NR || gate_table[nr].name == NULL)
		return &unknown;
	return &gate_table[nr];
}

/* Is memory shared with what this call makes?  Then nothing may happen on this stack meanwhile. */
static bool
clone_shares_memory(const struct gate_call *call)
{
	uint64_t flags;

	if (call->nr == SYS_clone)
		return (call->arg[0] & CLONE_VM) != 0;
#ifdef SYS_fork
	if (call->nr == SYS_fork)
		return false;
#endif
	/* clone3: a pointer that is no good gets its EFAULT. */
	return !gate_copy(&flags, (const void *)call->arg[0], sizeof(flags)) || (flags & CLONE_VM) != 0;
}

/* The command of futex(), and whether the word is only looked at once. */
static bool
futex_waits(const struct gate_call *call)
{
	int op = (int)call->arg[1] & FUTEX_CMD_MASK;

	return op == FUTEX_WAIT || op == FUTEX_WAIT_BITSET;
}

static bool
futex_wanted(const struct gate_call *call)
{
	int op = (int)call->arg[1] & FUTEX_CMD_MASK;

	/* A private wake compares addresses only. */
	if ((op == FUTEX_WAKE || op == FUTEX_WAKE_BITSET) && (call->arg[1] & FUTEX_PRIVATE_FLAG))
		return false;
	return gate_is_managed(call->arg[0], 4) || gate_is_managed(call->arg[3], 1) ||
	    gate_is_managed(call->arg[4], 4);
}

bool
gate_wanted(const struct gate_call *call)
{
	const struct gate_desc *d = desc_of(call->nr);

	if (gate_thread.depth != 0)
		gate_thread_tidy(call->sp);
	if (gate_thread.bounce != NULL)
		gate_exec_forget();
	if (!signals_thread_ready)
		signals_thread_start();
	if (d->flags & GATE_BARE) {
		if (!(d->flags & GATE_FORK))
			return false;
		if (!clone_shares_memory(call))
			return true;
		if (gate_ops.thread != NULL)
			gate_ops.thread(call);
		return false;
	}
	if (d->flags & (GATE_SIGNALS | GATE_EXEC | GATE_EXIT | GATE_REFUSE | GATE_COMMAND))
		return true;
	if ((d->flags & GATE_HOOK) && gate_ops.hook != NULL)
		return true;
	if (d->flags & GATE_FUTEX)
		return futex_wanted(call);
	for (unsigned i = 0; i < 6; i++) {
		const struct gate_arg *a = &d->arg[i];
		size_t n = 1;

		if (a->kind == ARG_NONE || call->arg[i] == 0)
			continue;
		if (a->kind == ARG_IOVEC || a->kind == ARG_MSG || a->kind == ARG_MMSG)
			return true;
		if (a->kind == ARG_FIXED)
			n = a->size;
		else if (a->kind == ARG_COUNT && call->arg[a->len] > 0)
			n = (size_t)call->arg[a->len] * a->size;
		if (gate_is_managed(call->arg[i], n))
			return true;
	}
	return false;
}

/*
 * Wait on a word.  It may take for ever, and the kernel reads the word but once, at the
 * start: so it is brought in, not kept.
 */
static void
run_futex_wait(struct gate_call *call, struct gate_record *r)
{
	if (call->arg[3] != 0)
		(void)gate_piece(r, (const void *)call->arg[3], 16, false);
	for (int i = 0; i < RETRIES; i++) {
		struct gate_pin word = { .addr = (void *)call->arg[0], .size = 4, .write = false };

		if (gate_is_managed(call->arg[0], 4) && gate_ops.pin(&word) == 0)
			gate_ops.unpin(&word);
		call->result = gate_make(call);
		if (call->result != -EFAULT)
			break;
	}
}

static void
run_pinned(struct gate_call *call, const struct gate_desc *d)
{
	struct gate_record *r;

	for (int i = 0; i < RETRIES; i++) {
		r = gate_record_open(call->sp);
		if (r == NULL) {		/* handlers in handlers: as it comes */
			call->result = gate_make(call);
			return;
		}
		if ((d->flags & GATE_FUTEX) && futex_waits(call)) {
			run_futex_wait(call, r);
		} else {
			if (d->flags & GATE_COMMAND)
				gate_command_pieces(r, call);
			else
				gate_pieces(r, call, d);
			call->result = gate_make(call);
		}
		if (call->result != -EFAULT || !r->starved || !(d->flags & GATE_RETRY))
			break;
		gate_record_close(r);
		(void)GATE_RAW(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
	}
	gate_record_close(r);
}

void
gate_run(struct gate_call *call)
{
	const struct gate_desc *d = desc_of(call->nr);
	struct signals_call sc;

	if (d->flags & GATE_REFUSE) {
		call->result = -ENOSYS;
		return;
	}
	if (d->flags & GATE_EXEC) {
		gate_exec(call);
		return;
	}
	if (d->flags & GATE_EXIT) {
		if (gate_ops.hook != NULL)
			(void)gate_ops.hook(call);	/* the thread is whole still */
		/* In a guest (vfork) it is the host's thread that all of this belongs to, and it goes on. */
		if (!signals_guest()) {
			gate_thread_drop();
			signals_thread_exit();
		}
		call->result = gate_make(call);
		return;
	}
	if (d->flags & GATE_FORK) {
		if (gate_ops.hook == NULL || !gate_ops.hook(call))
			call->result = gate_make(call);
		if (call->result == 0)
			signals_forked();
		return;
	}
	if ((d->flags & GATE_HOOK) && gate_ops.hook != NULL && gate_ops.hook(call))
		return;
	if (d->flags & GATE_SIGNALS) {
		if (signals_begin(call, &sc))
			return;
		run_pinned(call, d);
		signals_end(call, &sc);
		return;
	}
	if ((d->flags & GATE_CHUNK) && gate_ops.pin_max != 0 && gate_chunk(call, d))
		return;
	run_pinned(call, d);
}

static bool
desc_is_bare(const struct gate_desc *d)
{
	if (d->name == NULL)
		return false;
	if (d->flags & GATE_FORK)
		return false;
	if (d->flags & GATE_BARE)
		return true;
	if ((d->flags & ~GATE_HOOK) || ((d->flags & GATE_HOOK) && gate_ops.hook != NULL))
		return false;
	for (unsigned i = 0; i < 6; i++)
		if (d->arg[i].kind != ARG_NONE)
			return false;
	return true;
}

void
gate_call_init(void)
{
	for (long nr = 0; nr < GATE_NR; nr++)
		gate_bare[nr] = desc_is_bare(&gate_table[nr]);
}
