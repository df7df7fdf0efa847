/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The swap pager: which page is in which slot.
 *
 * A pager has a tree of BLOCKS, each of which says for SWAP_CHUNK pages in a row where they are.  When
 * the first page of a block is put, the block gets a chunk of slots to itself, its base, and the
 * page the slot at its own place in it: so neighbours that leave one after the other are
 * neighbours in swap, and come back together.  The next block takes the next chunk, if that is free.  When
 * there are no free chunks, slots are taken one by one.
 *
 * The life of a block's entry:
 *
 *	0 --put--> slot, WRITING --written--> slot --put again--> slot, WRITING
 *	                |                      |
 *	                +--failed--> 0 <-------+-- dispose, move away, destroy
 *
 * A put begins with a page that has changed, so what its old slot holds is of no use, and the slot is used
 * again or given back before the new contents are written.  WRITING entries are not there for
 * has_page and get: nobody reads a slot that was not written since it was given to the page, and so nobody
 * sees another owner's bytes.
 *
 * While a page is being read or written its slot is not given to anyone else, for the page is busy, and
 * dispose and move are only for pages that are not.
 *
 * A write that fails frees the slots, and sends the search for the next ones on, so that the pages, which
 * stay in memory, go elsewhere when they are tried again.
 */

#include "swap.h"

#include <errno.h>
#include <stdatomic.h>

#include "io.h"
#include "kern/assert.h"
#include "kern/lock.h"
#include "kern/probe.h"
#include "kern/radix.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "swap_impl.h"
#include "vm_pager.h"

#define WRITING		(1u << 31)

struct block {
	uint32_t base;			/* slot where its first page would be best; 0: none */
	uint32_t count;			/* entries that are not 0 */
	uint32_t slot[SWAP_CHUNK];
};

struct swap_pager {
	struct vm_pager pager;
	struct kmutex lock;		/* RANK_SWAP; guards the tree and the blocks */
	struct radix blocks;		/* page / SWAP_CHUNK */
};

/* A transfer that was started. */
struct transfer {
	struct io io;
	struct vm_pager_io *of;
	uint32_t slot;
};

static struct {
	int fd;				/* constant; -1: no swap */
	bool direct;			/* constant: past the page cache */
	uint32_t nslots;		/* constant */
	struct slab pagers, blocks, transfers;
	_Atomic uint64_t errors;
} swap = { .fd = -1 };

static struct swap_pager *
of(struct vm_pager *p)
{
	return container_of(p, struct swap_pager, pager);
}

/*
 * Blocks.  => the pager is locked
 */

static struct block *
block_of(struct swap_pager *p, uint64_t page)
{
	return radix_lookup(&p->blocks, (uint32_t)(page / SWAP_CHUNK));
}

/* The same; made, where there is none.  Null: no memory. */
static struct block *
block_make(struct swap_pager *p, uint64_t page)
{
	struct block *b = block_of(p, page);

	if (b != NULL || (b = slab_alloc(&swap.blocks)) == NULL)
		return b;
	if (radix_insert(&p->blocks, (uint32_t)(page / SWAP_CHUNK), b) != 0) {
		slab_free(&swap.blocks, b);
		return NULL;
	}
	return b;
}

/* Free the block, if it says nothing. */
static void
block_trim(struct swap_pager *p, uint64_t page, struct block *b)
{
	if (b->count == 0) {
		(void)radix_remove(&p->blocks, (uint32_t)(page / SWAP_CHUNK));
		slab_free(&swap.blocks, b);
	}
}

/* The page's slot, if it has been written to it; else 0. */
static uint32_t
slot_of(struct swap_pager *p, uint64_t page)
{
	const struct block *b = block_of(p, page);
	uint32_t slot = b != NULL ? b->slot[page % SWAP_CHUNK] : 0;

	return slot & WRITING ? 0 : slot;
}

static void
forget(struct block *b, uint32_t i)
{
	KASSERT(!(b->slot[i] & WRITING));
	if (b->slot[i] != 0) {
		swap_slots_give(b->slot[i], 1u << (b->slot[i] % SWAP_CHUNK));
		b->slot[i] = 0;
		b->count--;
	}
}

/*
 * A slot for entry i, which may have an old one: `want', if that is not 0, or the best there is.
 * 0: none.
 */
