/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The least that a shim can be, for the tests of the command: it takes the settings, starts the library,
 * publishes, and writes at the end.  What the program is to do with managed memory it says by tiny_touch().
 */

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "stats.h"
#include "vmfault.h"

static struct shim_config config;

__attribute__((__visibility__("default"))) int tiny_touch(size_t pages);
__attribute__((__visibility__("default"))) int tiny_fork(unsigned microseconds);

/* Write to so many new pages. */
int
tiny_touch(size_t pages)
{
	void *p;

	if (vmf_allocate(VMF_TASK_DEFAULT, &p, pages * VMF_PAGE_SIZE, 0) != 0)
		return 0;
	memset(p, 1, pages * VMF_PAGE_SIZE);
	return 1;
}

int
tiny_fork(unsigned microseconds)
{
	stats_fork((uint64_t)microseconds * 1000);
	return 1;
}

__attribute__((__constructor__)) static void
begin(void)
{
	struct vmf_config c = VMF_CONFIG_INIT;

	if (!config_load(&config, environ))
		return;
	c.memory = config.memory;
	c.swap_file = config.swap;
	c.swap_size = config.swap_size;
	if (vmf_init(&c) != 0)
		_exit(99);
	stats_start(config.stats, config.quiet);
}

__attribute__((__destructor__)) static void
end(void)
{
	stats_exit();
}
