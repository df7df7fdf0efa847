/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * vmfault run: the settings into the environment, the shim into LD_PRELOAD, and exec.
 *
 * What the shim cannot say because it never gets there is said here: programs that the dynamic linker
 * does not start (static ones), or for which it ignores LD_PRELOAD (set-id ones, of another machine).
 */

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "config.h"
#include "vmfault_cmd.h"

#define SCRIPTS		4		/* interpreters of interpreters that are looked through */

/*
 * Set one option, if the word is one.
 * => 1: it was, and *argv stands on its last word; 0: it was none; -1: it was wrong, and that was said
 */
static int
take_option(char ***argv, struct shim_config *scratch)
{
	char message[CONFIG_MESSAGE], name[40];
	const char *word = **argv, *value, *why;

	for (const struct config_var *v = config_vars; v->env != NULL; v++) {
		size_t len = v->option != NULL ? strlen(v->option) : 0;

		if (len == 0 || strncmp(word + 2, v->option, len) != 0 || (word[2 + len] != '\0' && word[2 + len] != '='))
			continue;
		if (v->arg == NULL || *v->arg == '[') {
			/* Its value, if it has one at all, is in this very word. */
			value = word[2 + len] == '=' ? word + 3 + len : v->arg == NULL ? "1" : "-";
			if (v->arg == NULL && word[2 + len] == '=')
				return bad_use("--%s takes no argument", v->option), -1;
		} else {
			(void)option_arg(argv, v->option, &value);
		}
		if (value == NULL || *value == '\0')
			return bad_use("--%s wants an argument: %s", v->option, v->arg), -1;
		why = v->set(scratch, value);
		if (why != NULL) {
			snprintf(name, sizeof(name), "--%s", v->option);
			config_complain(message, name, " ", value, why);
			say("%s", message);
			return -1;
		}
		if (setenv(v->env, value, 1) != 0)
			return say("%s", strerror(errno)), -1;
		return 1;
	}
	return 0;
}

/* Put the shim before what is to be preloaded anyway. */
static bool
preload(const char *shim)
{
	const char *old = getenv("LD_PRELOAD"), *at;
	size_t len = strlen(shim);
	char *both;

	if (strpbrk(shim, " :") != NULL) {
		say("%s: the dynamic linker takes no path with a space or a colon in it", shim);
		return false;
	}
	if (old == NULL || *old == '\0')
		return setenv("LD_PRELOAD", shim, 1) == 0;
	for (at = old; (at = strstr(at, shim)) != NULL; at += len)
		if ((at == old || strchr(" :", at[-1]) != NULL) && strchr(" :", at[len]) != NULL)
			return true;
	if (asprintf(&both, "%s:%s", shim, old) < 0)
		return false;
	return setenv("LD_PRELOAD", both, 1) == 0;
}

/* Where execvp() will find the program.  => false: nowhere, which it will say better */
static bool
find_program(const char *name, char *path, size_t size)
{
	const char *dirs = getenv("PATH"), *end;

	if (strchr(name, '/') != NULL)
		return (size_t)snprintf(path, size, "%s", name) < size;
	if (dirs == NULL)
		dirs = "/bin:/usr/bin";
	for (;; dirs = end + 1) {
		struct stat st;

		end = strchrnul(dirs, ':');
		if ((size_t)snprintf(path, size, "%.*s%s%s", (int)(end - dirs), dirs, end > dirs ? "/" : "", name) < size &&
		    access(path, X_OK) == 0 && stat(path, &st) == 0 && S_ISREG(st.st_mode))
			return true;
		if (*end == '\0')
			return false;
	}
}

#ifdef __LP64__
#define OUR_CLASS	ELFCLASS64
#define OUR_MACHINE	EM_X86_64
typedef Elf64_Ehdr elf_header;
typedef Elf64_Phdr elf_segment;
#else
#define OUR_CLASS	ELFCLASS32
#define OUR_MACHINE	EM_386
typedef Elf32_Ehdr elf_header;
typedef Elf32_Phdr elf_segment;
#endif

