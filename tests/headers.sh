#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# headers.sh HEADER: the public header is clean for whoever includes it, alone,
# first and twice, in any C since 1999 and any C++ since 1998, with each
# compiler that is here.

set -u
header=$1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0 ran=0

cat >"$work/use.c" <<END
#include "$header"
#include "$header"
struct vmf_config config = VMF_CONFIG_INIT;
int use(void);
int use(void) { return vmf_init(&config) != 0 || VMF_TASK_DEFAULT == 0; }
END
cp "$work/use.c" "$work/use.cc"

# try FILE COMPILER FLAG...
try()
{
	local file=$1
	shift
	command -v "$1" >/dev/null || { echo "headers: no $1 here"; return; }
	ran=$((ran + 1))
	"$@" -Werror -Wall -Wextra -pedantic -fsyntax-only "$work/$file" && return
	echo "headers: fails: $*"
	failed=1
}

for cc in gcc clang; do
	for std in c99 c11 c17 gnu17; do
		try use.c $cc -std=$std -Wconversion -Wstrict-prototypes -Wundef
	done
done
for cxx in g++ clang++; do
	# C++98 has no long long, but <stdint.h> needs it anyhow.
	for std in c++98 c++11 c++20; do
		try use.cc $cxx -std=$std -Wno-long-long -Wundef
	done
done

[ $ran -gt 0 ] || { echo "headers: skip: no compiler of these"; exit 77; }
exit $failed
