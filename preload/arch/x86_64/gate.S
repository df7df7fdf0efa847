/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The gate's assembly: slots, the way from a slot to C, raw system calls, a copy that may fault, the return
 * from handlers.
 *
 * A slot stands for one `syscall` instruction of libc, which was overwritten by a jump to it (or by hlt, and
 * the trap handler jumps).  It lies in our text, within 2 GiB of libc's, and is filled in by patch.c.
 *
 *	 0	mov $nr,%eax, or a nop		what the jump has overwritten, before the call ...
 *	 5	lea -128(%rsp),%rsp		the caller's red zone
 *	10	call gate_common		carry: the call has been made
 *	15	lea 128(%rsp),%rsp
 *	23	jc 27
 *	25	syscall				with the caller's stack and registers: vfork and clone come
 *						back here twice, on whatever stack
 *	27	cmp $x,%rax, or nops		... and after it
 *	33	jmp *48
 *	48	.quad				where libc goes on
 *
 * To an unwinder a slot is a function that was called from libc: its return address is what stands
 * at 48 of the slot.  Hence pthread_cancel(), exceptions, gdb and backtrace() find their way.
 *
 * All registers but rax, rcx and r11 must survive, as they do a system call; also those of the vector unit, which
 * compilers keep across one, and the pins' C code uses: sixteen of them, as wide as the processor has them up
 * to 256 bits (no libc is built to hold more across a system call).
 *
 * Upper halves that are zero must also stay unused: once they are loaded, be it with zeros, each instruction of
 * the program that writes a lower half alone waits for the upper one, until something says vzeroupper, which may be
 * never: some programs took a quarter longer for it.  Where the processor tells (xgetbv) that they are unused only the
 * lower halves are saved; compiled code leaves the upper ones unused as it found them.
 */

#define SLOTS	704
#define NR	480
#define XINUSE_AVX	4		/* upper halves of the ymm registers */

	.section .text.gate, "ax", @progbits

	.globl	gate_slots, gate_slots_end
	.hidden	gate_slots, gate_slots_end
	.type	gate_slots, @function
	.balign 4096
gate_slots:
	.cfi_startproc
	.cfi_def_cfa %rsp, 0
	/* return address: *(uint64_t *)((pc & -64) + 48), in DWARF */
	.cfi_escape 0x16, 0x10, 0x08, 0x80, 0x00, 0x09, 0xc0, 0x1a, 0x23, 0x30, 0x06
	.rept	SLOTS
	.byte	0x0f, 0x1f, 0x44, 0x00, 0x00
	lea	-128(%rsp), %rsp
	.cfi_def_cfa_offset 128
	.byte	0xe8
	.long	gate_common - . - 4
	.byte	0x48, 0x8d, 0xa4, 0x24, 0x80, 0x00, 0x00, 0x00
	.cfi_def_cfa_offset 0
	.byte	0x72, 0x02
	syscall
	.byte	0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00
	jmp	*9(%rip)
	.byte	0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc
	.quad	0
	.quad	0
	.endr
	.cfi_endproc
gate_slots_end:
	.size	gate_slots, . - gate_slots
	.balign	4096, 0xcc		/* patch.c makes these pages writable: nothing else is there */

	.text

/*
 * In: the call's registers, the caller's stack pointer + 136.  Out: carry set and the result in rax; or carry
 * clear, and all as it came.
 *
 *	rbp	saved
 *	-48	rdi rsi rdx r10 r8 r9
 *	-120	struct gate_call
 */
	.type	gate_common, @function
gate_common:
	.cfi_startproc
	cmp	$NR, %rax
	jae	1f
	lea	gate_bare(%rip), %r11
	cmpb	$0, (%r11,%rax)
	je	1f
	clc
	ret
1:	push	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	push	%r9
	push	%r8
	push	%r10
	push	%rdx
	push	%rsi
	push	%rdi
	lea	144(%rbp), %rcx
	push	%rcx			/* sp */
	push	$0			/* result */
	push	%r9
	push	%r8
	push	%r10
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rax
	and	$-32, %rsp
	lea	-120(%rbp), %rdi
	call	gate_wanted
	test	%al, %al
	jnz	2f
	mov	-120(%rbp), %rax
	call	gate_restore
	leave
	.cfi_remember_state
	.cfi_def_cfa %rsp, 8
	clc
	ret
	.cfi_restore_state
2:	sub	$512, %rsp
	cmpb	$0, gate_has_avx(%rip)
	je	3f
	cmpb	$0, gate_has_xinuse(%rip)
	je	5f
	mov	$1, %ecx
	xgetbv
	test	$XINUSE_AVX, %al
	jz	3f
