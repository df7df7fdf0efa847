/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * First use: what this process is to be.
 *
 *	set-id, or neither a limit of memory	not watched: jemalloc on the kernel's memory, and no more
 *	nor a fast fork is wanted
 *	built with a sanitizer			not watched, nor is malloc() ours
 *	the library will not start		likewise, with one line that says why
 *	else					watched
 *
 * It happens in the first malloc(), or in our constructor, which the dynamic linker runs before all others
 * (-z initfirst): whichever is first, but not before there is an environment to read.  The thread that does
 * it lives on boot memory meanwhile (malloc.c); others wait.
 */

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shim.h"
#include "stats.h"
#include "task.h"
#include "vm_pin.h"
#include "vmfault.h"

#define COMPRESS_SHARE	4u		/* of the limit: for compressed pages */
#define COMPRESS_LEAST	((uint64_t)1 << 20)
#define MESSAGE		400		/* bytes of a line */

struct shim_config shim_config;
_Atomic int shim_state;
uintptr_t shim_lo, shim_hi;

/* This thread is the one that is starting. */
static __thread bool starting __attribute__((__tls_model__("initial-exec")));

bool
shim_watched(void)
{
	return shim_hi != 0;
}

bool
shim_active(void)
{
	return atomic_load_explicit(&shim_state, memory_order_acquire) == SHIM_READY && shim_watched();
}

static size_t
append(char *line, size_t at, const char *s)
{
	size_t n = s != NULL ? strlen(s) : 0;

	if (n > MESSAGE - at)
		n = MESSAGE - at;
	memcpy(line + at, s != NULL ? s : "", n);
	return at + n;
}

void
shim_say(const char *why, const char *more)
{
	char line[MESSAGE + 1], name[17] = "";
	size_t n = append(line, 0, "vmfault: ");

	if (shim_config.quiet)
		return;
	/* libc may not know it yet. */
	(void)prctl(PR_GET_NAME, name);
	n = append(line, n, name);
	n = append(line, n, ": ");
	n = append(line, n, why);
	n = append(line, n, more != NULL ? ": " : NULL);
	n = append(line, n, more);
	line[n++] = '\n';
	(void)!syscall(SYS_write, STDERR_FILENO, line, n);
}

void
shim_refuse(const char *why, const char *more)
{
	/* Who has asked for nothing misses nothing: it runs as ever. */
	if (shim_config.memory != 0 || shim_config.chaos != 0 || shim_config.fork_asked || shim_config.strict)
		shim_say(why, more);
	if (shim_config.strict)
		for (;;)
			(void)syscall(SYS_exit_group, 2);
}

/* The library, as the user wants it.  0 or -errno */
static int
start_library(void)
{
	struct vmf_config c = VMF_CONFIG_INIT;
	void *base;
	size_t size;
	int error;

	/* Nobody bounds it: what the kernel has memory for. */
	c.memory = shim_config.memory != 0 ? shim_config.memory : UINT64_MAX;
	c.flags = shim_config.quiet ? VMF_CONFIG_QUIET : 0;
	c.swap_file = shim_config.swap;
	c.swap_size = shim_config.swap_size;
	if (shim_config.compress)
		c.compress_size = shim_config.memory / COMPRESS_SHARE > COMPRESS_LEAST ?
		    shim_config.memory / COMPRESS_SHARE : COMPRESS_LEAST;
	error = vmf_init(&c);
	if (error != 0)
		return error;
	(void)vmf_task_range(VMF_TASK_DEFAULT, &base, &size);
	shim_lo = (uintptr_t)base;
	shim_hi = (uintptr_t)base + size;
	return 0;
}

/*
 * Nobody takes pages away.  Files, of which what is behind a sequential reader may go, are managed only where the
 * program's own mappings are; or where it puts one over a part of the heap (mmap.c).
 */
static void
open_pins(void)
{
	struct vm_map *map = task_at(shim_lo);

	vm_pin_open(map);
	task_put(map);
}

/* What the sanitizers' libraries have. */
void __asan_init(void) __attribute__((__weak__));
void __tsan_init(void) __attribute__((__weak__));
void __msan_init(void) __attribute__((__weak__));
void __hwasan_init(void) __attribute__((__weak__));
void __lsan_init(void) __attribute__((__weak__));
const char *__asan_default_options(void);

