/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Tasks.
 *
 * The table is read at each fault, to find the map of an address, and by a forked child, which
 * must not wait for a lock that a thread of its parent held; so its slots are atomic, and a slot
 * is filled last and emptied first.
 */

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "kern/assert.h"
#include "kern/lock.h"
#include "kern/sys.h"
#include "task.h"

#define TASKS_MAX	4096

static struct krwlock lock;				/* RANK_TASKS; guards changes */
static struct vm_map *_Atomic table[TASKS_MAX];
static _Atomic uint32_t high;				/* slots from here on were never used */

void
task_init(void)
{
	krwlock_init(&lock, RANK_TASKS);
	for (uint32_t i = 0; i < TASKS_MAX; i++)
		atomic_store_explicit(&table[i], NULL, memory_order_relaxed);
	atomic_store(&high, 0);
}

static void
destroy(struct handle *h)
{
	vm_map_destroy(container_of(h, struct vm_map, handle));
}

uint64_t
task_add(struct vm_map *map)
{
	uint64_t name = 0;
	uint32_t i;

	krwlock_write(&lock);
	for (i = 0; i < TASKS_MAX && atomic_load_explicit(&table[i], memory_order_relaxed) != NULL;)
		i++;
	if (i < TASKS_MAX)
		name = handle_create(HANDLE_TASK, &map->handle, destroy);
	if (name != 0) {
		atomic_store_explicit(&table[i], map, memory_order_release);
		if (i >= atomic_load_explicit(&high, memory_order_relaxed))
			atomic_store_explicit(&high, i + 1, memory_order_release);
	}
	krwlock_write_unlock(&lock);
	return name;
}

int
task_remove(uint64_t handle)
{
	struct vm_map *map = task_get(handle);

	if (map == NULL)
		return -EBADF;
	if (handle_close(HANDLE_TASK, handle) != 0) {
		task_put(map);
		return -EBADF;
	}
	vm_map_clear(map);
	krwlock_write(&lock);
	for (uint32_t i = 0; i < atomic_load_explicit(&high, memory_order_relaxed); i++)
		if (atomic_load_explicit(&table[i], memory_order_relaxed) == map)
			atomic_store_explicit(&table[i], NULL, memory_order_release);
	krwlock_write_unlock(&lock);
	task_put(map);
	return 0;
}

struct vm_map *
task_at(vm_offset_t va)
{
	struct vm_map *found = NULL;

	krwlock_read(&lock);
	for (uint32_t i = 0; i < atomic_load_explicit(&high, memory_order_acquire); i++) {
		struct vm_map *map = atomic_load_explicit(&table[i], memory_order_acquire);

		if (map != NULL && va >= map->base && va < map->end) {
			handle_ref(&map->handle);
			found = map;
			break;
		}
	}
	krwlock_read_unlock(&lock);
	return found;
}

struct vm_map *
task_get(uint64_t handle)
{
	struct handle *h = handle_get(HANDLE_TASK, handle);

	return h != NULL ? container_of(h, struct vm_map, handle) : NULL;
}

struct vm_map *
task_nth(uint32_t n)
{
	struct vm_map *found = NULL;

	krwlock_read(&lock);
	for (uint32_t i = 0; i < atomic_load_explicit(&high, memory_order_relaxed) && found == NULL; i++) {
		struct vm_map *map = atomic_load_explicit(&table[i], memory_order_relaxed);

		if (map != NULL && n-- == 0) {
			handle_ref(&map->handle);
			found = map;
		}
	}
	krwlock_read_unlock(&lock);
	return found;
}

void
task_put(struct vm_map *map)
{
	handle_put(&map->handle);
}

uint64_t
task_name(const struct vm_map *map)
{
	return map->handle.name;
}

void
task_forked(void)
{
	for (uint32_t i = 0; i < atomic_load_explicit(&high, memory_order_acquire); i++) {
		struct vm_map *map = atomic_load_explicit(&table[i], memory_order_acquire);

		if (map != NULL)
			(void)sys_mmap((void *)map->base, map->end - map->base, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
	}
}
