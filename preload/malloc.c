/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The malloc family, all of it: what is missing here would be libc's, and its blocks would meet our free().
 *
 * The work is jemalloc's, whose public names are given a prefix when it is linked (meson.build).  What
 * comes before it is one test: the first call of all starts the shim, for a program allocates long before
 * any constructor of ours could run, and what it gets then must be managed already.
 *
 * A program that is built with a sanitizer has a malloc() that must be its own: then we PASS every call on to the
 * next in line.
 *
 * BOOT MEMORY is for what is allocated while the shim starts: threads of the library take some, and
 * jemalloc must not, for it has no memory yet; or before libc has taken up the environment, so that we do not know
 * yet what to be.  It is never given back, and counts a few KB.
 */

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "shim.h"

#define BOOT_SIZE	((size_t)1 << 20)
#define BOOT_ALIGN	_Alignof(max_align_t)

void *je_malloc(size_t);
void *je_calloc(size_t, size_t);
void *je_realloc(void *, size_t);
void je_free(void *);
void *je_memalign(size_t, size_t);
void *je_aligned_alloc(size_t, size_t);
int je_posix_memalign(void **, size_t, size_t);
size_t je_malloc_usable_size(const void *);

/*
 * Blocks: the size in front.  Guarded by nothing: one thread takes from it at a time, the one that starts the shim;
 * and before that there is but one.
 */
static struct {
	char memory[BOOT_SIZE] __attribute__((__aligned__(64)));
	_Atomic size_t used;
} boot;

static inline bool
is_boot(const void *p)
{
	return (uintptr_t)p - (uintptr_t)boot.memory < BOOT_SIZE;
}

static inline bool
ready(void)
{
	return __builtin_expect(atomic_load_explicit(&shim_state, memory_order_acquire) == SHIM_READY, 1);
}

/* Have the shim started.  => false: it is this thread that starts it, or it is too early; or we pass */
static bool
started(void)
{
	shim_start();
	return ready();
}

static bool
passing(void)
{
	return atomic_load_explicit(&shim_state, memory_order_relaxed) == SHIM_PASSING;
}

/* The next ones of that name.  dlsym() frees what it said last, so they are looked for once. */
static struct {
	__typeof__(&malloc) malloc;
	__typeof__(&calloc) calloc;
	__typeof__(&realloc) realloc;
	__typeof__(&free) free;
	__typeof__(&memalign) memalign;
	__typeof__(&posix_memalign) posix_memalign;
	__typeof__(&malloc_usable_size) malloc_usable_size;
} next;

#define FIND(name)	(next.name = (__typeof__(next.name))(uintptr_t)dlsym(RTLD_NEXT, #name))

void
malloc_find_next(void)
{
	FIND(malloc);
	FIND(calloc);
	FIND(realloc);
	FIND(free);
	FIND(memalign);
	FIND(posix_memalign);
	FIND(malloc_usable_size);
}

/* Is it libc that asks, for itself? */
#define FOR_LIBC()	(__builtin_expect(libcs_apart, 0) && libcs_caller(__builtin_return_address(0)))

static size_t
boot_size(const void *p)
{
	size_t size;

	memcpy(&size, (const char *)p - sizeof(size), sizeof(size));
	return size;
}

/* Zeros.  => align is a power of two */
static void *
boot_alloc(size_t align, size_t size)
{
	size_t used = atomic_load(&boot.used), at;

	if (align < BOOT_ALIGN)
		align = BOOT_ALIGN;
	if (align > BOOT_SIZE)
		goto none;
	at = (used + sizeof(size) + align - 1) & ~(align - 1);
	at += -((uintptr_t)boot.memory + at) & (align - 1);
	if (at > BOOT_SIZE || size > BOOT_SIZE - at)
		goto none;
	atomic_store(&boot.used, at + size);
	memcpy(boot.memory + at - sizeof(size), &size, sizeof(size));
	return boot.memory + at;
none:
	errno = ENOMEM;
	return NULL;
}

