/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The model's operations on snapshots and pagers: see model.h.
 *
 * A snapshot of the model is a copy of the bytes.  A pager's store stands in
 * for a file: get() and put() work on it, in threads of the library's.  A
 * pager's mappings are all shared or all private, since the contract does not
 * say when a private mapping sees what is written through a shared one; so what
 * a private mapping shows is the store as it was made, and what shared ones show
 * are the object's cells, which must be in the store after each sync and when
 * the pager is gone.
 */

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model.h"

/* ---- snapshots ---- */

static struct snap *
snap_any(void)
{
	struct snap *sn = &snaps[below(NSNAPS)];

	return sn->h != 0 ? sn : NULL;
}

void
op_snapshot(void)
{
	struct vmf_range r[NRANGES];
	struct span sp[NRANGES];
	struct snap *sn = &snaps[below(NSNAPS)];
	size_t n = one_in(2) ? 1 : 1 + below(NRANGES);
	vmf_snapshot_t h = 0;
	errs_t errs = 0;

	if (sn->h != 0)
		return;
	for (size_t i = 0; i < n; i++) {
		if (!pick(&sp[i], VMF_PROT_READ, max_pages))
			return;
		errs |= errs_of(&sp[i], VMF_PROT_READ);
		r[i] = (struct vmf_range){ sp[i].addr, sp[i].n * PG };
		for (size_t k = 0; k < i; k++) {
			if (sp[i].t == sp[k].t && sp[i].i < sp[k].i + sp[k].n &&
			    sp[k].i < sp[i].i + sp[i].n)
				errs |= E(EINVAL);
		}
		say("snapshot %d: task %d [%zu +%zu]", (int)(sn - snaps), TASK_NO(&sp[i]), sp[i].i,
		    sp[i].n);
	}
	if (!result("snapshot", PATIENTLY(vmf_snapshot_create(r, n, &h)), errs))
		return;
	*sn = (struct snap){ .h = h, .n = n };
	for (size_t i = 0; i < n; i++) {
		struct snap_range *sr = &sn->r[i];

		*sr = (struct snap_range){ sp[i].addr, sp[i].n, malloc(sp[i].n * PG),
		    calloc(sp[i].n, sizeof(uint64_t)) };
		if (sr->b == NULL || sr->birth == NULL)
			fail("out of memory");
		for (size_t k = 0; k < sr->n; k++) {
			memcpy(sr->b + k * PG, sp[i].t->s[sp[i].i + k].cell->b, PG);
			sr->birth[k] = sp[i].t->s[sp[i].i + k].birth;
		}
		live += sr->n;
	}
}

void
model_snap_release(struct snap *sn)
{
	say("release snapshot %d", (int)(sn - snaps));
	expect(vmf_snapshot_release(sn->h), 0);
	expect(vmf_snapshot_release(sn->h), -EBADF);
	for (size_t i = 0; i < sn->n; i++) {
		live -= sn->r[i].n;
		free(sn->r[i].b);
		free(sn->r[i].birth);
	}
	memset(sn, 0, sizeof(*sn));
}

void
op_release(void)
{
	struct snap *sn = snap_any();

	if (sn != NULL)
		model_snap_release(sn);
}

void
op_view(void)
{
	struct snap *sn = snap_any();
	int prot = one_in(2) ? VMF_PROT_READ : VMF_PROT_DEFAULT;
	unsigned flags = 0;
	struct span sp;
	size_t r, off, n;
	void *addr;
	errs_t errs;

	if (sn == NULL)
		return;
	r = below(sn->n);
	off = below(sn->r[r].n);
	n = 1 + below(sn->r[r].n - off);
	errs = place(&sp, n, &flags, &addr);
	if (!result("snapshot_map", vmf_snapshot_map(sn->h, r, off * PG, n * PG, sp.t->h, &addr,
	    flags,
	    prot), errs))
		return;
	placed(&sp, addr);
	say("view of snapshot %d range %zu [%zu +%zu] at task %d [%zu] for %d", (int)(sn - snaps),
	    r,
	    off, n, TASK_NO(&sp), sp.i, prot);
	for EACH(s, &sp) {
		slot_map(s, cell_new(sn->r[r].b + off++ * PG), prot);
		s->view = prot == VMF_PROT_READ;
	}
}

/* Is the live memory of a range still that of the snapshot?  *same: not mapped anew. */
static errs_t
live_errs(const struct snap_range *sr, bool *same)
{
	errs_t errs = 0;

	for (size_t k = 0; k < sr->n; k++) {
		const struct slot *s = slot_at(sr->addr + k * PG);

		if (s == NULL || s->cell == NULL) {
			errs |= E(EFAULT);
			continue;
		}
		if (s->held)
			errs |= E(EBUSY);
		if (s->birth != sr->birth[k] || (s->object && !(s->max & VMF_PROT_WRITE)))
			*same = false;
	}
	return errs;
}

