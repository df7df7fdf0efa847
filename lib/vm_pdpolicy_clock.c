/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Mach's policy: two queues, each first in, first out.
 *
 * A third of the pages is watched.  One that is touched meanwhile goes back to the end of the active
 * queue, one that is not is the victim: a clock with two hands.  It is cheap, fair, and has no memory: who reads
 * once through more than there are frames, pushes out all that the others use.
 *
 * It is here to be compared with (bench/replay), and for the tests of the daemon, which know
 * beforehand what it will do.
 */

#include "vm_pdpolicy.h"

#define INACTIVE_SHARE	3	/* of active + inactive: as many are watched */

static struct {
	struct vm_pageq active, inactive;
	uint64_t left;			/* may be skipped in this pass */
} ck;

static void
init(void)
{
	vm_pageq_init(&ck.active);
	vm_pageq_init(&ck.inactive);
}

static void
fini(void)
{
}

static void
tune(uint64_t frames)
{
	(void)frames;
}

static void
dequeue(struct vm_page *m)
{
	vm_pageq_remove(m->queue == PQ_ACTIVE ? &ck.active : &ck.inactive, m);
}

static void
enqueue(struct vm_page *m)
{
	vm_pageq_insert(&ck.active, m, PQ_ACTIVE);
}

static void
touch(struct vm_page *m)
{
	dequeue(m);
	enqueue(m);
}

static void
watch(struct vm_page *m)
{
	dequeue(m);
	vm_pageq_insert(&ck.inactive, m, PQ_INACTIVE);
}

static void
discard(struct vm_page *m)
{
	watch(m);
	vm_pageq_to_front(&ck.inactive, m);
}

static void
begin(bool hard)
{
	(void)hard;
	ck.left = ck.active.n + ck.inactive.n;
}

static struct vm_page *
next_to_watch(void)
{
	if (ck.inactive.n >= (ck.active.n + ck.inactive.n) / INACTIVE_SHARE + 1)
		return NULL;
	return vm_pageq_first(&ck.active);
}

static struct vm_page *
next_victim(void)
{
	return ck.left != 0 ? vm_pageq_first(&ck.inactive) : NULL;
}

static void
skip(struct vm_page *m)
{
	if (m->queue == PQ_INACTIVE && ck.left != 0)
		ck.left--;
	vm_pageq_to_end(m->queue == PQ_ACTIVE ? &ck.active : &ck.inactive, m);
}

const struct vm_pdpolicy vm_pdpolicy_clock = {
	.name = "clock",
	.init = init,
	.fini = fini,
	.tune = tune,
	.enqueue = enqueue,
	.dequeue = dequeue,
	.evict = dequeue,
	.touch = touch,
	.rewind = touch,
	.watch = watch,
	.discard = discard,
	.begin = begin,
	.next_to_watch = next_to_watch,
	.next_victim = next_victim,
	.skip = skip,
};
