/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_PROBE_H
#define KERN_PROBE_H

/*
 * Places where a test can take a hand in the schedule: just after locks were
 * dropped, just before they are taken again.  The hook may sleep, yield, or
 * run another operation; it holds what the comment at the place says.
 * Nothing remains of them in released builds.
 */

#include <stddef.h>

#ifdef VMF_TESTING
extern void (*_Atomic probe_hook)(const char *place);

static inline void
probe(const char *place)
{
	void (*hook)(const char *) = probe_hook;

	if (hook != NULL)
		hook(place);
}
#define PROBE(place)	probe(place)
#else
#define PROBE(place)	((void)0)
#endif

#endif
