/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Starting and ending, bottom up and top down; and what stands around a fork().
 *
 * Managed memory is mapped shared, so after a plain fork() parent and child would write to the same
 * frames.  fork.h sees to it that they do not.  Where that fails the child has none of the memory: its ranges are made
 * inaccessible before fork() returns there, and every call says -ENODEV.
 */

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "compress.h"
#include "fork.h"
#include "fork_live.h"
#include "kern/alone.h"
#include "kern/assert.h"
#include "kern/handle.h"
#include "kern/lock.h"
#include "kern/radix.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "io.h"
#include "machdep.h"
#include "physmem.h"
#include "pmap.h"
#include "snapshot.h"
#include "swap.h"
#include "task.h"
#include "trap.h"
#include "user.h"
#include "vm_clean.h"
#include "vm_fault.h"
#include "vm_init.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_object.h"
#include "vm_page.h"
#include "vm_pageout.h"
#include "vm_view.h"
#include "vm_pager.h"
#include "vm_pin.h"
#include "vm_publish.h"
#include "vmfault.h"
#include "vnode.h"

#define LEAST_PAGES		64
#define LEAST_MAPPINGS		64
#define LEAST_ADDRESS_SPACE	((uint64_t)16 << 20)

#define CONFIG_SIZE_0_1		offsetof(struct vmf_config, swap_file)
#define IO_FLAGS		(VMF_CONFIG_IO_URING | VMF_CONFIG_IO_SYSCALLS)
#define CONFIG_FLAGS		(VMF_CONFIG_QUIET | VMF_CONFIG_SWAP_DIRECT | IO_FLAGS)

enum state { STOPPED, STARTING, RUNNING, STOPPING, FORKED };

static _Atomic int state;
static _Atomic bool atfork_registered;
static bool swapping;			/* the default pager is ours */

#ifdef VMF_TESTING
const struct pmap_ops *vm_init_pmap_ops;
#else
#define vm_init_pmap_ops NULL
#endif

bool
vm_running(void)
{
	return atomic_load_explicit(&state, memory_order_acquire) == RUNNING;
}

/* Of this thread: it wants to know, and what. */
static __thread bool asked __attribute__((__tls_model__("initial-exec")));
static __thread int answer __attribute__((__tls_model__("initial-exec")));

int
vm_fork_asked(bool yes)
{
	asked = yes;
	return answer;
}

static void
before_fork(void)
{
	answer = 0;
	if (!vm_running() || fork_by_hand())
		return;
	answer = fork_prepare();
	if (answer != 0 && !asked)
		klog("fork: the child will have none of the memory: error %d", -answer);
}

static void
after_fork(void)
{
	if (!fork_by_hand())
		fork_parent(false);
}

