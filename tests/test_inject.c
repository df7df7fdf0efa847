/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Every system call of the library fails once, each in turn.
 *
 * One scenario walks through the whole API.  It runs again and again, each time in a
 * process of its own, in which the calls number n .. n + count - 1 of one kind fail
 * with one errno; n grows until the scenario makes fewer calls than that.  Whatever the
 * scenario was doing must have succeeded, or have said so and changed nothing: the bytes
 * of all memory and snapshots are compared with a model, the library audits
 * itself, and the step is tried again, for the failure is over by then.  At the end
 * nothing has leaked.
 *
 * Failures are finite because taking rights away must succeed: the library tries
 * that for seconds, and then rather dies.
 *
 * The watchdog is the parent: a child that hangs in the library has its signals
 * blocked, so an alarm of its own would not wake it.
 */

#include <check.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kern/slab.h"
#include "kern/sys.h"
#include "physmem.h"
#include "suite.h"
#include "support.h"

enum { MAX_PAGES = 8, MAX_RANGES = 12, HANG_MS = 30000 };

/*
 * The failure
 */

static struct {
	enum sys_call kind;
	int result;			/* as sys_inject's */
	unsigned first, count;
	_Atomic bool armed;
	_Atomic unsigned calls, fired;	/* of the kind, while armed */
} plan;

static int
inject(enum sys_call kind)
{
	unsigned n;

	if (kind != plan.kind || !plan.armed)
		return 0;
	n = ++plan.calls;
	if (n < plan.first || n - plan.first >= plan.count)
		return 0;
	plan.fired++;
	return plan.result;
}

/*
 * The model: what each range and snapshot holds
 */

struct range {
	char *p;		/* null: not mapped */
	uint64_t key[MAX_PAGES];	/* of fill(); 0: zeros */
	unsigned pages;
};

static struct range ranges[MAX_RANGES];
static const char *step;

static void
say_step(void)
{
	fprintf(stderr, "at \"%s\": kind %d, result %d, calls %u + %u\n", step, plan.kind, plan.result,
	    plan.first, plan.count);
}

/* The last byte is always a 1, so that a touch there, which writes a 1, changes nothing. */
static void
fill_page(char *p, uint64_t key)
{
	fill(p, PG, key);
	p[PG - 1] = 1;
}

static void
check_page(const char *got, uint64_t key, const char *what, unsigned i)
{
	char want[VMF_PAGE_SIZE] = { 0 };

	if (key != 0)
		fill_page(want, key);
	if (memcmp(got, want, PG) != 0)
		die("%s: page %u is not what it was", what, i);
}

/* Compare all that is not zeros; those are left alone, so that there are faults to come. */
static void
verify(void)
{
	char buf[VMF_PAGE_SIZE];

	for (unsigned r = 0; r < MAX_RANGES; r++)
		for (unsigned i = 0; ranges[r].p != NULL && i < ranges[r].pages; i++) {
			if (ranges[r].key[i] == 0)
				continue;
			expect(vmf_read(ranges[r].p + i * PG, buf, PG), 0);
			check_page(buf, ranges[r].key[i], "memory", i);
		}
}

static void
verify_snapshot(vmf_snapshot_t s, size_t range, const uint64_t *key, unsigned pages)
{
	char buf[VMF_PAGE_SIZE];

	for (unsigned i = 0; i < pages; i++) {
		expect(vmf_snapshot_read(s, range, i * PG, buf, PG), 0);
		check_page(buf, key[i], "snapshot", i);
	}
}

/* Do it until it succeeds; each failure must be one of these, or -ENOMEM, and change nothing. */
#define DO(call, ...) do {								\
	static const int allowed_[] = { -ENOMEM, ##__VA_ARGS__ };			\
	unsigned before_ = plan.fired;							\
	int error_;									\
											\
	step = #call;									\
	for (;;) {									\
		unsigned fired_ = plan.fired;						\
											\
		plan.armed = true;							\
		error_ = (call);							\
		plan.armed = false;							\
		if (plan.fired != before_) {						\
			verify();							\
			audit();							\
		}									\
		if (error_ >= 0)							\
			break;								\
		if (plan.fired == fired_)						\
			die("it failed by itself: %s", strerror(-error_));		\
		if (plan.result == -EINTR && plan.kind >= SYS_CALL_FTRUNCATE)		\
			die("an EINTR came through");					\
		for (unsigned a_ = 0; allowed_[a_] != error_; a_++)			\
			if (a_ == nitems(allowed_) - 1)					\
				die("undocumented: %s", strerror(-error_));		\
	}										\
} while (0)

