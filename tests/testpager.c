/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The test pager: see testpager.h.
 *
 * A page's bytes are a malloc()ed block, and its slot an atomic pointer, so there is no lock
 * to be ordered: dispose and move run under objects' locks.  malloc() is safe here, as
 * a test touches no managed memory from within malloc().
 */

#include "testpager.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kern/probe.h"
#include "kern/sys.h"
#include "machdep.h"
#include "support.h"
#include "task.h"
#include "trap.h"
#include "vm_clean.h"
#include "vm_map.h"
#include "vm_meter.h"
#include "vm_page.h"
#include "vm_pageout.h"

static struct testpager nobody;
struct testpager *const testpager_all = &nobody;
struct testpager_switches testpager;
struct testpager_counts testpager_counts;

static _Atomic unsigned put_serial;

static struct testpager *
of(struct vm_pager *p)
{
	return container_of(p, struct testpager, pager);
}

/* One call less of those that are to fail. */
static bool
use_up(_Atomic int *n)
{
	int old = atomic_load(n);

	while (old > 0 && !atomic_compare_exchange_weak(n, &old, old - 1))
		;
	return old != 0;
}

static uint32_t
answer(uint32_t n)
{
	unsigned max = testpager.done_max;

	if (testpager.delay != 0)
		usleep(testpager.delay);
	return max != 0 ? MIN(n, max) : n;
}

/*
 * A page that a pager has stays busy; but others set flags beside that one, with a lock held which is not ours
 * to take: the thread sanitizer need not see us look.
 */
#if defined(__SANITIZE_THREAD__) || defined(__clang__)
__attribute__((__no_sanitize__("thread"), __noinline__))
#endif
static bool
is_busy(const struct vm_page *m)
{
	return m->flags & PG_BUSY;
}

static enum vm_pager_result
get(struct vm_pager *p, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	testpager_counts.gets++;
	check(offset + n <= p->npages);
	n = answer(n);
	if (use_up(&testpager.get_error))
		return VM_PAGER_ERROR;
	if (use_up(&testpager.get_again))
		return VM_PAGER_AGAIN;
	if (testpager.end != 0 && offset >= testpager.end)
		return VM_PAGER_BAD;
	for (; *done < n; ++*done) {
		const char *bytes = of(p)->page[offset + *done];
		void *w;

		check(is_busy(m[*done]));
		if (bytes == NULL)
			break;
		w = window_map(WINDOW_TARGET, m[*done]->pfn, 1);
		memcpy(w, bytes, PG);
		window_unmap(w);
	}
	return *done != 0 ? VM_PAGER_OK : VM_PAGER_FAIL;
}

static enum vm_pager_result
put(struct vm_pager *p, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	unsigned one_in = testpager.put_fails_one_in, serial = put_serial++;

	testpager_counts.puts++;
	testpager_counts.put_pages += n;
	check(offset + n <= p->npages);
	n = answer(n);
	if (use_up(&testpager.put_error))
		return VM_PAGER_ERROR;
	if (use_up(&testpager.put_again))
		return VM_PAGER_AGAIN;
	if (one_in != 0 && mix(serial, 0) % one_in == 0)
		return serial % 2 == 0 ? VM_PAGER_AGAIN : VM_PAGER_ERROR;
	for (; *done < n; ++*done) {
		void *w = window_map(WINDOW_SOURCE, m[*done]->pfn, 1);

		check(is_busy(m[*done]));
		testpager_store(of(p), offset + *done, w);
		window_unmap(w);
	}
	return VM_PAGER_OK;
}

static bool
has_page(struct vm_pager *p, uint64_t offset)
{
	return testpager_has(of(p), offset);
}

static bool
has_page_slowly(struct vm_pager *p, uint64_t offset)
{
	testpager_counts.asked++;
	(void)answer(1);
	return testpager_has(of(p), offset);
}

static void
dispose(struct vm_pager *p, uint64_t offset, uint64_t n)
{
	for (; n > 0 && offset < p->npages; n--, offset++) {
		testpager_counts.disposed++;
		testpager_store(of(p), offset, NULL);
	}
}

static bool
move(struct vm_pager *p, uint64_t offset, struct vm_pager *src, uint64_t src_offset)
{
	char *bytes;

	check(offset < p->npages && src_offset < src->npages);
	check(of(p)->page[offset] == NULL && of(src)->page[src_offset] != NULL);
	bytes = atomic_exchange(&of(src)->page[src_offset], NULL);
	of(p)->page[offset] = bytes;
	testpager_counts.moved++;
	return true;
}

