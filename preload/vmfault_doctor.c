/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * vmfault doctor: what this machine allows, what is done without, and what to change for more.
 *
 * Everything is tried, nothing is concluded from a version: containers, security modules and settings
 * refuse what the kernel could do.  What was tried is undone at once.  Each finding is a row, made by a
 * function of its own below; the last one runs a program for good.
 */

#include <errno.h>
#include <fcntl.h>
#include <gnu/libc-version.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/io_uring.h>
#include <linux/userfaultfd.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmfault_cmd.h"

#define PAGE	((size_t)4096)
#define GB	((uint64_t)1 << 30)

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY	1
#endif

enum state { FINE, LIMITED, MISSING, NOTE };
static const char *const state_name[] = { "ok", "limited", "missing", "note" };

struct finding {
	enum state state;
	char found[200];
	const char *instead;		/* null: nothing need be done instead */
	const char *more;		/* what to change for more; null: nothing, or no need */
};

static void
found(struct finding *f, enum state state, const char *fmt, ...) __attribute__((__format__(__printf__, 3, 4)));

static void
found(struct finding *f, enum state state, const char *fmt, ...)
{
	va_list ap;

	f->state = state;
	va_start(ap, fmt);
	vsnprintf(f->found, sizeof(f->found), fmt, ap);
	va_end(ap);
}

/* The first line of a file, such as those of /proc/sys.  => false: it cannot be read */
static bool
read_line(const char *path, char *line, int size)
{
	FILE *f = fopen(path, "re");
	bool ok = f != NULL && fgets(line, size, f) != NULL;

	if (ok)
		line[strcspn(line, "\n")] = '\0';
	if (f != NULL)
		(void)fclose(f);
	return ok;
}

/* A number that a file begins with, or `otherwise'. */
static long
read_number(const char *path, long otherwise)
{
	char line[64];

	return read_line(path, line, sizeof(line)) && (line[0] == '-' || (line[0] >= '0' && line[0] <= '9')) ?
	    strtol(line, NULL, 10) : otherwise;
}

static void
check_kernel(struct finding *f)
{
	struct utsname u;
	int major = 0, minor = 0;
	bool ok;

	(void)uname(&u);
	(void)sscanf(u.release, "%d.%d", &major, &minor);
	ok = major > 5 || (major == 5 && minor >= 14);
	found(f, ok ? FINE : MISSING, "Linux %s, %s", u.release, u.machine);
	f->more = ok ? NULL : "Linux 5.14 or later";
}

static void
check_memory(struct finding *f)
{
	uint64_t pages = (uint64_t)sysconf(_SC_PHYS_PAGES), limit = 0;
	char line[512], path[600], value[64];
	FILE *cgroup = fopen("/proc/self/cgroup", "re");

	while (cgroup != NULL && fgets(line, sizeof(line), cgroup) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (strncmp(line, "0::", 3) != 0)
			continue;
		snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max", strcmp(line + 3, "/") != 0 ? line + 3 : "");
		if (read_line(path, value, sizeof(value)) && value[0] != 'm')
			limit = strtoull(value, NULL, 10);
	}
	if (cgroup != NULL)
		(void)fclose(cgroup);
	found(f, FINE, "%.1f GB", (double)pages * (double)PAGE / (double)GB);
	if (limit != 0 && limit / PAGE < pages) {
		found(f, NOTE, "%.1f GB, of which this control group may have %.1f", (double)pages * (double)PAGE /
		    (double)GB, (double)limit / (double)GB);
		f->more = "--memory must be less than the group's limit: frames count towards it";
	}
}

/* Frames: a sparse file in memory, mapped shared. */
static void
check_memfd(struct finding *f)
{
	int fd = memfd_create("vmfault-doctor", MFD_CLOEXEC);
	char *p = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, (off_t)GB) == 0)
		p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		found(f, MISSING, "memfd_create, ftruncate and mmap: %s", strerror(errno));
		f->more = "ulimit -f unlimited; a container that allows memfd_create";
	} else {
		*p = 1;
		found(f, FINE, "memory for frames: memfd_create");
		(void)munmap(p, PAGE);
	}
	if (fd >= 0)
		(void)close(fd);
}