/* A touch succeeds, or raises SIGBUS, and the page is what it was. */
static int
touched(struct touch t)
{
	if (t.signo == 0)
		return 0;
	if (t.signo != SIGBUS)
		die("signal %d, si_code %d", t.signo, t.code);
	return -ENOMEM;
}

static void
poke(struct range *r, unsigned i, uint64_t key)
{
	DO(touched(touch_write(r->p + i * PG + PG - 1)));
	fill_page(r->p + i * PG, key);
	r->key[i] = key;
}

static void
peek(const struct range *r, unsigned i)
{
	DO(touched(touch_read(r->p + i * PG)));
	check_page(r->p + i * PG, r->key[i], "seen", i);
}

static struct range *
range_of(unsigned n, unsigned pages)
{
	ranges[n] = (struct range){ .pages = pages };
	return &ranges[n];
}

/*
 * The pager of the scenario: keys again
 */

static char store[MAX_PAGES * VMF_PAGE_SIZE];
static _Atomic unsigned terminated;

static int64_t
store_get(void *cookie, uint64_t offset, void *buf, size_t len)
{
	memcpy(buf, store + offset, len);
	return (int64_t)len;
}

static int64_t
store_put(void *cookie, uint64_t offset, const void *buf, size_t len)
{
	memcpy(store + offset, buf, len);
	return (int64_t)len;
}

static void
store_end(void *cookie)
{
	terminated++;
}

/*
 * The scenario
 */

static void
part_snapshots(struct range *a, struct range *b)
{
	struct vmf_range both[2] = { { a->p, 8 * PG }, { b->p, 4 * PG } };
	struct range *ro = range_of(2, 8), *rw = range_of(3, 8);
	struct vmf_extent extent[4];
	vmf_snapshot_t s1, s2;
	uint64_t old[MAX_PAGES];
	size_t cursor = 0;

	DO(vmf_snapshot_create(both, 1, &s1));
	memcpy(old, a->key, sizeof(old));
	poke(a, 1, 21);
	poke(a, 2, 22);
	poke(a, 7, 23);
	verify_snapshot(s1, 0, old, 8);

	DO(vmf_snapshot_map(s1, 0, 0, 8 * PG, VMF_TASK_DEFAULT, (void **)&ro->p, 0, VMF_PROT_READ));
	memcpy(ro->key, old, sizeof(old));
	for (unsigned i = 0; i < 8; i++)
		peek(ro, i);
	DO(vmf_snapshot_map(s1, 0, 0, 8 * PG, VMF_TASK_DEFAULT, (void **)&rw->p, 0, VMF_PROT_DEFAULT));
	memcpy(rw->key, old, sizeof(old));
	poke(rw, 1, 31);
	poke(rw, 5, 32);
	poke(a, 5, 24);

	DO(vmf_snapshot_create(both, 2, &s2));
	poke(b, 1, 41);
	poke(a, 0, 25);
	verify_snapshot(s1, 0, old, 8);
	DO(vmf_snapshot_diff(s1, s2, 0, &cursor, extent, 4) == 3 ? 0 : -ENOMEM);
	if (extent[0].offset != 1 * PG || extent[0].size != 2 * PG || extent[1].offset != 5 * PG ||
	    extent[2].offset != 7 * PG)
		die("not the pages that differ");

	/* Rolled back, the model is the old one: so it is what failed attempts must not show. */
	step = "rollback";
	for (;;) {
		int error;

		plan.armed = true;
		error = vmf_snapshot_rollback(s1);
		plan.armed = false;
		if (error == 0)
			break;
		if (error != -ENOMEM)
			die("rollback: %s", strerror(-error));
		verify();
		audit();
	}
	memcpy(a->key, old, sizeof(old));
	verify();
	for (unsigned i = 0; i < 8; i++)
		peek(a, i);
	verify_snapshot(s1, 0, old, 8);
	DO(vmf_snapshot_release(s1));
	poke(a, 3, 26);
	DO(vmf_unmap(ro->p, 8 * PG) ?: (ro->p = NULL, 0));
	DO(vmf_snapshot_release(s2));
	poke(rw, 3, 33);
	DO(vmf_unmap(rw->p, 8 * PG) ?: (rw->p = NULL, 0));
}

