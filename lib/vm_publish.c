/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The page that `vmfault stat' reads.
 *
 * The page is written by the daemon alone, but for the bell.  A watcher could write to all of it: it is a
 * process of the same user, or root, and could as well write to the rest of our memory.  So what is
 * read back from the page is the bell, and nothing else.
 */

#include "vm_publish.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

#include "kern/probe.h"
#include "kern/sys.h"
#include "kern/types.h"

static struct {
	struct publish_page *_Atomic page;	/* null: nothing is published */
	int fd;				/* the rest is constant while page is not null */
	uint32_t n;
	void (*values)(uint64_t *);
	uint32_t answered;		/* the daemon's: bell that was answered last */
	_Atomic bool asleep;		/* the daemon waits for the bell, or is about to */
} pub;

static void
write_numbers(struct publish_page *page, uint32_t bell)
{
	uint64_t value[PUBLISH_NUMBERS];
	uint32_t seq = atomic_load_explicit(&page->seq, memory_order_relaxed) | 1;

	pub.values(value);
	atomic_store_explicit(&page->seq, seq, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	for (uint32_t i = 0; i < pub.n; i++)
		atomic_store_explicit(&page->number[i].value, value[i], memory_order_relaxed);
	atomic_store_explicit(&page->when, sys_clock(), memory_order_relaxed);
	atomic_store_explicit(&page->seq, seq + 1, memory_order_release);
	pub.answered = bell;
	atomic_store(&page->answered, bell);
	(void)sys_futex_wake_shared(&page->answered, INT_MAX);
}

int
vm_publish_start(const char *release, const char (*names)[24], uint32_t n, void (*values)(uint64_t *))
{
	struct publish_page *page;
	int fd, error;

	if (vm_publish_running())
		return -EALREADY;
	fd = sys_memfd(PUBLISH_NAME);
	if (fd < 0)
		return fd;
	error = sys_ftruncate(fd, PUBLISH_SIZE);
	if (error == 0) {
		page = sys_mmap(NULL, PUBLISH_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (sys_is_err(page))
			error = sys_err(page);
	}
	if (error != 0) {
		(void)sys_close(fd);
		return error;
	}
	page->version = PUBLISH_VERSION;
	page->pid = (uint32_t)sys_getpid();
	page->n = n;
	page->started = sys_clock();
	memcpy(page->release, release, MIN(strlen(release), sizeof(page->release) - 1));
	for (uint32_t i = 0; i < n; i++)
		memcpy(page->number[i].name, names[i], sizeof(names[i]));
	pub.fd = fd;
	pub.n = n;
	pub.values = values;
	pub.answered = 0;
	atomic_store(&pub.asleep, false);
	write_numbers(page, 0);
	page->magic = PUBLISH_MAGIC;
	atomic_store(&pub.page, page);
	return 0;
}

void
vm_publish_stop(void)
{
	struct publish_page *page = atomic_exchange(&pub.page, NULL);

	if (page == NULL)
		return;
	(void)sys_munmap(page, PUBLISH_SIZE);
	(void)sys_close(pub.fd);
}

void
vm_publish_forked(void)
{
	vm_publish_stop();
}

bool
vm_publish_running(void)
{
	return atomic_load_explicit(&pub.page, memory_order_acquire) != NULL;
}

void
vm_publish_answer(void)
{
	struct publish_page *page = atomic_load_explicit(&pub.page, memory_order_acquire);
	uint32_t bell;

	if (page == NULL)
		return;
	bell = atomic_load(&page->bell);
	if (bell != pub.answered)
		write_numbers(page, bell);
}

uint32_t
vm_publish_prepare(void)
{
	struct publish_page *page = atomic_load_explicit(&pub.page, memory_order_acquire);

	vm_publish_answer();
	PROBE("vm_publish: answered");
	/*
	 * Before the caller looks for work: who gives it some after that look rings.  But after the bell was looked
	 * at: who rang before that would take the word away, and the next one not ring.
	 */
	atomic_store(&pub.asleep, true);
	return page != NULL ? pub.answered : 0;
}

void
vm_publish_wait(uint32_t ticket, int64_t timeout_ns)
{
	struct publish_page *page = atomic_load_explicit(&pub.page, memory_order_acquire);

	if (page != NULL)
		(void)sys_futex_wait_shared(&page->bell, ticket, timeout_ns);
}

void
vm_publish_ring(void)
{
	struct publish_page *page = atomic_load_explicit(&pub.page, memory_order_acquire);

	if (page == NULL || !atomic_exchange(&pub.asleep, false))
		return;
	atomic_fetch_add(&page->bell, 1);
	(void)sys_futex_wake_shared(&page->bell, INT_MAX);
}