/*
 * Transfers that go on by themselves: one thread, which takes them in random order.
 */

enum { QUEUE_MAX = 256 };
static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct vm_pager_io *io[QUEUE_MAX];
	unsigned n;
	bool running;
} disk = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, { NULL }, 0, false };

/* One that may end now; null: none. => lock held */
static struct vm_pager_io *
disk_take(uint64_t *rng)
{
	struct testpager *stuck = testpager.stuck;
	unsigned first = disk.n != 0 ? (unsigned)(rng_next(rng) % disk.n) : 0;

	for (unsigned k = 0; k < disk.n && stuck != testpager_all; k++) {
		unsigned i = (first + k) % disk.n;
		struct vm_pager_io *io = disk.io[i];

		if (of(io->pager) == stuck)
			continue;
		disk.io[i] = disk.io[--disk.n];
		return io;
	}
	return NULL;
}

static void *
disk_run(void *arg)
{
	uint64_t rng = 1;

	for (;;) {
		struct vm_pager_io *io;
		enum vm_pager_result r;
		uint32_t done = 0;

		pthread_mutex_lock(&disk.lock);
		while ((io = disk_take(&rng)) == NULL) {
			if (disk.n == 0) {
				pthread_cond_wait(&disk.changed, &disk.lock);
				continue;
			}
			pthread_mutex_unlock(&disk.lock);
			usleep(500);
			pthread_mutex_lock(&disk.lock);
		}
		pthread_mutex_unlock(&disk.lock);
		for (uint32_t i = 0; i < io->n; i++)
			check(is_busy(io->m[i]) && io->m[i]->object == io->object);
		r = (io->put ? put : get)(io->pager, io->offset, io->m, io->n, &done);
		testpager_counts.flying--;
		vm_pager_complete(io, r, done);
	}
	return arg;
}

static bool
begin(struct vm_pager *p, struct vm_pager_io *io)
{
	sys_sigset_t old;
	pthread_t t;

	if (!testpager.async)
		return false;
	pthread_mutex_lock(&disk.lock);
	if (disk.n == QUEUE_MAX) {
		pthread_mutex_unlock(&disk.lock);
		return false;
	}
	if (!disk.running) {
		sys_block(&old);
		check(pthread_create(&t, NULL, disk_run, NULL) == 0);
		sys_setmask(&old);
		pthread_detach(t);
		disk.running = true;
	}
	testpager_counts.started++;
	if (++testpager_counts.flying > testpager_counts.flying_max)
		testpager_counts.flying_max = testpager_counts.flying;
	disk.io[disk.n++] = io;
	pthread_cond_signal(&disk.changed);
	pthread_mutex_unlock(&disk.lock);
	return true;
}

#define OPS(n, has, mv, q) \
	{ .name = (n), .get = get, .put = put, .has_page = (has), .dispose = dispose, .move = (mv), \
	  .queryable = (q), .start = begin }

static const struct vm_pager_ops ops[2][2] = {
	{ OPS("test", has_page_slowly, NULL, false),
	  OPS("test, move", has_page_slowly, move, false) },
	{ OPS("test, queryable", has_page, NULL, true),
	  OPS("test, queryable, move", has_page, move, true) },
};

static void
destroy(struct handle *h)
{
	struct testpager *t = of(container_of(h, struct vm_pager, handle));

	for (uint64_t i = 0; i < t->pager.npages; i++)
		testpager_store(t, i, NULL);
	testpager_counts.pagers--;
	free(t);
}

struct testpager *
testpager_make(uint64_t npages)
{
	struct testpager *t = calloc(1, sizeof(*t) + (size_t)npages * sizeof(t->page[0]));

	check(t != NULL);
	t->pager.handle.refs = 1;
	t->pager.handle.type = HANDLE_PAGER;
	t->pager.handle.destroy = destroy;
	t->pager.ops = &ops[testpager.queryable][testpager.can_move];
	t->pager.npages = npages;
	testpager_counts.pagers++;
	return t;
}

static struct vm_pager *
make_default(uint64_t npages)
{
	return &testpager_make(npages)->pager;
}

