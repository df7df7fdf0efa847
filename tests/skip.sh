#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# A test that cannot run here: say why, and skip (77 is meson's word for it).

echo "skipped: $*"
exit 77
