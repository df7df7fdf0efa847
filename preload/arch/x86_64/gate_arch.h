/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_ARCH_H
#define GATE_ARCH_H

#define GATE_ARCH_FRAMES	1	/* sigframe.c makes signal frames: alternate stacks are the program's */

#endif
