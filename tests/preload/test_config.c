/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * VMFAULT_*: what each value means, and that a bad one ends the process with one line.
 */

#include <check.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../suite.h"
#include "config.h"

#define K	((uint64_t)1 << 10)
#define M	((uint64_t)1 << 20)
#define G	((uint64_t)1 << 30)
#define T	((uint64_t)1 << 40)
#define n_of(a)	((int)(sizeof(a) / sizeof((a)[0])))

static struct shim_config c;
static char message[CONFIG_MESSAGE];

/* Read an environment of at most three variables. */
static bool
got(const char *a, const char *b, const char *d)
{
	const char *envp[] = { "OTHER=1", a, b, d, NULL };

	message[0] = '\0';
	return config_read(&c, (char *const *)(uintptr_t)envp, message);
}

static uint64_t
machine(void)
{
	struct sysinfo si;

	ck_assert_int_eq(sysinfo(&si), 0);
	return (uint64_t)si.totalram * si.mem_unit;
}

START_TEST(nothing_said_is_no_limit_and_the_heap)
{
	ck_assert(got(NULL, NULL, NULL));
	ck_assert_uint_eq(c.memory, 0);
	ck_assert_uint_eq(c.swap_size, 0);
	ck_assert_ptr_null(c.swap);
	ck_assert_ptr_null(c.stats);
	ck_assert(!c.swap_none && !c.compress && !c.manage_mmap && !c.strict && !c.quiet);
	ck_assert_int_eq(c.fork_mode, FORK_FAST);
	ck_assert_int_eq(c.gate_mode, GATE_AUTO);
	ck_assert_uint_eq(c.chaos, 0);
	ck_assert_uint_eq(c.min_mmap, M);
}
END_TEST

static const struct {
	const char *text;
	uint64_t size;
} sizes[] = {
	{ "VMFAULT_MEMORY=262144", 256 * K }, { "VMFAULT_MEMORY=300k", 300 * K }, { "VMFAULT_MEMORY=7M", 7 * M },
	{ "VMFAULT_MEMORY=2g", 2 * G }, { "VMFAULT_MEMORY=3T", 3 * T }, { "VMFAULT_MEMORY=16777215T", 16777215 * T },
	{ "VMFAULT_MEMORY=0", 0 }, { "VMFAULT_MEMORY=", 0 },
};

START_TEST(sizes_have_suffixes)
{
	ck_assert_msg(got(sizes[_i].text, NULL, NULL), "%s", message);
	ck_assert_uint_eq(c.memory, sizes[_i].size);
}
END_TEST

START_TEST(memory_can_be_a_share_of_the_machine)
{
	ck_assert(got("VMFAULT_MEMORY=25%", NULL, NULL));
	ck_assert(c.memory <= machine() / 4 && c.memory > machine() / 4 - 2 * 4096);
	ck_assert_uint_eq(c.memory % 4096, 0);
	ck_assert(got("VMFAULT_MEMORY=100%", NULL, NULL));
	ck_assert(c.memory <= machine() && c.memory > machine() - 2 * 4096);
}
END_TEST

/* With a limit there is swap, unless it is said that there be none. */
START_TEST(a_limit_brings_swap)
{
	ck_assert(got("VMFAULT_MEMORY=1M", NULL, NULL));
	ck_assert_uint_eq(c.swap_size, 4 * machine());
	ck_assert(got("VMFAULT_MEMORY=1M", "VMFAULT_SWAP=none", NULL));
	ck_assert_uint_eq(c.swap_size, 0);
	ck_assert(c.swap_none);
	ck_assert_ptr_null(c.swap);
	ck_assert(got("VMFAULT_MEMORY=1M", "VMFAULT_SWAP=/dev/x", NULL));
	ck_assert_uint_eq(c.swap_size, 0);
	ck_assert_str_eq(c.swap, "/dev/x");
	ck_assert(got("VMFAULT_MEMORY=1M", "VMFAULT_SWAP_SIZE=1G", NULL));
	ck_assert_uint_eq(c.swap_size, G);
}
END_TEST

START_TEST(every_word_is_understood)
{
	ck_assert(got("VMFAULT_MANAGE=heap+mmap", "VMFAULT_FORK=copy", "VMFAULT_GATE=plt"));
	ck_assert(c.manage_mmap && c.fork_mode == FORK_COPY && c.gate_mode == GATE_PLT);
	ck_assert(got("VMFAULT_MANAGE=heap", "VMFAULT_FORK=fast", "VMFAULT_GATE=patch"));
	ck_assert(!c.manage_mmap && c.fork_mode == FORK_FAST && c.gate_mode == GATE_PATCH);
	ck_assert(got("VMFAULT_COMPRESS=1", "VMFAULT_STRICT=1", "VMFAULT_QUIET=1"));
	ck_assert(c.compress && c.strict && c.quiet);
	ck_assert(got("VMFAULT_COMPRESS=0", "VMFAULT_STRICT=0", "VMFAULT_QUIET=0"));
	ck_assert(!c.compress && !c.strict && !c.quiet);
	ck_assert(got("VMFAULT_CHAOS=5000", "VMFAULT_MIN_MMAP=128K", "VMFAULT_GATE=auto"));
	ck_assert(c.chaos == 5000 && c.min_mmap == 128 * K && c.gate_mode == GATE_AUTO);
}
END_TEST

