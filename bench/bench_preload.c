/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What it costs a program to run under the shim with no limit, against the same program with jemalloc preloaded.
 *
 *	vmfault					kernel
 *	LD_PRELOAD=libvmfault-preload.so	LD_PRELOAD=libjemalloc.so.2
 *
 * Memory that nobody bounds is at rest (preload/shim.h): what is left is the allocator, which is jemalloc on both sides,
 * one test in front of it, the first touches, the gate that system calls pass through, and the start.  Where there is no libjemalloc.so.2 the other side has
 * libc's malloc(), and says so: then it compares allocators, and not the shim.
 *
 *	CPU time	of the program and its children, user and system: it does not say how busy the machine is
 *	a request	of redis-benchmark's on a socket in a directory: the inverse of the throughput, and the
 *			CPU time of the server alone.  The client has nothing preloaded
 *	start-up	from spawning true to its end
 *
 * The size is about what each job has in memory at most.  What a program prints must be the same on both
 * sides and in all rounds; a server must have answered each request, and end with status 0.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define SHIM		"libvmfault-preload.so"
#define JEMALLOC	"libjemalloc.so.2"
#define STARTS		40u		/* of true, in a round */
#define REQUESTS	60000u		/* of a kind */
#define KINDS		"set,get,lpush,hset,zadd"
#define REPLIES		5u		/* kinds that redis-benchmark does of these */
#define PATIENCE	300u		/* tenths of a second for a server to be there */

/*
 * A job is a program that /bin/sh runs; $N is its amount of work: the size / per.  Its directory is its own, and empty.
 */
struct job {
	const char *what, *needs, *sh;
	uint64_t per;
};

#define PYTHON	"python3 -I -S -c '"

static const struct job jobs[] = {
	{ "python3, objects, CPU time", "python3", PYTHON
	    "import os\n"
	    "n = int(os.environ[\"N\"])\n"
	    "class Node:\n"
	    "    def __init__(self, k): self.k = k; self.text = str(k) * 3; self.next = []\n"
	    "nodes = [Node(i * 7919 % n) for i in range(n)]\n"
	    "names = {x.text: x for x in nodes}\n"
	    "for turn in range(4):\n"
	    "    for i, x in enumerate(nodes): x.next = [nodes[(i * 31 + turn) % n], x.text + str(turn)]\n"
	    "print(sum(len(x.next[1]) for x in names.values()), len(names))\n"
	    "'", 400 },
	{ "python3, text, CPU time", "python3", PYTHON
	    "import hashlib, json, os, re\n"
	    "n = int(os.environ[\"N\"])\n"
	    "d = [{\"key\": i, \"name\": \"x%d\" % (i * i), \"list\": list(range(i % 9))} for i in range(n)]\n"
	    "for turn in range(3): text = json.dumps(d); d = json.loads(text)\n"
	    "words = sorted(set(re.findall(r\"\\w+\", text)))\n"
	    "print(hashlib.md5(\" \".join(words).encode()).hexdigest(), len(text.replace(\"x\", \"yy\").split()))\n"
	    "'", 1000 },
	{ "sqlite3, in memory, CPU time", "sqlite3", "sqlite3 :memory: \""
	    "create table t(a integer primary key, b, c); create index i on t(b);"
	    "with recursive x(n) as (select 1 union all select n + 1 from x where n < $N)"
	    " insert into t select n, n * 7919 % 1000003, hex(n * n) from x;"
	    "update t set c = c || b where a % 3 = 0; delete from t where b % 5 = 0;"
	    "select count(*), sum(a), max(c) from t where c like '%77%';"
	    "select count(*) from t x join t y on x.b = y.a;"
	    "select group_concat(c) from (select c from t order by c limit 5)\"", 160 },
	{ "sqlite3, in a file, CPU time", "sqlite3", "sqlite3 db \""
	    "pragma journal_mode=wal; pragma synchronous=off; pragma cache_size=-$((N / 16));"
	    "create table t(a integer primary key, b, c); create index i on t(b);"
	    "with recursive x(n) as (select 1 union all select n + 1 from x where n < $N)"
	    " insert into t select n, n * 7919 % 1000003, hex(n * n) from x;"
	    "update t set c = c || b where a % 3 = 0;"
	    "select count(*), sum(a), max(c) from t where c like '%77%'; pragma integrity_check\"", 160 },
	{ "gcc -O2, CPU time", "gcc", "i=0; while [ $i -lt $N ]; do i=$((i + 1)); printf 'struct s%d { int n, a[8]; };\n"
	    "int f%d(struct s%d *s, int x) { int t = %d; for (int i = 0; i < s->n; i++) { t += s->a[i & 7] * x ^ i; "
	    "switch (t & 7) { case 1: t += x; break; case 3: t ^= i; break; case 5: s->a[i & 7]++; } } return t; }\n' "
	    "$i $i $i $i; done >x.c; gcc -O2 -g -ffile-prefix-map=\"$PWD\"=. -c x.c -o x.o && cksum x.o", 65536 },
};
#define JOBS		(sizeof(jobs) / sizeof(jobs[0]))

