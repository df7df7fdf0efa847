/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * libpthread.so.odd: a part of libc by its name, with `syscall` where no compiler puts it.  The gate rewrites it as it
 * does libc; test_gate_odd.c says what becomes of each.
 *
 *	long odd_X(long number, long a, long b, long c)		=> the kernel's answer
 */

#define NR_READ		0
#define NR_WRITE	1
#define NR_GETPID	39

	.macro	function name
	.globl	\name
	.type	\name, @function
\name:
	.endm

	.macro	arguments
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	.endm

	.text

/* The text begins here: nothing is before it to decode. */
function odd_first
	arguments
	syscall
	ret

/* A jump between the number and the call, from near by, from afar, and by a table. */
function odd_getpid
	mov	$NR_GETPID, %eax
1:	syscall
	ret
function odd_near
	arguments
	jmp	1b

function odd_getpid2
	mov	$NR_GETPID, %eax
2:	syscall
	ret

/* Whoever comes by the first way reads. */
function odd_read
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	$NR_READ, %eax
3:	syscall
	ret

/* Between the call and the comparison; and there is no number. */
function odd_compare
	arguments
	syscall
4:	cmp	$-4095, %rax
	jae	5f
	ret
5:	neg	%rax
	neg	%rax
	ret
function odd_comparison
	mov	%rdi, %rax
	jmp	4b

	.skip	4096, 0x90
function odd_far
	arguments
	test	%eax, %eax
	jns	2b
	ud2
function odd_table
	arguments
	lea	table(%rip), %r11
	movslq	(%r11), %r10
	add	%r10, %r11
	jmp	*%r11

/* What looks like mov $0x190,%eax, and is a displacement. */
function odd_base
	arguments
	push	%rdi
	lea	-0x190(%rsp), %r8
	xor	%edi, %edi
	mov	0x190(%r8), %rdi
	syscall
	pop	%rdi
	ret
function odd_index
	push	%rdi
	mov	%rsi, %r8
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %rdi
	/* rax + 4 rdi + 0x190 is the stack pointer */
	neg	%r8
	lea	-0x190(%rsp, %r8, 4), %rax
	.byte	0x8b, 0x84, 0xb8
	.long	0x190
	syscall
	pop	%r8
	ret

/* What looks like mov %r11,8(%rsp), and begins with another's displacement. */
function odd_stack
	push	%rbx
	sub	$96, %rsp
	mov	%rdi, 0x4c(%rsp)
	mov	%rsp, %r9
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	.byte	0x41, 0x8b, 0x41, 0x4c		/* mov 0x4c(%r9),%eax */
	mov	%ebx, 8(%rsp)
	syscall
	add	$96, %rsp
	pop	%rbx
	ret

/* A number in another register. */
function odd_register
	arguments
	mov	$NR_GETPID, %r8d
	syscall
	ret

/* A prefix that means nothing. */
function odd_prefix
	arguments
	.byte	0x48
	syscall
	ret

/* Bytes that are no code. */
	.fill	80, 1, 0x06
function odd_data
	arguments
	syscall
	ret

/* The bytes, and no call. */
function odd_immediate
	mov	$0x050f, %eax
	ret
function odd_displacement
	lea	0x050f(%rdi), %rax
	ret
function odd_immediate_compared
	mov	%rdi, %rax
	cmp	$0x050f0000, %eax
	mov	$0, %eax
	sete	%al
	ret

/* Not by such an instruction at all: the kernel's page of old, which is called. */
function odd_vsyscall
	mov	%rsi, %rdi
	mov	$0xffffffffff600000, %rax
	xor	%esi, %esi
	call	*%rax
	ret

	.section .rodata
table:	.long	3b - table

	.section .note.GNU-stack, "", @progbits