static uint32_t
choose(struct block *b, uint32_t i, uint32_t want)
{
	uint32_t old = b->slot[i], home = b->base != 0 ? b->base + i : 0, slot = 0;

	if (want != 0) {
		if (want == old)
			return want;
		if (home == 0 && i == 0) {
			if (want % SWAP_CHUNK != 0 || !swap_slot_take_first(want))
				return 0;
			return b->base = want;
		}
		/* At home there is room for it: the transfer ends here, and the next begins there. */
		if (home != 0 && want != home && (home == old || swap_slot_is_free(home)))
			return 0;
		return swap_slot_take(want) ? want : 0;
	}
	if (home != 0)
		slot = home == old || swap_slot_take(home) ? home : 0;
	else if ((slot = swap_slot_new(i)) != 0)
		b->base = slot - i;
	if (slot == 0)
		slot = old != 0 ? old : swap_slot_any();
	return slot;
}

/* Slots in a row for pages from `page' on, n of them or fewer, WRITING; how many. */
static uint32_t
reserve(struct swap_pager *p, uint64_t page, uint32_t n, uint32_t *first)
{
	uint32_t k;

	kmutex_lock(&p->lock);
	for (k = 0; k < n; k++) {
		uint32_t i = (uint32_t)((page + k) % SWAP_CHUNK), slot;
		struct block *b = block_make(p, page + k);

		if (b == NULL)
			break;
		KASSERT(!(b->slot[i] & WRITING));
		slot = choose(b, i, k == 0 ? 0 : *first + k);
		if (slot == 0) {
			block_trim(p, page + k, b);
			break;
		}
		if (b->slot[i] != slot)
			forget(b, i);
		b->count += b->slot[i] == 0;
		b->slot[i] = slot | WRITING;
		if (k == 0)
			*first = slot;
	}
	kmutex_unlock(&p->lock);
	return k;
}

/* Of n pages that were WRITING, the first `good' ones have been written. */
static void
written(struct swap_pager *p, uint64_t page, uint32_t n, uint32_t first, uint32_t good)
{
	kmutex_lock(&p->lock);
	for (uint32_t k = 0; k < n; k++) {
		uint32_t i = (uint32_t)((page + k) % SWAP_CHUNK);
		struct block *b = block_of(p, page + k);

		KASSERT_ALWAYS(b != NULL && b->slot[i] == ((first + k) | WRITING));
		b->slot[i] = first + k;
		if (k >= good) {
			forget(b, i);
			b->base = 0;
			swap_slots_pass(first + k);
			block_trim(p, page + k, b);
		}
	}
	kmutex_unlock(&p->lock);
}

/* How many of n pages from `page' on are in slots in a row; *first: the first. */
static uint32_t
locate(struct swap_pager *p, uint64_t page, uint32_t n, uint32_t *first)
{
	uint32_t k = 0;

	kmutex_lock(&p->lock);
	*first = slot_of(p, page);
	if (*first != 0)
		for (k = 1; k < n && slot_of(p, page + k) == *first + k; k++)
			;
	kmutex_unlock(&p->lock);
	return k;
}

/*
 * Transfers
 */

static void
prepare(struct io *io, bool put, uint32_t slot, struct vm_page **m, uint32_t n)
{
	*io = (struct io){
		.fd = swap.fd,
		.op = put ? IO_WRITE : IO_READ,
		.offset = (uint64_t)slot << PAGE_SHIFT,
		.len = (size_t)n << PAGE_SHIFT,
		.m = m,
		.n = n,
	};
}

/* What came of it, for the pages after those that were moved.  The file does not end where it was written. */
static enum vm_pager_result
result_of(const struct io *io, uint32_t done)
{
	if (done > 0)
		return VM_PAGER_OK;
	return io->result == -EAGAIN || io->result == -ENOMEM ? VM_PAGER_AGAIN : VM_PAGER_ERROR;
}

/* A put has ended; how many pages have been written. */
static uint32_t
end_put(struct swap_pager *p, uint64_t page, const struct io *io, uint32_t slot)
{
	uint32_t good = (uint32_t)(io->moved >> PAGE_SHIFT);

	if (good < io->n)
		atomic_fetch_add_explicit(&swap.errors, 1, memory_order_relaxed);
	written(p, page, io->n, slot, good);
	return good;
}

static enum vm_pager_result
swap_put(struct vm_pager *pager, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	struct io io;
	uint32_t slot;

	n = reserve(of(pager), offset, n, &slot);
	if (n == 0)
		return VM_PAGER_AGAIN;		/* swap is full */
	prepare(&io, true, slot, m, n);
	(void)io_run(&io);
	*done = end_put(of(pager), offset, &io, slot);
	return result_of(&io, *done);
}

