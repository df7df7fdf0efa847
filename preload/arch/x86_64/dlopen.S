/* SPDX-License-Identifier: BSD-2-Clause */

/* dlopen(file, mode), without RTLD_DEEPBIND: see dlopen.c. */

	.text
	.globl	dlopen
	.type	dlopen, @function
dlopen:
	.cfi_startproc
	endbr64
	andl	$~8, %esi
	jmp	*dlopen_next(%rip)
	.cfi_endproc
	.size	dlopen, . - dlopen

	.section .note.GNU-stack, "", @progbits
