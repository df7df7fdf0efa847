/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * kill -9 while a file is written through a mapping: what was synced is in it, and nothing that was
 * never written.
 *
 * A child maps the file and lets threads write its pages, and one sync them, until it is
 * killed.  Memory that
 * it shares with its parent says how far it was:
 *
 *	begun[i]	the generation of page i that is being written, or was
 *	complete[i]	the last one that this child has written from end to end
 *	synced[i]	one that was complete before a vmf_sync() that has returned
 *
 * Each word of the file tells its page, its place, and its generation, so afterwards every word
 * must be one that was written, not later than what was begun nor earlier than what was synced.  The next
 * child goes on with the same file.
 *
 * The budget is a third of the file: pages are written out for want of frames too.  The program being what
 * ends, not the machine, "on disk" means what another program reads from the file.
 */

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kern/types.h"
#include "suite.h"
#include "support.h"

enum { PAGES = 192, BUDGET = 64, WRITERS = 2, WORDS = VMF_PAGE_SIZE / 4, KILLS = 30 };

/* A word is written at once on every machine: its low bits are the generation. */
#define GEN_MASK	((1u << 20) - 1)

static struct journal {
	_Atomic bool running;			/* the child has begun to write */
	_Atomic uint32_t begun[PAGES], complete[PAGES], synced[PAGES];
	_Atomic uint32_t syncs;
} *journal;

static uint32_t *memory;

static uint32_t
word_of(size_t page, size_t i, uint32_t gen)
{
	return gen == 0 ? 0 : ((uint32_t)mix(page * WORDS + i, gen) & ~GEN_MASK) | gen;
}

static void * __attribute__((__noreturn__))
write_pages(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;
	uint64_t seed = (uint64_t)getpid() * WRITERS + me;

	for (;;) {
		size_t page = rng_next(&seed) % (PAGES / WRITERS) * WRITERS + me;
		uint32_t gen = ++journal->begun[page];

		check(gen <= GEN_MASK);
		for (size_t i = 0; i < WORDS; i++)
			((volatile uint32_t *)memory)[page * WORDS + i] = word_of(page, i, gen);
		journal->complete[page] = gen;
	}
}

/* Sync some pages, and say so. */
static void
sync_pages(uint64_t *seed)
{
	size_t lo = rng_next(seed) % PAGES, n = 1 + rng_next(seed) % (PAGES - lo);
	uint32_t complete[PAGES];

	for (size_t i = lo; i < lo + n; i++)
		complete[i] = journal->complete[i];
	expect(vmf_sync(memory + lo * WORDS, n * PG, rng_next(seed) % 2 ? VMF_SYNC_ASYNC : 0), 0);
	for (size_t i = lo; i < lo + n; i++)
		journal->synced[i] = MAX(journal->synced[i], complete[i]);
	journal->syncs++;
}

static void __attribute__((__noreturn__))
child(int fd, uint32_t flags)
{
	struct vmf_config c = VMF_CONFIG_INIT;
	uint64_t seed = (uint64_t)getpid();
	void *p = NULL;

	c.memory = BUDGET * PG;
	c.flags = VMF_CONFIG_QUIET | flags;
	expect(vmf_init(&c), 0);
	expect(vmf_map_file(VMF_TASK_DEFAULT, &p, PAGES * PG, VMF_MAP_SHARED, fd, 0, VMF_PROT_DEFAULT), 0);
	memory = p;
	/* What the last child had written, and not synced, is gone. */
	for (size_t i = 0; i < PAGES; i++)
		journal->complete[i] = 0;
	for (size_t i = 0; i < WRITERS; i++) {
		pthread_t t;

		check(pthread_create(&t, NULL, write_pages, (void *)(uintptr_t)i) == 0);
	}
	journal->running = true;
	for (;;)
		sync_pages(&seed);
}

static void
verify(int fd)
{
	uint32_t words[WORDS];

	for (size_t page = 0; page < PAGES; page++) {
		uint32_t begun = journal->begun[page], synced = journal->synced[page];

		check(pread(fd, words, PG, (off_t)(page * PG)) == (ssize_t)PG);
		for (size_t i = 0; i < WORDS; i++) {
			uint32_t gen = words[i] & GEN_MASK;

			if (words[i] != word_of(page, i, gen))
				die("page %zu, word %zu: %x was never written", page, i, words[i]);
			if (gen > begun || gen < synced)
				die("page %zu, word %zu is of generation %u; synced %u, begun %u", page, i,
				    gen, synced, begun);
		}
	}
}

START_TEST(what_was_synced_survives_kill_9)
{
	uint32_t flags = _i == 0 ? 0 : VMF_CONFIG_IO_SYSCALLS;
	const char *more = getenv("KILLS");
	char name[] = "/var/tmp/test_kill9.XXXXXX";
	int kills = more != NULL ? atoi(more) : KILLS, fd = mkstemp(name);
	uint64_t seed = (uint64_t)getpid();

	check(fd >= 0 && unlink(name) == 0 && ftruncate(fd, PAGES * (off_t)PG) == 0);
	journal = mmap(NULL, sizeof(*journal), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(journal != MAP_FAILED);
	for (int n = 0; n < kills; n++) {
		uint64_t delay = rng_next(&seed) % 40000;
		int status;
		pid_t pid;

		journal->running = false;
		pid = fork();
		check(pid >= 0);
		if (pid == 0)
			child(fd, flags);
		/* The first one lives until it has synced something, however slow the disk is. */
		while (!journal->running || journal->syncs == 0) {
			check(waitpid(pid, &status, WNOHANG) == 0);
			usleep(200);
		}
		usleep((useconds_t)delay);
		check(kill(pid, SIGKILL) == 0);
		check(waitpid(pid, &status, 0) == pid);
		expect_killed(status, SIGKILL);
		verify(fd);
	}
	close(fd);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("kill9");
	TCase *tc = tcase_create("kill9");

	tcase_set_timeout(tc, 600);
	tcase_add_loop_test(tc, what_was_synced_survives_kill_9, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
