/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Calls whose arguments are memory or not, as a command says.
 *
 * ioctl: the numbers since 1995 say size and direction; those before, the terminals' and the
 * sockets', say nothing, and get what the largest of them needs.  A struct may end in an array that its size
 * does not tell of, and what it points to in its turn has a length that only the driver knows: whatever in it
 * looks like an address of managed memory is taken for one.  A piece too many does no harm.
 */

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "gate_command.h"

#define OPAQUE	256
#define BEHIND	((size_t)16 << 10)	/* ... an array, or a pointer */

static void
piece_any(struct gate_record *r, long p, size_t n)
{
	unsigned before = r->n;

	(void)gate_piece(r, (const void *)p, n, true);
	if (r->n == before)
		(void)gate_piece(r, (const void *)p, n, false);
}

static void
pieces_ioctl(struct gate_record *r, const struct gate_call *call)
{
	unsigned command = (unsigned)call->arg[1];
	const long *word = (const long *)call->arg[2];
	size_t n = OPAQUE;
	long p;

	if (call->arg[2] == 0)
		return;
	if (_IOC_DIR(command) != _IOC_NONE && _IOC_SIZE(command) != 0) {
		n = _IOC_SIZE(command);
		(void)gate_piece(r, word, n, (_IOC_DIR(command) & _IOC_READ) != 0);
		(void)gate_piece(r, (const char *)word + n, BEHIND, (_IOC_DIR(command) & _IOC_READ) != 0);
	} else {
		piece_any(r, call->arg[2], OPAQUE);
	}
	for (size_t i = 0; i < (n < OPAQUE ? n : OPAQUE) / sizeof(p) && gate_copy(&p, &word[i], sizeof(p)); i++)
		if (gate_is_managed(p, 1))
			piece_any(r, p, BEHIND);
}

static void
pieces_fcntl(struct gate_record *r, const struct gate_call *call)
{
	switch (call->arg[1]) {
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		(void)gate_piece(r, (const void *)call->arg[2], sizeof(struct flock), false);
		break;
	case F_GETLK:
	case F_OFD_GETLK:
		(void)gate_piece(r, (const void *)call->arg[2], sizeof(struct flock), true);
		break;
	case F_SETOWN_EX:
	case F_GETOWN_EX:
	case F_GET_RW_HINT:
	case F_SET_RW_HINT:
	case F_GET_FILE_RW_HINT:
	case F_SET_FILE_RW_HINT:
		piece_any(r, call->arg[2], 8);
		break;
	default:
		break;
	}
}

static void
pieces_prctl(struct gate_record *r, const struct gate_call *call)
{
	for (int i = 1; i < 5; i++)
		if (gate_is_managed(call->arg[i], 1))
			piece_any(r, call->arg[i], OPAQUE);
}

/* A pipe would keep our pages, not their contents: so the contents are written. */
static void
vmsplice_to_vector(struct gate_call *call)
{
	int flags = (int)GATE_RAW(SYS_fcntl, call->arg[0], F_GETFL, 0, 0, 0, 0);

	call->nr = flags >= 0 && (flags & O_ACCMODE) == O_RDONLY ? SYS_readv : SYS_writev;
}

void
gate_command_pieces(struct gate_record *r, struct gate_call *call)
{
	switch (call->nr) {
	case SYS_ioctl:
		pieces_ioctl(r, call);
		break;
	case SYS_fcntl:
		pieces_fcntl(r, call);
		break;
	case SYS_prctl:
		pieces_prctl(r, call);
		break;
	case SYS_vmsplice: {
		bool to_us;

		vmsplice_to_vector(call);
		to_us = call->nr == SYS_readv;
		gate_pieces(r, call, &(const struct gate_desc){ .arg[1] = { ARG_IOVEC, to_us, 2, 0 } });
		break;
	}
	default:
		break;
	}
}
