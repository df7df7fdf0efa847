/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef PRELOAD_CONFIG_H
#define PRELOAD_CONFIG_H

/*
 * What the user asked for: VMFAULT_* in the environment, or the options of `vmfault run`, which end up
 * there.  Both are read by the same code, so that what the command lets through the shim accepts.
 *
 * Usable before libc is: nothing here allocates, prints with stdio, or keeps a pointer into the
 * environment, which programs write their titles over.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate.h"

enum { FORK_FAST, FORK_COPY };

/* Constant once it has been read. */
struct shim_config {
	uint64_t memory;	/* bytes of frames; 0: no limit */
	uint64_t swap_size;	/* bytes of swap; 0: all of the file or device that swap names, or
				   no swap where that is null */
	uint64_t min_mmap;	/* smaller mappings of the program's own stay the kernel's */
	const char *swap;	/* absolute path of a file, device or directory; null: a file without a
				   name in $TMPDIR or /var/tmp, if swap_size is not 0 */
	const char *stats;	/* absolute path of what is written at exit, with %p for the process id;
				   "-": standard error; null: nothing */
	bool swap_none;		/* no swap, whatever the limit */
	bool compress;		/* compressed memory in front of swap, or instead of it */
	bool manage_mmap;	/* the program's own private mappings too, not the heap alone */
	bool strict;		/* what cannot be managed must not run */
	bool quiet;		/* no messages */
	int fork_mode;		/* FORK_* */
	bool fork_asked;	/* the user has said so */
	int gate_mode;		/* GATE_* */
	uint32_t chaos;		/* pages that a thread evicts each second, at random; for tests */
};

#define CONFIG_MEMORY_LEAST	((uint64_t)64 * 4096)	/* vmf_init() takes no less */
#define CONFIG_MESSAGE		320			/* bytes of the longest message */

/* A setting: the variable, the option of `vmfault run`, and what it may be. */
struct config_var {
	const char *env, *option;	/* option: null if there is none; without the dashes */
	const char *arg;		/* the option's argument in a usage; null: it takes none, and sets
					   "1"; in brackets: it may be left out, and sets "-" */
	/* Null, or what is wrong with the value. */
	const char *(*set)(struct shim_config *, const char *value);
};
extern const struct config_var config_vars[];	/* ends with env null */

/* What holds where nothing is said. */
void config_init(struct shim_config *);

/* Settings that contradict each other, and what follows from the others.  Null, or what is wrong. */
const char *config_finish(struct shim_config *);

/*
 * All of it from an environment.  => false: message[CONFIG_MESSAGE] says why, in one line without its
 * end.  The paths of a struct shim_config that was read before are gone.
 */
bool config_read(struct shim_config *, char *const envp[], char *message);

/*
 * For the shim, before main: config_read(), or the message on standard error and exit status 2.
 * => false: the process runs with the rights of another user (set-id, capabilities), and nothing that this
 * one says must count
 */
bool config_load(struct shim_config *, char *const envp[]);

/* "name=value: why", value made fit for a terminal and cut short.  No newline. */
void config_complain(char *message, const char *name, const char *sep, const char *value, const char *why);

/* Bytes: digits, and K, M, G or T.  => false: none of that, or too many */
bool config_size(const char *, uint64_t *);

#endif
