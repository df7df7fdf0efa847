/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SUPPORT_H
#define SUPPORT_H

/*
 * What the tests of the public API share.
 *
 * Nothing here knows Check: the model and the stress test use it too.  A
 * failed expectation prints where it stands and aborts; Check runs every test
 * in a process of its own and reports the abort as that test's failure.
 *
 * Bytes are made from a 64-bit key, so that a page which shows up in the wrong
 * place, or at the wrong time, is recognised: no two keys fill alike.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmfault.h"

/*
 * A function that touches managed memory with atomic operations.  The thread sanitizer performs
 * those inside its run-time, with a lock of its own held; a fault there would meet that lock again in our
 * handler.  gcc has no way to leave them alone: only clang's sanitizer runs these tests.
 */
#if defined(__has_attribute)
#if __has_attribute(disable_sanitizer_instrumentation)
#define TOUCHES_MANAGED __attribute__((__disable_sanitizer_instrumentation__, __noinline__))
#endif
#endif
#ifndef TOUCHES_MANAGED
#define TOUCHES_MANAGED
#endif

/*
 * Built with the address or the thread sanitizer, which make everything many times slower: what is
 * repeated at random is repeated less often there.
 */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED	1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED	1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED	0
#endif

#define PG		((size_t)VMF_PAGE_SIZE)
#define nitems(a)	(sizeof(a) / sizeof((a)[0]))
#define BAD_HANDLE	UINT64_C(0x7fffffff12345678)	/* never given out */

/* Print, call on_die (which may be null, and say more), and abort. */
extern void (*on_die)(void);
void die(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2), __noreturn__));

/* The call returns exactly this. */
#define expect(call, want) \
	expect_at((long)(call), (long)(want), #call, __FILE__, __LINE__)
void expect_at(long got, long want, const char *what, const char *file, int line);
#define check(e) \
	((e) ? (void)0 : die("%s:%d: not so: %s", __FILE__, __LINE__, #e))

/* Start with so many bytes of frames and kernel mappings (0: the defaults), quietly. */
void start(uint64_t memory, uint32_t mappings);
/* Audit, then end. */
void stop(void);
/* Walk the whole state of the library, where it was built for tests. */
void audit(void);

/* Fresh memory in the default task, or in another one. */
char *alloc(size_t pages);
char *alloc_in(vmf_task_t task, size_t pages);
vmf_snapshot_t snap(void *addr, size_t pages);		/* of one range */
char *view(vmf_snapshot_t s, size_t pages, int prot);	/* of its range 0, from the start */

/* Deterministic randomness and bytes. */
uint64_t rng_next(uint64_t *state);
uint64_t mix(uint64_t a, uint64_t b);
void fill(void *dst, size_t size, uint64_t key);
void fill_pages(void *dst, size_t pages, uint64_t key);	/* page i: mix(key, i) */
/* A page's first and last bytes, which are enough to tell whose it is; what: where page i is. */
void fill_ends(char *page, uint64_t key);
void check_ends(const char *what, const char *page, size_t i, uint64_t key);
/* Die unless the bytes are those of fill() or fill_pages(), or zeros. */
#define check_fill(p, size, key)	check_fill_at(p, size, key, __FILE__, __LINE__)
#define check_pages(p, pages, key)	check_pages_at(p, pages, key, __FILE__, __LINE__)
#define check_zero(p, size)		check_zero_at(p, size, __FILE__, __LINE__)
void check_fill_at(const void *p, size_t size, uint64_t key, const char *file, int line);
void check_pages_at(const void *p, size_t pages, uint64_t key, const char *file, int line);
void check_zero_at(const void *p, size_t size, const char *file, int line);

/* A page of a file, by the kernel's calls. */
void write_file(int fd, size_t page, uint64_t key);
void check_file_at(int fd, size_t page, uint64_t key, const char *file, int line);
#define check_file(fd, page, key)	check_file_at(fd, page, key, __FILE__, __LINE__)

/*
 * Touch a byte that may not be touchable, and say what came of it: signo 0
 * if nothing.  Installs the suite's actions by vmf_sigaction() the first time; a
 * signal outside of a touch is then printed and fatal, unless on_stray (which
 * may be null) wants it: true means try again.
 */
struct touch {
	int signo, code;
	const void *addr;
};
struct touch touch_read(const void *addr);
struct touch touch_write(void *addr);
void touch_install(void);
extern bool (*on_stray)(int signo, int code, const void *addr);
/* The touch raises exactly this, with si_addr the address. */
#define expect_read(addr, sig, code) \
	expect_touch_at(touch_read(addr), addr, sig, code, __FILE__, __LINE__)
#define expect_write(addr, sig, code) \
	expect_touch_at(touch_write(addr), addr, sig, code, __FILE__, __LINE__)
void expect_touch_at(struct touch t, const void *addr, int signo, int code, const char *file,
    int line);

/* Run fn in a fork()ed child, which exits with 0 if it returns; its wait status. */
int in_child(void (*fn)(void *), void *arg);
#define expect_exit(status, code)	expect_exit_at(status, code, __FILE__, __LINE__)
#define expect_killed(status, sig)	expect_killed_at(status, sig, __FILE__, __LINE__)
void expect_exit_at(int status, int code, const char *file, int line);
void expect_killed_at(int status, int signo, const char *file, int line);

unsigned count_fds(void);	/* open descriptors of this process */
unsigned count_maps(void);	/* its kernel mappings */
uint64_t now_ms(void);

#endif
