/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The last words, written by code that needs nothing.
 *
 * A panic may come from the fault handler, on a small stack, under any lock,
 * in a thread that was interrupted inside malloc.  So the message is put
 * together in a buffer on the stack, leaves with a single write(2) (messages of
 * two threads do not mix), and is cut off where the buffer ends.
 *
 * The panic itself may fail too: a %s that points nowhere faults, and the
 * handler panics about that.  The second panic of a thread says nothing and aborts.
 */

#include "kern/assert.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "kern/sys.h"
#include "kern/types.h"

#define MESSAGE_MAX	512

struct message {
	size_t len;
	char text[MESSAGE_MAX];
};

bool klog_quiet;
static _Atomic int panicking;		/* tid of a thread that panics, or 0 */

static void
put(struct message *m, char c)
{
	if (m->len < sizeof(m->text) - 1)	/* the last byte is for the newline */
		m->text[m->len++] = c;
}

static void
put_string(struct message *m, const char *s)
{
	for (s = s != NULL ? s : "(null)"; *s != '\0'; s++)
		put(m, *s);
}

static void
put_number(struct message *m, unsigned long long v, unsigned base)
{
	char digits[20];
	size_t n = 0;

	do {
		digits[n++] = "0123456789abcdef"[v % base];
	} while ((v /= base) != 0);
	while (n > 0)
		put(m, digits[--n]);
}

static void __attribute__((__format__(__printf__, 2, 0)))
put_format(struct message *m, const char *fmt, va_list ap)
{
	long long d;
	int wide;

	for (; *fmt != '\0'; fmt++) {
		if (*fmt != '%') {
			put(m, *fmt);
			continue;
		}
		/* 0: int, 1: long, 2: long long; a size_t is as wide as a long. */
		for (wide = 0, fmt++; *fmt == 'l' || *fmt == 'z'; fmt++)
			wide++;
		switch (*fmt) {
		case 's':
			put_string(m, va_arg(ap, const char *));
			break;
		case 'c':
			put(m, (char)va_arg(ap, int));
			break;
		case 'p':
			put_string(m, "0x");
			put_number(m, (uintptr_t)va_arg(ap, void *), 16);
			break;
		case 'd':
			d = wide == 0 ? va_arg(ap, int) : wide == 1 ? va_arg(ap, long) :
			    va_arg(ap, long long);
			if (d < 0)
				put(m, '-');
			put_number(m, d < 0 ? 0 - (unsigned long long)d :
			    (unsigned long long)d, 10);
			break;
		case 'u':
		case 'x':
			put_number(m, wide == 0 ? va_arg(ap, unsigned) :
			    wide == 1 ? va_arg(ap, unsigned long) : va_arg(ap, unsigned long long),
			    *fmt == 'u' ? 10 : 16);
			break;
		case '\0':
			return;
		default:
			put(m, *fmt);
			break;
		}
	}
}

static void
put_out(struct message *m)
{
	m->text[m->len++] = '\n';
	(void)sys_write(2, m->text, m->len);
}

void
kpanic(const char *fmt, ...)
{
	struct message m = { .len = 0 };
	int self = sys_gettid(), other = 0;
	va_list ap;

	if (!atomic_compare_exchange_strong(&panicking, &other, self) && other == self)
		abort();
	put_string(&m, "vmfault: panic: ");
	va_start(ap, fmt);
	put_format(&m, fmt, ap);
	va_end(ap);
	put_out(&m);
	abort();
}

void
klog(const char *fmt, ...)
{
	struct message m = { .len = 0 };
	va_list ap;

	if (klog_quiet)
		return;
	put_string(&m, "vmfault: ");
	va_start(ap, fmt);
	put_format(&m, fmt, ap);
	va_end(ap);
	put_out(&m);
}
