/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The engine of system calls: a few threads that take transfers from the queue, one each.
 */

#include <pthread.h>

#include "io_impl.h"
#include "kern/alone.h"
#include "kern/event.h"

#define THREADS	4

static pthread_t thread[THREADS];
static uint32_t nthreads;
static char kicked;			/* its address: what the threads wait on */

static void *
work(void *arg)
{
	(void)arg;
	for (;;) {
		uint32_t ticket = event_prepare(&kicked);
		bool stop = io_stopping();
		struct io *x = io_queue_take();

		if (x != NULL) {
			(void)io_run(x);
			io_end(x);
		} else if (stop) {
			return NULL;
		} else {
			(void)event_wait(&kicked, ticket, EVENT_FOREVER);
		}
	}
}

static void
kick(void)
{
	event_wake(&kicked);
}

static void
fini(void)
{
	while (nthreads > 0)
		alone_join(thread[--nthreads]);
}

static int
init(void)
{
	int error = 0;

	while (nthreads < THREADS && error == 0) {
		error = alone_thread(&thread[nthreads], work);
		if (error == 0)
			nthreads++;
	}
	return nthreads > 0 ? 0 : error;	/* fewer will do */
}

static void
forked(void)
{
	nthreads = 0;
}

const struct io_engine_ops io_threads_engine = {
	.init = init,
	.fini = fini,
	.forked = forked,
	.kick = kick,
};
