/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_ASSERT_H
#define KERN_ASSERT_H

/*
 * Assertions and the last words.
 *
 * A user's mistake never asserts, a broken invariant always does.  Levels, set
 * by the build option `assertions`:
 *
 *	0  none
 *	1  KASSERT	cheap: what costs a compare (released builds)
 *	2  KASSERT_SLOW	walks a structure around the place
 *	3  and whole-state audits after each operation (test builds)
 *
 * Nothing here allocates or uses stdio: all of it may run in the fault handler.
 */

#include <stdbool.h>

#ifndef VMF_ASSERTIONS
#define VMF_ASSERTIONS 1
#endif

/*
 * Print "vmfault: panic: ..." and abort.  Formats: %s %c %p %%, and %d %u %x with l, ll or z.
 */
void kpanic(const char *fmt, ...)
    __attribute__((__format__(__printf__, 1, 2), __noreturn__, __cold__));

/* Print "vmfault: ..." as one write(2) to standard error, unless klog_quiet. */
void klog(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2), __cold__));
extern bool klog_quiet;

#define KASSERT_ALWAYS(e) \
	(__builtin_expect(!!(e), 1) ? (void)0 : \
	    kpanic("%s:%d: %s: not so: %s", __FILE__, __LINE__, __func__, #e))

#if VMF_ASSERTIONS >= 1
#define KASSERT(e)	KASSERT_ALWAYS(e)
#else
#define KASSERT(e)	((void)sizeof(!(e)))
#endif

#if VMF_ASSERTIONS >= 2
#define KASSERT_SLOW(e)	KASSERT_ALWAYS(e)
#else
#define KASSERT_SLOW(e)	((void)sizeof(!(e)))
#endif

#endif
