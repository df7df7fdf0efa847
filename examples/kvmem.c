/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The two kinds of memory of kvsnap.  All that a program needs of vmfault to take
 * snapshots of its data and save them is in the first half of this file; the
 * second half does the same with the means of the kernel.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kvmem.h"
#include "kvstore.h"
#include "vmfault.h"

static struct kv_area areas[KV_AREAS];

double
kv_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3);
}

static int
failed(const char *what, int error)
{
	fprintf(stderr, "kvsnap: %s: %s\n", what, strerror(-error));
	return (error);
}

/*
 * vmfault
 */

static vmf_snapshot_t snapshot;
static uint64_t before;			/* memory in use before the snapshot */

static uint64_t
vmfault_in_use(void)
{
	struct vmf_stats stats = { .size = sizeof(stats) };

	if (vmf_statistics(&stats) != 0)
		return (0);
	return ((stats.v_page_count - stats.v_free_count) * VMF_PAGE_SIZE + stats.metadata);
}

static int
vmfault_start(struct kv_area area[KV_AREAS])
{
	int error;

	if ((error = vmf_init(NULL)) != 0)
		return (failed("vmf_init", error));
	for (unsigned i = 0; i < KV_AREAS; i++) {
		error = vmf_allocate(VMF_TASK_DEFAULT, &area[i].addr, area[i].size, 0);
		if (error != 0)
			return (failed("vmf_allocate", error));
		areas[i] = area[i];
	}
	return (0);
}

static void
vmfault_stop(void)
{
	vmf_fini();
}

static int
vmfault_take(int fd, double *us)
{
	struct vmf_range range[KV_AREAS];
	double start;
	int error;

	for (unsigned i = 0; i < KV_AREAS; i++)
		range[i] = (struct vmf_range){ areas[i].addr, areas[i].size };
	before = vmfault_in_use();
	start = kv_clock();
	error = vmf_snapshot_create(range, KV_AREAS, &snapshot);
	*us = kv_clock() - start;
	return (error == 0 ? 0 : failed("vmf_snapshot_create", error));
}

/*
 * The image is written straight from a view of the snapshot.  write() is a system
 * call: what it is to read must be held, since the kernel raises no fault for us.
 */
static int
hold(const void *addr, size_t size)
{
	return (vmf_fault_in(addr, size, VMF_PROT_READ));
}

static void
let_go(const void *addr, size_t size)
{
	vmf_fault_release(addr, size);
}

static int
vmfault_save(int fd, kv_progress *progress)
{
	static const struct kv_hold held = { hold, let_go };
	struct kv_area view[KV_AREAS];
	unsigned n;
	int error = 0;

	for (n = 0; n < KV_AREAS; n++) {
		view[n].size = areas[n].size;
		error = vmf_snapshot_map(snapshot, n, 0, view[n].size, VMF_TASK_DEFAULT,
		    &view[n].addr, 0, VMF_PROT_READ);
		if (error != 0) {
			failed("vmf_snapshot_map", error);
			break;
		}
	}
	if (error == 0 && (error = kv_image_write(fd, view, &held, progress)) != 0)
		failed("saving", error);
	while (n-- > 0)
		vmf_unmap(view[n].addr, view[n].size);
	return (error);
}

static uint64_t
vmfault_extra(void)
{
	uint64_t after = vmfault_in_use();

	return (after > before ? after - before : 0);
}

static int
vmfault_drop(void)
{
	int error = vmf_snapshot_release(snapshot);

	return (error == 0 ? 0 : failed("vmf_snapshot_release", error));
}

const struct kv_memory kv_vmfault = {
	.name = "vmfault", .file = "vmfault",
	.start = vmfault_start, .stop = vmfault_stop, .take = vmfault_take,
	.save = vmfault_save, .extra = vmfault_extra, .drop = vmfault_drop,
};

/*
 * fork()
 *
 * The child is the snapshot.  It starts to save itself at once, tells how far it
 * is through a pipe, and then lives until the other pipe is closed, so that what it costs
 * can be looked at.  It calls nothing that another thread of the parent might
 * have been in the middle of.
 */

static pid_t child;
static int child_tells, child_waits;

static int
fork_start(struct kv_area area[KV_AREAS])
{
	for (unsigned i = 0; i < KV_AREAS; i++) {
		area[i].addr = mmap(NULL, area[i].size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (area[i].addr == MAP_FAILED)
			return (failed("mmap", -errno));
		madvise(area[i].addr, area[i].size, MADV_NOHUGEPAGE);
		areas[i] = area[i];
	}
	return (0);
}

static void
fork_stop(void)
{
	for (unsigned i = 0; i < KV_AREAS; i++)
		munmap(areas[i].addr, areas[i].size);
}

struct step {
	uint64_t done, total;
};

static void
tell(uint64_t done, uint64_t total)
{
	struct step step = { done, total };

	if (write(child_tells, &step, sizeof(step)) != (ssize_t)sizeof(step))
		_exit(1);
}

static int
fork_take(int fd, double *us)
{
	int tells[2], waits[2], error;
	double start;
	char c;

	if (pipe(tells) != 0 || pipe(waits) != 0)
		return (failed("pipe", -errno));
	start = kv_clock();
	child = fork();
	*us = kv_clock() - start;
	if (child < 0) {
		error = -errno;
		return (failed("fork", error));
	}
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(tells[0]);
		close(waits[1]);
		child_tells = tells[1];
		if (kv_image_write(fd, areas, NULL, tell) != 0)
			_exit(1);
		close(child_tells);
		_exit(read(waits[0], &c, 1) == 0 ? 0 : 1);
	}
	close(tells[1]);
	close(waits[0]);
	child_tells = tells[0];
	child_waits = waits[1];
	return (0);
}

static int
fork_save(int fd, kv_progress *progress)
{
	struct step step = { 0, 1 };

	while (read(child_tells, &step, sizeof(step)) == (ssize_t)sizeof(step))
		progress(step.done, step.total);
	close(child_tells);
	return (step.done == step.total ? 0 : failed("the child that saves", -EIO));
}

/* The sum of the lines "name: N kB" of a file of the child's in /proc, in bytes. */
static uint64_t
child_memory(const char *file, const char *name)
{
	char path[64], line[256];
	uint64_t sum = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)child, file);
	if ((f = fopen(path, "re")) == NULL)
		return (0);
	while (fgets(line, sizeof(line), f) != NULL)
		if (strncmp(line, name, strlen(name)) == 0)
			sum += strtoull(line + strcspn(line, " "), NULL, 10) * 1024;
	fclose(f);
	return (sum);
}

/* The pages that the child has for itself are those that the parent has written since. */
static uint64_t
fork_extra(void)
{
	return (child_memory("smaps_rollup", "Private_") + child_memory("status", "VmPTE:"));
}

static int
fork_drop(void)
{
	int status;

	close(child_waits);
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return (failed("waitpid", -errno));
	return (status == 0 ? 0 : failed("the child that saves", -EIO));
}

const struct kv_memory kv_fork = {
	.name = "fork()", .file = "fork",
	.start = fork_start, .stop = fork_stop, .take = fork_take,
	.save = fork_save, .extra = fork_extra, .drop = fork_drop,
};
