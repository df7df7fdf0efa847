/* SPDX-License-Identifier: BSD-2-Clause */

/* dlopen(file, mode), without RTLD_DEEPBIND: see dlopen.c.  The arguments are the callee's to change. */

	.text
	.globl	dlopen
	.type	dlopen, @function
dlopen:
	.cfi_startproc
	andl	$~8, 8(%esp)
	call	1f
	.cfi_adjust_cfa_offset 4
1:	popl	%ecx
	.cfi_adjust_cfa_offset -4
	addl	$_GLOBAL_OFFSET_TABLE_ + (. - 1b), %ecx
	jmp	*dlopen_next@GOTOFF(%ecx)
	.cfi_endproc
	.size	dlopen, . - dlopen

	.section .note.GNU-stack, "", @progbits
