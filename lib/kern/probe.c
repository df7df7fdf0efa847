/* SPDX-License-Identifier: BSD-2-Clause */

/* Where the hook of probe.h lives; nothing in released builds. */

#include "kern/probe.h"

#ifdef VMF_TESTING
void (*_Atomic probe_hook)(const char *place);
#endif
