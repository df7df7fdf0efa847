/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * From a call's arguments to pins.
 *
 * What the program gives us may be wrong in every way that the kernel has an answer to: so memory of the program's
 * is read with gate_copy() only, and a piece that cannot be pinned, or not to its end, is no error here.
 * The kernel is asked all the same, and it answers EFAULT, or with as much as there was.
 */

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "gate_impl.h"
#include "signals.h"

#define PAGE		((size_t)4096)
#define STRING_MAX	PAGE
#define OPAQUE_MAX	((size_t)256)
#define IOV_BATCH	16
#define IOV_LIMIT	1024		/* the kernel's, for vectors and for messages */

VMF_TLS struct gate_thread gate_thread;

/*
 * Records
 */

struct gate_record *
gate_record_open(uintptr_t sp)
{
	unsigned depth = gate_thread.depth;
	struct gate_record *r;

	if (depth == GATE_DEPTH)
		return NULL;
	r = &gate_thread.record[depth];
	r->sp = sp;
	r->pin = r->few;
	r->n = 0;
	r->cap = GATE_FEW;
	r->starved = false;
	gate_thread.depth = depth + 1;
	return r;
}

static void
record_release(struct gate_record *r)
{
	while (r->n > 0)
		gate_ops.unpin(&r->pin[--r->n]);
	if (r->pin != r->few) {
		gate_unmap(r->pin, r->cap * sizeof(*r->pin));
		r->pin = r->few;
	}
}

/*
 * => r is the last record, unless the call was made under a handler that has thrown away a frame
 *    above it: then what is above is thrown away, too
 */
void
gate_record_close(struct gate_record *r)
{
	unsigned i = (unsigned)(r - gate_thread.record);

	while (gate_thread.depth > i) {
		record_release(&gate_thread.record[gate_thread.depth - 1]);
		gate_thread.depth--;
	}
}

/*
 * Let go what calls hold whose frames are gone, now that the thread calls from sp.  While a handler is on the
 * alternate stack nothing can be said of the other one; off it, nobody is on it any more.
 */
void
gate_thread_tidy(uintptr_t sp)
{
	bool alt = signals_on_altstack(sp);

	while (gate_thread.depth > 0) {
		struct gate_record *r = &gate_thread.record[gate_thread.depth - 1];
		bool record_alt = signals_on_altstack(r->sp);

		if (record_alt == alt ? r->sp > sp : alt)
			break;
		gate_record_close(r);
	}
}

void
gate_thread_forked(void)
{
	for (unsigned i = 0; i < gate_thread.depth; i++)
		for (unsigned k = 0; k < gate_thread.record[i].n; k++)
			(void)gate_ops.pin(&gate_thread.record[i].pin[k]);
}

void
gate_thread_drop(void)
{
	if (gate_thread.depth > 0)
		gate_record_close(&gate_thread.record[0]);
}

/* Room for one more pin.  => null: no memory */
static struct gate_pin *
record_room(struct gate_record *r)
{
	size_t cap = (size_t)r->cap * 4;
	struct gate_pin *pin;

	if (r->n < r->cap)
		return &r->pin[r->n];
	pin = gate_map(cap * sizeof(*pin), 0);
	if (pin == NULL)
		return NULL;
	for (unsigned i = 0; i < r->n; i++)
		pin[i] = r->pin[i];
	if (r->pin != r->few)
		gate_unmap(r->pin, r->cap * sizeof(*pin));
	r->pin = pin;
	r->cap = (unsigned)cap;
	return &r->pin[r->n];
}

static bool
pin_all(struct gate_record *r, uintptr_t p, size_t n, bool write)
{
	struct gate_pin *pin = record_room(r);
	int error;

	if (pin == NULL) {
		r->starved = true;
		return false;
	}
	*pin = (struct gate_pin){ .addr = (void *)p, .size = n, .write = write };
	error = gate_ops.pin(pin);
	if (error == 0)
		r->n++;
	else if (error == -ENOMEM || error == -EAGAIN)
		r->starved = true;
	return error == 0;
}

/*
 * Where all of it cannot be had, as many whole pages of the beginning as there are: halving, so
 * that a read() with a size of 2 GB into a small buffer costs no more than its logarithm.
 */
size_t
gate_piece(struct gate_record *r, const void *addr, size_t n, bool write)
{
	uintptr_t p = (uintptr_t)addr, end;
	size_t step;

	if (n == 0 || p + n < p || !gate_ops.managed(addr, n))
		return n;
	if (pin_all(r, p, n, write))
		return n;
	end = p + n;
	for (step = PAGE; step < n; step *= 2)
		;
	while (step >= PAGE && p < end) {
		uintptr_t to = (p & -PAGE) + step;

		if (to < end && pin_all(r, p, to - p, write))
			p = to;
		else
			step /= 2;
	}
	if (p < end && end - p < PAGE && pin_all(r, p, end - p, write))
		p = end;
	return p - (uintptr_t)addr;
}