/* Its linker would not find what the shim needs, and end the program. */
static const char another_libc[] = "linked with another C library (musl)";

/* Why the dynamic linker will not load the shim into this ELF file, or null. */
static const char *
elf_obstacle(int fd, const elf_header *e)
{
	elf_segment segment;
	char linker[PATH_MAX] = "";

	if (e->e_ident[EI_CLASS] != OUR_CLASS || e->e_machine != OUR_MACHINE)
		return "a program of another machine";
	for (unsigned i = 0; i < e->e_phnum; i++) {
		if (pread(fd, &segment, sizeof(segment), (off_t)(e->e_phoff + i * e->e_phentsize)) != sizeof(segment))
			return NULL;
		if (segment.p_type == PT_INTERP)
			return pread(fd, linker, sizeof(linker) - 1, (off_t)segment.p_offset) > 0 &&
			    strstr(linker, "/ld-musl") != NULL ? another_libc : NULL;
	}
	return "statically linked";
}

/* Why it will ignore LD_PRELOAD, or null. */
static const char *
rights_obstacle(int fd)
{
	struct stat st;

	if (fstat(fd, &st) != 0)
		return NULL;
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		return "set-user-id";
	if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
		return "set-group-id";
	if (getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0)
		return "with capabilities";
	return NULL;
}

/*
 * Look at the program, and through scripts at what interprets them.
 * => a reason not to be managed, or null: none that can be seen from here
 */
static const char *
obstacle(char *path)
{
	const char *why = NULL;

	for (int i = 0; i < SCRIPTS && why == NULL; i++) {
		char head[PATH_MAX] = "";
		elf_header e;
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd >= 0 ? pread(fd, head, sizeof(head) - 1, 0) : -1;

		if (n >= (ssize_t)sizeof(e) && memcmp(head, ELFMAG, SELFMAG) == 0) {
			memcpy(&e, head, sizeof(e));
			why = elf_obstacle(fd, &e);
			if (why == NULL)
				why = rights_obstacle(fd);
		}
		if (fd >= 0)
			(void)close(fd);
		if (n < 2 || memcmp(head, "#!", 2) != 0)
			break;
		head[strcspn(head, "\n")] = '\0';
		n = 2 + (ssize_t)strspn(head + 2, " \t");
		head[n + (ssize_t)strcspn(head + n, " \t")] = '\0';
		memmove(path, head + n, strlen(head + n) + 1);
	}
	return why;
}

int
cmd_run(char **argv)
{
	char message[CONFIG_MESSAGE], path[PATH_MAX], shim[PATH_MAX];
	struct shim_config config;
	const char *why;
	int error, taken;

	config_init(&config);
	for (; *argv != NULL && strncmp(*argv, "--", 2) == 0; argv++) {
		if (strcmp(*argv, "--") == 0) {
			argv++;
			break;
		}
		taken = take_option(&argv, &config);
		if (taken == 0)
			return bad_use("run: %s: no such option", *argv);
		if (taken < 0)
			return STATUS_USAGE;
	}
	if (*argv == NULL)
		return bad_use("run: no program");
	/* All together, with what the environment says beside. */
	if (!config_read(&config, environ, message)) {
		say("%s", message);
		return STATUS_USAGE;
	}
	if (!shim_path(shim, sizeof(shim))) {
		say(SHIM_NAME ": it is neither beside this command nor in " LIBDIR);
		return STATUS_SELF;
	}
	why = find_program(*argv, path, sizeof(path)) ? obstacle(path) : NULL;
	if (why != another_libc && !preload(shim))
		return STATUS_SELF;
	if (why != NULL) {
		if (config.strict || !config.quiet)
			say("%s: %s: it %s", *argv, why, config.strict ? "cannot be managed" : "runs unmanaged");
		if (config.strict)
			return STATUS_CANNOT;
	}
	fflush(stdout);
	execvp(*argv, argv);
	error = errno;
	say("%s: %s", *argv, strerror(error));
	return error == ENOENT ? STATUS_NOT_FOUND : STATUS_CANNOT;
}