static void
part_tasks(struct range *a, struct range *b)
{
	struct range *child_a = range_of(2, 8), *child_b = range_of(3, 4);
	vmf_task_t child;
	void *base, *child_base;

	expect(vmf_task_range(VMF_TASK_DEFAULT, &base, NULL), 0);
	DO(vmf_inherit(b->p + PG, 2 * PG, VMF_INHERIT_SHARE));
	DO(vmf_task_fork(VMF_TASK_DEFAULT, &child));
	expect(vmf_task_range(child, &child_base, NULL), 0);
	memcpy(child_a->key, a->key, sizeof(a->key));
	child_a->p = (char *)child_base + (a->p - (char *)base);
	memcpy(child_b->key, b->key, sizeof(b->key));
	child_b->p = (char *)child_base + (b->p - (char *)base);
	verify();
	poke(child_a, 0, 51);
	poke(a, 1, 52);
	child_b->key[1] = 0;		/* until both say the same */
	poke(b, 1, 53);
	child_b->key[1] = 53;
	peek(child_b, 1);
	poke(child_b, 0, 54);
	/* Over what is shared, page by page: a failure in the middle is allowed, so it is not compared. */
	for (unsigned i = 0; i < 4; i++)
		b->key[i] = child_b->key[i] = 0;
	DO(vmf_copy(b->p, a->p, 4 * PG));
	memcpy(b->key, a->key, 4 * sizeof(a->key[0]));
	child_b->key[1] = b->key[1];
	child_b->key[2] = b->key[2];
	verify();
	poke(b, 0, 55);
	poke(a, 2, 56);
	DO(vmf_task_destroy(child) ?: (child_a->p = child_b->p = NULL, 0));
	poke(a, 0, 57);
}

static void
part_wiring(struct range *a)
{
	vmf_snapshot_t s;
	struct vmf_range r = { a->p, 8 * PG };
	uint64_t old[MAX_PAGES];

	DO(vmf_wire(a->p + PG, 4 * PG), -EAGAIN);
	poke(a, 1, 61);
	DO(vmf_snapshot_create(&r, 1, &s));
	memcpy(old, a->key, sizeof(old));
	poke(a, 2, 62);
	poke(a, 7, 63);
	verify_snapshot(s, 0, old, 8);
	DO(vmf_unwire(a->p + PG, 4 * PG));
	DO(vmf_fault_in(a->p + 5 * PG + 7, PG, VMF_PROT_WRITE));
	DO(vmf_protect(a->p, 2 * PG, VMF_PROT_READ));
	peek(a, 0);
	DO(vmf_protect(a->p, 8 * PG, VMF_PROT_DEFAULT));
	DO(vmf_fault_release(a->p + 5 * PG + 7, PG));
	DO(vmf_advise(a->p + 2 * PG, PG, VMF_ADVICE_RANDOM));
	DO(vmf_snapshot_release(s));
}