/* A program that changes its directory, or writes over its environment, changes nothing. */
START_TEST(paths_are_kept_and_absolute)
{
	char here[PATH_MAX], want[PATH_MAX + 16];
	char swap[] = "VMFAULT_SWAP=sw", stats[] = "VMFAULT_STATS=a/b.%p";

	ck_assert_ptr_nonnull(getcwd(here, sizeof(here)));
	ck_assert(got(swap, stats, NULL));
	memset(swap, 'x', sizeof(swap) - 1);
	memset(stats, 'x', sizeof(stats) - 1);
	snprintf(want, sizeof(want), "%s/sw", here);
	ck_assert_str_eq(c.swap, want);
	snprintf(want, sizeof(want), "%s/a/b.%%p", here);
	ck_assert_str_eq(c.stats, want);
	ck_assert_int_eq(chdir("/"), 0);
	ck_assert(got("VMFAULT_SWAP=sw", "VMFAULT_STATS=-", NULL));
	ck_assert_str_eq(c.swap, "/sw");
	ck_assert_str_eq(c.stats, "-");
}
END_TEST

static const char *const bad[] = {
	"VMFAULT_MEMORY=x", "VMFAULT_MEMORY=1X", "VMFAULT_MEMORY=1MB", "VMFAULT_MEMORY=-1", "VMFAULT_MEMORY= 1M",
	"VMFAULT_MEMORY=1M ", "VMFAULT_MEMORY=K", "VMFAULT_MEMORY=262143", "VMFAULT_MEMORY=18446744073709551616",
	"VMFAULT_MEMORY=16777216T", "VMFAULT_MEMORY=0%", "VMFAULT_MEMORY=101%", "VMFAULT_MEMORY=5%%",
	"VMFAULT_MEMORY=1.5G", "VMFAULT_MEMORY=0x100000", "VMFAULT_SWAP_SIZE=10%", "VMFAULT_SWAP_SIZE=1",
	"VMFAULT_SWAP_SIZE=0", "VMFAULT_MIN_MMAP=small", "VMFAULT_COMPRESS=yes", "VMFAULT_STRICT=2", "VMFAULT_QUIET=on",
	"VMFAULT_MANAGE=mmap", "VMFAULT_MANAGE=heap+", "VMFAULT_FORK=slow", "VMFAULT_GATE=PLT",
	"VMFAULT_CHAOS=-5", "VMFAULT_CHAOS=5K", "VMFAULT_CHAOS=99999999", "VMFAULT_STATS=dir/",
};

START_TEST(a_bad_value_is_named)
{
	ck_assert(!got(bad[_i], NULL, NULL));
	ck_assert_msg(strncmp(message, bad[_i], strlen(bad[_i])) == 0, "%s", message);
	ck_assert_msg(message[strlen(bad[_i])] == ':', "%s", message);
	ck_assert_ptr_null(strchr(message, '\n'));
}
END_TEST

START_TEST(settings_that_contradict_are_refused)
{
	ck_assert(!got("VMFAULT_SWAP=none", "VMFAULT_SWAP_SIZE=1G", NULL));
	ck_assert_ptr_nonnull(strstr(message, "VMFAULT_SWAP_SIZE"));
}
END_TEST

/* Whatever is in the variable, the message is one line, and fits. */
START_TEST(messages_are_tame)
{
	char value[4000] = "VMFAULT_MEMORY=1\n\033[2J";

	memset(value + strlen(value), 'y', sizeof(value) - 1 - strlen(value));
	ck_assert(!got(value, NULL, NULL));
	ck_assert(strlen(message) < CONFIG_MESSAGE);
	ck_assert(strncmp(message, "VMFAULT_MEMORY=1??[2Jyyy", 24) == 0);
	ck_assert_ptr_nonnull(strstr(message, "y...: not a size"));
	memcpy(value, "VMFAULT_STATS=", 14);
	memset(value + 14, '/', sizeof(value) - 15);
	value[sizeof(value) - 2] = 'f';
	ck_assert(got(value, NULL, NULL));
}
END_TEST

START_TEST(the_first_of_two_counts_as_for_getenv)
{
	ck_assert(got("VMFAULT_CHAOSX=3", "VMFAULT_CHAOS=1", "VMFAULT_CHAOS=2"));
	ck_assert_uint_eq(c.chaos, 1);
}
END_TEST

START_TEST(a_bad_value_ends_the_process_with_one_line)
{
	char set[] = "VMFAULT_FORK=never";
	char *const envp[] = { set, NULL };
	char said[1000];
	int fd[2], status;
	ssize_t n;
	pid_t pid;

	ck_assert_int_eq(pipe(fd), 0);
	pid = fork();
	if (pid == 0) {
		dup2(fd[1], 2);
		(void)config_load(&c, envp);
		_exit(0);
	}
	close(fd[1]);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	n = read(fd[0], said, sizeof(said) - 1);
	ck_assert_int_gt(n, 0);
	said[n] = '\0';
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 2);
	ck_assert_str_eq(said, "vmfault: VMFAULT_FORK=never: can be fast or copy\n");
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("config");
	TCase *t = tcase_create("config");

	suite_add_tcase(s, t);
	tcase_add_test(t, nothing_said_is_no_limit_and_the_heap);
	tcase_add_loop_test(t, sizes_have_suffixes, 0, n_of(sizes));
	tcase_add_test(t, memory_can_be_a_share_of_the_machine);
	tcase_add_test(t, a_limit_brings_swap);
	tcase_add_test(t, every_word_is_understood);
	tcase_add_test(t, paths_are_kept_and_absolute);
	tcase_add_loop_test(t, a_bad_value_is_named, 0, n_of(bad));
	tcase_add_test(t, settings_that_contradict_are_refused);
	tcase_add_test(t, messages_are_tame);
	tcase_add_test(t, the_first_of_two_counts_as_for_getenv);
	tcase_add_test(t, a_bad_value_ends_the_process_with_one_line);
	return run_suite(s);
}
