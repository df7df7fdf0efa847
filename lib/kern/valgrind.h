/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef KERN_VALGRIND_H
#define KERN_VALGRIND_H

/*
 * Valgrind runs the program, and us with it.  Two things it must be told, by the instructions that it takes for a
 * request and a processor for nothing; all else is as without it.
 *
 *	whether it is there	its threads run one at a time, and it does not let go of that right in
 *				io_uring_enter(): who waits there would stop everybody for ever
 *	managed ranges		memcheck takes a touch of a page without rights for a mistake and says so,
 *				before it raises the signal that brings the page
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VALGRIND_IS_RUNNING	0x1001u
#define MEMCHECK_REPORT_RANGE	0x4d43000du	/* accesses that are not allowed are errors again ... */
#define MEMCHECK_IGNORE_RANGE	0x4d43000eu	/* ... are none, in [a, a + b) */

/* => what it answers; 0: it is not there, or does not know the request */
static inline uintptr_t
valgrind_request(uintptr_t request, uintptr_t a, uintptr_t b)
{
	volatile uintptr_t arg[6] = { request, a, b };
	uintptr_t answer = 0;

#if defined(__x86_64__) && defined(__LP64__)
	__asm__ volatile ("rolq $3, %%rdi; rolq $13, %%rdi; rolq $61, %%rdi; rolq $51, %%rdi; xchgq %%rbx, %%rbx"
	    : "+d" (answer) : "a" (&arg[0]) : "cc", "memory");
#elif defined(__i386__)
	__asm__ volatile ("roll $3, %%edi; roll $13, %%edi; roll $29, %%edi; roll $19, %%edi; xchgl %%ebx, %%ebx"
	    : "+d" (answer) : "a" (&arg[0]) : "cc", "memory");
#endif
	return answer;
}

static inline bool
valgrind_is_running(void)
{
	return valgrind_request(VALGRIND_IS_RUNNING, 0, 0) != 0;
}

/* Is the range managed, from now on? */
static inline void
valgrind_manage(uintptr_t base, size_t size, bool yes)
{
	(void)valgrind_request(yes ? MEMCHECK_IGNORE_RANGE : MEMCHECK_REPORT_RANGE, base, size);
}

#endif
