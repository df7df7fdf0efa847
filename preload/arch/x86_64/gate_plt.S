/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * syscall(), for the gate of the PLT.
 *
 * No C function can stand before it: vfork() and clone() come back from it twice, or on another stack.  So
 * this one goes where gate_plt_syscall_way() says, with stack and registers as they came.
 */

	.text
	.globl	syscall
	.type	syscall, @function
syscall:
	.cfi_startproc
	.irp	r, rdi, rsi, rdx, rcx, r8, r9
	push	%\r
	.cfi_adjust_cfa_offset 8
	.endr
	sub	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	gate_plt_syscall_way
	add	$8, %rsp
	.cfi_adjust_cfa_offset -8
	.irp	r, r9, r8, rcx, rdx, rsi, rdi
	pop	%\r
	.cfi_adjust_cfa_offset -8
	.endr
	jmp	*%rax
	.cfi_endproc
	.size	syscall, . - syscall

	.section .note.GNU-stack, "", @progbits
