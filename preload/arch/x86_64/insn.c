/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * How long an instruction is: prefixes, opcode, ModRM with SIB and displacement, immediate.  Enough to
 * tell whether two bytes are an instruction of their own or part of another; what it does is
 * nobody's concern here.
 */

#include <stdbool.h>
#include <stdint.h>

#include "insn.h"

/*
 * One character for each opcode:
 *	.	nothing follows		m	ModRM
 *	b	8-bit immediate		B	ModRM and 8-bit immediate
 *	z	32-bit immediate (16 with an operand-size prefix), or displacement
 *	Z	ModRM and such		w	16-bit immediate
 *	v	immediate of the operand's size, 64 bits with REX.W
 *	o	64-bit address		e	16 and 8 bits (enter)
 *	f	F6: ModRM, and 8 bits for test		F	F7: the same, as z
 *	x	not an instruction in 64-bit mode, or handled before (prefixes)
 *	j	32-bit displacement always
 */
static const char one_byte[] =
    "mmmmbzxxmmmmbzxx" "mmmmbzxxmmmmbzxx" "mmmmbzxxmmmmbzxx" "mmmmbzxxmmmmbzxx"
    "xxxxxxxxxxxxxxxx" "................" "xxxmxxxxzZbB...." "bbbbbbbbbbbbbbbb"
    "BZxBmmmmmmmmmmmm" "..........x....." "oooo....bz......" "bbbbbbbbvvvvvvvv"
    "BBw.xxBZe.w..bx." "mmmmxxx.mmmmmmmm" "bbbbbbbbjjxb...." "x.xx..fF......mm";

static const char two_bytes[] =
    "mmmmx........mxB" "mmmmmmmmmmmmmmmm" "mmmmxxxxmmmmmmmm" "......x.xxxxxxxx"
    "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "BBBBmmm.mmxxmmmm"
    "jjjjjjjjjjjjjjjj" "mmmmmmmmmmmmmmmm" "...mBmxx...mBmmm" "mmmmmmmmmmBmmmmm"
    "mmBmBBBm........" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm" "mmmmmmmmmmmmmmmm";

struct cursor {
	const unsigned char *p, *end;
};

static bool
skip(struct cursor *c, size_t n)
{
	if ((size_t)(c->end - c->p) < n)
		return false;
	c->p += n;
	return true;
}

/* => the ModRM byte, or -1 */
static int
modrm(struct cursor *c)
{
	unsigned m, mod, rm, sib;
	size_t disp = 0;

	if (c->p == c->end)
		return -1;
	m = *c->p++;
	mod = m >> 6;
	rm = m & 7;
	if (mod == 3)
		return (int)m;
	if (rm == 4) {
		if (c->p == c->end)
			return -1;
		sib = *c->p++;
		if (mod == 0 && (sib & 7) == 5)
			disp = 4;
	} else if (mod == 0 && rm == 5) {
		disp = 4;
	}
	if (mod == 1)
		disp = 1;
	else if (mod == 2)
		disp = 4;
	return skip(c, disp) ? (int)m : -1;
}

/* What follows an opcode of this kind. */
static bool
operands(struct cursor *c, char kind, bool size16, bool wide)
{
	size_t word = size16 ? 2 : 4;
	int m;

	switch (kind) {
	case '.':
		return true;
	case 'm':
		return modrm(c) >= 0;
	case 'b':
		return skip(c, 1);
	case 'B':
		return modrm(c) >= 0 && skip(c, 1);
	case 'z':
		return skip(c, word);
	case 'j':
		return skip(c, 4);
	case 'Z':
		return modrm(c) >= 0 && skip(c, word);
	case 'w':
		return skip(c, 2);
	case 'v':
		return skip(c, wide ? 8 : word);
	case 'o':
		return skip(c, 8);
	case 'e':
		return skip(c, 3);
	case 'f':
	case 'F':
		m = modrm(c);
		if (m < 0)
			return false;
		if ((m >> 3 & 7) > 1)
			return true;
		return skip(c, kind == 'f' ? 1 : word);
	default:
		return false;
	}
}

/* Maps of VEX and EVEX: 1 is two_bytes, 2 has ModRM only, 3 and an 8-bit immediate, the others of EVEX as 2. */
static bool
vector(struct cursor *c, unsigned map)
{
	unsigned op;

	if (c->p == c->end)
		return false;
	op = *c->p++;
	if (map == 3)
		return operands(c, 'B', false, false);
	if (map == 1 && op == 0x77)
		return true;
	if (map == 1 && two_bytes[op] == 'B')
		return operands(c, 'B', false, false);
	return map >= 1 && map <= 6 && operands(c, 'm', false, false);
}

static bool
instruction(struct cursor *c)
{
	bool size16 = false, wide = false;
	unsigned op;

	for (;; c->p++) {
		if (c->p == c->end)
			return false;
		op = *c->p;
		if (op == 0x66)
			size16 = true;
		else if (op != 0xf2 && op != 0xf3 && op != 0xf0 && op != 0x2e && op != 0x36 && op != 0x3e &&
		    op != 0x26 && op != 0x64 && op != 0x65 && op != 0x67)
			break;
	}
	if ((op & 0xf0) == 0x40) {
		wide = (op & 8) != 0;
		if (++c->p == c->end)
			return false;
		op = *c->p;
	}
	c->p++;
	switch (op) {
	case 0xc5:
		return skip(c, 1) && vector(c, 1);
	case 0xc4:
		return skip(c, 2) && vector(c, c->p[-2] & 0x1f);
	case 0x62:
		return skip(c, 3) && vector(c, c->p[-3] & 7);
	case 0x0f:
		if (c->p == c->end)
			return false;
		op = *c->p++;
		if (op == 0x38)
			return skip(c, 1) && operands(c, 'm', size16, wide);
		if (op == 0x3a)
			return skip(c, 1) && operands(c, 'B', size16, wide);
		return operands(c, two_bytes[op], size16, wide);
	default:
		return operands(c, one_byte[op], size16, wide);
	}
}

size_t
insn_length(const unsigned char *p, size_t n)
{
	struct cursor c = { p, p + (n < 15 ? n : 15) };

	return instruction(&c) ? (size_t)(c.p - p) : 0;
}
