/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * VMFAULT_* become a struct shim_config.
 *
 * The shim reads them at its first use, which may be a malloc() of the dynamic linker, long before
 * constructors run: hence system calls made directly, and no stdio, no allocation, no locale.
 */

#include "config.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define VALUE_SHOWN	64		/* characters of a bad value that a message repeats */
#define SWAP_SHARE	4		/* swap that nobody gave a size: times the machine's memory */
#define MIN_MMAP	((uint64_t)1 << 20)
#define CHAOS_MOST	10000000u

static char swap_path[PATH_MAX], stats_path[PATH_MAX];

static bool
equal(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

/* Digits from *s on, which then points behind them. */
static bool
number(const char **s, uint64_t *n)
{
	const char *p = *s;

	*n = 0;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(*n, 10, n) || __builtin_add_overflow(*n, *p - '0', n))
			return false;
	if (p == *s)
		return false;
	*s = p;
	return true;
}

bool
config_size(const char *s, uint64_t *size)
{
	static const char suffix[] = "KMGT";
	const char *at;
	uint64_t n;

	if (!number(&s, &n))
		return false;
	if (*s != '\0') {
		at = strchr(suffix, *s & ~0x20);
		if (s[1] != '\0' || at == NULL || *at == '\0')
			return false;
		for (const char *p = suffix; p <= at; p++)
			if (__builtin_mul_overflow(n, 1024, &n))
				return false;
	}
	*size = n;
	return true;
}

static uint64_t
machine_memory(void)
{
	struct sysinfo si;

	if (syscall(SYS_sysinfo, &si) != 0)
		return 0;
	return (uint64_t)si.totalram * si.mem_unit;
}

static const char *
set_memory(struct shim_config *c, const char *value)
{
	const char *p = value;
	uint64_t n;

	if (number(&p, &n) && equal(p, "%")) {
		if (n == 0 || n > 100)
			return "1% to 100% of this machine's memory can be used";
		c->memory = machine_memory() / 100 * n & ~(uint64_t)4095;
	} else if (!config_size(value, &c->memory)) {
		return "not a size: bytes, or a number with K, M, G or T, or a percentage of this machine's memory";
	}
	/* No limit can be said, too: it is what holds without. */
	if (c->memory != 0 && c->memory < CONFIG_MEMORY_LEAST)
		return "too little: 256K is the least";
	return NULL;
}

static const char *
set_size(uint64_t *to, const char *value)
{
	return config_size(value, to) ? NULL : "not a size: bytes, or a number with K, M, G or T";
}

static const char *
set_swap_size(struct shim_config *c, const char *value)
{
	const char *why = set_size(&c->swap_size, value);

	if (why == NULL && c->swap_size < CONFIG_MEMORY_LEAST)
		why = "too little: 256K is the least; no swap is VMFAULT_SWAP=none";
	return why;
}

static const char *
set_min_mmap(struct shim_config *c, const char *value)
{
	return set_size(&c->min_mmap, value);
}

/* A path that stays true when the program goes elsewhere. */
static const char *
set_path(char *to, const char *value)
{
	size_t have = 0, len = strlen(value);
	long n;

	if (value[0] != '/') {
		n = syscall(SYS_getcwd, to, PATH_MAX);
		if (n < 2 || to[0] != '/')
			return "a relative path, and the working directory has no name";
		have = (size_t)n - 1;
		if (have > 1)
			to[have++] = '/';
	}
	if (have + len >= PATH_MAX)
		return "the path is too long";
	memcpy(to + have, value, len + 1);
	return NULL;
}

static const char *
set_swap(struct shim_config *c, const char *value)
{
	c->swap_none = equal(value, "none");
	c->swap = c->swap_none ? NULL : swap_path;
	return c->swap_none ? NULL : set_path(swap_path, value);
}

static const char *
set_stats(struct shim_config *c, const char *value)
{
	c->stats = stats_path;
	if (equal(value, "-")) {
		memcpy(stats_path, "-", 2);
		return NULL;
	}
	if (value[strlen(value) - 1] == '/')
		return "a directory: the name of a file is needed";
	return set_path(stats_path, value);
}

static const char *
set_bool(bool *to, const char *value)
{
	*to = equal(value, "1");
	return *to || equal(value, "0") ? NULL : "can be 0 or 1";
}

static const char *
set_compress(struct shim_config *c, const char *value)
{
	return set_bool(&c->compress, value);
}

static const char *
set_strict(struct shim_config *c, const char *value)
{
	return set_bool(&c->strict, value);
}

static const char *
set_quiet(struct shim_config *c, const char *value)
{
	return set_bool(&c->quiet, value);
}

static const char *
set_manage(struct shim_config *c, const char *value)
{
	c->manage_mmap = equal(value, "heap+mmap");
	return c->manage_mmap || equal(value, "heap") ? NULL : "can be heap or heap+mmap";
}

static const char *
set_fork(struct shim_config *c, const char *value)
{
	c->fork_asked = true;
	c->fork_mode = equal(value, "copy") ? FORK_COPY : FORK_FAST;
	return c->fork_mode == FORK_COPY || equal(value, "fast") ? NULL : "can be fast or copy";
}

