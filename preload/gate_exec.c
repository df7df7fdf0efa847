/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * exec.
 *
 * The path, the arguments and the environment are strings, thousands perhaps, and after a success there is
 * nobody left to unpin them: in the child of vfork() or posix_spawn(), whose memory is the
 * parent's, that would be for ever.  So what is managed of them is copied to memory that is not, and
 * the kernel is given the copy.  The copy goes when the call fails; after a success of a child that shares our
 * memory, at the parent's next call through the gate.
 *
 * The signal state that exec hands on is the program's, not ours (signals_exec).
 */

#include <errno.h>
#include <sys/syscall.h>

#include "gate_impl.h"
#include "signals.h"

#define PAGE		((size_t)4096)
#define ARG_BYTES	((size_t)6 * 1024 * 1024)	/* the kernel's limit of all of it */
#define ARG_COUNT_MAX	((size_t)1 << 20)

struct bounce {
	char *base, *at;
	size_t size;
};

void
gate_exec_forget(void)
{
	void *base = __atomic_exchange_n(&gate_thread.bounce, NULL, __ATOMIC_RELAXED);

	if (base != NULL)
		gate_unmap(base, gate_thread.bounce_size);
}

/* The kernel commits memory for it as it is touched. */
static int
bounce_open(struct bounce *b)
{
	b->size = 2 * ARG_BYTES;
	b->base = gate_map(b->size, MAP_NORESERVE);
	if (b->base == NULL)
		return -ENOMEM;
	b->at = b->base;
	gate_thread.bounce_size = b->size;
	gate_thread.bounce = b->base;
	return 0;
}

/* => 0: *s is the copy, or as it was; -EFAULT; -E2BIG */
static int
bounce_string(struct bounce *b, const char **s)
{
	const char *from = *s;
	char *to = b->at;

	if (!gate_ops.managed(from, 1))
		return 0;
	for (;;) {
		size_t n = PAGE - ((uintptr_t)from & (PAGE - 1));

		if ((size_t)(b->base + b->size - b->at) < n)
			return -E2BIG;
		if (!gate_copy(b->at, from, n))
			return -EFAULT;
		for (size_t i = 0; i < n; i++)
			if (b->at[i] == '\0') {
				b->at += i + 1;
				*s = to;
				return 0;
			}
		b->at += n;
		from += n;
	}
}

/* The vector is copied in any case: its strings may be managed where it is not. */
static int
bounce_vector(struct bounce *b, long *arg)
{
	const char *const *from = (const char *const *)*arg;
	size_t n = 0, room;
	const char **to;
	int error;

	if (from == NULL)
		return 0;
	b->at = (char *)(((uintptr_t)b->at + sizeof(*to) - 1) & -sizeof(*to));
	to = (const char **)(void *)b->at;
	room = (size_t)(b->base + b->size - b->at) / sizeof(*to);
	do {
		if (n == room || n == ARG_COUNT_MAX)
			return -E2BIG;
		if (!gate_copy(&to[n], &from[n], sizeof(*to)))
			return -EFAULT;
	} while (to[n++] != NULL);
	b->at = (char *)(to + n);
	for (size_t i = 0; i + 1 < n; i++) {
		error = bounce_string(b, &to[i]);
		if (error != 0)
			return error;
	}
	*arg = (long)to;
	return 0;
}

static bool
vector_is_managed(long arg)
{
	const char *const *v = (const char *const *)arg;
	const char *s;

	if (v == NULL)
		return false;
	if (gate_is_managed(arg, 1))
		return true;
	for (;; v++) {
		if (!gate_copy(&s, v, sizeof(s)) || s == NULL)
			return false;
		if (gate_ops.managed(s, 1))
			return true;
	}
}

void
gate_exec(struct gate_call *call)
{
	int first = call->nr == SYS_execveat;		/* the number of the path's argument */
	struct signals_exec state;
	struct bounce b = { 0 };
	int error = 0;

	if (gate_is_managed(call->arg[first], 1) || vector_is_managed(call->arg[first + 1]) ||
	    vector_is_managed(call->arg[first + 2])) {
		error = bounce_open(&b);
		if (error == 0)
			error = bounce_vector(&b, &call->arg[first + 1]);
		if (error == 0)
			error = bounce_vector(&b, &call->arg[first + 2]);
		if (error == 0 && call->arg[first] != 0)
			error = bounce_string(&b, (const char **)&call->arg[first]);
	}
	if (error == 0) {
		signals_exec_begin(&state);
		if (gate_ops.exec != NULL)
			gate_ops.exec(true);
		error = (int)gate_make(call);
		if (gate_ops.exec != NULL)
			gate_ops.exec(false);
		signals_exec_failed(&state);
	}
	gate_exec_forget();
	call->result = error;
}