/* What is no power of two, or too small for a block of its own, is the caller's mistake. */
static bool
is_alignment(size_t align)
{
	return align != 0 && (align & (align - 1)) == 0;
}

SHIM_API void *
malloc(size_t size)
{
	if (!ready() && !started())
		return passing() ? next.malloc(size) : boot_alloc(BOOT_ALIGN, size);
	if (FOR_LIBC())
		return libcs_alloc(NULL, size, false);
	return je_malloc(size);
}

SHIM_API void *
calloc(size_t n, size_t size)
{
	if (!ready() && !started()) {
		if (passing())
			return next.calloc(n, size);
		if (__builtin_mul_overflow(n, size, &size)) {
			errno = ENOMEM;
			return NULL;
		}
		return boot_alloc(BOOT_ALIGN, size);
	}
	if (FOR_LIBC()) {
		if (!__builtin_mul_overflow(n, size, &size))
			return libcs_alloc(NULL, size, true);
		errno = ENOMEM;
		return NULL;
	}
	return je_calloc(n, size);
}

SHIM_API void
free(void *p)
{
	/* What a thread that starts us would free may be of jemalloc's that is locked: it is little. */
	if (p == NULL || is_boot(p))
		return;
	if (ready() || started())
		je_free(p);
	else if (passing())
		next.free(p);
}

SHIM_API void *
realloc(void *p, size_t size)
{
	void *q;

	if (ready() && !is_boot(p)) {
		/* To nothing: glibc frees it, and so does jemalloc. */
		if (FOR_LIBC() && (p == NULL || size != 0))
			return libcs_alloc(p, size, false);
		return je_realloc(p, size);
	}
	if (p == NULL)
		return malloc(size);
	if (!is_boot(p))
		return started() ? je_realloc(p, size) : passing() ? next.realloc(p, size) : NULL;
	q = malloc(size);
	if (q != NULL)
		memcpy(q, p, size < boot_size(p) ? size : boot_size(p));
	return q;
}

SHIM_API void *
reallocarray(void *p, size_t n, size_t size)
{
	if (__builtin_mul_overflow(n, size, &size)) {
		errno = ENOMEM;
		return NULL;
	}
	return realloc(p, size);
}

SHIM_API void *
memalign(size_t align, size_t size)
{
	size_t a = sizeof(void *);

	/* glibc takes the next power of two. */
	while (a < align && a <= SIZE_MAX / 2)
		a *= 2;
	if (a < align) {
		errno = EINVAL;
		return NULL;
	}
	if (!ready() && !started())
		return passing() ? next.memalign(align, size) : boot_alloc(a, size);
	return je_memalign(a, size);
}

SHIM_API void *
aligned_alloc(size_t align, size_t size)
{
	/* glibc 2.36 does not mind what is no power of two, later ones do. */
	return memalign(align, size);
}

SHIM_API int
posix_memalign(void **p, size_t align, size_t size)
{
	if (!ready() && !started()) {
		void *q;
		int saved_errno = errno;

		if (passing())
			return next.posix_memalign(p, align, size);
		if (!is_alignment(align) || align < sizeof(void *))
			return EINVAL;
		q = boot_alloc(align, size);
		errno = saved_errno;
		if (q == NULL)
			return ENOMEM;
		*p = q;
		return 0;
	}
	return je_posix_memalign(p, align, size);
}

#define PAGE		((size_t)4096)

SHIM_API void *
valloc(size_t size)
{
	return memalign(PAGE, size);
}

SHIM_API void *
pvalloc(size_t size)
{
	if (size > SIZE_MAX - PAGE) {
		errno = ENOMEM;
		return NULL;
	}
	return memalign(PAGE, (size + PAGE - 1) & ~(PAGE - 1));
}

SHIM_API size_t
malloc_usable_size(void *p)
{
	if (p == NULL)
		return 0;
	if (is_boot(p))
		return boot_size(p);
	return ready() || started() ? je_malloc_usable_size(p) : passing() ? next.malloc_usable_size(p) : 0;
}
