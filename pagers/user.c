/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The user pager: pages from callbacks.
 *
 * A callback may do anything, touch managed memory and call the library included, so it cannot run
 * in the fault handler: a fault puts a REQUEST on a queue, and a worker thread calls back.
 *
 *	queued --> running --> done		the faulting thread takes the result
 *	   |          |
 *	   |          +--> abandoned		the deadline passed: the worker frees it when the callback
 *	   +--> (taken off by the deadline)	returns, and what it returned is thrown away
 *
 * A transfer that was started (struct vm_pager_io) is a request that nobody waits for: the worker
 * completes it.  Its deadline is kept by whichever worker is idle; there always is one, as a worker that takes
 * the last idle place starts another, until there are WORKERS_MAX, all of them in callbacks: then it
 * ends with the first of these.
 *
 * The buffer belongs to the request, never is it the frame itself: a callback that is late
 * writes to memory that nobody looks at, and none sees what a frame held before.
 *
 * Workers: two to begin with.  A worker that takes the last idle place starts another one before
 * it calls back, so that a callback that waits for another callback finds a thread.
 */

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/queue.h>

#include "kern/assert.h"
#include "kern/event.h"
#include "kern/lock.h"
#include "kern/slab.h"
#include "kern/sys.h"
#include "machdep.h"
#include "user.h"
#include "vm_object.h"
#include "vm_page.h"

#define DEADLINE_MS	10000
#define WORKERS_MIN	2
#define WORKERS_MAX	64

struct user_pager;

enum op { OP_GET, OP_PUT, OP_HAS_PAGE, OP_TERMINATE };
enum state { QUEUED, RUNNING, DONE, ABANDONED };

struct request {
	TAILQ_ENTRY(request) link;	/* while QUEUED */
	struct user_pager *pager;	/* referenced; OP_TERMINATE: part of it */
	enum op op;
	enum state state;
	uint64_t offset;		/* bytes */
	size_t len;
	char *buf;			/* len bytes, or null */
	int64_t result;
	/* Null, or the transfer that this is: */
	struct vm_pager_io *io;		/* null from its completion on */
	uint64_t end;			/* its deadline */
	TAILQ_ENTRY(request) flight;	/* in up.flying, until its completion */
};

struct user_pager {
	struct vm_pager pager;
	struct vmf_pager_ops ops;	/* constant */
	void *cookie;			/* constant */
	int64_t deadline;		/* constant; nanoseconds */
	struct request farewell;	/* OP_TERMINATE, which must not fail for want of memory */
};

static struct {
	struct kmutex lock;		/* RANK_USER_PAGER; guards all below, and requests' state */
	TAILQ_HEAD(, request) queue;
	TAILQ_HEAD(, request) flying;	/* transfers; QUEUED or RUNNING */
	struct slab requests, pagers;
	pthread_t worker[WORKERS_MAX];
	uint32_t nworkers, idle;
	bool stop;
} up;

/*
 * The thread sanitizer's, where a program has it.  It knows nothing of our locks, and would take one callback's
 * buffer for another's that is still in use.
 */
void AnnotateHappensBefore(const char *, int, const volatile void *) __attribute__((__weak__));
void AnnotateHappensAfter(const char *, int, const volatile void *) __attribute__((__weak__));

static __thread bool is_worker __attribute__((__tls_model__("initial-exec")));

static void *work(void *);

/* => lock held; called on ordinary threads only, for it allocates */
static int
add_worker(void)
{
	sys_sigset_t old;
	int error;

	sys_block(&old);
	error = pthread_create(&up.worker[up.nworkers], NULL, work, NULL);
	sys_setmask(&old);
	if (error == 0) {
		up.nworkers++;
		up.idle++;
	}
	return -error;
}

static void
request_free(struct request *r)
{
	if (r->buf != NULL)
		kmem_free(r->buf, r->len);
	handle_put(&r->pager->pager.handle);
	slab_free(&up.requests, r);
}

