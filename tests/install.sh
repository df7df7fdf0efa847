#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
#
# install.sh BUILD-DIR PREFIX: what `meson install` leaves is all that a
# program needs.  A client that knows only pkg-config is built and run against
# the installed tree, with the shared library and with the static one.  The libraries that we need
# ourselves may lie where no linker looks: DEPS_LIBDIR.

set -u
build=$1 prefix=$2

if [ "${SANITIZE:-none}" != none ]; then
	echo "install: skip: a client would need the $SANITIZE sanitizer too"
	exit 77
fi

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

fail()
{
	echo "install: $*"
	exit 1
}

meson install -C "$build" --no-rebuild --destdir "$work/root" >"$work/log" 2>&1 ||
    { cat "$work/log"; fail "meson install failed"; }

pc=$(find "$work/root" -name vmfault.pc)
[ -n "$pc" ] || fail "no vmfault.pc"
export PKG_CONFIG_PATH=${pc%/*}:${DEPS_PKG_CONFIG_PATH:-}
pkg_config()
{
	pkg-config --define-variable=prefix="$work/root$prefix" "$@" vmfault
}
libdir=$(pkg_config --variable=libdir)
[ -e "$libdir/libvmfault.so.0" ] || fail "no libvmfault.so.0 in $libdir"

cat >"$work/client.c" <<'END'
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <vmfault.h>

int
main(void)
{
	struct vmf_config config = VMF_CONFIG_INIT;
	struct vmf_range range;
	vmf_snapshot_t snapshot;
	char then[8];
	void *p;

	config.memory = UINT64_C(16) << 20;
	if (vmf_init(&config) != 0 ||
	    vmf_allocate(VMF_TASK_DEFAULT, &p, 16 * VMF_PAGE_SIZE, 0) != 0)
		return 1;
	range.addr = p;
	range.size = 16 * VMF_PAGE_SIZE;
	strcpy(p, "before");
	if (vmf_snapshot_create(&range, 1, &snapshot) != 0)
		return 2;
	strcpy(p, "after");
	if (vmf_snapshot_read(snapshot, 0, 0, then, sizeof(then)) != 0)
		return 3;
	if (strcmp(then, "before") != 0 || strcmp(p, "after") != 0)
		return 4;
	if (vmf_snapshot_release(snapshot) != 0 || vmf_fini() != 0)
		return 5;
	printf("%s\n", vmf_version());
	return 0;
}
END

# client NAME FLAG...: build it and see it run.
client()
{
	local name=$1 version
	shift
	$CC -Wall -Wextra -Werror -o "$work/$name" "$work/client.c" "$@" || fail "$name: does not build"
	version=$(LD_LIBRARY_PATH=$libdir:$DEPS_LIBDIR "$work/$name") || fail "$name: exit status $?"
	[ "$version" = "$(pkg_config --modversion)" ] || fail "$name: says it is version $version"
	echo "install: $name client: ok"
}

# shellcheck disable=SC2046 # the flags are words
{
	client shared $(pkg_config --cflags --libs) -Wl,-rpath-link,"$DEPS_LIBDIR"
	client static $(pkg_config --cflags) "$libdir/libvmfault.a" -L"$DEPS_LIBDIR" \
	    $(pkg_config --static --libs | sed 's/-lvmfault//')
}
readelf -d "$work/shared" | grep -q 'NEEDED.*libvmfault.so.0' || fail "the shared client is not"
if readelf -d "$work/static" | grep -q 'NEEDED.*libvmfault'; then
	fail "the static client is not"
fi
