/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The model's operations on memory: see model.h.
 *
 * Where an operation may fail half way by contract (vmf_read, vmf_write), the
 * range is cut so that the error is at its first byte, or does not happen.
 * Where two promises meet on which the contract is silent (the protection of
 * held pages, the order of a copy between two names of one memory), the
 * operation is left out.
 */

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model.h"

static int sysfd = -1;			/* a plain file, for real system calls */
static int pipefd[2];

void
memory_setup(void)
{
	sysfd = memfd_create("model", MFD_CLOEXEC);
	check(sysfd >= 0 && pipe(pipefd) == 0);
}

static bool
any_held(const struct span *sp)
{
	for EACH(s, sp) {
		if (s->held)
			return true;
	}
	return false;
}

void
op_allocate(void)
{
	struct span sp;
	unsigned flags = 0;
	void *addr;
	errs_t errs = place(&sp, 1 + below(max_pages), &flags, &addr);

	if (!result("allocate", vmf_allocate(sp.t->h, &addr, sp.n * PG, flags), errs))
		return;
	placed(&sp, addr);
	say("allocate task %d [%zu +%zu]", TASK_NO(&sp), sp.i, sp.n);
	for EACH(s, &sp)
		slot_map(s, cell_new(NULL), RW);
}

void
op_unmap(void)
{
	struct span sp;

	if (!pick(&sp, 0, max_pages))
		return;
	say("unmap task %d [%zu +%zu]", TASK_NO(&sp), sp.i, sp.n);
	if (result("unmap", vmf_unmap(sp.addr, sp.n * PG), any_held(&sp) ? E(EBUSY) : 0)) {
		for EACH(s, &sp)
			slot_unmap(s);
	}
}

void
op_protect(void)
{
	static const int prots[] = { RW, RW, RW, R, R, VMF_PROT_NONE, VMF_PROT_WRITE };
	int prot = prots[below(nitems(prots))];
	bool maximum = one_in(12);
	struct span sp;
	errs_t errs;
	int got;

	if (!pick(&sp, 0, max_pages / 2) || any_held(&sp))
		return;
	if (prot & VMF_PROT_WRITE)
		prot |= R;
	errs = errs_of(&sp, 0);
	for EACH(s, &sp) {
		if (s->view && (maximum || (prot & ~s->prot)))
			return;
		if (!maximum && s->cell != NULL && (prot & ~s->max))
			errs |= E(EACCES);
	}
	say("protect%s task %d [%zu +%zu] %d", maximum ? "_max" : "", TASK_NO(&sp), sp.i, sp.n,
	    prot);
	got = maximum ? vmf_protect_max(sp.addr, sp.n * PG, prot) :
	    vmf_protect(sp.addr, sp.n * PG, prot);
	if (!result("protect", got, errs))
		return;
	for EACH(s, &sp) {
		if (maximum)
			s->max &= (uint8_t)prot;
		s->prot = maximum ? s->prot & s->max : (uint8_t)prot;
	}
}

/* Write by pointer, within and across pages. */
void
op_touch_write(void)
{
	struct span sp;
	size_t at, len;
	char *p;

	if (!pick(&sp, RW, one_in(8) ? max_pages : 3))
		return;
	at = below(PG);
	len = 1 + below(sp.n * PG - at);
	p = sp.addr + at;
	say("write task %d [%zu +%zu] +%zu %zu bytes", TASK_NO(&sp), sp.i, sp.n, at, len);
	for (size_t n; len > 0; p += n, len -= n) {
		struct slot *s = slot_at(p);

		at = (uintptr_t)p % PG;
		n = len < PG - at ? len : PG - at;
		if (s->cell == NULL || !(s->prot & VMF_PROT_WRITE)) {
			expect_write(p, SIGSEGV, s->cell == NULL ? SEGV_MAPERR : SEGV_ACCERR);
			return;
		}
		fill(s->cell->b + at, n, mix(mix(seed, op), (uint64_t)(s - sp.t->s)));
		memcpy(p, s->cell->b + at, n);
	}
}

/* vmf_write() and vmf_read(): errors where a touch would have raised a signal. */
void
op_move(void)
{
	static unsigned char buf[4 * VMF_PAGE_SIZE];
	bool write = one_in(2);
	errs_t errs;
	struct span sp;
	size_t at, len, done = 0, n;
	int got;

	if (!pick(&sp, write ? RW : R, 4))
		return;
	/* an error is at the first byte, or there is none */
	for (size_t k = 0; k < sp.n; k++) {
		errs = errs_of(&(struct span){ sp.t, sp.i + k, 1, NULL }, write ? RW : R);
		if (errs != 0 && k > 0)
			sp.n = k;
	}
	at = below(PG);
	len = below(sp.n * PG - at + 1);
	errs = len == 0 ? 0 : errs_of(&(struct span){ sp.t, sp.i, 1, NULL }, write ? RW : R);
	if (len == 0 && sp.t->s[sp.i].cell == NULL)
		return;		/* nothing, at nowhere */
	say("vmf_%s task %d [%zu] +%zu %zu bytes", write ? "write" : "read", TASK_NO(&sp), sp.i, at,
	    len);
	fill(buf, len, mix(mix(seed, op), sp.i));
	got = write ? vmf_write(sp.addr + at, buf, len) : vmf_read(sp.addr + at, buf, len);
	if (!result(write ? "write" : "read", got, errs))
		return;
	for (struct slot *s = &sp.t->s[sp.i]; done < len; s++, done += n, at = 0) {
		n = len - done < PG - at ? len - done : PG - at;
		if (write)
			memcpy(s->cell->b + at, buf + done, n);
		else if (memcmp(s->cell->b + at, buf + done, n) != 0)
			fail("vmf_read returned other bytes than are there");
	}
}

