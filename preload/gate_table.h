/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_TABLE_H
#define GATE_TABLE_H

/*
 * What each system call does with memory, as data.
 */

#include <stdint.h>

enum gate_kind {
	ARG_NONE = 0,		/* no pointer, or one that the kernel only compares */
	ARG_FIXED,		/* size bytes */
	ARG_COUNT,		/* size bytes times argument number len */
	ARG_MSGBUF,		/* a long and then argument number len bytes (msgsnd) */
	ARG_FDSET,		/* argument number len bits, in longs */
	ARG_STRING,		/* to the NUL, 4096 bytes at most */
	ARG_SIZED,		/* as many bytes as its first 32 bits say */
	ARG_BUFLEN,		/* as many bytes as the int that argument number len points to says */
	ARG_IOVEC,		/* argument number len of struct iovec, and what they point to */
	ARG_MSG,		/* struct msghdr, and what it points to */
	ARG_MMSG,		/* argument number len of struct mmsghdr */
	ARG_OPAQUE		/* depends: the next 256 bytes, as far as they exist */
};

struct gate_arg {
	uint8_t kind;		/* enum gate_kind */
	uint8_t write;		/* 1: the kernel writes there (or reads and writes) */
	uint8_t len;		/* number of another argument */
	uint16_t size;		/* in bytes */
};

/* Flags of a call. */
#define GATE_SIGNALS	1u	/* signals.h decides */
#define GATE_HOOK	2u	/* gate_ops.hook is asked */
#define GATE_EXEC	4u	/* the memory goes away with the call: gate_exec.c */
#define GATE_EXIT	8u	/* the thread ends */
#define GATE_BARE	16u	/* never in C: what returns may be on another stack, or another process on this one */
#define GATE_RETRY	32u	/* after EFAULT nothing is lost: it may be made again */
#define GATE_CHUNK	64u	/* may be made in several pieces: gate_chunk.c */
#define GATE_FUTEX	128u	/* waits on a word that it reads once: not pinned, made again */
#define GATE_REFUSE	256u	/* ENOSYS: the kernel would keep our pages behind our back */
#define GATE_FORK	1024u	/* makes a process; GATE_BARE where that shares our memory, else the hook is asked */
#define GATE_COMMAND	512u	/* what an argument points to depends on a command: gate_command() */

struct gate_desc {
	const char *name;	/* null: not known */
	unsigned flags;
	struct gate_arg arg[6];
};

#define GATE_NR		480	/* numbers in the table: 0 .. GATE_NR - 1 */

extern const struct gate_desc gate_table[GATE_NR];

#endif