5:	.set	i, 0
	.irp	r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovdqa	%ymm\r, i(%rsp)
	.set	i, i + 32
	.endr
	lea	-120(%rbp), %rdi
	call	gate_run
	.set	i, 0
	.irp	r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	vmovdqa	i(%rsp), %ymm\r
	.set	i, i + 32
	.endr
	jmp	4f
3:	.set	i, 0
	.irp	r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movdqa	%xmm\r, i(%rsp)
	.set	i, i + 16
	.endr
	lea	-120(%rbp), %rdi
	call	gate_run
	.set	i, 0
	.irp	r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movdqa	i(%rsp), %xmm\r
	.set	i, i + 16
	.endr
4:	mov	-64(%rbp), %rax		/* result */
	call	gate_restore
	leave
	.cfi_def_cfa %rsp, 8
	stc
	ret
	.cfi_endproc
	.size	gate_common, . - gate_common

	.type	gate_restore, @function
gate_restore:
	.cfi_startproc
	mov	-48(%rbp), %rdi
	mov	-40(%rbp), %rsi
	mov	-32(%rbp), %rdx
	mov	-24(%rbp), %r10
	mov	-16(%rbp), %r8
	mov	-8(%rbp), %r9
	ret
	.cfi_endproc
	.size	gate_restore, . - gate_restore

/* long gate_raw(nr, a, b, c, d, e, f) */
	.globl	gate_raw
	.hidden	gate_raw
	.type	gate_raw, @function
gate_raw:
	.cfi_startproc
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
	syscall
	ret
	.cfi_endproc
	.size	gate_raw, . - gate_raw

/* void gate_on_stack(top, fn, arg): fn(arg), on another stack.  => top is a multiple of 16 */
	.globl	gate_on_stack
	.hidden	gate_on_stack
	.type	gate_on_stack, @function
gate_on_stack:
	.cfi_startproc
	push	%rbp
	.cfi_def_cfa_offset 16
	.cfi_offset %rbp, -16
	mov	%rsp, %rbp
	.cfi_def_cfa_register %rbp
	mov	%rdi, %rsp
	mov	%rdx, %rdi
	call	*%rsi
	leave
	.cfi_def_cfa %rsp, 8
	ret
	.cfi_endproc
	.size	gate_on_stack, . - gate_on_stack

/* bool gate_copy(to, from, n): a fault in the move goes on behind it, with what is left in rcx */
	.globl	gate_copy, gate_copy_move, gate_copy_end
	.hidden	gate_copy, gate_copy_move, gate_copy_end
	.type	gate_copy, @function
gate_copy:
	.cfi_startproc
	mov	%rdx, %rcx
gate_copy_move:
	rep	movsb
gate_copy_end:
	xor	%eax, %eax
	test	%rcx, %rcx
	sete	%al
	ret
	.cfi_endproc
	.size	gate_copy, . - gate_copy

/*
 * Where handlers return to.  To an unwinder it is the frame of a signal, as libc's own is: the registers
 * stand in the ucontext that the stack pointer points to.
 */
#define REG(n, off_lo, off_hi)	.cfi_escape 0x10, n, 0x03, 0x77, off_lo, off_hi
#define REG1(n, off)		.cfi_escape 0x10, n, 0x02, 0x77, off
	.globl	signals_restorer
	.hidden	signals_restorer
	.type	signals_restorer, @function
	.balign	16
	.cfi_startproc
	.cfi_signal_frame
	.cfi_escape 0x0f, 0x04, 0x77, 0xa0, 0x01, 0x06		/* CFA: rsp at 160 */
	REG1(8, 0x28)
	REG1(9, 0x30)
	REG1(10, 0x38)
	REG(11, 0xc0, 0x00)
	REG(12, 0xc8, 0x00)
	REG(13, 0xd0, 0x00)
	REG(14, 0xd8, 0x00)
	REG(15, 0xe0, 0x00)
	REG(5, 0xe8, 0x00)		/* rdi */
	REG(4, 0xf0, 0x00)		/* rsi */
	REG(6, 0xf8, 0x00)		/* rbp */
	REG(3, 0x80, 0x01)		/* rbx */
	REG(1, 0x88, 0x01)		/* rdx */
	REG(0, 0x90, 0x01)		/* rax */
	REG(2, 0x98, 0x01)		/* rcx */
	REG(7, 0xa0, 0x01)		/* rsp */
	REG(16, 0xa8, 0x01)		/* rip */
	nop				/* unwinders look up the address before */
signals_restorer:
	mov	%rsp, %rdi
	call	signals_return
	mov	$15, %eax
	syscall
	ud2
	.cfi_endproc
	.size	signals_restorer, . - signals_restorer

	.section .note.GNU-stack, "", @progbits
