#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# symbols.sh LIBRARY MAP HEADER: the ABI says the same thing in three places.
# What vmfault.h declares, what vmfault.map lists and what the shared library
# exports must be one set of names, all of them vmf_, each in a version node.

set -u -o pipefail
export LC_ALL=C
library=$1 map=$2 header=$3
failed=0

declared=$(sed -n 's/^VMF_API [^(]*[ *]\([a-z_0-9]*\)(.*/\1/p' "$header" | sort)
listed=$(sed -n 's/^[[:space:]]*\([A-Za-z_0-9]*\);.*/\1/p' "$map" | sort)
exported=$(${NM:-nm} -D --defined-only "$library" | awk '$2 != "A" { print $3 }' | sort) || exit 1

# same NAME1 LIST1 NAME2 LIST2
same()
{
	diff <(echo "$2") <(echo "$4") && return
	echo "symbols: $1 (<) and $3 (>) differ"
	failed=1
}

same "$header" "$declared" "$map" "$listed"
same "$map" "$listed" "$library" "$(cut -d@ -f1 <<<"$exported")"

if echo "$listed" | grep -v '^vmf_[a-z0-9_]*$'; then
	echo "symbols: these do not begin with vmf_"
	failed=1
fi
if echo "$exported" | grep -v '@@VMFAULT_[0-9.]*$'; then
	echo "symbols: these have no version node"
	failed=1
fi

echo "symbols: $(echo "$exported" | wc -l) exported"
exit $failed
