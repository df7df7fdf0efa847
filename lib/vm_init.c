/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Starting and ending, bottom up and top down; and what fork() leaves to a child: nothing.
 *
 * Managed memory is mapped shared, so after a plain fork() parent and child would write to the same
 * frames.  Until the library can do better, the child has none of it: its ranges are made
 * inaccessible before fork() returns there, and every call says -ENODEV.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "kern/assert.h"
#include "kern/handle.h"
#include "kern/lock.h"
#include "kern/radix.h"
#include "kern/sys.h"
#include "machdep.h"
#include "physmem.h"
#include "pmap.h"
#include "snapshot.h"
#include "task.h"
#include "trap.h"
#include "user.h"
#include "vm_fault.h"
#include "vm_init.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vmfault.h"

#define LEAST_PAGES		64
#define LEAST_MAPPINGS		64
#define LEAST_ADDRESS_SPACE	((uint64_t)16 << 20)

enum state { STOPPED, STARTING, RUNNING, STOPPING, FORKED };

static _Atomic int state;
static _Atomic bool atfork_registered;

#ifdef VMF_TESTING
const struct pmap_ops *vm_init_pmap_ops = &pmap_mprotect_ops;
#else
#define vm_init_pmap_ops (&pmap_mprotect_ops)
#endif

bool
vm_running(void)
{
	return atomic_load_explicit(&state, memory_order_acquire) == RUNNING;
}

static void
forked(void)
{
	if (atomic_load(&state) == STOPPED)
		return;
	atomic_store(&state, FORKED);
	task_forked();
	window_forked();
	(void)sys_close(physmem_fd());
}

/* Memory of the machine, in pages. */
static uint64_t
machine_pages(void)
{
	long n = sysconf(_SC_PHYS_PAGES);

	return n > 0 ? (uint64_t)n : LEAST_PAGES;
}

static void
stop_modules(void)
{
	snapshot_fini();
	vm_map_fini();
	vm_fault_fini();
	vm_object_fini();
	vm_page_fini();
	pmap_fini();
	radix_sysfini();
	handle_sysfini();
}

/* The default task: as large as asked for, or as the kernel allows. */
static int
make_default_task(uint64_t size)
{
	struct vm_map *map = NULL;
	uint64_t least = size;

	if (size == 0) {
		size = MACHDEP_ADDRESS_SPACE;
		least = LEAST_ADDRESS_SPACE;
	}
	for (; size >= least && map == NULL; size = map == NULL ? size / 2 : size)
		if (size <= SIZE_MAX / 2)
			map = vm_map_create((vm_size_t)size);
	if (map == NULL)
		return -ENOMEM;
	if (task_add(map) == 0) {
		vm_map_clear(map);
		vm_map_destroy(map);
		return -ENOMEM;
	}
	return 0;
}

static void
clear_tasks(void)
{
	struct handle *h;

	while ((h = handle_any(HANDLE_TASK)) != NULL) {
		(void)task_remove(h->name);
		handle_put(h);
	}
}

static int
start(const struct vmf_config *config)
{
	uint64_t pages = config->memory != 0 ? config->memory >> PAGE_SHIFT : machine_pages();
	int error;

	klog_quiet = config->flags & VMF_CONFIG_QUIET;
	vm_meter_reset();
	handle_sysinit();
	radix_sysinit();
	error = physmem_init(pages, MACHDEP_FRAME_SPACE);
	if (error != 0)
		return error;
	pmap_init(vm_init_pmap_ops, config->mappings);
	vm_page_init();
	vm_object_init();
	vm_fault_init();
	vm_map_init();
	task_init();
	user_pager_init();
	error = make_default_task(config->address_space);
	if (error == 0)
		error = vm_pageout_start(pages);
	if (error == 0) {
		error = trap_init();
		if (error != 0)
			vm_pageout_stop();
	}
	if (error != 0) {
		clear_tasks();
		stop_modules();
		physmem_fini();
	}
	return error;
}

int
vm_init(const struct vmf_config *config)
{
	struct vmf_config c = VMF_CONFIG_INIT;
	int expected = STOPPED, error;
	sys_sigset_t old;

	if (config != NULL) {
		if (config->size != sizeof(c))
			return -EINVAL;
		c = *config;
		if ((c.flags & ~VMF_CONFIG_QUIET) != 0 ||
		    (c.memory != 0 && c.memory >> PAGE_SHIFT < LEAST_PAGES) ||
		    (c.mappings != 0 && c.mappings < LEAST_MAPPINGS) ||
		    (c.address_space != 0 && (c.address_space < PAGE_SIZE ||
		    (c.address_space & PAGE_MASK) != 0)))
			return -EINVAL;
	}
	if (!atomic_compare_exchange_strong(&state, &expected, STARTING))
		return expected == FORKED ? -ENODEV : -EALREADY;
	trap_enter(&old);
	error = start(&c);
	if (error == 0 && !atomic_exchange(&atfork_registered, true))
		(void)pthread_atfork(NULL, NULL, forked);
	atomic_store(&state, error == 0 ? RUNNING : STOPPED);
	trap_leave(&old);
	return error;
}

int
vm_fini(void)
{
	int expected = RUNNING;
	sys_sigset_t old;

	if (user_pager_is_thread())
		return -EDEADLK;
	if (!atomic_compare_exchange_strong(&state, &expected, STOPPING))
		return -ENODEV;
	trap_enter(&old);
	snapshot_release_all();
	clear_tasks();
	/* Pagers write what is left, on their own threads, which may still touch and call. */
	user_pager_fini();
	vm_pageout_stop();
	trap_fini();
	stop_modules();
	(void)physmem_flush();
	physmem_fini();
	atomic_store(&state, STOPPED);
	trap_leave(&old);
	return 0;
}
