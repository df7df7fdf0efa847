/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef GATE_COMMAND_H
#define GATE_COMMAND_H

#include "gate_impl.h"

/* Pin what ioctl, fcntl, prctl or vmsplice will use; vmsplice becomes another call. */
void gate_command_pieces(struct gate_record *, struct gate_call *);

#endif
