/* SPDX-License-Identifier: BSD-2-Clause */

	.text

/* long gate_raw(nr, a, b, c, d, e, f) */
	.globl	gate_raw
	.hidden	gate_raw
	.type	gate_raw, @function
gate_raw:
	.cfi_startproc
	push	%ebp
	.cfi_adjust_cfa_offset 4
	.cfi_rel_offset %ebp, 0
	push	%edi
	.cfi_adjust_cfa_offset 4
	.cfi_rel_offset %edi, 0
	push	%esi
	.cfi_adjust_cfa_offset 4
	.cfi_rel_offset %esi, 0
	push	%ebx
	.cfi_adjust_cfa_offset 4
	.cfi_rel_offset %ebx, 0
	mov	20(%esp), %eax
	mov	24(%esp), %ebx
	mov	28(%esp), %ecx
	mov	32(%esp), %edx
	mov	36(%esp), %esi
	mov	40(%esp), %edi
	mov	44(%esp), %ebp
	int	$0x80
	pop	%ebx
	.cfi_adjust_cfa_offset -4
	.cfi_restore %ebx
	pop	%esi
	.cfi_adjust_cfa_offset -4
	.cfi_restore %esi
	pop	%edi
	.cfi_adjust_cfa_offset -4
	.cfi_restore %edi
	pop	%ebp
	.cfi_adjust_cfa_offset -4
	.cfi_restore %ebp
	ret
	.cfi_endproc
	.size	gate_raw, . - gate_raw

/* bool gate_copy(to, from, n): a fault in the move goes on behind it, with what is left in ecx */
	.globl	gate_copy, gate_copy_move, gate_copy_end
	.hidden	gate_copy, gate_copy_move, gate_copy_end
	.type	gate_copy, @function
gate_copy:
	.cfi_startproc
	push	%edi
	.cfi_adjust_cfa_offset 4
	.cfi_rel_offset %edi, 0
	push	%esi
	.cfi_adjust_cfa_offset 4
	.cfi_rel_offset %esi, 0
	mov	12(%esp), %edi
	mov	16(%esp), %esi
	mov	20(%esp), %ecx
gate_copy_move:
	rep	movsb
gate_copy_end:
	pop	%esi
	.cfi_adjust_cfa_offset -4
	.cfi_restore %esi
	pop	%edi
	.cfi_adjust_cfa_offset -4
	.cfi_restore %edi
	xor	%eax, %eax
	test	%ecx, %ecx
	sete	%al
	ret
	.cfi_endproc
	.size	gate_copy, . - gate_copy

	.section .note.GNU-stack, "", @progbits