static int64_t
call(struct request *r)
{
	const struct vmf_pager_ops *ops = &r->pager->ops;

	switch (r->op) {
	case OP_GET:
		if (ops->has_page != NULL && !ops->has_page(r->pager->cookie, r->offset))
			return VMF_PAGER_HOLE;
		return ops->get(r->pager->cookie, r->offset, r->buf, r->len);
	case OP_PUT:
		return ops->put(r->pager->cookie, r->offset, r->buf, r->len);
	case OP_HAS_PAGE:
		return ops->has_page == NULL || ops->has_page(r->pager->cookie, r->offset);
	case OP_TERMINATE:
		if (ops->terminate != NULL)
			ops->terminate(r->pager->cookie);
		return 0;
	}
	return -EINVAL;
}

/* The pages of a request that is to be put, or was got, and its buffer. */
static void
copy_out(struct request *r, struct vm_page **m, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		void *w = window_map(WINDOW_SOURCE, m[i]->pfn, 1);

		memcpy(r->buf + ((size_t)i << PAGE_SHIFT), w, PAGE_SIZE);
		window_unmap(w);
	}
}

static void
copy_in(struct request *r, struct vm_page **m, uint32_t n)
{
	size_t got = (size_t)r->result;

	memset(r->buf + got, 0, round_page(got) - got);
	for (uint32_t i = 0; i < n; i++) {
		void *w = window_map(WINDOW_TARGET, m[i]->pfn, 1);

		memcpy(w, r->buf + ((size_t)i << PAGE_SHIFT), PAGE_SIZE);
		window_unmap(w);
	}
}

/* What a callback's answer means; after a get that was answered the frames m hold it. */
static enum vm_pager_result
result_of(struct request *r, struct vm_page **m, uint32_t *done)
{
	*done = 0;
	if (r->result == -ENXIO)
		return VM_PAGER_BAD;
	if (r->result < 0)
		return r->result == -EAGAIN ? VM_PAGER_AGAIN : VM_PAGER_ERROR;
	if ((uint64_t)r->result > r->len)
		return VM_PAGER_ERROR;
	if (r->op == OP_PUT) {
		*done = (uint32_t)((uint64_t)r->result >> PAGE_SHIFT);
		return *done != 0 ? VM_PAGER_OK : VM_PAGER_AGAIN;
	}
	if (r->result == VMF_PAGER_HOLE)
		return VM_PAGER_FAIL;
	*done = (uint32_t)(round_page((size_t)r->result) >> PAGE_SHIFT);
	copy_in(r, m, *done);
	return VM_PAGER_OK;
}

/* => lock held, dropped meanwhile */
static void
complete(struct vm_pager_io *io, struct request *r)
{
	enum vm_pager_result result = VM_PAGER_ERROR;
	uint32_t done = 0;

	kmutex_unlock(&up.lock);
	if (r->state == DONE)
		result = result_of(r, io->m, &done);
	if (r->state != ABANDONED)
		request_free(r);
	vm_pager_complete(io, result, done);
	kmutex_lock(&up.lock);
}

/*
 * End the transfers whose time is up.  => lock held, dropped meanwhile
 * => when the next one's will be, in nanoseconds from now
 */
static int64_t
expire(void)
{
	struct request *r, *due;
	uint64_t now, next;

	do {
		now = sys_clock();
		next = UINT64_MAX;
		due = NULL;
		TAILQ_FOREACH(r, &up.flying, flight) {
			if (r->end <= now)
				due = r;
			next = MIN(next, r->end);
		}
		if (due != NULL) {
			struct vm_pager_io *io = due->io;

			TAILQ_REMOVE(&up.flying, due, flight);
			due->io = NULL;
			if (due->state == QUEUED)
				TAILQ_REMOVE(&up.queue, due, link);
			else
				due->state = ABANDONED;
			complete(io, due);
		}
	} while (due != NULL);
	return next == UINT64_MAX ? EVENT_FOREVER : (int64_t)(next - now);
}

/* The callback has returned.  => lock held, dropped meanwhile */
static void
finish(struct request *r)
{
	struct vm_pager_io *io = r->io;

	if (r->state == ABANDONED) {
		kmutex_unlock(&up.lock);
		request_free(r);
		kmutex_lock(&up.lock);
		return;
	}
	r->state = DONE;
	if (io == NULL) {
		event_wake(r);
		return;
	}
	TAILQ_REMOVE(&up.flying, r, flight);
	complete(io, r);
}