static void
part_pager(void)
{
	struct vmf_pager_ops ops = { .size = sizeof(ops), .get = store_get, .put = store_put,
	    .terminate = store_end };
	struct range *shared = range_of(4, 8), *private = range_of(5, 8);
	vmf_pager_t pager;
	char buf[VMF_PAGE_SIZE];

	for (unsigned i = 0; i < MAX_PAGES; i++)
		fill_page(store + i * PG, 70 + i);
	DO(vmf_pager_create(&ops, NULL, MAX_PAGES * PG, 0, &pager));
	DO(vmf_map(VMF_TASK_DEFAULT, (void **)&shared->p, 8 * PG, VMF_MAP_SHARED, pager, 0,
	    VMF_PROT_DEFAULT));
	DO(vmf_map(VMF_TASK_DEFAULT, (void **)&private->p, 8 * PG, VMF_MAP_PRIVATE, pager, 0,
	    VMF_PROT_READ));
	expect(vmf_advise(shared->p, 8 * PG, VMF_ADVICE_RANDOM), 0);
	DO(vmf_protect(private->p, 8 * PG, VMF_PROT_DEFAULT));
	DO(touched(touch_read(shared->p)));
	shared->key[0] = 70;
	peek(shared, 0);
	DO(touched(touch_read(private->p + PG)));
	private->key[1] = 71;
	poke(private, 1, 81);
	DO(touched(touch_write(shared->p + 3 * PG)));
	fill_page(shared->p + 3 * PG, 83);
	shared->key[3] = 83;
	DO(vmf_pager_sync(pager, 0, 8 * PG), -EIO);
	check_page(store + 3 * PG, 83, "store", 3);
	DO(vmf_read(private->p + 5 * PG, buf, PG), -EIO);
	check_page(buf, 75, "read", 5);
	DO(vmf_write(shared->p + 6 * PG, buf, PG), -EIO);
	shared->key[6] = 75;
	DO(vmf_pager_release(pager));
	DO(vmf_unmap(private->p, 8 * PG) ?: (private->p = NULL, 0));
	DO(vmf_unmap(shared->p, 8 * PG) ?: (shared->p = NULL, 0));
}

static int
begin(void)
{
	struct vmf_config config = VMF_CONFIG_INIT;

	config.memory = 240 * PG;
	config.mappings = 256;
	config.flags = VMF_CONFIG_QUIET;
	return vmf_init(&config);
}

static void
scenario(void)
{
	struct range *a = range_of(0, 8), *b = range_of(1, 4);
	char *big = NULL;
	int error;

	step = "vmf_init";
	for (;;) {
		plan.armed = true;
		error = begin();
		plan.armed = false;
		if (error == 0)
			break;
		if (plan.fired == 0 || (error != -ENOMEM && error != plan.result))
			die("vmf_init: %s", strerror(-error));
		expect(vmf_fini(), -ENODEV);
	}
	touch_install();
	DO(vmf_allocate(VMF_TASK_DEFAULT, (void **)&a->p, 8 * PG, 0));
	DO(vmf_allocate(VMF_TASK_DEFAULT, (void **)&b->p, 4 * PG, 0));
	for (unsigned i = 0; i < 6; i++)
		poke(a, i, 10 + i);
	peek(a, 6);
	poke(b, 2, 18);
	part_snapshots(a, b);
	part_tasks(a, b);
	part_wiring(a);
	part_pager();

	/* Most of memory comes and goes, twice: frames are given back, or used again. */
	for (unsigned round = 0; round < 2; round++) {
		DO(vmf_allocate(VMF_TASK_DEFAULT, (void **)&big, 160 * PG, 0));
		for (unsigned i = 0; i < 160; i += 16)
			DO(touched(touch_write(big + i * PG)));
		big[0] = 0;
		for (unsigned i = 0; i < 160; i += 16)
			check_zero(big + i * PG + 1, 16 * PG - 1);
		fill(big, 160 * PG, 88);
		DO(vmf_unmap(big, 160 * PG));
		DO((physmem_flush(UINT32_MAX), 0));
	}
	DO(vmf_thread_attach());
	DO(vmf_thread_detach());
	DO(vmf_unmap(a->p + 3 * PG, PG) ?: (a->key[3] = 0, a->pages = 3, 0));
	poke(b, 3, 91);

	step = "vmf_fini";
	audit();
	plan.armed = true;
	error = vmf_fini();
	plan.armed = false;
	expect(error, 0);
}

/* One child: the plan is set. */
static void
run(int report)
{
	unsigned fds, maps, calls;

	on_die = say_step;
	expect(begin(), 0);		/* libc takes what it takes, before it is counted */
	expect(vmf_thread_attach(), 0);
	expect(vmf_thread_detach(), 0);
	expect(vmf_fini(), 0);
	fds = count_fds();
	maps = count_maps();
	sys_inject = inject;
	scenario();
	calls = plan.calls;
	sys_inject = NULL;

	check(terminated == 1);
	expect(count_fds(), fds);
	/* What the kernel would not take back stays, and is still counted. */
	if (plan.kind != SYS_CALL_MUNMAP || plan.fired == 0) {
		expect(kmem_bytes(), 0);
		/* Worker threads leave a stack in libc's cache, and malloc an arena; sanitizers more. */
		if (count_maps() > maps + 20)
			die("%u kernel mappings, then %u", maps, count_maps());
	}
	expect(begin(), 0);		/* and again, as if nothing had been */
	expect(vmf_fini(), 0);
	check(write(report, &calls, sizeof(calls)) == (ssize_t)sizeof(calls));
}

