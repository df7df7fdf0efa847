# shellcheck shell=bash
# SPDX-License-Identifier: BSD-2-Clause
#
# Setting a machine up to build vmfault: sourced by ./demo and ./check, which
# set $root, say with need() what they cannot do without, and call install_needed().
# A thing is looked for by using it, not in the package database: a meson from
# elsewhere is as good as Debian's.

: "${root:?}"		# the top of the source tree
needed=()		# Debian packages of what was not found

have()
{
	command -v "$1" >/dev/null 2>&1
}

# need PACKAGE COMMAND...: PACKAGE is needed where COMMAND fails.
need()
{
	local package=$1
	shift
	"$@" >/dev/null 2>&1 || needed+=("$package")
}

# Can this compiler, with these flags, make a program?
compiles()
{
	echo 'int main(void) { return 0; }' | "$@" -x c - -o /dev/null
}

# ... and one that runs?  $runner, if set, runs it.
runs()
{
	local program status

	program=$(mktemp) || return
	echo 'int main(void) { return 0; }' | "$@" -x c - -o "$program" && ${runner:-} "$program"
	status=$?
	rm -f "$program"
	return $status
}

need_build_tools()
{
	need gcc compiles gcc
	need libc6-dev compiles gcc
	need meson have meson
	need ninja-build have ninja
	need pkg-config have pkg-config
	need liburing-dev pkg-config --exists liburing
	need liblz4-dev pkg-config --exists liblz4
	need libjemalloc-dev pkg-config --exists jemalloc
}

# Install what was found to be needed.  => 1: it cannot be, and was said.
install_needed()
{
	local sudo=()

	[ ${#needed[@]} -gt 0 ] || return 0
	echo "This machine lacks the Debian packages: ${needed[*]}"
	if ! have apt-get; then
		echo "There is no apt-get here to install them: please do it with what this system has." >&2
		return 1
	fi
	if [ "$(id -u)" -ne 0 ]; then
		if ! have sudo; then
			echo "Please install them as root: apt-get install ${needed[*]}" >&2
			return 1
		fi
		sudo=(sudo)
	fi
	# An archive that cannot be reached fails the update, and may not matter.
	"${sudo[@]}" apt-get update
	if ! "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
	    apt-get install --yes --no-install-recommends "${needed[@]}"; then
		echo "Installing failed.  Needed are: ${needed[*]}" >&2
		return 1
	fi
	needed=()
}

# configure DIR [MESON OPTION]...: a build directory, made, or brought up to date
# where that can be.
configure()
{
	local dir=$1
	shift
	if [ -e "$dir/build.ninja" ] && meson setup --reconfigure "$@" "$dir" "$root"; then
		return
	fi
	rm -rf "$dir"
	meson setup "$@" "$dir" "$root"
}

# programs DIR FETCH PROGRAM=PACKAGE...: have each PROGRAM in $PATH; where the system has none, out of PACKAGE and
# what that needs, unpacked into DIR.  Nothing is installed: the packages of servers would start them, now and
# with the system.  => 1: some are missing
programs()
{
	local dir=$1 fetch=$2 apt deb pair lack=()
	shift 2

	programs_in "$dir"
	for pair; do
		have "${pair%=*}" || lack+=("${pair#*=}")
	done
	[ ${#lack[@]} -gt 0 ] || return 0
	if [ "$fetch" != true ] || ! have apt-get; then
		echo "not here, and not to be fetched: ${lack[*]}"
		return 1
	fi
	mkdir -p "$dir/apt/lists/partial" "$dir/apt/partial" || return
	apt=(apt-get --yes --no-install-recommends --download-only
		-o "Dir::State::lists=$dir/apt/lists"
		-o "Dir::Cache=$dir/apt"
		-o "Dir::Cache::archives=$dir/apt"
		-o "APT::Sandbox::User=$(id -un)"
		-o "Debug::NoLocking=true")
	"${apt[@]}" update
	# One by one: those that are not to be had do not keep us from the others.
	for deb in "${lack[@]}"; do
		"${apt[@]}" install "$deb"
	done
	for deb in "$dir"/apt/*.deb; do
		[ ! -e "$deb" ] || dpkg-deb --extract "$deb" "$dir"
	done
	rm -rf "$dir/apt"
	programs_in "$dir"
	for pair; do
		have "${pair%=*}" || return 1
	done
}

# ... and use what was unpacked there, after the system's own.
programs_in()
{
	local lib

	[ -d "$1/usr/bin" ] || return 0
	case :$PATH: in
	*":$1/usr/bin:"*) return 0 ;;
	esac
	PATH=$PATH:$1/usr/bin
	for lib in "$1"/usr/lib/*-linux-gnu "$1"/lib/*-linux-gnu; do
		[ ! -d "$lib" ] || export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$lib
	done
}

# i386_sysroot DIR FETCH: unpack the 32-bit libraries we use into DIR, which takes no root.
# apt is given state of its own with i386 for its architecture, so that nothing
# changes for the system, where check:i386 and check could not stand side by
# side.  Unless FETCH is true only a DIR that is complete will do.
i386_sysroot()
{
	local dir=$1 fetch=$2 apt deb
	local packages="check libsubunit0 libsubunit-dev liburing2 liburing-dev liblz4-1 liblz4-dev libjemalloc-dev"

	[ "$(cat "$dir/complete" 2>/dev/null)" = "$packages" ] && return 0
	if [ "$fetch" != true ] || ! have apt-get; then
		echo "$dir is not there, and not to be fetched"
		return 1
	fi
	rm -rf "$dir"
	mkdir -p "$dir/apt/state/lists/partial" "$dir/apt/cache/archives/partial" || return
	: >"$dir/apt/status"
	apt=(apt-get
		-o "Dir::State=$dir/apt/state"
		-o "Dir::State::status=$dir/apt/status"
		-o "Dir::Cache=$dir/apt/cache"
		-o "APT::Architecture=i386"
		-o "APT::Architectures::=i386"
		-o "APT::Sandbox::User=$(id -un)"
		-o "Acquire::Languages=none"
		-o "Debug::NoLocking=true")
	"${apt[@]}" update
	# shellcheck disable=SC2086 # they are words
	(cd "$dir/apt" && "${apt[@]}" download $packages) || return
	for deb in "$dir"/apt/*.deb; do
		dpkg-deb --extract "$deb" "$dir" || return
	done
	rm -rf "$dir/apt"
	# pkg-config: these files are not in /usr.
	sed -i -E "s#^(prefix|libdir|includedir)=/usr#\\1=$dir/usr#" "$dir"/usr/lib/i386-linux-gnu/pkgconfig/*.pc &&
	    echo "$packages" >"$dir/complete"
}
