/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef STRATEGY_H
#define STRATEGY_H

/* The strategies of the pmap, by name. */

#include <string.h>

#include "pmap.h"

static const struct pmap_ops *const strategies[] = {
	&pmap_view_ops, &pmap_park_ops, &pmap_mprotect_ops, &pmap_mmap_ops,
};

/* Null: there is none of that name. */
static inline const struct pmap_ops *
pmap_strategy(const char *name)
{
	for (size_t i = 0; i < nitems(strategies); i++)
		if (strcmp(strategies[i]->name, name) == 0)
			return strategies[i];
	return NULL;
}

#endif