static enum vm_pager_result
swap_get(struct vm_pager *pager, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	struct io io;
	uint32_t slot;

	n = locate(of(pager), offset, n, &slot);
	if (n == 0)
		return VM_PAGER_FAIL;
	prepare(&io, false, slot, m, n);
	if (io_run(&io) < 0 && io.moved < PAGE_SIZE && n > 1) {
		/* One of them cannot be read.  It may not be the one that is needed. */
		prepare(&io, false, slot, m, 1);
		(void)io_run(&io);
	}
	*done = (uint32_t)(io.moved >> PAGE_SHIFT);
	return result_of(&io, *done);
}

static void
transfer_done(struct io *io)
{
	struct transfer t = *container_of(io, struct transfer, io);
	struct vm_pager_io *x = t.of;
	uint32_t done;

	slab_free(&swap.transfers, container_of(io, struct transfer, io));
	if (x->put)
		done = end_put(of(x->pager), x->offset, &t.io, t.slot);
	else
		done = (uint32_t)(t.io.moved >> PAGE_SHIFT);
	vm_pager_complete(x, result_of(&t.io, done), done);
}

static bool
swap_start(struct vm_pager *pager, struct vm_pager_io *x)
{
	struct transfer *t = slab_alloc(&swap.transfers);
	uint32_t n = 0;

	if (t == NULL)
		return false;
	t->of = x;
	if (x->put)
		n = reserve(of(pager), x->offset, x->n, &t->slot);
	else
		n = locate(of(pager), x->offset, x->n, &t->slot);
	if (n == 0) {
		slab_free(&swap.transfers, t);
		return false;
	}
	prepare(&t->io, x->put, t->slot, x->m, n);
	t->io.done = transfer_done;
	io_start(&t->io);
	return true;
}

/*
 * The rest never blocks
 */

static bool
swap_has_page(struct vm_pager *pager, uint64_t offset)
{
	struct swap_pager *p = of(pager);
	bool has;

	kmutex_lock(&p->lock);
	has = slot_of(p, offset) != 0;
	kmutex_unlock(&p->lock);
	return has;
}

static void
swap_dispose(struct vm_pager *pager, uint64_t offset, uint64_t n)
{
	struct swap_pager *p = of(pager);
	uint64_t end = MIN(offset + n, pager->npages);
	uint32_t at = (uint32_t)(offset / SWAP_CHUNK);
	struct block *b;

	kmutex_lock(&p->lock);
	for (; (b = radix_next(&p->blocks, &at)) != NULL; at++) {
		uint64_t page = (uint64_t)at * SWAP_CHUNK;
		uint32_t lo = page < offset ? (uint32_t)(offset - page) : 0, mask = 0;

		if (page >= end)
			break;
		for (uint32_t i = lo; i < SWAP_CHUNK && page + i < end; i++) {
			if (b->base != 0 && b->slot[i] == b->base + i) {
				/* At home, as most are: these are given back together. */
				mask |= 1u << i;
				b->slot[i] = 0;
				b->count--;
			} else {
				forget(b, i);
			}
		}
		if (mask != 0)
			swap_slots_give(b->base, mask);
		block_trim(p, page, b);
	}
	kmutex_unlock(&p->lock);
}

/*
 * The slot changes hands.  A block that has no base takes it from the slot: what comes after this
 * page has probably been written behind it.
 */
static bool
swap_move(struct vm_pager *pager, uint64_t offset, struct vm_pager *src_pager, uint64_t src_offset)
{
	struct swap_pager *p = of(pager), *src = of(src_pager);
	uint32_t i = (uint32_t)(offset % SWAP_CHUNK), j = (uint32_t)(src_offset % SWAP_CHUNK), slot;
	struct block *b, *from;

	KASSERT(p != src);
	kmutex_lock(p < src ? &p->lock : &src->lock);
	PROBE("swap: moving");			/* with one lock held */
	kmutex_lock(p < src ? &src->lock : &p->lock);
	b = block_make(p, offset);
	if (b != NULL) {
		slot = slot_of(src, src_offset);
		KASSERT(slot != 0 && b->slot[i] == 0);
		from = block_of(src, src_offset);
		from->slot[j] = 0;
		from->count--;
		block_trim(src, src_offset, from);
		b->slot[i] = slot;
		b->count++;
		if (b->base == 0 && slot % SWAP_CHUNK == i)
			b->base = slot - i;
	}
	kmutex_unlock(&src->lock);
	kmutex_unlock(&p->lock);
	return b != NULL;
}

