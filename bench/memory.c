/* SPDX-License-Identifier: BSD-2-Clause */

#define _FILE_OFFSET_BITS 64

#include <sys/stat.h>

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memory.h"

#define FILES	64u

/* Those that were counted. */
struct files {
	struct {
		dev_t dev;
		ino_t ino;
	} id[FILES];
	size_t n;
};

/* The sum of the lines "NAME: N kB" of a file, for all these names. */
static uint64_t
sum_of(const char *path, const char *const *names)
{
	uint64_t sum = 0;
	char line[256];
	FILE *f;

	if ((f = fopen(path, "re")) == NULL)
		return (0);
	while (fgets(line, sizeof(line), f) != NULL)
		for (size_t i = 0; names[i] != NULL; i++) {
			size_t len = strlen(names[i]);

			if (strncmp(line, names[i], len) == 0 && line[len] == ':')
				sum += strtoull(line + len + 1, NULL, 10) * 1024;
		}
	fclose(f);
	return (sum);
}

static bool
is_new(struct files *seen, const struct stat *st)
{
	for (size_t i = 0; i < seen->n; i++)
		if (seen->id[i].dev == st->st_dev && seen->id[i].ino == st->st_ino)
			return (false);
	if (seen->n < FILES) {
		seen->id[seen->n].dev = st->st_dev;
		seen->id[seen->n++].ino = st->st_ino;
	}
	return (true);
}

static uint64_t
memory_files(pid_t pid, struct files *seen)
{
	static const char memfd[] = "/memfd:";
	char path[64 + 256], target[64];
	struct dirent *e;
	struct stat st;
	uint64_t sum = 0;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	if ((d = opendir(path)) == NULL)
		return (0);
	while ((e = readdir(d)) != NULL) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, e->d_name);
		if (readlink(path, target, sizeof(target)) < (ssize_t)strlen(memfd) ||
		    strncmp(target, memfd, strlen(memfd)) != 0)
			continue;
		if (stat(path, &st) == 0 && is_new(seen, &st))
			sum += (uint64_t)st.st_blocks * 512;
	}
	closedir(d);
	return (sum);
}

uint64_t
memory_of(const pid_t *pids, size_t n)
{
	static const char *const pages[] = { "Pss_Anon", "SwapPss", NULL }, *const tables[] = { "VmPTE", NULL };
	struct files seen = { .n = 0 };
	uint64_t sum = 0;
	char path[64];

	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pids[i]);
		sum += sum_of(path, pages);
		snprintf(path, sizeof(path), "/proc/%d/status", (int)pids[i]);
		sum += sum_of(path, tables);
		sum += memory_files(pids[i], &seen);
	}
	return (sum);
}

/* What the threads of pid have forked, after what is there.  => how many there are then */
static size_t
add_children(pid_t pid, pid_t pids[MEMORY_FAMILY], size_t n)
{
	char path[64 + 256];
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	if ((d = opendir(path)) == NULL)
		return (n);
	while ((e = readdir(d)) != NULL) {
		int child;
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%d/task/%s/children", (int)pid, e->d_name);
		if (e->d_name[0] == '.' || (f = fopen(path, "re")) == NULL)
			continue;
		while (n < MEMORY_FAMILY && fscanf(f, "%d", &child) == 1)
			pids[n++] = child;
		fclose(f);
	}
	closedir(d);
	return (n);
}

size_t
memory_family(pid_t root, pid_t pids[MEMORY_FAMILY])
{
	size_t n = 1;

	pids[0] = root;
	for (size_t i = 0; i < n; i++)
		n = add_children(pids[i], pids, n);
	return (n);
}
