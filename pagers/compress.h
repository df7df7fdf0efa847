/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PAGER_COMPRESS_H
#define PAGER_COMPRESS_H

/*
 * A default pager that keeps pages compressed in memory, in front of another one.
 *
 *	page --> all words equal?  ----------------> the word is kept, and nothing else
 *	     --> LZ4: 3/4 of a page or less?  -----> the store (compress_store.h), `size' bytes at most
 *	     --> neither  -------------------------> the pager behind
 *
 * When the store is full its oldest pages go on to the pager behind, in the order in which they
 * came: what was paged out last is what is most likely to come back, and if the new pages went on
 * instead, the store would fill with the coldest pages of all and never be of use again.
 *
 * Where nothing is behind, a page that does not compress is stored as it is: it costs what it is worth.
 * One that finds the store full is answered with AGAIN, and stays in its frame.
 */

#include <stdint.h>

#include "vm_pager.h"

#define COMPRESS_LEAST	((uint64_t)1 << 20)	/* bytes of store */

/*
 * 0; -EINVAL: too small; -ENOMEM.  behind makes the pagers behind ours, one for each; null: there are
 * none.  A few frames of physical memory are taken for as long as it lasts, if something is behind.
 */
int compress_init(uint64_t size, vm_default_pager_alloc *behind);
void compress_fini(void);		/* => its pagers are gone */
struct vm_pager *compress_pager_make(uint64_t npages);	/* null: no memory */

struct compress_counts {
	uint64_t limit;			/* bytes of store; 0: there is none */
	uint64_t resident;		/* ... that have memory of the kernel's */
	uint64_t used;			/* ... that are compressed pages */
	uint64_t pages;			/* compressed pages */
	uint64_t same;			/* pages of which a word is kept */
};
void compress_counts(struct compress_counts *);

#ifdef VMF_TESTING
void compress_audit(void);		/* panic unless all is in order */
#endif

#endif
