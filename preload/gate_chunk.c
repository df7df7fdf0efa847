/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Transfers of more than can be pinned at once: with a memory limit a read() may well ask for more bytes
 * than there are frames.  They are made in pieces of gate_ops.pin_max, and answer as one:
 *
 *	a piece came short, or failed	what came until then, or the error if that is nothing
 *	reading			goes on while pieces come full.  From what might block, a pipe or a
 *				socket, one piece is an answer already
 *	writing			goes on to the end, as a blocking write() does
 *	datagrams		are one piece, always: what they bring beyond is lost.  They are shorter than
 *				pin_max, or are pinned whole
 *
 * A vector is cut to pin_max as readv() itself would come short on a stream; its pieces are then
 * made one by one.
 */

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "gate_impl.h"

#define IOV_LIMIT	1024

/* What is at the other end? */
enum end { END_FILE, END_STREAM, END_MESSAGE };

static enum end
end_of(long fd)
{
	struct stat st;
	int type = 0, len = sizeof(type);

	if (GATE_RAW(SYS_fstat, fd, &st, 0, 0, 0, 0) != 0)
		return END_MESSAGE;
	if (S_ISREG(st.st_mode) || S_ISBLK(st.st_mode))
		return END_FILE;
	if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))
		return END_STREAM;
	if (S_ISSOCK(st.st_mode) &&
	    GATE_RAW(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &len, 0) == 0 && type == SOCK_STREAM)
		return END_STREAM;
	return END_MESSAGE;
}

/* One piece, pinned.  => what the kernel says */
static long
transfer(const struct gate_call *call, uintptr_t buf, size_t n, uint64_t done)
{
	struct gate_call piece = *call;
	struct gate_record *r = gate_record_open(call->sp);
	bool write = false;

	switch (call->nr) {
	case SYS_pread64:
	case SYS_pwrite64:
		piece.arg[3] += (long)done;
		break;
	default:
		break;
	}
	switch (call->nr) {
	case SYS_getrandom:
		piece.arg[0] = (long)buf;
		piece.arg[1] = (long)n;
		write = true;
		break;
	default:
		piece.arg[1] = (long)buf;
		piece.arg[2] = (long)n;
		write = gate_table[call->nr].arg[1].write;
		break;
	}
	if (r != NULL) {
		(void)gate_piece(r, (const void *)buf, n, write);
		/* The address of a datagram, and its length, are the caller's to look at in the end. */
		if (call->nr == SYS_sendto || call->nr == SYS_recvfrom) {
			struct gate_desc rest = gate_table[call->nr];

			rest.arg[1].kind = ARG_NONE;
			gate_pieces(r, &piece, &rest);
		}
	}
	piece.result = gate_make(&piece);
	if (r != NULL)
		gate_record_close(r);
	return piece.result;
}

static bool
chunk_buffer(struct gate_call *call, unsigned index)
{
	uintptr_t buf = (uintptr_t)call->arg[index];
	size_t n = (size_t)call->arg[index + 1], done = 0;
	bool reading = gate_table[call->nr].arg[index].write;
	enum end end = END_FILE;

	if (n <= gate_ops.pin_max || buf + n < buf || !gate_ops.managed((void *)buf, n))
		return false;
	if (index == 1)
		end = end_of(call->arg[0]);
	if (end == END_MESSAGE)
		return false;
	if (call->nr == SYS_recvfrom && (call->arg[3] & (MSG_WAITALL | MSG_PEEK)) == MSG_WAITALL)
		end = END_FILE;
	do {
		size_t k = n - done < gate_ops.pin_max ? n - done : gate_ops.pin_max;
		long got = transfer(call, buf + done, k, done);

		if (got < 0) {
			call->result = done > 0 ? (long)done : got;
			return true;
		}
		done += (size_t)got;
		if ((size_t)got < k || (reading && end == END_STREAM))
			break;
	} while (done < n);
	call->result = (long)done;
	return true;
}

/*
 * A vector: entry by entry, each as a buffer of its own.
 */
static bool
chunk_vector(struct gate_call *call)
{
	static const struct { long vector, plain; } as[] = {
		{ SYS_readv, SYS_read }, { SYS_writev, SYS_write },
		{ SYS_preadv, SYS_pread64 }, { SYS_pwritev, SYS_pwrite64 },
	};
	const struct iovec *iov = (const struct iovec *)call->arg[1];
	size_t n = (size_t)call->arg[2], total = 0, done = 0;
	long plain = -1;
	struct iovec v;

	for (size_t i = 0; i < sizeof(as) / sizeof(as[0]); i++)
		if (as[i].vector == call->nr)
			plain = as[i].plain;
	if (plain < 0 || n > IOV_LIMIT)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!gate_copy(&v, &iov[i], sizeof(v)) || (ssize_t)v.iov_len < 0)
			return false;
		total += v.iov_len;
	}
	if (total <= gate_ops.pin_max || end_of(call->arg[0]) == END_MESSAGE)
		return false;
	for (size_t i = 0; i < n && gate_copy(&v, &iov[i], sizeof(v)); i++) {
		struct gate_call one = { plain, { call->arg[0], (long)v.iov_base, (long)v.iov_len }, 0,
		    call->sp };

		if (v.iov_len == 0)
			continue;
		one.arg[3] = call->arg[3] + (long)done;
		if (!chunk_buffer(&one, 1))
			one.result = transfer(&one, (uintptr_t)v.iov_base, v.iov_len, 0);
		if (one.result < 0) {
			call->result = done > 0 ? (long)done : one.result;
			return true;
		}
		done += (size_t)one.result;
		if ((size_t)one.result < v.iov_len)
			break;
		if (gate_table[plain].arg[1].write && end_of(call->arg[0]) == END_STREAM)
			break;
	}
	call->result = (long)done;
	return true;
}

bool
gate_chunk(struct gate_call *call, const struct gate_desc *d)
{
	for (unsigned i = 0; i < 2; i++) {
		if (d->arg[i].kind == ARG_COUNT)
			return chunk_buffer(call, i);
		if (d->arg[i].kind == ARG_IOVEC)
			return chunk_vector(call);
	}
	return false;
}
