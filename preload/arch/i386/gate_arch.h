/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_ARCH_H
#define GATE_ARCH_H

/*
 * i386 has the PLT gate only, and makes no signal frames: handlers of the program's are called from ours,
 * and the alternate stack that the kernel knows is the program's.
 */
#define GATE_ARCH_FRAMES	0

#endif
