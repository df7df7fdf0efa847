/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What the gates ask of the shim: pins, and the system calls that are about the shim itself.
 */

#include <errno.h>
#include <linux/if_xdp.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "fork.h"
#include "gate_impl.h"
#include "kern/alone.h"
#include "shim.h"
#include "signals.h"
#include "stats.h"
#include "trap.h"
#include "vm_pin.h"
#include "vmfault.h"

#define PIN_SHARE	16u		/* of the limit: as much one transfer may pin */
#define PIN_LEAST	((uint64_t)16 * VMF_PAGE_SIZE)

static bool
managed(const void *p, size_t n)
{
	return shim_managed(p, n);
}

struct pinning {
	struct gate_pin *pin;
	int error;
};

static void
do_pin(void *arg)
{
	struct pinning *p = arg;

	p->error = vmf_fault_in(p->pin->addr, p->pin->size, p->pin->write ? VMF_PROT_WRITE : VMF_PROT_READ);
}

static int
pin(struct gate_pin *pin)
{
	struct pinning p = { .pin = pin };
	uintptr_t a = (uintptr_t)pin->addr;

	stats_count(gate_pins);
	pin->cookie = vm_pin_take(a, a + pin->size, pin->write ? VMF_PROT_READ | VMF_PROT_WRITE : VMF_PROT_READ);
	if (pin->cookie != 0)
		return 0;
	signals_off_stack(do_pin, &p);
	return p.error;
}

static void
do_unpin(void *arg)
{
	struct gate_pin *pin = arg;

	(void)vmf_fault_release(pin->addr, pin->size);
}

static void
unpin(struct gate_pin *pin)
{
	if (pin->cookie != 0 && vm_pin_end((uint32_t)pin->cookie))
		return;
	signals_off_stack(do_unpin, pin);
}

static void
do_thread(void *arg)
{
	stacks_thread(arg);
}

static void
make_thread(const struct gate_call *call)
{
	if (shim_watched())
		signals_off_stack(do_thread, (void *)(uintptr_t)call);
}

/* A new process that has its own memory. */
static void
make_process(void *arg)
{
	struct gate_call *call = arg;
	int error;

	limits_fork(true);
	error = fork_prepare();
	if (error != 0) {
		limits_fork(false);
		call->result = error;
		return;
	}
	call->result = gate_make(call);
	if (call->result != 0) {
		fork_parent(call->result < 0);
		limits_fork(false);
		return;
	}
	fork_child();
	gate_thread_forked();
	signals_repin();
	limits_fork(false);
	if (!fork_is_libcs()) {
		signals_forked();
		fork_raw_child();
	}
}

struct mapping {
	struct gate_call *call;
	bool done;
};

static void
do_mapping(void *arg)
{
	struct mapping *m = arg;

	m->done = mmap_call(m->call);
}

/*
 * Sockets that would send from our pages, or receive to them, after the call: such a page may be another one's by
 * then.  Who asks for it must be able to do without.
 */
static bool
keeps_pages(struct gate_call *call)
{
	int on = 0;

	if (call->arg[1] == SOL_XDP && call->arg[2] == XDP_UMEM_REG)
		on = 1;
	else if (call->arg[1] == SOL_SOCKET && call->arg[2] == SO_ZEROCOPY && call->arg[4] >= (long)sizeof(on))
		(void)gate_copy(&on, (const void *)call->arg[3], sizeof(on));
	call->result = -EOPNOTSUPP;
	return on != 0;
}

static bool
hook(struct gate_call *call)
{
	struct mapping m = { .call = call };

	switch (call->nr) {
	case SYS_clone:
	case SYS_clone3:
#ifdef SYS_fork
	case SYS_fork:
#endif
		signals_off_stack(make_process, call);
		return true;
	case SYS_exit_group:
		stats_exit();
		return false;
	case SYS_prctl:
	case SYS_seccomp:
		if (shim_watched())
			confine_call(call);
		return false;
	case SYS_setrlimit:
	case SYS_getrlimit:
	case SYS_prlimit64:
		return shim_watched() && limits_call(call);
	case SYS_exit:
		if (shim_watched()) {
			if (!signals_guest())
				robust_leaves();
			thread_leaves((int)call->arg[0]);
		}
		return false;
	case SYS_setsockopt:
		return shim_watched() && keeps_pages(call);
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
		if (descriptors_call(call))
			return true;
		if (shim_watched())
			signals_off_stack(do_mapping, &m);
		return m.done;
	}
}

int
calls_start(bool *patched)
{
	struct gate_ops ops = { .managed = managed, .pin = pin, .unpin = unpin, .hook = hook, .thread = make_thread,
	    .deaf = alone_is_ours, .exec = limits_exec };
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
	if (error == 0 && !*patched)
		libcs_start();
	if (*patched)
		stats_set(gate_sites, info.jumps + info.traps);
	return error;
}