vmf_pager_t
testpager_create(uint64_t npages, uint64_t key, struct testpager **pager)
{
	struct testpager *t = testpager_make(npages);
	char bytes[VMF_PAGE_SIZE];
	vmf_pager_t name;
	sys_sigset_t old;

	for (uint64_t i = 0; key != 0 && i < npages; i++) {
		fill(bytes, PG, mix(key, i));
		testpager_store(t, i, bytes);
	}
	trap_enter(&old);
	name = handle_create(HANDLE_PAGER, &t->pager.handle, destroy);
	trap_leave(&old);
	check(name != 0);
	*pager = t;
	return name;
}

void
testpager_store(struct testpager *t, uint64_t page, const void *bytes)
{
	char *copy = NULL, *old;

	if (bytes != NULL) {
		copy = malloc(PG);
		check(copy != NULL);
		memcpy(copy, bytes, PG);
		testpager_counts.pages++;
	}
	old = atomic_exchange(&t->page[page], copy);
	if (old != NULL)
		testpager_counts.pages--;
	free(old);
}

bool
testpager_has(struct testpager *t, uint64_t page)
{
	return t->page[page] != NULL;
}

void
testpager_reset(void)
{
	testpager = (struct testpager_switches){ .queryable = true, .can_move = true };
	testpager_counts.gets = testpager_counts.puts = testpager_counts.asked = 0;
	testpager_counts.disposed = testpager_counts.moved = 0;
	testpager_counts.started = testpager_counts.flying_max = testpager_counts.put_pages = 0;
	vm_default_pager_set(NULL);
	at_end();
}

void
testpager_default(void)
{
	vm_default_pager_set(make_default);
}

/*
 * A look inside
 */

struct vm_object *
object_at(const void *addr)
{
	struct vm_map_entry *e;
	struct vm_object *o;
	struct vm_map *map;
	sys_sigset_t old;

	trap_enter(&old);
	map = task_at((vm_offset_t)addr);
	check(map != NULL);
	krwlock_read(&map->lock);
	e = vm_map_entry_at(map, (vm_offset_t)addr);
	check(e != NULL);
	o = e->map.object;
	krwlock_read_unlock(&map->lock);
	task_put(map);
	trap_leave(&old);
	return o;
}

void
collapse(struct vm_object *o)
{
	sys_sigset_t old;

	trap_enter(&old);
	vm_object_lock(o);
	vm_object_collapse(o);
	vm_object_unlock(o);
	trap_leave(&old);
}

void
give_pager(struct vm_object *o, vm_pindex_t paging_offset)
{
	o->pager = &testpager_make((uint64_t)o->size + paging_offset)->pager;
	o->paging_offset = paging_offset;
}

void
evict(struct vm_object *o)
{
	struct vm_page *m;
	sys_sigset_t old;
	uint32_t lost;

	if (o->pager == NULL)
		return;
	trap_enter(&old);
	check(vm_object_clean(o, 0, o->size, &lost) == KERN_SUCCESS);
	vm_object_lock(o);
	for (vm_pindex_t i = 0; (m = radix_next(&o->pages, &i)) != NULL; i++) {
		check(!(m->flags & PG_MODIFIED));
		vm_object_page_protect(m, VM_PROT_NONE);
		vm_page_free(m);
	}
	vm_object_unlock(o);
	trap_leave(&old);
}

void
daemon_rest(void)
{
	while (!vm_pageout_rests() || vm_pager_transfers() != 0)
		usleep(200);
}

uint64_t
frames_used(void)
{
	struct physmem_counts c;
	sys_sigset_t old;

	trap_enter(&old);
	physmem_counts(&c);
	trap_leave(&old);
	return c.used;
}

uint64_t
objects_alive(void)
{
	struct vmf_stats s = { .size = sizeof(s) };

	expect(vmf_statistics(&s), 0);
	return s.objects;
}

uint32_t
depth_at(const void *addr)
{
	struct vmf_region r;

	expect(vmf_region(addr, &r), 0);
	return r.chain;
}

/*
 * Schedules
 */

static const char *_Atomic at_place;
static _Atomic unsigned at_count, at_when;
static void (*_Atomic at_fn)(void);

static void
hook(const char *place)
{
	const char *want = at_place;

	if (want == NULL || strcmp(place, want) != 0)
		return;
	/* What fn does may pass the place too: that counts, but never is the nth again. */
	if (++at_count == at_when)
		at_fn();
}

void
at(const char *place, unsigned n, void (*fn)(void))
{
	at_end();
	at_fn = fn;
	at_when = n;
	at_count = 0;
	at_place = place;
	probe_hook = hook;
}

unsigned
at_passed(void)
{
	return at_count;
}

void
at_end(void)
{
	probe_hook = NULL;
	at_place = NULL;
}
