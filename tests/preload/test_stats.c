/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What is written at the end of a process: once, whole or not at all, by the process it is about.
 */

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../suite.h"
#include "stats.h"
#include "vmfault.h"

static char dir[] = "/tmp/vmfault-stats-XXXXXX", text[16384];

static const char *
in_dir(const char *name)
{
	static char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

/* Files in the directory. */
static int
files(void)
{
	DIR *d = opendir(dir);
	int n = 0;

	ck_assert_ptr_nonnull(d);
	for (struct dirent *e; (e = readdir(d)) != NULL; )
		n += e->d_name[0] != '.';
	closedir(d);
	return n;
}

static const char *
contents(const char *path)
{
	int fd = open(path, O_RDONLY);
	ssize_t n;

	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
	n = read(fd, text, sizeof(text) - 1);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	close(fd);
	return text;
}

static unsigned long long
number(const char *name)
{
	char key[64];
	const char *at;

	snprintf(key, sizeof(key), "\"%s\": ", name);
	at = strstr(text, key);
	ck_assert_msg(at != NULL, "no %s in %s", name, text);
	return strtoull(at + strlen(key), NULL, 10);
}

static void
setup(void)
{
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static void
teardown(void)
{
	char command[PATH_MAX];

	snprintf(command, sizeof(command), "rm -r '%s'", dir);
	ck_assert_int_eq(system(command), 0);
}

static void
start(const char *file)
{
	struct vmf_config c = VMF_CONFIG_INIT;

	c.memory = 16 << 20;
	ck_assert_int_eq(vmf_init(&c), 0);
	stats_start(file, 1);
}

static void
touch(size_t pages)
{
	void *p;

	ck_assert_int_eq(vmf_allocate(VMF_TASK_DEFAULT, &p, pages * VMF_PAGE_SIZE, 0), 0);
	memset(p, 1, pages * VMF_PAGE_SIZE);
}

START_TEST(all_numbers_are_there)
{
	start(in_dir("s.json"));
	touch(10);
	stats_count(gate_pins);
	stats_add(gate_pins, 6);
	stats_set(gate_sites, 500);
	stats_fork(2000);
	stats_fork(5000);
	stats_fork(1000);
	errno = 77;
	stats_exit();
	ck_assert_int_eq(errno, 77);
	(void)contents(in_dir("s.json"));
	ck_assert_int_eq(files(), 1);
	ck_assert(strncmp(text, "{\n  \"vmfault\": \"", 16) == 0);
	ck_assert_str_eq(text + strlen(text) - 6, "  }\n}\n");
	ck_assert_uint_eq(number("pid"), (unsigned)getpid());
	ck_assert_uint_eq(number("v_zfod"), 10);
	ck_assert_uint_eq(number("v_page_count"), 4096);
	ck_assert_uint_eq(number("snapshot_ns_max"), 0);
	ck_assert_uint_eq(number("gate_pins"), 7);
	ck_assert_uint_eq(number("gate_sites"), 500);
	ck_assert_uint_eq(number("forks"), 3);
	ck_assert_uint_eq(number("fork_ns"), 8000);
	ck_assert_uint_eq(number("fork_ns_max"), 5000);
	ck_assert_uint_eq(number("chaos_evictions"), 0);
}
END_TEST

START_TEST(what_cannot_be_written_changes_nothing)
{
	start(in_dir("none/s.json"));
	errno = 77;
	stats_exit();
	ck_assert_int_eq(errno, 77);
	ck_assert_int_eq(files(), 0);
}
END_TEST

START_TEST(it_is_written_once)
{
	start(in_dir("s.json"));
	stats_exit();
	ck_assert_int_eq(unlink(in_dir("s.json")), 0);
	stats_exit();
	ck_assert_int_eq(files(), 0);
}
END_TEST

START_TEST(the_process_id_can_be_in_the_name)
{
	char want[PATH_MAX];

	snprintf(want, sizeof(want), "%s/a%d.b%%c%%x", dir, getpid());
	start(in_dir("a%p.b%%c%x"));
	stats_exit();
	(void)contents(want);
	ck_assert_int_eq(files(), 1);
}
END_TEST

/* What was there stays until the new one is whole, and the new one goes if it cannot be. */
START_TEST(nobody_sees_half_of_it)
{
	struct rlimit rl = { 100, 100 };
	int fd;

	start(in_dir("s.json"));
	fd = open(in_dir("s.json"), O_CREAT | O_WRONLY, 0644);
	ck_assert_int_eq(write(fd, "old", 3), 3);
	close(fd);
	signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &rl), 0);
	stats_exit();
	ck_assert_str_eq(contents(in_dir("s.json")), "old");
	ck_assert_int_eq(files(), 1);
}
END_TEST

START_TEST(a_link_is_replaced_and_not_followed)
{
	struct stat st;

	start(in_dir("s.json"));
	ck_assert_int_eq(symlink("elsewhere", in_dir("s.json")), 0);
	stats_exit();
	ck_assert_int_eq(lstat(in_dir("s.json"), &st), 0);
	ck_assert(S_ISREG(st.st_mode));
	ck_assert_int_eq(files(), 1);
}
END_TEST

