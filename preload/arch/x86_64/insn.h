/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef INSN_H
#define INSN_H

#include <stddef.h>

/*
 * The length of the x86-64 instruction at p, of which n bytes may be read; 0: none that a compiler makes.
 */
size_t insn_length(const unsigned char *p, size_t n);

#endif