/* How many calls of the kind the scenario made. */
static unsigned
attempt(enum sys_call kind, int result, unsigned first, unsigned count)
{
	struct pollfd pfd = { .events = POLLIN };
	unsigned calls;
	int fds[2], status;
	pid_t pid;

	plan.kind = kind;
	plan.result = result;
	plan.first = first;
	plan.count = count;
	ck_assert(pipe(fds) == 0);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		close(fds[0]);
		run(fds[1]);
		_exit(0);
	}
	close(fds[1]);
	pfd.fd = fds[0];
	if (poll(&pfd, 1, HANG_MS) == 0) {
		kill(pid, SIGKILL);
		ck_abort_msg("hangs: kind %d, result %d, call %u + %u", kind, result, first, count);
	}
	if (read(fds[0], &calls, sizeof(calls)) != (ssize_t)sizeof(calls))
		calls = 0;
	close(fds[0]);
	ck_assert(waitpid(pid, &status, 0) == pid);
	if (status != 0)
		ck_abort_msg("wait status %#x: kind %d, result %d, call %u + %u", (unsigned)status, kind,
		    result, first, count);
	return calls;
}

/*
 * What fails, how, for how many calls in a row, and at every which call.  The strides are for time:
 * the first row of each kind leaves nothing out.
 */
static const struct row {
	enum sys_call kind;
	int result;
	unsigned count, stride;
} rows[] = {
	{ SYS_CALL_MMAP, -ENOMEM, 1, 1 },
	{ SYS_CALL_MMAP, -EAGAIN, 4, 3 },
	{ SYS_CALL_MMAP, -ENOMEM, 40, 7 },
	{ SYS_CALL_MPROTECT, -ENOMEM, 1, 1 },
	{ SYS_CALL_MPROTECT, -ENOMEM, 40, 5 },
	{ SYS_CALL_MUNMAP, -ENOMEM, 1, 2 },
	{ SYS_CALL_MADVISE, -EAGAIN, 1, 5 },
	{ SYS_CALL_MADVISE, -EIO, 1000, 1000 },
	{ SYS_CALL_MEMFD, -EMFILE, 2, 1 },
	{ SYS_CALL_FTRUNCATE, -ENOSPC, 1, 1 },
	{ SYS_CALL_FTRUNCATE, -EIO, 40, 1 },
	{ SYS_CALL_FTRUNCATE, -EINTR, 3, 1 },
	{ SYS_CALL_FALLOCATE, -ENOSPC, 1, 1 },
	{ SYS_CALL_FALLOCATE, -EIO, 1000, 1000 },
	{ SYS_CALL_FALLOCATE, -EINTR, 3, 2 },
	{ SYS_CALL_OPEN, -EMFILE, 1, 1 },
	{ SYS_CALL_OPEN, -EINTR, 3, 2 },
	{ SYS_CALL_READ, -EIO, 1, 1 },
	{ SYS_CALL_READ, 1, 50, 2 },
	{ SYS_CALL_MREMAP, -ENOMEM, 1, 1 },
	{ SYS_CALL_PREAD, -EIO, 1, 1 },
	{ SYS_CALL_PREAD, 512, 1, 1 },
	{ SYS_CALL_PWRITE, -ENOSPC, 1, 1 },
	{ SYS_CALL_PWRITE, 512, 1, 1 },
};

START_TEST(every_call_fails_in_turn)
{
	const struct row *row = &rows[_i];
	unsigned n = 1, calls;

	do {
		calls = attempt(row->kind, row->result, n, row->count);
		n += row->stride;
	} while (n <= calls);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("inject");
	TCase *tc = tcase_create("every call");

	tcase_set_timeout(tc, 240);
	tcase_add_loop_test(tc, every_call_fails_in_turn, 0, (int)nitems(rows));
	suite_add_tcase(s, tc);
	return run_suite(s);
}
