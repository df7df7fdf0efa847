/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_PLT_H
#define GATE_PLT_H

/* From now on the wrappers of libc's functions are the gate. */
void gate_plt_install(void);

#endif