static bool
is_sanitized(void)
{
	return __asan_init != NULL || __tsan_init != NULL || __msan_init != NULL || __hwasan_init != NULL ||
	    __lsan_init != NULL;
}

/* Else the address sanitizer would not let anything be preloaded before it.  What the program itself says comes after. */
SHIM_API const char *
__asan_default_options(void)
{
	static const char ours[] = "verify_asan_link_order=0:";
	static char options[512];
	const char *(*next)(void) = (const char *(*)(void))(uintptr_t)dlsym(RTLD_NEXT, "__asan_default_options");
	const char *theirs = next != NULL ? next() : "";

	memcpy(options, ours, sizeof(ours));
	if (strlen(theirs) < sizeof(options) - sizeof(ours))
		memcpy(options + sizeof(ours) - 1, theirs, strlen(theirs) + 1);
	return options;
}

static bool
is_limited(__rlimit_resource_t resource)
{
	struct rlimit rl;

	return getrlimit(resource, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY;
}

static void
start(void)
{
	bool patched;
	int error;

	/* It is not up yet, has put itself in place of libc's functions, and does not work before. */
	if (__tsan_init != NULL)
		__tsan_init();
	if (!config_load(&shim_config, environ))
		return;
	/* Who wants them at the end gets them, if only to see that nothing was managed. */
	if (shim_config.stats != NULL)
		stats_start(shim_config.stats, shim_config.quiet);
	if (shim_config.memory == 0 && shim_config.chaos == 0 && shim_config.fork_mode == FORK_COPY)
		return;
	if (is_sanitized()) {
		shim_refuse("runs unmanaged: it is built with a sanitizer", NULL);
		return;
	}
	if (is_limited(RLIMIT_AS)) {
		shim_refuse("runs unmanaged: its address space is limited (ulimit -v)", NULL);
		return;
	}
	/* Frames are a file's.  Who bounds memory can do with fewer; else there must be as many as there is memory. */
	if (shim_config.memory == 0 && is_limited(RLIMIT_FSIZE)) {
		shim_refuse("runs unmanaged: its files are limited (ulimit -f)", NULL);
		return;
	}
	descriptors_start();
	threads_start();
	error = calls_start(&patched);
	fork_start();
	if (error == 0)
		error = start_library();
	if (error == 0)
		error = fork_started(patched);
	if (error == 0)
		stats_start(shim_config.stats, shim_config.quiet);
	if (error == 0 && shim_config.chaos != 0)
		error = chaos_start();
	if (error == 0 && shim_config.memory == 0 && shim_config.chaos == 0 && !shim_config.manage_mmap)
		open_pins();
	if (error != 0)
		shim_refuse("runs unmanaged: the library does not start", strerrordesc_np(-error));
}

void
shim_restart(bool done)
{
	starting = !done;
	atomic_store_explicit(&shim_state, done ? SHIM_READY : SHIM_STARTING, memory_order_release);
}

void
shim_start(void)
{
	int cold = SHIM_COLD, saved_errno = errno;

	if (starting || environ == NULL)
		return;
	if (atomic_compare_exchange_strong(&shim_state, &cold, SHIM_STARTING)) {
		starting = true;
		start();
		if (is_sanitized())
			malloc_find_next();
		starting = false;
		atomic_store_explicit(&shim_state, is_sanitized() ? SHIM_PASSING : SHIM_READY, memory_order_release);
	} else {
		while (atomic_load_explicit(&shim_state, memory_order_acquire) == SHIM_STARTING)
			(void)syscall(SYS_sched_yield);
	}
	errno = saved_errno;
}

__attribute__((__constructor__)) static void
constructor(int argc, char **argv, char **envp)
{
	(void)argc;
	(void)argv;
	/* libc comes after us, and may not have taken it up. */
	if (environ == NULL)
		environ = envp;
	dlopen_find_next();
	shim_start();
}

__attribute__((__destructor__)) static void
destructor(void)
{
	stats_exit();
}
