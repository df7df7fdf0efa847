/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_TRACE_H
#define VM_TRACE_H

/*
 * A trace of the page faults, for bench/replay: not part of the API.
 *
 * While the hook is set it is called at the end of each fault that succeeds, with the place where the page
 * was found.  It runs in the fault handler with objects locked: it may do no more than note what it is told.
 */

#include <stdatomic.h>

#include "kern/types.h"

struct vm_object;

typedef void vm_trace_fn(const struct vm_object *, vm_pindex_t, bool write);
extern vm_trace_fn *_Atomic vm_trace;		/* null: nobody listens */

#endif
