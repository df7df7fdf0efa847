/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef VMFAULT_CMD_H
#define VMFAULT_CMD_H

/* What the parts of the `vmfault' command share. */

#include <stdbool.h>
#include <stddef.h>

/* Exit statuses beside those of the program that is run; the last three as env(1) has them. */
enum {
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,
	STATUS_SELF = 125,		/* vmfault itself could not go on */
	STATUS_CANNOT = 126,		/* the program is there, and cannot be run */
	STATUS_NOT_FOUND = 127
};

/* Each takes what follows its name, ended by null, and returns an exit status. */
int cmd_run(char **argv);
int cmd_stat(char **argv);
int cmd_top(char **argv);
int cmd_doctor(char **argv);

/* "vmfault: ...", one line on standard error. */
void say(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2)));
/* The same, and "try ..."; returns STATUS_USAGE. */
int bad_use(const char *fmt, ...) __attribute__((__format__(__printf__, 1, 2)));

/*
 * Is **argv the option --name, with its argument after = or in the next word?
 * => true: *arg is it, and *argv stands on the last word of the option; *arg null: it has none
 */
bool option_arg(char ***argv, const char *name, const char **arg);
/* A number of seconds, above 0, with a fraction or not.  => false: it is none */
bool seconds(const char *s, double *to);

/* A string for JSON, quotes and all, on standard output. */
void json_string(const char *s);

#define SHIM_NAME	"libvmfault-preload.so"
/* Where the shim is: beside the command in a build tree, else where it is installed.  => false: nowhere */
bool shim_path(char *path, size_t size);

#endif
