/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Support for the tests of the public API: see support.h.
 *
 * The one piece with a story is the touch.  It arms a jump buffer of the
 * calling thread, touches, and disarms; the handler jumps back when it finds the
 * buffer armed.  The jump leaves a handler that vmfault called, which the
 * contract allows, and the mask comes back with sigsetjmp's second argument.
 */

#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef VMF_TESTING
#include "vm_audit.h"
#endif

void (*on_die)(void);
bool (*on_stray)(int signo, int code, const void *addr);

static _Thread_local sigjmp_buf touch_env;
static _Thread_local volatile sig_atomic_t touch_armed;
static _Thread_local volatile struct touch touch_seen;
static bool touch_installed;

void
die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fflush(stdout);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	if (on_die != NULL)
		on_die();
	abort();
}

void
expect_at(long got, long want, const char *what, const char *file, int line)
{
	if (got != want)
		die("%s:%d: %s: %ld (%s), not %ld (%s)", file, line, what, got,
		    got < 0 ? strerror((int)-got) : "fine", want,
		    want < 0 ? strerror((int)-want) : "fine");
}

void
start(uint64_t memory, uint32_t mappings)
{
	struct vmf_config config = VMF_CONFIG_INIT;

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
	/* It leaves no room for a second task as large as the default one's default. */
	config.address_space = sizeof(void *) == 8 ? (uint64_t)1 << 36 : 0;
#endif
#endif
	config.memory = memory;
	config.mappings = mappings;
	config.flags = VMF_CONFIG_QUIET;
	expect(vmf_init(&config), 0);
	touch_installed = false;
}

void
stop(void)
{
	audit();
	expect(vmf_fini(), 0);
}

void
audit(void)
{
#ifdef VMF_TESTING
	vm_audit();
#endif
}

char *
alloc_in(vmf_task_t task, size_t pages)
{
	void *p = NULL;

	expect(vmf_allocate(task, &p, pages * PG, 0), 0);
	return p;
}

char *
alloc(size_t pages)
{
	return alloc_in(VMF_TASK_DEFAULT, pages);
}

vmf_snapshot_t
snap(void *addr, size_t pages)
{
	struct vmf_range r = { addr, pages * PG };
	vmf_snapshot_t s = 0;

	expect(vmf_snapshot_create(&r, 1, &s), 0);
	check(s != 0);
	return s;
}

char *
view(vmf_snapshot_t s, size_t pages, int prot)
{
	void *p = NULL;

	expect(vmf_snapshot_map(s, 0, 0, pages * PG, VMF_TASK_DEFAULT, &p, 0, prot), 0);
	return p;
}