static void
check_address_space(struct finding *f)
{
	size_t size = sizeof(void *) > 4 ? (size_t)(1024 * GB) : (size_t)(GB / 2), got = size;
	void *p = MAP_FAILED;
	struct rlimit rl;

	for (; got >= GB / 64 && p == MAP_FAILED; got = p == MAP_FAILED ? got / 2 : got)
		p = mmap(NULL, got, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p != MAP_FAILED)
		(void)munmap(p, got);
	if (p != MAP_FAILED && got == size) {
		found(f, FINE, "%" PRIu64 " GB can be reserved", (uint64_t)got / GB);
		if (got < GB)
			found(f, FINE, "%zu MB can be reserved", got >> 20);
		return;
	}
	if (p == MAP_FAILED)
		found(f, MISSING, "none can be reserved");
	else
		found(f, LIMITED, "only %.1f GB can be reserved", (double)got / (double)GB);
	f->instead = p == MAP_FAILED ? "programs run unmanaged" : "a smaller range for managed memory";
	f->more = getrlimit(RLIMIT_AS, &rl) == 0 && rl.rlim_cur != RLIM_INFINITY ? "ulimit -v unlimited" :
	    "sysctl vm.overcommit_memory=0";
}

static void
check_overcommit(struct finding *f)
{
	long mode = read_number("/proc/sys/vm/overcommit_memory", 0);

	found(f, mode == 2 ? LIMITED : FINE, "vm.overcommit_memory=%ld", mode);
	if (mode == 2) {
		f->instead = "as much as the kernel will promise";
		f->more = "sysctl vm.overcommit_memory=0";
	}
}

static void
check_mappings(struct finding *f)
{
	long n = read_number("/proc/sys/vm/max_map_count", 65530);

	found(f, n < 65530 ? LIMITED : FINE, "vm.max_map_count=%ld: about %.0f MB of memory in single pages", n,
	    (double)n * (double)PAGE / (double)(1 << 20));
	if (n < 65530)
		f->instead = "mappings are forgotten sooner, which costs faults";
	if (n < 1000000)
		f->more = "sysctl vm.max_map_count=1048576, for random writes after a snapshot or fork to gigabytes";
}

static void
check_mremap(struct finding *f)
{
	int fd = memfd_create("vmfault-doctor", MFD_CLOEXEC);
	char *p = MAP_FAILED, *to = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, (off_t)PAGE) == 0)
		p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED) {
		*p = 1;
		/* The wrapper of older libc passes no address here, and the kernel wants one or null. */
		to = (char *)syscall(SYS_mremap, p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	}
	if (to != MAP_FAILED) {
		found(f, FINE, "mremap moves page tables of shared mappings away (MREMAP_DONTUNMAP)");
		(void)munmap(to, PAGE);
	} else {
		found(f, LIMITED, "mremap with MREMAP_DONTUNMAP of a shared mapping: %s", strerror(errno));
		f->instead = "mprotect: snapshots take time for each page, not microseconds";
		f->more = "Linux 5.13 or later";
	}
	if (p != MAP_FAILED)
		(void)munmap(p, PAGE);
	if (fd >= 0)
		(void)close(fd);
}

static void
check_io_uring(struct finding *f)
{
	struct io_uring_params params = { 0 };
	int fd = (int)syscall(SYS_io_uring_setup, 4, &params), error = errno;
	long disabled = read_number("/proc/sys/kernel/io_uring_disabled", 0);

	if (fd >= 0) {
		found(f, FINE, "swap and files are read and written by io_uring");
		(void)close(fd);
		return;
	}
	found(f, LIMITED, "io_uring_setup: %s", strerror(error));
	f->instead = "threads with preadv and pwritev";
	f->more = disabled != 0 ? "sysctl kernel.io_uring_disabled=0" :
	    error == ENOMEM ? "a larger ulimit -l" : "a container that allows io_uring";
}

static void
check_userfaultfd(struct finding *f)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC), error = errno;

	if (fd < 0)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	else
		error = 0;
	found(f, NOTE, fd < 0 ? "userfaultfd: %s" : error != 0 ? "userfaultfd: only for faults of user mode" :
	    "userfaultfd: allowed", strerror(error));
	f->instead = "it is not needed: faults are signals, and system calls have their buffers held";
	if (fd >= 0)
		(void)close(fd);
}

/* What the header of Linux 6.7 says; that of the machine this is built on may be older. */
static void
check_pagemap(struct finding *f)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		found(f, FINE, "what the kernel has copied for writers is found in /proc/self/pagemap");
		(void)close(fd);
		return;
	}
	found(f, LIMITED, "/proc/self/pagemap: %s", strerror(errno));
	f->instead = "after a snapshot the first write to each page is a fault of ours";
	f->more = "/proc in this container";
}

