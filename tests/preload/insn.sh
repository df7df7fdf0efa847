#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# insn.sh TEST_INSN: the instruction lengths of this machine's libc and ld.so, against objdump.

command -v objdump >/dev/null || { echo 'skip: no objdump'; exit 77; }
ldd "$1" | sed -n 's,^[^/]*\(/[^ ]*\) .*,\1,p' | grep -E '/(libc\.so|ld-linux)' | while read -r object; do
	objdump -d --insn-width=16 "$object"
done | grep -v '(bad)' | sed -n 's/^ *[0-9a-f]*:\t\([0-9a-f ]*[0-9a-f]\) *\(\t.*\)\{0,1\}$/\1/p' | "$1"
