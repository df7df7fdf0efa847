/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef WHICH_GATE_H
#define WHICH_GATE_H

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Only the calls of libc's functions are seen: vmfault(1) says what that leaves open. */
static inline bool
sees_functions_only(void)
{
	const char *gate = getenv("VMFAULT_GATE");

	return gate != NULL && strcmp(gate, "plt") == 0;
}

#endif