void
op_copy(void)
{
	struct span src, dst;
	errs_t errs;

	if (!pick(&src, R, max_pages) || !pick(&dst, RW, max_pages))
		return;
	src.n = dst.n = src.n < dst.n ? src.n : dst.n;
	errs = errs_of(&src, R) | errs_of(&dst, RW);
	if (src.t == dst.t && src.i < dst.i + dst.n && dst.i < src.i + src.n)
		errs |= E(EINVAL);
	for EACH(d, &dst) {	/* one memory at both ends: the order is nobody's promise */
		for EACH(s, &src) {
			if (errs == 0 && s->cell == d->cell)
				return;
		}
	}
	say("copy task %d [%zu +%zu] to task %d [%zu]", TASK_NO(&src), src.i, src.n, TASK_NO(&dst),
	    dst.i);
	if (!result("copy", PATIENTLY(vmf_copy(dst.addr, src.addr, src.n * PG)), errs))
		return;
	for (size_t i = 0; i < src.n; i++)
		memcpy(dst.t->s[dst.i + i].cell->b, src.t->s[src.i + i].cell->b, PG);
}

void
op_inherit(void)
{
	int how = (int)below(3);
	struct span sp;

	if (!pick(&sp, 0, max_pages))
		return;
	say("inherit task %d [%zu +%zu] %d", TASK_NO(&sp), sp.i, sp.n, how);
	if (result("inherit", vmf_inherit(sp.addr, sp.n * PG, (enum vmf_inherit)how),
	    errs_of(&sp, 0))) {
		for EACH(s, &sp)
			s->inherit = (uint8_t)how;
	}
}

void
op_advise(void)
{
	struct span sp;

	if (pick(&sp, 0, max_pages))
		result("advise", vmf_advise(sp.addr, sp.n * PG, (enum vmf_advice)below(3)),
		    errs_of(&sp, 0));
}

void
op_task(void)
{
	struct task *t = &tasks[1 + below(NTASKS - 1)], *from = model_task_any();
	vmf_task_t h = 0;

	if (t->h != 0) {
		for (size_t i = 0; i < t->n; i++) {
			if (t->s[i].held)
				return;
		}
		say("destroy task %d", (int)(t - tasks));
		h = t->h;
		expect(vmf_task_destroy(h), 0);
		expect(vmf_task_destroy(h), -EBADF);
		model_task_forget(t);
	} else if (one_in(6)) {
		say("create task %d", (int)(t - tasks));
		expect(vmf_task_create((4 + below(16)) * max_pages * PG, &h), 0);
		model_task_add(h, t);
	} else {
		say("fork task %d from task %d", (int)(t - tasks), (int)(from - tasks));
		expect(PATIENTLY(vmf_task_fork(from->h, &h)), 0);
		model_task_add(h, t);
		if (t->n != from->n)
			fail("a forked task has %zu pages, its parent %zu", t->n, from->n);
		for (size_t i = 0; i < t->n; i++) {
			struct slot *s = &from->s[i], *d = &t->s[i];
			bool share = s->inherit == VMF_INHERIT_SHARE;

			if (s->cell == NULL || s->inherit == VMF_INHERIT_NONE)
				continue;
			*d = *s;
			d->birth = ++births;
			d->wired = d->held = 0;
			if (share)
				d->cell->refs++;
			else
				d->cell = cell_new(s->cell->b);
			d->object = share && s->object;
		}
	}
}

void
op_wire(void)
{
	bool unwire = one_in(2);
	struct span sp;
	errs_t errs;

	if (!pick(&sp, R, 6))
		return;
	errs = errs_of(&sp, 0);
	for EACH(s, &sp) {
		if (!unwire && s->wired == WIRES)
			return;
		if (s->cell != NULL && (unwire ? s->wired == 0 : s->prot == VMF_PROT_NONE))
			errs |= unwire ? E(EINVAL) : E(EACCES);
	}
	say("%swire task %d [%zu +%zu]", unwire ? "un" : "", TASK_NO(&sp), sp.i, sp.n);
	if (!result("wire", PATIENTLY((unwire ? vmf_unwire : vmf_wire)(sp.addr, sp.n * PG)), errs))
		return;
	for EACH(s, &sp)
		s->wired = (uint8_t)(unwire ? s->wired - 1 : s->wired + 1);
}

static void
hold_count(const struct hold *h, int by)
{
	for (char *p = h->addr - (uintptr_t)h->addr % PG; p < h->addr + h->size; p += PG)
		slot_at(p)->held = (uint8_t)(slot_at(p)->held + by);
}