/* splitmix64 */
uint64_t
mix(uint64_t a, uint64_t b)
{
	uint64_t z = a * UINT64_C(0x9e3779b97f4a7c15) + b + UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t
rng_next(uint64_t *state)
{
	return mix(1, *state += UINT64_C(0x9e3779b97f4a7c15));
}

void
fill(void *dst, size_t size, uint64_t key)
{
	uint64_t x = mix(key, 0) | 1;
	char *p = dst;
	size_t n;

	for (; size > 0; p += n, size -= n) {
		n = size < sizeof(x) ? size : sizeof(x);
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(p, &x, n);
	}
}

void
fill_pages(void *dst, size_t pages, uint64_t key)
{
	for (size_t i = 0; i < pages; i++)
		fill((char *)dst + i * PG, PG, mix(key, i));
}

static void
check_same(const char *p, const char *want, size_t size, size_t at, const char *file, int line)
{
	if (memcmp(p, want, size) == 0)
		return;
	for (size_t i = 0; i < size; i++) {
		if (p[i] != want[i])
			die("%s:%d: byte %zu at %p is %#x, not %#x", file, line, at + i,
			    (const void *)(p + i), (unsigned char)p[i], (unsigned char)want[i]);
	}
	die("%s:%d: bytes at %p changed while they were compared", file, line, (const void *)p);
}

void
check_fill_at(const void *p, size_t size, uint64_t key, const char *file, int line)
{
	char *want = malloc(size + 1);

	if (want == NULL)
		die("malloc");
	fill(want, size, key);
	check_same(p, want, size, 0, file, line);
	free(want);
}

void
check_pages_at(const void *p, size_t pages, uint64_t key, const char *file, int line)
{
	char want[VMF_PAGE_SIZE];

	for (size_t i = 0; i < pages; i++) {
		fill(want, PG, mix(key, i));
		check_same((const char *)p + i * PG, want, PG, i * PG, file, line);
	}
}

void
write_file(int fd, size_t page, uint64_t key)
{
	char bytes[VMF_PAGE_SIZE];

	fill(bytes, PG, key);
	check(pwrite(fd, bytes, PG, (off_t)(page * PG)) == (ssize_t)PG);
}

void
check_file_at(int fd, size_t page, uint64_t key, const char *file, int line)
{
	char bytes[VMF_PAGE_SIZE];

	check(pread(fd, bytes, PG, (off_t)(page * PG)) == (ssize_t)PG);
	check_fill_at(bytes, PG, key, file, line);
}

void
check_zero_at(const void *p, size_t size, const char *file, int line)
{
	static const char zero[VMF_PAGE_SIZE];

	for (size_t at = 0, n; at < size; at += n) {
		n = size - at < PG ? size - at : PG;
		check_same((const char *)p + at, zero, n, at, file, line);
	}
}

static void
touch_handler(int signo, siginfo_t *info, void *context)
{
	char text[128];
	int n;

	if (touch_armed) {
		touch_armed = 0;
		touch_seen.signo = signo;
		touch_seen.code = info->si_code;
		touch_seen.addr = info->si_addr;
		siglongjmp(touch_env, 1);
	}
	if (on_stray != NULL && on_stray(signo, info->si_code, info->si_addr))
		return;
	n = snprintf(text, sizeof(text), "unexpected signal %d, si_code %d, si_addr %p\n", signo,
	    info->si_code, info->si_addr);
	if (n > 0 && write(STDERR_FILENO, text, (size_t)n) < 0)
		_exit(98);
	abort();
}

void
touch_install(void)
{
	struct sigaction act = { .sa_sigaction = touch_handler, .sa_flags = SA_SIGINFO };

	sigemptyset(&act.sa_mask);
	expect(vmf_sigaction(SIGSEGV, &act, NULL), 0);
	expect(vmf_sigaction(SIGBUS, &act, NULL), 0);
	touch_installed = true;
}

static struct touch
touch(volatile char *p, bool write)
{
	if (!touch_installed)
		touch_install();
	touch_seen.signo = touch_seen.code = 0;
	touch_seen.addr = NULL;
	if (sigsetjmp(touch_env, 1) == 0) {
		touch_armed = 1;
		if (write)
			*p = 1;
		else
			(void)*p;
	}
	touch_armed = 0;
	return (struct touch){ touch_seen.signo, touch_seen.code, touch_seen.addr };
}

struct touch
touch_read(const void *addr)
{
	return touch((volatile char *)(uintptr_t)addr, false);
}

struct touch
touch_write(void *addr)
{
	return touch(addr, true);
}

void
expect_touch_at(struct touch t, const void *addr, int signo, int code, const char *file, int line)
{
	if (t.signo != signo || (signo != 0 && (t.code != code || t.addr != addr)))
		die("%s:%d: touch of %p: signal %d, si_code %d, si_addr %p; not %d, %d", file, line,
		    addr, t.signo, t.code, t.addr, signo, code);
}

int
in_child(void (*fn)(void *), void *arg)
{
	int status;
	pid_t pid;

	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (pid == 0) {
		fn(arg);
		_exit(0);
	}
	check(pid > 0);
	while (waitpid(pid, &status, 0) != pid)
		check(errno == EINTR);
	return status;
}

void
expect_exit_at(int status, int code, const char *file, int line)
{
	if (!WIFEXITED(status) || WEXITSTATUS(status) != code)
		die("%s:%d: wait status %#x, not an exit with %d", file, line, (unsigned)status,
		    code);
}

void
expect_killed_at(int status, int signo, const char *file, int line)
{
	if (!WIFSIGNALED(status) || WTERMSIG(status) != signo)
		die("%s:%d: wait status %#x, not killed by %d", file, line, (unsigned)status,
		    signo);
}

unsigned
count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	check(dir != NULL);
	while (readdir(dir) != NULL)
		n++;
	closedir(dir);
	return n;
}

enum { ENDS = 96 };

void
fill_ends(char *page, uint64_t key)
{
	fill(page, ENDS, key);
	fill(page + PG - ENDS, ENDS, key);
}

void
check_ends(const char *what, const char *page, size_t i, uint64_t key)
{
	char want[ENDS];

	fill(want, ENDS, key);
	if (memcmp(page, want, ENDS) != 0 || memcmp(page + PG - ENDS, want, ENDS) != 0)
		die("%s: page %zu is not of key %llu", what, i, (unsigned long long)key);
}

unsigned
count_maps(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned n = 0;
	int c;

	check(f != NULL);
	while ((c = getc(f)) != EOF)
		n += c == '\n';
	fclose(f);
	return n;
}

uint64_t
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}