void
op_rollback(void)
{
	struct snap *sn = snap_any();
	bool same = true;
	errs_t errs = 0;

	if (sn == NULL)
		return;
	for (size_t i = 0; i < sn->n; i++)
		errs |= live_errs(&sn->r[i], &same);
	if (!same)
		return;
	say("rollback to snapshot %d", (int)(sn - snaps));
	if (!result("rollback", PATIENTLY(vmf_snapshot_rollback(sn->h)), errs))
		return;
	for (size_t i = 0; i < sn->n; i++) {
		for (size_t k = 0; k < sn->r[i].n; k++)
			memcpy(slot_at(sn->r[i].addr + k * PG)->cell->b, sn->r[i].b + k * PG, PG);
	}
}

/* Gather what diff reports, a few extents at a time, and count the pages it is wrong about. */
void
op_diff(void)
{
	struct snap *a = snap_any(), *b = one_in(2) ? snap_any() : NULL;
	struct vmf_extent ext[4];
	struct snap_range *sr;
	bool same = true, differ, reported;
	size_t r, cursor = 0, page = 0, n = 1 + below(nitems(ext));
	errs_t errs = 0;
	int got;

	if (a == NULL)
		return;
	r = below(a->n);
	sr = &a->r[r];
	if (b == NULL)
		errs = live_errs(sr, &same) & E(EFAULT);
	else if (r >= b->n || b->r[r].addr != sr->addr || b->r[r].n != sr->n)
		errs = E(EINVAL);
	else
		same = memcmp(b->r[r].birth, sr->birth, sr->n * sizeof(sr->birth[0])) == 0;
	if (!same)
		return;
	say("diff of snapshot %d range %zu and %d", (int)(a - snaps), r,
	    b != NULL ? (int)(b - snaps) : -1);
	do {
		got = vmf_snapshot_diff(a->h, b != NULL ? b->h : 0, r, &cursor, ext, n);
		if (got <= 0 && !result("diff", got, errs))
			return;
		if (got > (int)n)
			fail("diff stored %d extents where there was room for %zu", got, n);
		for (int i = 0; i <= got; i++) {
			size_t begin = i < got ? ext[i].offset / PG : got == 0 ? sr->n : page;
			size_t end = i < got ? begin + ext[i].size / PG : begin;

			if (begin < page || end > sr->n || (i < got && (ext[i].size == 0 ||
			    ext[i].offset % PG != 0 || ext[i].size % PG != 0)))
				fail("diff: extent [%zu +%zu] after page %zu of %zu", ext[i].offset,
				    ext[i].size, page, sr->n);
			for (; page < end || page < begin; page++) {
				const unsigned char *now = b != NULL ? b->r[r].b + page * PG :
				    slot_at(sr->addr + page * PG)->cell->b;

				differ = memcmp(now, sr->b + page * PG, PG) != 0;
				reported = page >= begin;
				if (differ != reported)
					fail("diff: page %zu is %sreported and does%s differ", page,
					    reported ? "" : "not ", differ ? "" : " not");
			}
		}
	} while (got > 0);
}

/* ---- pagers ---- */

static pthread_mutex_t store_lock = PTHREAD_MUTEX_INITIALIZER;	/* stores, and what exists */

static int64_t
store_get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	struct pager *p = cookie;
	size_t i = (size_t)(offset / PG), n = 0;

	if (i >= p->n)
		return -ENXIO;
	pthread_mutex_lock(&store_lock);
	while (n < len / PG && i + n < p->n && p->exists[i + n])
		n++;
	if (n > 1 && atomic_fetch_add(&p->calls, 1) % 3 == 0)
		n = 1 + n / 2;		/* a short answer */
	memcpy(buf, p->store + i * PG, n * PG);
	pthread_mutex_unlock(&store_lock);
	return n == 0 ? VMF_PAGER_HOLE : (int64_t)(n * PG);
}

static int64_t
store_put(void *cookie, uint64_t offset, const void *buf, size_t len)
{
	struct pager *p = cookie;
	size_t i = (size_t)(offset / PG), n = len / PG;

	check(p->shared && i + n <= p->n);	/* a private mapping never comes here */
	if (n > 1 && atomic_fetch_add(&p->calls, 1) % 4 == 0)
		n = 1 + n / 2;
	pthread_mutex_lock(&store_lock);
	memcpy(p->store + i * PG, buf, n * PG);
	memset(p->exists + i, 1, n);
	pthread_mutex_unlock(&store_lock);
	return (int64_t)(n * PG);
}