void
hold_release(struct hold *h)
{
	say("release hold %d", (int)(h - holds));
	expect(vmf_fault_release(h->addr, h->size), 0);
	hold_count(h, -1);
	h->addr = NULL;
}

/* Hold a range for a system call, make the call now, release it at once or later. */
void
op_hold(void)
{
	struct hold *h = &holds[below(NHOLDS)];
	int prot = one_in(2) ? RW : R;
	struct span sp;
	size_t at, done = 0;
	unsigned char got[3 * VMF_PAGE_SIZE];

	if (h->addr != NULL) {
		hold_release(h);
		return;
	}
	if (!pick(&sp, prot, 3))
		return;
	at = below(PG);
	*h = (struct hold){ sp.addr + at, 1 + below(sp.n * PG - at) };
	sp.n = (at + h->size + PG - 1) / PG;
	say("hold %d: task %d [%zu +%zu] +%zu %zu bytes for %d", (int)(h - holds), TASK_NO(&sp),
	    sp.i,
	    sp.n, at, h->size, prot);
	if (!result("fault_in", PATIENTLY(vmf_fault_in(h->addr, h->size, prot)), errs_of(&sp, prot))) {
		if (!any_held(&sp))
			expect(vmf_fault_release(h->addr, h->size) < 0, 1);
		h->addr = NULL;
		return;
	}
	hold_count(h, 1);
	if (prot == RW) {
		fill(got, h->size, mix(mix(seed, op), sp.i));
		check(pwrite(sysfd, got, h->size, 0) == (ssize_t)h->size);
		if (pread(sysfd, h->addr, h->size, 0) != (ssize_t)h->size)
			fail("pread into held memory: %s", strerror(errno));
		for (struct slot *s = &sp.t->s[sp.i]; s < &sp.t->s[sp.i + sp.n]; s++, at = 0) {
			size_t n = h->size - done < PG - at ? h->size - done : PG - at;

			memcpy(s->cell->b + at, got + done, n);
			done += n;
		}
	} else {
		if (write(pipefd[1], h->addr, h->size) != (ssize_t)h->size)
			fail("write from held memory: %s", strerror(errno));
		check(read(pipefd[0], got, h->size) == (ssize_t)h->size);
		if (memcmp(got, h->addr, h->size) != 0)
			fail("the kernel saw other bytes in held memory");
	}
}

/* What the library says of its regions and pages is what the model knows. */
void
op_inspect(void)
{
	static unsigned char vec[1024];
	struct vmf_stats stats = { .size = sizeof(stats) };
	struct vmf_region r;
	struct span sp;
	size_t first, n;
	int got;

	if (!pick(&sp, 0, max_pages))
		return;
	for (first = sp.i; first < sp.t->n && sp.t->s[first].cell == NULL; first++)
		continue;
	got = vmf_region(sp.addr + below(PG), &r);
	if (!result("region", got, first == sp.t->n ? E(ENOENT) : 0))
		return;
	n = r.size / PG;
	if (r.task != sp.t->h || (first == sp.i ? (char *)r.addr > sp.addr :
	    (char *)r.addr != sp.t->base + first * PG))
		fail("region of task %d page %zu is not at page %zu", TASK_NO(&sp), sp.i, first);
	for (size_t i = (size_t)((char *)r.addr - sp.t->base) / PG; n > 0; i++, n--) {
		const struct slot *s = &sp.t->s[i];

		if (i >= sp.t->n || s->cell == NULL || s->prot != r.prot ||
		    (!s->view && s->max != r.max_prot) || s->inherit != (int)r.inheritance ||
		    (s->wired != 0 && r.wired == 0))
			fail("region: task %d page %zu: protection %d of %d, inheritance %d, wired %u"
			    "; not %d of %d, %d, %u", TASK_NO(&sp), i, r.prot, r.max_prot,
			    (int)r.inheritance, r.wired, s->prot, s->max, s->inherit, s->wired);
	}
	if (result("page_info", vmf_page_info(sp.addr, sp.n * PG, vec), errs_of(&sp, 0))) {
		for (size_t i = 0; i < sp.n; i++) {
			const struct slot *s = &sp.t->s[sp.i + i];

			if (s->wired != 0 && s->prot != 0 && !(vec[i] & VMF_PAGE_WIRED))
				fail("task %d page %zu is wired, not so %#x", TASK_NO(&sp),
				    sp.i + i, vec[i]);
			if (s->held != 0 && !(vec[i] & VMF_PAGE_MAPPED))
				fail("task %d page %zu is held, not so %#x", TASK_NO(&sp), sp.i + i,
				    vec[i]);
		}
	}
	expect(vmf_statistics(&stats), 0);
	if (stats.v_free_count > stats.v_page_count || stats.mappings > stats.mappings_max)
		fail("%" PRIu64 " of %" PRIu64 " frames free, %" PRIu64 " of %" PRIu64 " mappings",
		    stats.v_free_count, stats.v_page_count, stats.mappings, stats.mappings_max);
}
