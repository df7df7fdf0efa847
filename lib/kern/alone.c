/* SPDX-License-Identifier: BSD-2-Clause */

#include <stdatomic.h>

#include "kern/alone.h"
#include "kern/sys.h"

#define DIR_LINKS	2		/* that any directory has */

static _Atomic int ours;

void
alone_ours(int by)
{
	atomic_fetch_add(&ours, by);
}

void
alone_forked(void)
{
	atomic_store(&ours, 0);
}

bool
alone(void)
{
	struct sys_stat st;

	return sys_stat_path("/proc/self/task", &st) == 0 &&
	    st.links == DIR_LINKS + (uint32_t)atomic_load(&ours) + 1;
}