enum { REDIS = JOBS, START, PAIRS };

static char preload[SIDES][PATH_MAX + 64];	/* "LD_PRELOAD=..." */

/* What each job printed at first, as a number that is not 0.  All measuring processes have it in common. */
static uint64_t *said;

/*
 * Running programs
 */

/* Has it such a program?  => in $PATH */
static bool
is_there(const char *name)
{
	char path[PATH_MAX + 1], *dir, *rest = path;

	snprintf(path, sizeof(path), "%s", getenv("PATH") != NULL ? getenv("PATH") : "/usr/bin:/bin");
	while ((dir = strsep(&rest, ":")) != NULL) {
		char file[2 * PATH_MAX];

		snprintf(file, sizeof(file), "%s/%s", dir, name);
		if (access(file, X_OK) == 0)
			return (true);
	}
	return (false);
}

/* A shell's command, in a directory; set: what it has in its environment besides, or null.  out: its output, or -1 */
static pid_t
start(const char *sh, const char *dir, const char *set, const char *amount, int out)
{
	pid_t pid = fork();

	if (pid < 0)
		bench_die("%s", strerror(errno));
	if (pid != 0)
		return (pid);
	if (chdir(dir) != 0)
		_exit(126);
	if (out < 0)
		out = open("/dev/null", O_WRONLY);
	dup2(out, STDOUT_FILENO);
	putenv((char *)(uintptr_t)"LC_ALL=C");
	putenv((char *)(uintptr_t)"PYTHONHASHSEED=0");
	putenv((char *)(uintptr_t)amount);
	if (set != NULL)
		putenv((char *)(uintptr_t)set);
	execl("/bin/sh", "sh", "-c", sh, (char *)NULL);
	_exit(127);
}

/* => its CPU time, with that of its children that it waited for, in microseconds; it must have ended well */
static double
finish(pid_t pid, const char *what)
{
	struct rusage ru;
	int status;

	while (wait4(pid, &status, 0, &ru) < 0)
		if (errno != EINTR)
			bench_die("%s: %s", what, strerror(errno));
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		bench_die("%s: %s %d", what, WIFEXITED(status) ? "status" : "signal",
		    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	return ((double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1e6 +
	    (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec));
}

static void
make_directory(char dir[PATH_MAX])
{
	const char *tmp = getenv("TMPDIR");

	snprintf(dir, PATH_MAX, "%s/bench_preload.XXXXXX", tmp != NULL ? tmp : "/var/tmp");
	if (mkdtemp(dir) == NULL)
		bench_die("%s: %s", dir, strerror(errno));
}

static void
remove_directory(const char *dir)
{
	finish(start("rm -rf \"$PWD\"", dir, NULL, "N=0", -1), "rm");
}

/* A number of all that comes, until it ends. */
static uint64_t
read_all(int fd)
{
	uint64_t sum = UINT64_C(0xcbf29ce484222325);
	unsigned char buf[4096];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) != 0)
		for (ssize_t i = 0; i < n; i++)
			sum = (sum ^ buf[i]) * UINT64_C(0x100000001b3);
	return (sum | 1);
}

static void
check_said(unsigned what, uint64_t sum)
{
	if (said[what] == 0)
		said[what] = sum;
	if (said[what] != sum)
		bench_die("%s: does not print the same as before", jobs[what].what);
}

/*
 * What is measured
 */

static void
measure_job(uint64_t size, unsigned what, enum bench_side side)
{
	const struct job *job = &jobs[what];
	char dir[PATH_MAX], amount[40];
	int fds[2];
	pid_t pid;
	double us;

	if (!is_there(job->needs))
		bench_skip("%s is not installed", job->needs);
	make_directory(dir);
	snprintf(amount, sizeof(amount), "N=%llu", (unsigned long long)(size / job->per));
	if (pipe2(fds, O_CLOEXEC) != 0)
		bench_die("%s", strerror(errno));
	pid = start(job->sh, dir, preload[side], amount, fds[1]);
	close(fds[1]);
	check_said(what, read_all(fds[0]));
	us = finish(pid, job->what);
	remove_directory(dir);
	bench_time(job->what, 0, us);
}