static const char *
set_gate(struct shim_config *c, const char *value)
{
	c->gate_mode = equal(value, "patch") ? GATE_PATCH : equal(value, "plt") ? GATE_PLT : GATE_AUTO;
	return c->gate_mode != GATE_AUTO || equal(value, "auto") ? NULL : "can be auto, patch or plt";
}

static const char *
set_chaos(struct shim_config *c, const char *value)
{
	uint64_t n;

	if (!number(&value, &n) || *value != '\0' || n > CHAOS_MOST)
		return "not a number of pages per second, 10000000 at most";
	c->chaos = (uint32_t)n;
	return NULL;
}

const struct config_var config_vars[] = {
	{ "VMFAULT_MEMORY", "memory", "SIZE", set_memory },
	{ "VMFAULT_SWAP", "swap", "PATH|none", set_swap },
	{ "VMFAULT_SWAP_SIZE", "swap-size", "SIZE", set_swap_size },
	{ "VMFAULT_COMPRESS", "compress", NULL, set_compress },
	{ "VMFAULT_MANAGE", "manage", "heap|heap+mmap", set_manage },
	{ "VMFAULT_MIN_MMAP", "min-mmap", "SIZE", set_min_mmap },
	{ "VMFAULT_FORK", "fork", "fast|copy", set_fork },
	{ "VMFAULT_GATE", "gate", "auto|patch|plt", set_gate },
	{ "VMFAULT_STATS", "stats", "[FILE]", set_stats },
	{ "VMFAULT_STRICT", "strict", NULL, set_strict },
	{ "VMFAULT_QUIET", "quiet", NULL, set_quiet },
	{ "VMFAULT_CHAOS", NULL, NULL, set_chaos },
	{ NULL, NULL, NULL, NULL },
};

void
config_init(struct shim_config *c)
{
	*c = (struct shim_config){ .min_mmap = MIN_MMAP, .fork_mode = FORK_FAST, .gate_mode = GATE_AUTO };
}

/* A file or device has a size, a directory has none. */
static bool
is_directory(const char *path)
{
	long fd = syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0)
		(void)syscall(SYS_close, fd);
	return fd >= 0;
}

const char *
config_finish(struct shim_config *c)
{
	if (c->swap_none && c->swap_size != 0)
		return "there is to be no swap, and swap has a size";
	/* A limit is of no use if nothing can leave. */
	if (c->memory != 0 && !c->swap_none && c->swap_size == 0 && (c->swap == NULL || is_directory(c->swap)))
		c->swap_size = SWAP_SHARE * machine_memory();
	return NULL;
}

static char *
append(char *at, const char *end, const char *s, size_t most)
{
	for (; *s != '\0' && at < end; s++) {
		if (most-- == 0) {
			for (int i = 0; i < 3 && at < end; i++)
				*at++ = '.';
			break;
		}
		*at++ = (unsigned char)*s < ' ' || *s == 0x7f ? '?' : *s;
	}
	return at;
}

void
config_complain(char *message, const char *name, const char *sep, const char *value, const char *why)
{
	const char *end = message + CONFIG_MESSAGE - 1;
	char *at = append(message, end, name, SIZE_MAX);

	at = append(at, end, sep, SIZE_MAX);
	at = append(at, end, value, VALUE_SHOWN);
	at = append(at, end, ": ", SIZE_MAX);
	*append(at, end, why, SIZE_MAX) = '\0';
}

/* getenv() of an environment that libc may not have taken up yet.  Null also where it is empty. */
static const char *
value_of(char *const envp[], const char *name)
{
	size_t len = strlen(name);

	for (; envp != NULL && *envp != NULL; envp++)
		if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=')
			return (*envp)[len + 1] != '\0' ? *envp + len + 1 : NULL;
	return NULL;
}

bool
config_read(struct shim_config *c, char *const envp[], char *message)
{
	const char *value, *why;

	config_init(c);
	for (const struct config_var *v = config_vars; v->env != NULL; v++) {
		value = value_of(envp, v->env);
		why = value != NULL ? v->set(c, value) : NULL;
		if (why != NULL) {
			config_complain(message, v->env, "=", value, why);
			return false;
		}
	}
	why = config_finish(c);
	if (why != NULL)
		config_complain(message, "VMFAULT_SWAP and VMFAULT_SWAP_SIZE", "", "", why);
	return why == NULL;
}

bool
config_load(struct shim_config *c, char *const envp[])
{
	char line[sizeof("vmfault: \n") + CONFIG_MESSAGE] = "vmfault: ";
	size_t len;

	config_init(c);
	if (getauxval(AT_SECURE) != 0)
		return false;
	if (config_read(c, envp, line + strlen(line)))
		return true;
	len = strlen(line);
	line[len++] = '\n';
	(void)!syscall(SYS_write, STDERR_FILENO, line, len);
	for (;;)
		(void)syscall(SYS_exit_group, 2);
}