static void
check_memlock(struct finding *f)
{
	struct rlimit rl = { 0, 0 };

	(void)getrlimit(RLIMIT_MEMLOCK, &rl);
	if (rl.rlim_cur == RLIM_INFINITY)
		found(f, FINE, "ulimit -l: unlimited");
	else
		found(f, FINE, "ulimit -l: %ju KB: wired memory is held by us, not locked by the kernel",
		    (uintmax_t)rl.rlim_cur / 1024);
}

static void
check_limits(struct finding *f)
{
	struct rlimit files = { 0, 0 }, size = { 0, 0 };

	(void)getrlimit(RLIMIT_NOFILE, &files);
	(void)getrlimit(RLIMIT_FSIZE, &size);
	found(f, FINE, "ulimit -n: %ju, ulimit -f: %s", (uintmax_t)files.rlim_cur,
	    size.rlim_cur == RLIM_INFINITY ? "unlimited" : "limited");
	if (size.rlim_cur != RLIM_INFINITY) {
		f->state = LIMITED;
		f->instead = "as many frames and as much swap as the limit of file sizes lets be";
		f->more = "ulimit -f unlimited";
	} else if (files.rlim_cur < 64) {
		f->state = LIMITED;
		f->instead = "the program has some descriptors less: ours are eight at most";
		f->more = "a larger ulimit -n";
	}
}

static void
check_huge_pages(struct finding *f)
{
	char line[128] = "";
	const char *at;

	if (!read_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled", line, sizeof(line))) {
		found(f, NOTE, "the kernel has no huge pages for shared memory");
		return;
	}
	at = strchr(line, '[');
	found(f, NOTE, "transparent_hugepage/shmem_enabled is %.*s", at != NULL ? (int)strcspn(at + 1, "]") : 0,
	    at != NULL ? at + 1 : "");
	f->instead = "frames are pages of 4 KB, which is what single pages can be taken from";
}

static void
check_swap(struct finding *f)
{
	const char *dir = getenv("TMPDIR");
	struct statvfs fs;
	int fd;

	if (dir == NULL || *dir == '\0')
		dir = "/var/tmp";
	fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (statvfs(dir, &fs) != 0 || access(dir, W_OK) != 0) {
		found(f, LIMITED, "%.100s: %s", dir, strerror(errno));
		f->instead = "no swap: --memory works with --compress, or what is wired only";
		f->more = "--swap PATH, or TMPDIR where files can be made";
	} else {
		found(f, FINE, "%.100s has room for %.1f GB%s", dir, (double)fs.f_bavail * (double)fs.f_frsize / (double)GB,
		    fd < 0 ? ", by a file that is unlinked" : "");
	}
	if (fd >= 0)
		(void)close(fd);
}

#define PLT_GATE	"--gate plt: libc's own memory is not managed; syscall(), and rarer functions, may fail on " \
			"paged-out memory: see The gate in vmfault(1)"

/* The gate rewrites the system calls of libc where they stand. */
static void
check_gate(struct finding *f)
{
#ifdef __x86_64__
	unsigned char *code = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	bool ok = code != MAP_FAILED && mprotect(code, PAGE, PROT_READ | PROT_EXEC) == 0 &&
	    mprotect(code, PAGE, PROT_READ | PROT_WRITE) == 0 && mprotect(code, PAGE, PROT_READ | PROT_EXEC) == 0;

	if (ok) {
		found(f, FINE, "code can be rewritten: every system call of glibc %s is seen", gnu_get_libc_version());
	} else {
		found(f, LIMITED, "code cannot be rewritten: %s", strerror(errno));
		f->instead = PLT_GATE;
		f->more = "a security policy that allows it (SELinux: execmem)";
	}
	if (code != MAP_FAILED)
		(void)munmap(code, PAGE);
#else
	found(f, LIMITED, "glibc %s on i386: its system calls are not rewritten", gnu_get_libc_version());
	f->instead = PLT_GATE;
	f->more = "x86_64";
#endif
}

