/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Homes: which frame a page would best live in.
 *
 * Page i of an anonymous object lives in frame i of a run that is as long as the object.  Frames are
 * then mapped in a row wherever they are mapped, and the object may be sparse, for frame space costs nothing.
 *
 * Objects of files can be longer than all frame space, and are often passed through once, from one
 * end to the other.  They get a RUN of 2 MB for each 2 MB of the file that has pages in memory.  A run of which
 * no frame is used any more serves the next part: its frames are still in memory, and taking
 * them costs a fraction of what the kernel takes to give a page back, and to find and clear another.  So a
 * pass through a long file goes round in a few megabytes.
 *
 * All of it is guarded by the object's lock.
 */

#include "kern/assert.h"
#include "kern/slab.h"
#include "vm_object.h"

#define RUN_SHIFT	9
#define RUN_PAGES	(1u << RUN_SHIFT)
#define RUN_MASK	(RUN_PAGES - 1)
#define LOOKS		6	/* for a run that is not used: at so many of the newest, and of the oldest */

struct vm_run {
	TAILQ_ENTRY(vm_run) link;	/* in the object's list, oldest first */
	struct physmem_home home;
	vm_pindex_t number;		/* which part of the object it serves */
};

static struct slab run_slab;

void
vm_home_init(void)
{
	slab_init(&run_slab, "vm_run", sizeof(struct vm_run), 8);
}

void
vm_home_fini(void)
{
	slab_fini(&run_slab);
}

/*
 * A run that nobody lives in, taken out of the list; or null.  What readers free behind themselves is
 * among the newest, what the pageout daemon frees among the oldest.
 */
static struct vm_run *
run_reuse(struct vm_object *o)
{
	struct vm_run *new = TAILQ_LAST(&o->run_list, vm_run_list), *old = TAILQ_FIRST(&o->run_list);

	for (int n = 0; new != NULL && n < LOOKS; n++) {
		struct vm_run *r = physmem_is_unused(physmem_at(&new->home), RUN_PAGES) ? new :
		    physmem_is_unused(physmem_at(&old->home), RUN_PAGES) ? old : NULL;

		if (r != NULL) {
			TAILQ_REMOVE(&o->run_list, r, link);
			(void)radix_remove(&o->runs, r->number);
			return r;
		}
		new = TAILQ_PREV(new, vm_run_list, link);
		old = TAILQ_NEXT(old, link);
	}
	return NULL;
}

static struct vm_run *
run_make(void)
{
	struct vm_run *r = slab_alloc(&run_slab);

	if (r != NULL && !physmem_reserve(RUN_PAGES, &r->home)) {
		slab_free(&run_slab, r);
		r = NULL;
	}
	return r;
}

static void
run_free(struct vm_run *r)
{
	physmem_unreserve(&r->home);
	slab_free(&run_slab, r);
}

/* The run of a part of the object; null: no memory, or no room. */
static struct vm_run *
run_of(struct vm_object *o, vm_pindex_t number)
{
	struct vm_run *r = radix_lookup(&o->runs, number);

	if (r != NULL)
		return r;
	r = run_reuse(o);
	if (r == NULL)
		r = run_make();
	if (r == NULL)
		return NULL;
	r->number = number;
	if (radix_insert(&o->runs, number, r) != 0) {
		run_free(r);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&o->run_list, r, link);
	return r;
}

vm_pfn_t
vm_object_home_frame(struct vm_object *o, vm_pindex_t pindex)
{
	int64_t i;

	KASSERT(kmutex_held(&o->lock));
	if (!o->internal) {
		struct vm_run *r = run_of(o, pindex >> RUN_SHIFT);

		return r != NULL ? physmem_at(&r->home) + (pindex & RUN_MASK) : 0;
	}
	if (!o->home_tried) {
		o->home_tried = true;
		(void)physmem_reserve(o->size, &o->home);
		o->home_first = 0;
	}
	i = (int64_t)pindex - o->home_first;
	return i >= 0 && i < (int64_t)o->home.npages ? physmem_at(&o->home) + (vm_pfn_t)i : 0;
}

bool
vm_object_home(struct vm_object *o, vm_pindex_t pindex, struct physmem_home *home, int64_t *first)
{
	struct vm_run *r;

	KASSERT(kmutex_held(&o->lock));
	if (o->internal) {
		*home = o->home;
		*first = o->home_first;
		return home->npages != 0;
	}
	r = radix_lookup(&o->runs, pindex >> RUN_SHIFT);
	if (r == NULL)
		return false;
	*home = r->home;
	*first = pindex & ~(vm_pindex_t)RUN_MASK;
	return true;
}

void
vm_object_home_release(struct vm_object *o)
{
	struct vm_run *r;

	vm_object_strays_end(o);
	physmem_unreserve(&o->home);
	while ((r = TAILQ_FIRST(&o->run_list)) != NULL) {
		TAILQ_REMOVE(&o->run_list, r, link);
		(void)radix_remove(&o->runs, r->number);
		run_free(r);
	}
}
