#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# nm_allow.sh ARCHIVE ALLOW-LIST: what the library asks of libc.
#
# The fault path runs in a signal handler that may have interrupted anything:
# malloc, stdio, a pthread lock held.  So no object of it may call them, and
# what each object does call stands in the list, to be reviewed.  An object is
# a member of the static library; a symbol counts if no other member has it.

set -u -o pipefail
export LC_ALL=C
archive=$1 list=$2
nm=${NM:-nm}

if [ "${SANITIZE:-none}" != none ]; then
	echo "nm-allow: skip: the $SANITIZE sanitizer adds calls of its own"
	exit 77
fi

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
$nm -A -P "$archive" >"$work/symbols" || exit 1

# nm -A -P:  libvmfault.a[vm_fault.c.o]: memcpy U
awk -v list="$list" '
function object_name(s) {
	sub(/^.*\[/, "", s); sub(/\]:$/, "", s)		# the member of the archive,
	sub(/^.*\//, "", s)
	sub(/^\.\._/, "", s)				# as meson names it:
	sub(/^(kern|pagers|arch_(x86_64|i386))_/, "", s)
	sub(/\.c\.o$/, "", s)				# vm_fault
	return s
}
BEGIN {
	while ((getline line < list) > 0) {
		sub(/#.*/, "", line)
		n = split(line, word, " ")
		for (i = 2; i <= n; i++)
			allowed[word[1], word[i]] = 1
		if (n > 0)
			named[word[1]] = 1
	}
}
{
	object = object_name($1)
	objects[object] = 1
	if ($3 == "U" || $3 == "w")
		wanted[object, $2] = 1
	else
		defined[$2] = 1
}
END {
	for (key in wanted) {
		split(key, k, SUBSEP)
		if ((k[2] in defined) || (("*", k[2]) in allowed))
			continue
		if (!((k[1], k[2]) in allowed)) {
			print "nm-allow: " k[1] " may not use " k[2]
			failed = 1
		}
	}
	for (name in named)
		if (name != "*" && !(name in objects)) {
			print "nm-allow: the list names " name ", which is no object of the library"
			failed = 1
		}
	for (name in objects)
		count++
	if (count < 20) {
		print "nm-allow: only " count + 0 " objects: the archive was not understood"
		failed = 1
	}
	exit failed
}' "$work/symbols" | sort