static void *
work(void *arg)
{
	(void)arg;
	is_worker = true;
	kmutex_lock(&up.lock);
	for (;;) {
		struct request *r = TAILQ_FIRST(&up.queue);

		if (r == NULL) {
			uint32_t ticket = event_prepare(&up.queue);
			int64_t timeout = expire();

			if (up.stop && TAILQ_EMPTY(&up.queue))
				break;
			kmutex_unlock(&up.lock);
			(void)event_wait(&up.queue, ticket, timeout);
			kmutex_lock(&up.lock);
			continue;
		}
		TAILQ_REMOVE(&up.queue, r, link);
		r->state = RUNNING;
		up.idle--;
		/* Failing to start another one only costs concurrency. */
		if (up.idle == 0 && up.nworkers < WORKERS_MAX && !up.stop)
			(void)add_worker();
		kmutex_unlock(&up.lock);

		if (AnnotateHappensAfter != NULL)
			AnnotateHappensAfter(__FILE__, __LINE__, &up);
		r->result = call(r);
		if (AnnotateHappensBefore != NULL)
			AnnotateHappensBefore(__FILE__, __LINE__, &up);

		if (r->op == OP_TERMINATE) {
			slab_free(&up.pagers, r->pager);	/* and r with it */
			kmutex_lock(&up.lock);
		} else {
			kmutex_lock(&up.lock);
			finish(r);
		}
		up.idle++;
	}
	kmutex_unlock(&up.lock);
	return NULL;
}

/* A request with a buffer of len bytes.  Null: no memory. */
static struct request *
request_make(struct user_pager *p, enum op op, uint64_t offset, size_t len)
{
	struct request *r = slab_alloc(&up.requests);

	if (r == NULL)
		return NULL;
	*r = (struct request){ .pager = p, .op = op, .state = QUEUED, .offset = offset, .len = len };
	if (len != 0 && (r->buf = kmem_alloc(len)) == NULL) {
		slab_free(&up.requests, r);
		return NULL;
	}
	handle_ref(&p->pager.handle);
	return r;
}

/*
 * Let a worker do it, and wait until the deadline.
 * => true: r is DONE, and ours to free; false: it took too long, and r is gone
 */
static bool
request_run(struct request *r)
{
	uint64_t end = sys_clock() + (uint64_t)r->pager->deadline;
	bool done;

	kmutex_lock(&up.lock);
	TAILQ_INSERT_TAIL(&up.queue, r, link);
	event_wake(&up.queue);
	while (r->state != DONE) {
		uint64_t now = sys_clock();
		uint32_t ticket = event_prepare(r);

		if (now >= end)
			break;
		kmutex_unlock(&up.lock);
		(void)event_wait(r, ticket, (int64_t)(end - now));
		kmutex_lock(&up.lock);
	}
	done = r->state == DONE;
	if (r->state == QUEUED) {
		TAILQ_REMOVE(&up.queue, r, link);
		kmutex_unlock(&up.lock);
		request_free(r);
		return false;
	}
	if (!done)
		r->state = ABANDONED;
	kmutex_unlock(&up.lock);
	return done;
}

static enum vm_pager_result
user_run(struct vm_pager *pager, enum op op, uint64_t offset, struct vm_page **m, uint32_t n,
    uint32_t *done)
{
	struct user_pager *p = container_of(pager, struct user_pager, pager);
	struct request *r = request_make(p, op, offset << PAGE_SHIFT, (size_t)n << PAGE_SHIFT);
	enum vm_pager_result result;

	if (r == NULL)
		return VM_PAGER_AGAIN;
	if (op == OP_PUT)
		copy_out(r, m, n);
	if (!request_run(r))
		return VM_PAGER_ERROR;
	result = result_of(r, m, done);
	request_free(r);
	return result;
}

static enum vm_pager_result
user_get(struct vm_pager *pager, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	return user_run(pager, OP_GET, offset, m, n, done);
}

static enum vm_pager_result
user_put(struct vm_pager *pager, uint64_t offset, struct vm_page **m, uint32_t n, uint32_t *done)
{
	return user_run(pager, OP_PUT, offset, m, n, done);
}