/* A child of vfork() that ends shares our memory, but is not us. */
/* As root's, who may put a file in the place of anything. */
START_TEST(what_is_no_file_stays_what_it_is)
{
	char path[PATH_MAX], link_[PATH_MAX];
	struct stat st;
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s", in_dir("pipe"));
	snprintf(link_, sizeof(link_), "%s", in_dir("link"));
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	fd = open(path, O_RDONLY | O_NONBLOCK);
	ck_assert_int_ge(fd, 0);
	start(path);
	stats_exit();
	ck_assert(lstat(path, &st) == 0 && S_ISFIFO(st.st_mode));
	n = read(fd, text, sizeof(text) - 1);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	ck_assert_uint_eq(number("pid"), (unsigned)getpid());
	close(fd);
	/* A descriptor by name: what is there already is not lost. */
	fd = open(in_dir("out"), O_RDWR | O_CREAT | O_APPEND, 0600);
	ck_assert_int_eq(write(fd, "before", 6), 6);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ck_assert_int_eq(symlink(path, link_), 0);
	stats_start(link_, 1);
	stats_exit();
	ck_assert(lstat(link_, &st) == 0 && S_ISLNK(st.st_mode));
	(void)contents(in_dir("out"));
	ck_assert(strncmp(text, "before{", 7) == 0);
	ck_assert_int_eq(files(), 3);
	close(fd);
}
END_TEST

START_TEST(a_vforked_child_writes_nothing)
{
	int status;
	pid_t pid;

	start(in_dir("s.json"));
	pid = vfork();
	if (pid == 0) {
		stats_exit();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(files(), 0);
	stats_exit();
	ck_assert_int_eq(files(), 1);
}
END_TEST

/* A child that has the library anew counts from zero, and writes of its own. */
START_TEST(a_child_that_starts_anew_counts_from_zero)
{
	stats_start(in_dir("%p"), 1);
	stats_fork(1000);
	stats_start(in_dir("%p"), 1);
	stats_exit();
	char name[32];
	snprintf(name, sizeof(name), "%d", getpid());
	(void)contents(in_dir(name));
	ck_assert_uint_eq(number("forks"), 0);
	ck_assert_uint_eq(number("v_page_count"), 0);
}
END_TEST

/*
 * Standard error is that of the start, which programs close before they end.  Who closes all descriptors
 * may have something else where we had it, and that is not written to.
 */
START_TEST(standard_error_is_that_of_the_start)
{
	int fd[2], null = open("/dev/null", O_WRONLY), saved = dup(2);

	ck_assert_int_eq(pipe(fd), 0);
	dup2(fd[1], 2);
	start("-");
	dup2(null, 2);
	close(fd[1]);
	if (_i == 0)
		for (int i = 100; i < 2000; i++)
			if (close(i) == 0)
				dup2(null, i);
	stats_exit();
	dup2(saved, 2);
	if (_i == 0) {
		ck_assert_int_eq(read(fd[0], text, sizeof(text)), 0);
	} else {
		ssize_t n = read(fd[0], text, sizeof(text) - 1);

		ck_assert_int_gt(n, 0);
		text[n] = '\0';
		ck_assert_uint_eq(number("v_page_count"), 4096);
	}
}
END_TEST

/* A device, or a pipe, is written to and stays what it is; and so is what /dev/stderr is a link to. */
START_TEST(what_is_no_file_is_not_replaced)
{
	static const char *const name[] = { "pipe", "link" };
	char own[64];
	struct stat st;
	ssize_t n;
	int fd;

	ck_assert_int_eq(mkfifo(in_dir("pipe"), 0600), 0);
	fd = open(in_dir("pipe"), O_RDWR | O_NONBLOCK);
	ck_assert_int_ge(fd, 0);
	(void)snprintf(own, sizeof(own), "/proc/self/fd/%d", fd);
	ck_assert_int_eq(symlink(own, in_dir("link")), 0);
	start(in_dir(name[_i]));
	stats_exit();
	n = read(fd, text, sizeof(text) - 1);
	ck_assert_int_gt(n, 0);
	text[n] = '\0';
	ck_assert_uint_eq(number("v_page_count"), 4096);
	ck_assert_int_eq(lstat(in_dir("pipe"), &st), 0);
	ck_assert(S_ISFIFO(st.st_mode));
	ck_assert_int_eq(lstat(in_dir("link"), &st), 0);
	ck_assert(S_ISLNK(st.st_mode));
	close(fd);
	ck_assert_int_eq(unlink(in_dir("link")), 0);
	ck_assert_int_eq(unlink(in_dir("pipe")), 0);
}
END_TEST

START_TEST(without_a_file_nothing_is_written)
{
	start(NULL);
	stats_exit();
	ck_assert_int_eq(files(), 0);
}
END_TEST

int
main(void)
{
	Suite *s = suite_create("stats");
	TCase *t = tcase_create("stats");

	suite_add_tcase(s, t);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, all_numbers_are_there);
	tcase_add_test(t, what_cannot_be_written_changes_nothing);
	tcase_add_test(t, it_is_written_once);
	tcase_add_test(t, the_process_id_can_be_in_the_name);
	tcase_add_test(t, nobody_sees_half_of_it);
	tcase_add_test(t, a_link_is_replaced_and_not_followed);
	tcase_add_test(t, what_is_no_file_stays_what_it_is);
	tcase_add_test(t, a_vforked_child_writes_nothing);
	tcase_add_test(t, a_child_that_starts_anew_counts_from_zero);
	tcase_add_loop_test(t, standard_error_is_that_of_the_start, 0, 2);
	tcase_add_loop_test(t, what_is_no_file_is_not_replaced, 0, 2);
	tcase_add_test(t, without_a_file_nothing_is_written);
	return run_suite(s);
}
