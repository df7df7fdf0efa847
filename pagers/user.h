/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef USER_PAGER_H
#define USER_PAGER_H

#include <stdbool.h>
#include <stdint.h>

#include "vm_pager.h"
#include "vmfault.h"

void user_pager_init(void);
void user_pager_fini(void);		/* ends the threads; requests under way finish first */
bool user_pager_is_thread(void);	/* are we in a callback? */

/* 0 or -errno; *name: its handle. */
int user_pager_create(const struct vmf_pager_ops *, void *cookie, uint64_t size, unsigned deadline_ms,
    uint64_t *name);

#endif