static const struct vm_pager_ops swap_ops = {
	.name = "swap",
	.get = swap_get,
	.put = swap_put,
	.has_page = swap_has_page,
	.dispose = swap_dispose,
	.move = swap_move,
	.start = swap_start,
	.queryable = true,
};

static void
destroy(struct handle *h)
{
	struct vm_pager *pager = container_of(h, struct vm_pager, handle);

	swap_dispose(pager, 0, pager->npages);
	KASSERT(of(pager)->blocks.count == 0);
	slab_free(&swap.pagers, of(pager));
}

struct vm_pager *
swap_pager_make(uint64_t npages)
{
	struct swap_pager *p = slab_alloc(&swap.pagers);

	if (p == NULL)
		return NULL;
	p->pager.handle.refs = 1;
	p->pager.handle.type = HANDLE_PAGER;
	p->pager.handle.destroy = destroy;
	p->pager.ops = &swap_ops;
	p->pager.npages = npages;
	kmutex_init(&p->lock, RANK_SWAP);
	return &p->pager;
}

int
swap_init(const char *path, uint64_t size, bool direct)
{
	int error, fd;
	bool ours;

	fd = swap_file_open(path, &size, direct, &ours);
	if (fd < 0)
		return fd;
	swap.nslots = (uint32_t)MIN(size >> PAGE_SHIFT, (uint64_t)SWAP_SLOTS_MAX);
	error = swap_slots_init(fd, swap.nslots, ours);
	if (error != 0) {
		(void)sys_close(fd);
		swap_file_close();
		return error;
	}
	swap.fd = fd;
	swap.direct = direct;
	atomic_store(&swap.errors, 0);
	slab_init(&swap.pagers, "swap_pager", sizeof(struct swap_pager), 8);
	slab_init(&swap.blocks, "swap_block", sizeof(struct block), 8);
	slab_init(&swap.transfers, "swap_transfer", sizeof(struct transfer), 8);
	return 0;
}

void
swap_fini(void)
{
	if (swap.fd < 0)
		return;
	swap_slots_fini();
	slab_fini(&swap.pagers);
	slab_fini(&swap.blocks);
	slab_fini(&swap.transfers);
	(void)sys_close(swap.fd);
	swap_file_close();
	swap.fd = -1;
}

/* n slots in a row. */
static int
copy_slots(int to, char *buf, uint32_t slot, uint32_t n)
{
	while (n > 0) {
		uint32_t k = MIN(n, SWAP_CHUNK);
		uint64_t at = (uint64_t)slot << PAGE_SHIFT;
		int64_t got = sys_pread(swap.fd, buf, (size_t)k << PAGE_SHIFT, at), put;

		/* The file may end before a slot that was given but not written. */
		if (got <= 0)
			return (int)got;
		put = sys_pwrite(to, buf, round_page((size_t)got), at);
		if (put < 0)
			return (int)put;
		k = (uint32_t)(MIN(put, got) >> PAGE_SHIFT);
		if (k == 0)
			return -EIO;
		slot += k;
		n -= k;
	}
	return 0;
}

int
swap_copy_all(int *fd)
{
	uint32_t slot = 1, n;
	int error = 0;
	char *buf;

	*fd = -1;
	if (swap.fd < 0)
		return 0;
	buf = kmem_alloc((size_t)SWAP_CHUNK << PAGE_SHIFT);
	if (buf == NULL)
		return -ENOMEM;
	*fd = swap_file_another(swap.direct);
	error = MIN(*fd, 0);
	for (; error == 0 && (n = swap_slots_next(&slot)) != 0; slot += n)
		error = copy_slots(*fd, buf, slot, n);
	kmem_free(buf, (size_t)SWAP_CHUNK << PAGE_SHIFT);
	return error;
}

void
swap_forked_copy(int fd)
{
	if (swap.fd < 0)
		return;
	(void)sys_close(swap.fd);
	swap.fd = fd;
	swap_slots_forked(fd);
}

void
swap_forked(void)
{
	if (swap.fd >= 0)
		(void)sys_close(swap.fd);
	swap.fd = -1;
}

void
swap_counts(struct swap_counts *c)
{
	*c = (struct swap_counts){ 0 };
	if (swap.fd >= 0)
		*c = (struct swap_counts){ swap.nslots - 1, swap_slots_used(),
		    atomic_load_explicit(&swap.errors, memory_order_relaxed) };
}