static void
forked(void)
{
	if (atomic_load(&state) == STOPPED)
		return;
	if (asked && answer != 0)
		_exit(127);
	asked = false;
	fork_child();
	if (fork_child_threads())
		return;
	atomic_store(&state, FORKED);
	alone_forked();
	task_forked();
	window_forked();
	io_forked();
	swap_forked();
	pmap_views_forked(false);
	vm_publish_forked();
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
	vm_view_fini();
	vm_object_fini();
	vm_pager_fini();
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

/* Where anonymous memory goes: compressed memory, or swap, or the one in front of the other. */
static int
start_swap(const struct vmf_config *config)
{
	vm_default_pager_alloc *alloc = NULL;
	int error = 0;

	if (config->swap_file != NULL || config->swap_size != 0) {
		error = swap_init(config->swap_file, config->swap_size,
		    config->flags & VMF_CONFIG_SWAP_DIRECT);
		alloc = swap_pager_make;
	}
	if (error == 0 && config->compress_size != 0) {
		error = compress_init(config->compress_size, alloc);
		alloc = compress_pager_make;
	}
	if (error == 0 && alloc != NULL) {
		vm_default_pager_set(alloc);
		swapping = true;
	}
	return error;
}

/* => all objects are gone */
static void
stop_swap(void)
{
	if (swapping)
		vm_default_pager_set(NULL);
	swapping = false;
	compress_fini();
	swap_fini();
}

/* A budget in bytes as pages, 0 standing for the machine's memory; 0: too small. */
static uint64_t
budget_pages(uint64_t memory)
{
	uint64_t n = memory != 0 ? memory >> PAGE_SHIFT : machine_pages();

	return n >= LEAST_PAGES ? n : 0;
}

static int
start_threads(uint64_t pages)
{
	int error = pmap_start();

	if (error != 0)
		return error;
	error = vm_homecoming_start();
	if (error == 0) {
		error = vm_view_start();
		if (error != 0)
			vm_homecoming_stop();
	}
	if (error == 0) {
		error = vm_pageout_start(pages);
		if (error != 0) {
			vm_view_stop();
			vm_homecoming_stop();
		}
	}
	if (error != 0)
		pmap_stop();
	return error;
}

static void
stop_threads(void)
{
	vm_pageout_stop();
	vm_view_stop();
	vm_homecoming_stop();
	pmap_stop();
}

static int
start(const struct vmf_config *config)
{
	uint64_t pages = budget_pages(config->memory);
	int error;

	klog_quiet = config->flags & VMF_CONFIG_QUIET;
	vm_meter_reset();
	handle_sysinit();
	radix_sysinit();
	error = physmem_init(pages, MACHDEP_FRAME_SPACE);
	if (error != 0)
		return error;
	error = io_init(config->flags & VMF_CONFIG_IO_URING ? IO_ENGINE_URING :
	    config->flags & VMF_CONFIG_IO_SYSCALLS ? IO_ENGINE_SYSCALLS : IO_ENGINE_AUTO);
	if (error != 0) {
		physmem_fini();
		return error;
	}
	pmap_init(vm_init_pmap_ops, config->mappings);
	vm_page_init();
	vm_pager_init();
	vm_object_init();
	vm_view_init();
	vm_fault_init();
	vm_map_init();
	task_init();
	user_pager_init();
	vnode_init();
	error = make_default_task(config->address_space);
	if (error == 0)
		error = start_swap(config);
	if (error == 0)
		error = start_threads(pages);
	if (error == 0) {
		error = trap_init();
		if (error != 0)
			stop_threads();
	}
	if (error != 0) {
		clear_tasks();
		stop_modules();
		stop_swap();
		io_fini();
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
		/* Since 0.1 members have only been added, and what is not there is 0. */
		if (config->size != sizeof(c) && config->size != CONFIG_SIZE_0_1)
			return -EINVAL;
		memcpy(&c, config, config->size);
		if ((c.flags & ~CONFIG_FLAGS) != 0 || (c.flags & IO_FLAGS) == IO_FLAGS ||
		    budget_pages(c.memory) == 0 ||
		    (c.mappings != 0 && c.mappings < LEAST_MAPPINGS) ||
		    (c.address_space != 0 && (c.address_space < PAGE_SIZE ||
		    (c.address_space & PAGE_MASK) != 0)))
			return -EINVAL;
	}
	if (!atomic_compare_exchange_strong(&state, &expected, STARTING))
		return expected == FORKED ? -ENODEV : -EALREADY;
	/* First: who comes in is counted from then on. */
	error = fork_enable(false, true);
	if (error != 0) {
		atomic_store(&state, STOPPED);
		return error;
	}
	trap_enter(&old);
	error = start(&c);
	if (error == 0 && !atomic_exchange(&atfork_registered, true))
		(void)pthread_atfork(before_fork, after_fork, forked);
	atomic_store(&state, error == 0 ? RUNNING : STOPPED);
	trap_leave(&old);
	return error;
}

int
vm_set_memory(uint64_t bytes)
{
	uint64_t pages = budget_pages(bytes);
	sys_sigset_t old;
	bool done;

	if (!vm_running())
		return -ENODEV;
	if (pages == 0)
		return -EINVAL;
	/* It may have to wait for that very callback. */
	if (user_pager_is_thread())
		return -EDEADLK;
	trap_enter(&old);
	done = vm_pageout_resize(pages);
	trap_leave(&old);
	return done ? 0 : -ENOMEM;
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
	vm_pin_reset();
	snapshot_release_all();
	clear_tasks();
	/* Pagers write what is left, on their own threads, which may still touch and call. */
	user_pager_fini();
	vnode_fini();
	stop_threads();
	vm_publish_stop();
	vm_clean_fini();
	trap_fini();
	stop_modules();
	stop_swap();
	io_fini();
	fork_live_forget();
	physmem_fini();
	kmem_trim();
	atomic_store(&state, STOPPED);
	trap_leave(&old);
	return 0;
}
