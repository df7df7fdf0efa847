/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_INIT_H
#define VM_INIT_H

#include <stdbool.h>
#include <stdint.h>

struct vmf_config;
struct pmap_ops;

/* Start and end the library: see vmf_init() and vmf_fini(). */
int vm_init(const struct vmf_config *);
int vm_fini(void);
bool vm_running(void);
/* The calling thread is about to fork, or has, and wants to know.  Returns 0, or why the child has no memory: -errno */
int vm_fork_asked(bool);
int vm_set_memory(uint64_t bytes);	/* see vmf_set_memory() */

#ifdef VMF_TESTING
/* The pmap strategy of the next vm_init(). */
extern const struct pmap_ops *vm_init_pmap_ops;
#endif

#endif
