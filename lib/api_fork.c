/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * vmf_fork(): fork(), and an answer.
 *
 * What has to be done before the clone is done last of all that pthread_atfork() lists (vm_init.c), when whatever
 * other handlers lock is locked.  There is no way back from there: where it fails the child is made, has none
 * of the memory, and ends at once, before anything of the program's runs in it.
 */

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vm_init.h"
#include "vmfault.h"

pid_t
vmf_fork(void)
{
	int saved = errno, error;
	pid_t pid;

	if (!vm_running())
		return -ENODEV;
	vm_fork_asked(true);
	pid = fork();
	error = pid < 0 ? -errno : 0;
	if (pid == 0) {
		errno = saved;
		return 0;
	}
	if (error == 0) {
		error = vm_fork_asked(false);
		while (error != 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
	} else {
		(void)vm_fork_asked(false);
	}
	errno = saved;
	return error != 0 ? error : pid;
}
