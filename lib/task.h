/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef TASK_H
#define TASK_H

/*
 * Tasks: the maps of this process, and which of them an address belongs to.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vm_map.h"

void task_init(void);
/* Make a map known; gives it its handle.  0: no memory, or too many. */
uint64_t task_add(struct vm_map *);
/* Unmap all and forget the task.  -EBADF: no such task. */
int task_remove(uint64_t handle);
/* The map whose range contains the address, referenced; or null. */
struct vm_map *task_at(vm_offset_t va);
struct vm_map *task_get(uint64_t handle);	/* referenced, or null */
struct vm_map *task_nth(uint32_t n);	/* referenced; null: there are not so many */
void task_put(struct vm_map *);
uint64_t task_name(const struct vm_map *);	/* its handle */
/* In a forked child: make all ranges inaccessible.  No locks. */
void task_forked(void);

#endif
