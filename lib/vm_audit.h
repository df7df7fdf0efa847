/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VM_AUDIT_H
#define VM_AUDIT_H

/*
 * Walk the state of the whole library, compare it with itself and with the kernel's view of the
 * mappings (/proc/self/maps), and panic where an invariant is broken.  The pageout daemon is
 * stopped for as long as that takes, and transfers are waited for.  Test builds only.
 * => no other thread is in the library or touches managed memory.
 */
void vm_audit(void);

#endif
