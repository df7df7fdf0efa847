/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef LEAVES_H
#define LEAVES_H

/*
 * What the tests of leaves (2 MB) after a fork have in common: memory of three leaves, what each page of it holds, and children
 * that live as long as they are wanted.
 */

#include "forks.h"
#include "kern/probe.h"
#include "kern/sys.h"
#include "pmap.h"
#include "vm_object.h"

enum {
	LEAF = PMAP_LEAF_PAGES, LEAVES = 3, N = LEAVES * LEAF,
	OFTEN = 100,		/* one page in so many leaves the row: a few of each leaf, if leaves are large */
};

static char *mem;
static bool fresh;				/* no leaf has a view, and but for gaps all are in a row */
static uint64_t key[N], next_key;		/* what each page holds; 0: it is missing */

/* Memory that begins with a leaf; frames: 0: no bound. */
static inline void
begin_leaves(size_t frames)
{
	void *base;

	begin_forks(frames, 0, 0);
	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	mem = alloc(N + LEAF);
	mem += (LEAF * PG - (size_t)(mem - (char *)base) % (LEAF * PG)) % (LEAF * PG);
}

static inline void
end_leaves(void)
{
	probe_hook = NULL;
	sys_inject = NULL;
	expect_no_children();
	stop();
}

static inline void
put(size_t i)
{
	fill(mem + i * PG, PG, key[i] = ++next_key);
}

/* The same without a mapping that can be written. */
static inline void
put_by_call(size_t i)
{
	char page[VMF_PAGE_SIZE];

	fill(page, PG, key[i] = ++next_key);
	expect(vmf_write(mem + i * PG, page, PG), 0);
}

static inline void
put_all(void)
{
	for (size_t i = 0; i < N; i++)
		put(i);
	fresh = true;
}

static inline void
check_all(void)
{
	for (size_t i = 0; i < N; i++)
		if (key[i] != 0)
			check_fill(mem + i * PG, PG, key[i]);
}

/* Afterwards they are there. */
static inline void
check_missing(void)
{
	for (size_t i = 0; i < N; i++)
		if (key[i] == 0)
			check_zero(mem + i * PG, PG);
}

static inline bool
is_away(size_t k)
{
	return k % OFTEN == 1;
}

/* Leaf l has gaps in its row. */
static inline void
put_gaps(size_t l)
{
	for (size_t k = 0; k < LEAF; k++)
		if (is_away(k))
			put_by_call(l * LEAF + k);
}

/* Every third page of a leaf, those that are away as the others. */
static inline void
put_some(size_t l)
{
	for (size_t k = 0; k < LEAF; k += 3)
		put(l * LEAF + k);
}

/*
 * Children
 */

struct kin {
	pid_t pid;
	int fd;
};

/* A child that lives until it is let go; before and after it does something to its memory, if that is not null. */
static inline struct kin
child(void (*fn)(void))
{
	struct kin k;
	int fd[2];
	char c;

	expect(pipe(fd), 0);
	k = (struct kin){ fork(), fd[1] };
	check(k.pid >= 0);
	if (k.pid == 0) {
		(void)close(fd[1]);
		check(read(fd[0], &c, 1) == 1);
		check_all();
		if (fn != NULL)
			fn();
		check(read(fd[0], &c, 1) == 1);
		check_all();
		audit();
		_exit(0);
	}
	(void)close(fd[0]);
	return k;
}

static inline void
see(const struct kin *k)
{
	check(write(k->fd, "", 1) == 1);
}

static inline void
let_go(struct kin *k)
{
	check(write(k->fd, "", 1) == 1);
	(void)close(k->fd);
	expect_good(k->pid);
}

/* When all can be read. */
static inline uint64_t
mappings(void)
{
	for (size_t i = 0; i < N; i++)
		(void)((const volatile char *)mem)[i * PG];
	return statistics().mappings;
}

/* Nothing moves any more, in memory that nobody looks at. */
static inline void
rest(void)
{
	for (uint64_t began = now_ms(); statistics().frames_superseded != 0 || !vm_homecoming_rest(); usleep(1000))
		if (now_ms() - began > PATIENCE_MS)
			die("%llu frames are superseded", (unsigned long long)statistics().frames_superseded);
}

/* Nobody else sees our frames any more, and as few mappings do as before. */
static inline void
come_home(uint64_t few)
{
	for (uint64_t began = now_ms(); statistics().frames_superseded != 0 || mappings() > few; usleep(1000))
		if (now_ms() - began > PATIENCE_MS)
			die("%llu mappings, not %llu; %llu frames are superseded", (unsigned long long)statistics().mappings,
			    (unsigned long long)few, (unsigned long long)statistics().frames_superseded);
	fresh = true;
	check_all();
	audit();
}

#endif
