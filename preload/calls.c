/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the gates ask of the shim: pins, and the system calls that are about the shim itself.
 */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

#include "fork.h"
#include "gate_impl.h"
#include "shim.h"
#include "signals.h"
#include "stats.h"
#include "trap.h"
#include "vmfault.h"

#define PIN_SHARE	16u		/* of the limit: as much one transfer may pin */
#define PIN_LEAST	((uint64_t)16 * VMF_PAGE_SIZE)

static bool
managed(const void *p, size_t n)
{
	return shim_managed(p, n);
}

static int
pin(struct gate_pin *pin)
{
	stats_count(gate_pins);
	return vmf_fault_in(pin->addr, pin->size, pin->write ? VMF_PROT_WRITE : VMF_PROT_READ);
}

static void
unpin(struct gate_pin *pin)
{
	(void)vmf_fault_release(pin->addr, pin->size);
}

/* A new process that has its own memory. */
static void
make_process(struct gate_call *call)
{
	int error = fork_prepare();

	if (error != 0) {
		call->result = error;
		return;
	}
	call->result = gate_make(call);
	if (call->result != 0) {
		fork_parent(call->result < 0);
		return;
	}
	fork_child();
	if (!fork_is_libcs()) {
		signals_forked();
		fork_raw_child();
	}
}

static bool
hook(struct gate_call *call)
{
	switch (call->nr) {
	case SYS_clone:
	case SYS_clone3:
#ifdef SYS_fork
	case SYS_fork:
#endif
		make_process(call);
		return true;
	case SYS_exit_group:
		stats_exit();
		return false;
	case SYS_exit:
		if (shim_watched())
			thread_leaves((int)call->arg[0]);
		return false;
	case SYS_tgkill:
	case SYS_setuid:
	case SYS_setgid:
	case SYS_setreuid:
	case SYS_setregid:
	case SYS_setresuid:
	case SYS_setresgid:
	case SYS_setgroups:
		return credentials_call(call);
	default:
		return descriptors_call(call) || (shim_watched() && mmap_call(call));
	}
}

int
calls_start(bool *patched)
{
	struct gate_ops ops = { .managed = managed, .pin = pin, .unpin = unpin, .hook = hook };
	static const int signals[] = { SIGSEGV, SIGBUS };
	struct sigaction act, program;
	struct gate_info info;
	int error;

	if (shim_config.memory != 0)
		ops.pin_max = (size_t)(shim_config.memory / PIN_SHARE > PIN_LEAST ?
		    shim_config.memory / PIN_SHARE : PIN_LEAST) & ~(size_t)(VMF_PAGE_SIZE - 1);
	error = signals_init();
	if (error != 0)
		return error;
	/*
	 * The library puts itself before what it finds.  It finds the gate, which until then must be
	 * there for its own traps.
	 */
	memset(&act, 0, sizeof(act));
	act.sa_sigaction = signals_deliver;
	act.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		if (sigaction(signals[i], &act, &program) != 0)
			return -errno;
		signals_adopt(signals[i], &program);
	}
	trap_first = gate_trap;
	error = gate_install(&ops, (enum gate_mode)shim_config.gate_mode, &info);
	*patched = info.mode == GATE_PATCH;
	if (*patched)
		stats_set(gate_sites, info.jumps + info.traps);
	return error;
}