static int
store_has_page(void *cookie, uint64_t offset)
{
	struct pager *p = cookie;
	int has;

	pthread_mutex_lock(&store_lock);
	has = offset / PG < p->n && p->exists[offset / PG];
	pthread_mutex_unlock(&store_lock);
	return has;
}

static void
store_terminate(void *cookie)
{
	struct pager *p = cookie;

	check(!atomic_exchange(&p->gone, true));
}

static void
pager_create(struct pager *p)
{
	struct vmf_pager_ops ops = { sizeof(ops), store_get, store_put,
	    one_in(3) ? NULL : store_has_page, store_terminate };

	memset(p, 0, sizeof(*p));
	p->n = 1 + below(max_pages);
	p->shared = one_in(2);
	p->store = calloc(p->n, PG);
	p->exists = calloc(p->n, 1);
	p->cell = calloc(p->n, sizeof(struct cell *));
	if (p->store == NULL || p->exists == NULL || p->cell == NULL)
		fail("out of memory");
	for (size_t i = 0; i < p->n; i++) {
		p->exists[i] = !one_in(4);
		if (p->exists[i])
			fill(p->store + i * PG, PG, mix(mix(seed, op), i));
		p->cell[i] = cell_new(p->store + i * PG);
	}
	say("%s pager %d of %zu pages", p->shared ? "shared" : "private", (int)(p - pagers), p->n);
	expect(vmf_pager_create(&ops, p, p->n * PG - below(PG), 0, &p->h), 0);
}

/* What the object's mappings last showed must be in the store. */
static void
store_check(struct pager *p, const char *when)
{
	pthread_mutex_lock(&store_lock);
	for (size_t i = 0; i < p->n; i++) {
		if (memcmp(p->store + i * PG, p->cell[i]->b, PG) != 0)
			fail("pager %d page %zu is not in the store %s", (int)(p - pagers), i,
			    when);
	}
	pthread_mutex_unlock(&store_lock);
}

static void
pager_forget(struct pager *p)
{
	store_check(p, "when the pager is gone");
	for (size_t i = 0; i < p->n; i++)
		cell_put(p->cell[i]);
	free(p->cell);
	free(p->store);
	free(p->exists);
	memset(p, 0, sizeof(*p));
}

void
model_pager_release(struct pager *p)
{
	say("release pager %d", (int)(p - pagers));
	expect(vmf_pager_release(p->h), 0);
	expect(vmf_pager_release(p->h), -EBADF);
	p->h = 0;
}

void
pager_wait_gone(struct pager *p)
{
	uint64_t until = now_ms() + 10000;

	while (p->store != NULL && !p->gone) {
		if (now_ms() > until)
			fail("pager %d does not terminate", (int)(p - pagers));
		usleep(1000);
	}
	if (p->store != NULL)
		pager_forget(p);
}

void
op_pager(void)
{
	struct pager *p = &pagers[below(NPAGERS)];

	if (p->store == NULL) {
		pager_create(p);
	} else if (p->gone) {
		check(p->h == 0);
		pager_forget(p);
	} else if (p->h != 0 && one_in(3)) {
		model_pager_release(p);
	} else if (p->h != 0) {
		say("sync pager %d", (int)(p - pagers));
		expect(vmf_pager_sync(p->h, 0, p->n * PG), 0);
		store_check(p, "after a sync");
	}
}

void
op_map(void)
{
	struct pager *p = &pagers[below(NPAGERS)];
	int prot = one_in(3) ? VMF_PROT_READ : VMF_PROT_DEFAULT;
	unsigned flags = p->shared ? VMF_MAP_SHARED : VMF_MAP_PRIVATE;
	struct span sp;
	size_t off, n;
	void *addr;
	errs_t errs;

	if (p->h == 0)
		return;
	off = below(p->n);
	n = 1 + below(p->n - off);
	errs = place(&sp, n, &flags, &addr);
	if (!result("map", vmf_map(sp.t->h, &addr, n * PG, flags, p->h, off * PG, prot), errs))
		return;
	placed(&sp, addr);
	say("map pager %d [%zu +%zu] at task %d [%zu] for %d", (int)(p - pagers), off, n,
	    TASK_NO(&sp),
	    sp.i, prot);
	for EACH(s, &sp) {
		if (p->shared)
			p->cell[off]->refs++;
		slot_map(s, p->shared ? p->cell[off] : cell_new(p->store + off * PG), prot);
		if (p->shared)
			s->max = (uint8_t)prot;
		s->object = p->shared;
		off++;
	}
}
