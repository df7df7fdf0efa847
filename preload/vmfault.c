/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * vmfault: programs that know nothing of us, under vmfault.  See vmfault(1).
 */

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config.h"
#include "vmfault_cmd.h"

static const struct {
	const char *name;
	int (*run)(char **argv);
} commands[] = {
	{ "run", cmd_run },
	{ "stat", cmd_stat },
	{ "top", cmd_top },
	{ "doctor", cmd_doctor },
};

static void
usage(FILE *to)
{
	int column;

	column = fprintf(to, "usage: vmfault run");
	for (const struct config_var *v = config_vars; v->env != NULL; v++) {
		const char *arg = v->arg != NULL ? v->arg : "";
		const char *sep = *arg == '\0' ? "" : *arg == '[' ? "[=" : " ";

		if (v->option == NULL)
			continue;
		if (column + (int)(strlen(v->option) + strlen(arg)) + 7 > 90)
			column = fprintf(to, "\n                  ") - 1;
		column += fprintf(to, " [--%s%s%s]", v->option, sep, *arg == '[' ? arg + 1 : arg);
	}
	fprintf(to, "\n                   [--] PROGRAM [ARGUMENT...]\n"
	    "       vmfault stat PID|--all [--interval SECONDS] [--count N] [--json]\n"
	    "       vmfault top [--interval SECONDS]\n"
	    "       vmfault doctor [--json]\n"
	    "       vmfault --version | --help\n"
	    "SIZE is in bytes, or has a suffix K, M, G or T; that of --memory may be a percentage.\n");
}

void
say(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fputs("vmfault: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
}

int
bad_use(const char *fmt, ...)
{
	char line[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	say("%s; try vmfault --help", line);
	return STATUS_USAGE;
}

bool
option_arg(char ***argv, const char *name, const char **arg)
{
	const char *word = **argv;
	size_t len = strlen(name);

	if (strncmp(word, "--", 2) != 0 || strncmp(word + 2, name, len) != 0)
		return false;
	word += 2 + len;
	if (*word == '=') {
		*arg = word + 1;
	} else if (*word != '\0') {
		return false;
	} else {
		*arg = (*argv)[1];
		if (*arg != NULL)
			(*argv)++;
	}
	return true;
}

bool
seconds(const char *s, double *to)
{
	char *end;

	*to = strtod(s, &end);
	return end != s && *end == '\0' && isfinite(*to) && *to >= 0.01 && *to <= 86400;
}

void
json_string(const char *s)
{
	putchar('"');
	for (; *s != '\0'; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < ' ' || c > '~' || c == '"' || c == '\\')
			printf("\\u%04x", c);
		else
			putchar(c);
	}
	putchar('"');
}

static bool
join(char *path, size_t size, const char *dir, const char *rest)
{
	return (size_t)snprintf(path, size, "%s/%s", dir, rest) < size && access(path, R_OK) == 0;
}

bool
shim_path(char *path, size_t size)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n > 0) {
		self[n] = '\0';
		*strrchr(self, '/') = '\0';
		/* Where an installed tree was moved to, it has the same shape. */
		if (join(path, size, self, SHIM_NAME) || join(path, size, self, LIBDIR_FROM_BINDIR "/" SHIM_NAME))
			return true;
	}
	return join(path, size, LIBDIR, SHIM_NAME);
}

int
main(int argc, char **argv)
{
	int status = STATUS_USAGE;

	if (argc < 2) {
		usage(stderr);
		return STATUS_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		status = 0;
	} else if (strcmp(argv[1], "--version") == 0) {
		printf("vmfault %s\n", VERSION);
		status = 0;
	} else {
		size_t i, n = sizeof(commands) / sizeof(commands[0]);

		for (i = 0; i < n && strcmp(argv[1], commands[i].name) != 0; i++)
			continue;
		status = i < n ? commands[i].run(argv + 2) :
		    bad_use("%s: no such command", argv[1]);
	}
	if (fflush(stdout) != 0 && status == 0 && errno != EPIPE) {
		say("standard output: %s", strerror(errno));
		status = STATUS_FAILED;
	}
	return status;
}