static bool
user_start(struct vm_pager *pager, struct vm_pager_io *io)
{
	struct user_pager *p = container_of(pager, struct user_pager, pager);
	struct request *r = request_make(p, io->put ? OP_PUT : OP_GET, io->offset << PAGE_SHIFT,
	    (size_t)io->n << PAGE_SHIFT);

	if (r == NULL)
		return false;
	if (io->put)
		copy_out(r, io->m, io->n);
	r->io = io;
	r->end = sys_clock() + (uint64_t)p->deadline;
	kmutex_lock(&up.lock);
	TAILQ_INSERT_TAIL(&up.flying, r, flight);
	TAILQ_INSERT_TAIL(&up.queue, r, link);
	event_wake(&up.queue);
	kmutex_unlock(&up.lock);
	return true;
}

static bool
user_has_page(struct vm_pager *pager, uint64_t offset)
{
	struct user_pager *p = container_of(pager, struct user_pager, pager);
	struct request *r = request_make(p, OP_HAS_PAGE, offset << PAGE_SHIFT, 0);
	bool has;

	/* "Yes" is the safe answer: who relies on it will ask for the page and be told. */
	if (r == NULL || !request_run(r))
		return true;
	has = r->result != 0;
	request_free(r);
	return has;
}

/* The last reference is gone, maybe in a fault handler: a worker tells the user. */
static void
user_destroy(struct handle *h)
{
	struct user_pager *p = container_of(h, struct user_pager, pager.handle);
	struct request *r = &p->farewell;

	*r = (struct request){ .pager = p, .op = OP_TERMINATE, .state = QUEUED };
	kmutex_lock(&up.lock);
	TAILQ_INSERT_TAIL(&up.queue, r, link);
	event_wake(&up.queue);
	kmutex_unlock(&up.lock);
}

static const struct vm_pager_ops user_ops = {
	.name = "user",
	.get = user_get,
	.put = user_put,
	.has_page = user_has_page,
	.start = user_start,
};

static const struct vm_pager_ops user_readonly_ops = {
	.name = "user, read-only",
	.get = user_get,
	.has_page = user_has_page,
	.start = user_start,
};

int
user_pager_create(const struct vmf_pager_ops *ops, void *cookie, uint64_t size, unsigned deadline_ms,
    uint64_t *name)
{
	struct user_pager *p = slab_alloc(&up.pagers);
	int error = 0;

	if (p == NULL)
		return -ENOMEM;
	p->ops = *ops;
	p->cookie = cookie;
	p->deadline = (int64_t)(deadline_ms != 0 ? deadline_ms : DEADLINE_MS) * 1000000;
	p->pager.ops = ops->put != NULL ? &user_ops : &user_readonly_ops;
	p->pager.npages = (size + PAGE_MASK) >> PAGE_SHIFT;
	kmutex_lock(&up.lock);
	while (error == 0 && up.nworkers < WORKERS_MIN)
		error = add_worker();
	kmutex_unlock(&up.lock);
	if (error == 0) {
		*name = handle_create(HANDLE_PAGER, &p->pager.handle, user_destroy);
		if (*name == 0)
			error = -ENOMEM;
	}
	if (error != 0)
		slab_free(&up.pagers, p);
	return error;
}

bool
user_pager_is_thread(void)
{
	return is_worker;
}

void
user_pager_init(void)
{
	kmutex_init(&up.lock, RANK_USER_PAGER);
	TAILQ_INIT(&up.queue);
	TAILQ_INIT(&up.flying);
	slab_init(&up.requests, "request", sizeof(struct request), 8);
	slab_init(&up.pagers, "user_pager", sizeof(struct user_pager), 8);
	up.nworkers = up.idle = 0;
	up.stop = false;
}

void
user_pager_fini(void)
{
	struct handle *h;

	while ((h = handle_any(HANDLE_PAGER)) != NULL) {
		struct vm_pager *p = container_of(h, struct vm_pager, handle);

		(void)handle_close(HANDLE_PAGER, h->name);
		vm_object_uncache(p);
		handle_put(h);
	}
	kmutex_lock(&up.lock);
	up.stop = true;
	event_wake(&up.queue);
	/* Nobody adds workers any more; each ends when the queue is empty. */
	kmutex_unlock(&up.lock);
	for (uint32_t i = 0; i < up.nworkers; i++)
		(void)pthread_join(up.worker[i], NULL);
	slab_fini(&up.requests);
	slab_fini(&up.pagers);
}