/*
 * Kinds of arguments
 */

static void
piece_opaque(struct gate_record *r, const void *p)
{
	unsigned before = r->n;

	(void)gate_piece(r, p, OPAQUE_MAX, true);
	if (r->n == before)
		(void)gate_piece(r, p, OPAQUE_MAX, false);
}

static void
piece_string(struct gate_record *r, const char *s)
{
	const char *end = s + STRING_MAX;

	if (!gate_ops.managed(s, 1))
		return;
	while (s < end) {
		size_t n = PAGE - ((uintptr_t)s & (PAGE - 1));
		char buf[64];

		if (gate_piece(r, s, n, false) != n)
			return;
		while (n > 0) {
			size_t k = n < sizeof(buf) ? n : sizeof(buf);

			if (!gate_copy(buf, s, k))
				return;
			for (size_t i = 0; i < k; i++)
				if (buf[i] == '\0')
					return;
			s += k;
			n -= k;
		}
	}
}

static void
piece_iovec(struct gate_record *r, const struct iovec *iov, size_t n, bool write)
{
	struct iovec batch[IOV_BATCH];

	if (n > IOV_LIMIT)
		return;			/* EINVAL, or EMSGSIZE */
	(void)gate_piece(r, iov, n * sizeof(*iov), false);
	for (size_t done = 0; done < n; done += IOV_BATCH) {
		size_t k = n - done < IOV_BATCH ? n - done : IOV_BATCH;

		if (!gate_copy(batch, iov + done, k * sizeof(*iov)))
			return;
		for (size_t i = 0; i < k; i++)
			(void)gate_piece(r, batch[i].iov_base, batch[i].iov_len, write);
	}
}

static void
piece_msg(struct gate_record *r, const struct msghdr *msg, bool write)
{
	struct msghdr m;

	(void)gate_piece(r, msg, sizeof(m), write);
	if (!gate_copy(&m, msg, sizeof(m)))
		return;
	if (m.msg_name != NULL)
		(void)gate_piece(r, m.msg_name, m.msg_namelen, write);
	if (m.msg_control != NULL)
		(void)gate_piece(r, m.msg_control, m.msg_controllen, write);
	piece_iovec(r, m.msg_iov, m.msg_iovlen, write);
}

static void
piece_mmsg(struct gate_record *r, const struct mmsghdr *msg, size_t n, bool write)
{
	if (n > IOV_LIMIT)
		n = IOV_LIMIT;
	(void)gate_piece(r, msg, n * sizeof(*msg), true);	/* msg_len is written by both */
	for (size_t i = 0; i < n; i++)
		piece_msg(r, &msg[i].msg_hdr, write);
}

void
gate_pieces(struct gate_record *r, const struct gate_call *call, const struct gate_desc *d)
{
	for (unsigned i = 0; i < 6; i++) {
		const struct gate_arg *a = &d->arg[i];
		const void *p = (const void *)call->arg[i];
		size_t len = (size_t)call->arg[a->len];
		uint32_t word;

		if (p == NULL)
			continue;
		switch ((enum gate_kind)a->kind) {
		case ARG_NONE:
			break;
		case ARG_FIXED:
			(void)gate_piece(r, p, a->size, a->write);
			break;
		case ARG_COUNT:
			if (a->size > 1)		/* a count is an int */
				len = (size_t)(uint32_t)len * a->size;
			(void)gate_piece(r, p, len, a->write);
			break;
		case ARG_MSGBUF:
			(void)gate_piece(r, p, sizeof(long) + len, a->write);
			break;
		case ARG_FDSET:
			if ((int)len > 0)
				(void)gate_piece(r, p, ((uint32_t)len + 63) / 64 * 8, a->write);
			break;
		case ARG_STRING:
			piece_string(r, p);
			break;
		case ARG_SIZED:
			if (gate_copy(&word, p, sizeof(word)))
				(void)gate_piece(r, p, word < PAGE ? word : PAGE, a->write);
			break;
		case ARG_BUFLEN:
			if (gate_copy(&word, (const void *)len, sizeof(word)) && (int)word > 0)
				(void)gate_piece(r, p, word, a->write);
			break;
		case ARG_IOVEC:
			piece_iovec(r, p, len, a->write);
			break;
		case ARG_MSG:
			piece_msg(r, p, a->write);
			break;
		case ARG_MMSG:
			piece_mmsg(r, p, (uint32_t)len, a->write);
			break;
		case ARG_OPAQUE:
			piece_opaque(r, p);
			break;
		}
	}
}