/* A server that answers redis-benchmark. */
static void
measure_redis(uint64_t size, enum bench_side side)
{
	static const char ready[] = "redis-cli -s s ping 2>/dev/null | grep -q PONG";
	char dir[PATH_MAX], load[256];
	const struct timespec tenth = { .tv_nsec = 100000000 };
	double began, us, cpu;
	pid_t server;
	int status = -1;

	if (!is_there("redis-server") || !is_there("redis-benchmark") || !is_there("redis-cli"))
		bench_skip("redis-server, redis-cli or redis-benchmark is not installed");
	make_directory(dir);
	server = start("exec redis-server --port 0 --unixsocket s --save '' --appendonly no", dir, preload[side],
	    "N=0", -1);
	for (unsigned i = 0; i < PATIENCE && status != 0; i++) {
		pid_t pid = start(ready, dir, NULL, "N=0", -1);

		while (waitpid(pid, &status, 0) < 0)
			if (errno != EINTR)
				bench_die("%s", strerror(errno));
		if (status != 0)
			nanosleep(&tenth, NULL);
	}
	if (status != 0)
		bench_die("redis-server does not answer");
	snprintf(load, sizeof(load), "redis-benchmark -s s -q -c 20 -d 100 -n %u -r %llu -t " KINDS, REQUESTS,
	    (unsigned long long)(size / 1024));
	began = bench_now();
	finish(start(load, dir, NULL, "N=0", -1), "redis-benchmark");
	us = bench_now() - began;
	finish(start("redis-cli -s s info stats | grep -q total_error_replies:0 && redis-cli -s s shutdown nosave", dir,
	    NULL, "N=0", -1), "redis-cli");
	cpu = finish(server, "redis-server");
	remove_directory(dir);
	bench_time("redis-benchmark, a request", 0, us / (REQUESTS * REPLIES));
	bench_time("redis-benchmark, a request, CPU time of the server", 0, cpu / (REQUESTS * REPLIES));
}

static void
measure_start(enum bench_side side)
{
	putenv(preload[side]);
	for (unsigned i = 0; i < STARTS; i++) {
		double began = bench_now();
		pid_t pid = vfork();

		if (pid == 0) {
			execlp("true", "true", (char *)NULL);
			_exit(127);
		}
		if (pid < 0)
			bench_die("%s", strerror(errno));
		finish(pid, "true");
		bench_time("start-up of true", 0, bench_now() - began);
	}
}

static void
measure(uint64_t size, unsigned what, enum bench_side side)
{
	unsetenv("LD_PRELOAD");
	if (what < JOBS)
		measure_job(size, what, side);
	else if (what == REDIS)
		measure_redis(size, side);
	else
		measure_start(side);
}

static void
side_vmfault(uint64_t size, bool full, unsigned what)
{
	(void)full;
	measure(size, what, VMFAULT);
}

static void
side_other(uint64_t size, bool full, unsigned what)
{
	(void)full;
	measure(size, what, KERNEL);
}

/*
 * The sides
 */

/* The shim that was built with us. */
static bool
find_shim(void)
{
	char self[PATH_MAX + 1];
	ssize_t n = readlink("/proc/self/exe", self, PATH_MAX);

	if (n < 0)
		return (false);
	self[n] = '\0';
	snprintf(preload[VMFAULT], sizeof(preload[0]), "LD_PRELOAD=%.*s/../preload/" SHIM, PATH_MAX - 32,
	    dirname(self));
	return (access(strchr(preload[VMFAULT], '=') + 1, R_OK) == 0);
}

/* Can it be preloaded?  dlopen() could not say: its storage of threads must be there from the start. */
static bool
find_jemalloc(void)
{
	static const char try[] = "LD_PRELOAD=" JEMALLOC " grep -q " JEMALLOC " /proc/self/maps 2>/dev/null";
	int status = -1;
	pid_t pid = start(try, "/", NULL, "N=0", -1);

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	snprintf(preload[KERNEL], sizeof(preload[0]), "LD_PRELOAD=%s", status == 0 ? JEMALLOC : "");
	return (status == 0);
}

int
main(int argc, char **argv)
{
	struct bench_options o = { .size = { UINT64_C(64) << 20 }, .sizes = 1, .rounds = 7 };
	struct bench_pair pairs[PAIRS];

	bench_options(&o, argc, argv,
	    "What programs cost under the shim with no limit, against the same with jemalloc preloaded.\n");
	if (!find_shim()) {
		fprintf(stderr, "bench_preload: " SHIM " was not built\n");
		return (1);
	}
	if (!find_jemalloc())
		fprintf(stderr, "bench_preload: there is no " JEMALLOC ": compared with libc's malloc()\n");
	/* Settings of the user's would bound the memory. */
	for (char **e = environ; *e != NULL;) {
		if (strncmp(*e, "VMFAULT_", 8) == 0) {
			char name[256];

			snprintf(name, sizeof(name), "%.*s", (int)strcspn(*e, "="), *e);
			unsetenv(name);
			e = environ;
		} else {
			e++;
		}
	}
	said = mmap(NULL, sizeof(*said) * JOBS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (said == MAP_FAILED) {
		perror("bench_preload");
		return (1);
	}
	for (unsigned i = 0; i < PAIRS; i++)
		pairs[i] = (struct bench_pair){ .side = { side_vmfault, side_other }, .what = i };
	return (bench_main(&o, pairs, PAIRS, 4, NULL));
}
