/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_PLT_H
#define GATE_PLT_H

#include <stdbool.h>

#include "gate_impl.h"

extern bool gate_plt;			/* the wrappers are the gate; set once, with one thread */

/* Around a call: what is pinned meanwhile.  null: handlers in handlers.  errno is kept. */
struct gate_record *gate_plt_open(uintptr_t sp);
void gate_plt_close(struct gate_record *);

/* From now on the wrappers of libc's functions are the gate. */
void gate_plt_install(void);

#endif