static void
check_confinement(struct finding *f)
{
	long ptrace = read_number("/proc/sys/kernel/yama/ptrace_scope", 0), seccomp = 0;
	char line[256];
	FILE *status = fopen("/proc/self/status", "re");

	while (status != NULL && fgets(line, sizeof(line), status) != NULL)
		(void)sscanf(line, "Seccomp: %ld", &seccomp);
	if (status == NULL) {
		found(f, LIMITED, "/proc is not there");
		f->instead = "vmfault stat and top see nothing; descriptors cannot be named";
		f->more = "/proc in this container";
		return;
	}
	(void)fclose(status);
	found(f, NOTE, "seccomp filter: %s; yama ptrace_scope: %ld", seccomp != 0 ? "yes" : "no", ptrace);
	if (ptrace > 0)
		f->instead = "stat and top do not need ptrace; gdb -p does";
}

/* Run a program with a bounded heap, and see it end well. */
static void
check_run(struct finding *f)
{
	char shim[PATH_MAX], preload[PATH_MAX + 16];
	char *const argv[] = { (char *)(uintptr_t)"true", NULL };
	char *envp[] = { preload, (char *)(uintptr_t)"VMFAULT_STRICT=1", (char *)(uintptr_t)"VMFAULT_MEMORY=16M",
	    (char *)(uintptr_t)"VMFAULT_SWAP_SIZE=64M", NULL };
	int status = 0, error;
	pid_t pid;

	if (!shim_path(shim, sizeof(shim))) {
		found(f, MISSING, SHIM_NAME " is neither beside this command nor in " LIBDIR);
		f->more = "meson install";
		return;
	}
	snprintf(preload, sizeof(preload), "LD_PRELOAD=%s", shim);
	error = posix_spawnp(&pid, "true", NULL, NULL, argv, envp);
	if (error == 0 && waitpid(pid, &status, 0) != pid)
		error = errno;
	if (error != 0)
		found(f, MISSING, "a program cannot be run: %s", strerror(error));
	else if (WIFSIGNALED(status))
		found(f, MISSING, "a program under vmfault ended by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status) != 0)
		found(f, MISSING, "a program under vmfault ended with status %d", WEXITSTATUS(status));
	else
		found(f, FINE, "a program ran in 16 MB, with %.150s", shim);
}

static const struct {
	const char *name;
	void (*check)(struct finding *);
} checks[] = {
	{ "kernel", check_kernel },
	{ "memory", check_memory },
	{ "memfd", check_memfd },
	{ "address space", check_address_space },
	{ "overcommit", check_overcommit },
	{ "mappings", check_mappings },
	{ "mremap", check_mremap },
	{ "io_uring", check_io_uring },
	{ "userfaultfd", check_userfaultfd },
	{ "pagemap", check_pagemap },
	{ "memlock", check_memlock },
	{ "limits", check_limits },
	{ "huge pages", check_huge_pages },
	{ "swap", check_swap },
	{ "gate", check_gate },
	{ "confinement", check_confinement },
	{ "run", check_run },
};
#define NCHECKS	(sizeof(checks) / sizeof(checks[0]))

static void
print_text(const char *name, const struct finding *f)
{
	printf("%-8s %-14s %s\n", state_name[f->state], name, f->found);
	if (f->instead != NULL)
		printf("%-23s instead: %s\n", "", f->instead);
	if (f->more != NULL)
		printf("%-23s for more: %s\n", "", f->more);
}

static void
print_json(const char *name, const struct finding *f, bool last)
{
	printf("  {\"check\": ");
	json_string(name);
	printf(", \"state\": \"%s\", \"found\": ", state_name[f->state]);
	json_string(f->found);
	if (f->instead != NULL) {
		printf(", \"instead\": ");
		json_string(f->instead);
	}
	if (f->more != NULL) {
		printf(", \"more\": ");
		json_string(f->more);
	}
	printf("}%s\n", last ? "" : ",");
}

int
cmd_doctor(char **argv)
{
	bool json = *argv != NULL && strcmp(*argv, "--json") == 0, runs = true;

	if (argv[0] != NULL && (!json || argv[1] != NULL))
		return bad_use("doctor: %s: not understood", argv[json]);
	if (json)
		printf("[\n");
	for (size_t i = 0; i < NCHECKS; i++) {
		struct finding f = { .found = "" };

		checks[i].check(&f);
		runs &= f.state != MISSING;
		if (json)
			print_json(checks[i].name, &f, i == NCHECKS - 1);
		else
			print_text(checks[i].name, &f);
		fflush(stdout);
	}
	if (json)
		printf("]\n");
	else
		printf("\n%s\n", runs ? "Programs can be run under vmfault here." : "Programs cannot be run under vmfault here.");
	return runs ? 0 : STATUS_FAILED;
}
