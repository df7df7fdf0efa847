/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Which gate it is.
 */

#include <errno.h>

#include "gate_impl.h"
#include "gate_plt.h"

struct gate_ops gate_ops;

int
gate_install(const struct gate_ops *ops, enum gate_mode mode, struct gate_info *info)
{
	struct gate_info dummy;
	int error = -ENOTSUP;

	if (info == NULL)
		info = &dummy;
	*info = (struct gate_info){ .mode = GATE_PATCH };
	gate_ops = *ops;
	if (mode != GATE_PLT) {
		error = gate_patch(info);
		if (error == 0 || mode == GATE_PATCH)
			return error;
	}
	info->mode = GATE_PLT;
	gate_plt_install();
	return 0;
}

bool
gate_trap(void *context)
{
	return gate_copy_fault(context) || gate_patch_trap(context);
}
