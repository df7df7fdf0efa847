/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The driver of the benchmarks: see bench.h for how they measure.
 *
 * Three parts: what a measuring process calls, the driver that forks measuring
 * processes and collects their samples in rows, and the printing of the rows as a
 * table, as JSON, or through plot.py as a picture.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include <errno.h>
#include <getopt.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define EXIT_SKIP	77
#define SKIPS		64
#define WARM_MOST	4e9		/* bytes; it takes seconds where the host has them back */
#define MEMORY_LEFT	128e6		/* bytes that a measurement leaves to others */

/* What travels from a measuring process to the driver, less than PIPE_BUF. */
struct record {
	char what[64];
	uint64_t pages;
	uint64_t faults;
	uint64_t resident;	/* not 0: value is bytes */
	double value;
};

struct row {
	char what[64];
	uint64_t size;
	uint64_t pages;
	uint64_t faults;	/* of vmfault, in the last round */
	uint64_t resident;	/* not 0: a row of bytes */
	double *value[SIDES];	/* samples, sorted before they are printed */
	size_t n[SIDES];
};

struct skipped {
	uint64_t size;
	char why[160];
};

static const char *program;
static int report_fd = -1;	/* in a measuring process: to the driver */
static struct row *rows;
static size_t nrows;
static struct skipped skipped[SKIPS];
static size_t nskipped;

static const char *const side_name[SIDES] = { "vmfault", "kernel" };

/*
 * Measuring processes
 */

double
bench_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3);
}

static void
report(const char *what, uint64_t pages, double value, uint64_t faults, uint64_t resident)
{
	struct record r = { .pages = pages, .faults = faults, .resident = resident,
	    .value = value };

	snprintf(r.what, sizeof(r.what), "%s", what);
	if (write(report_fd, &r, sizeof(r)) != (ssize_t)sizeof(r))
		_exit(1);
}

void
bench_time(const char *what, uint64_t pages, double us)
{
	report(what, pages, us, 0, 0);
}

void
bench_faults(const char *what, uint64_t pages, double us, uint64_t faults)
{
	report(what, pages, us, faults, 0);
}

void
bench_bytes(const char *what, uint64_t bytes, uint64_t resident)
{
	report(what, 0, (double)bytes, 0, resident);
}

void
bench_die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	_exit(1);
}

void
must(int64_t error, const char *what)
{
	if (error < 0)
		bench_die("%s: %s", what, strerror((int)-error));
}

/* A last record whose name is the reason. */
void
bench_skip(const char *fmt, ...)
{
	char why[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	report(why, 0, 0, 0, 0);
	_exit(EXIT_SKIP);
}

void
must_fit(int64_t error, const char *what)
{
	if (error == -ENOMEM)
		bench_skip("%s: %s", what, strerror((int)-error));
	must(error, what);
}

void *
bench_private(size_t size)
{
	void *p;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
	    -1, 0);
	if (p == MAP_FAILED)
		bench_skip("mmap: %s", strerror(errno));
	madvise(p, size, MADV_NOHUGEPAGE);	/* EINVAL: the kernel has no huge pages */
	return (p);
}

/*
 * A bijection of the smallest power of two that holds n: multiplications by odd
 * numbers and shifted exclusive-ors, each of which can be undone.  What falls
 * outside of n goes round again, which keeps it a bijection of n.
 */
#define MIX_1		UINT64_C(0x9e3779b97f4a7c15)
#define MIX_2		UINT64_C(0xd6e8feb86659fd93)

static uint64_t
inverse_of(uint64_t odd)
{
	uint64_t x = odd;

	for (int i = 0; i < 5; i++)		/* Newton: 3, 6, 12, ... bits are right */
		x *= 2 - odd * x;
	return (x);
}

static unsigned
bits_for(uint64_t n)
{
	return (n <= 2 ? 1 : 64 - (unsigned)__builtin_clzll(n - 1));
}

uint64_t
bench_page(enum bench_order order, uint64_t i, uint64_t n)
{
	unsigned bits = bits_for(n), half = (bits + 1) / 2;
	uint64_t mask = (UINT64_C(1) << bits) - 1;

	if (order == SEQUENTIAL)
		return (i);
	do {
		i = (i * MIX_1 + 1) & mask;
		i ^= i >> half;
		i = (i * MIX_2) & mask;
		i ^= i >> half;
	} while (i >= n);
	return (i);
}

uint64_t
bench_rank(enum bench_order order, uint64_t page, uint64_t n)
{
	static uint64_t inv_1, inv_2;
	unsigned bits = bits_for(n), half = (bits + 1) / 2;
	uint64_t mask = (UINT64_C(1) << bits) - 1;

	if (order == SEQUENTIAL)
		return (page);
	if (inv_1 == 0) {
		inv_2 = inverse_of(MIX_2);
		inv_1 = inverse_of(MIX_1);
	}
	do {
		page ^= page >> half;
		page = (page * inv_2) & mask;
		page ^= page >> half;
		page = ((page - 1) * inv_1) & mask;
	} while (page >= n);
	return (page);
}

/*
 * Rows
 */

static struct row *
row_find(const char *what, uint64_t size)
{
	for (size_t i = 0; i < nrows; i++)
		if (rows[i].size == size && strcmp(rows[i].what, what) == 0)
			return (&rows[i]);
	return (NULL);
}

static struct row *
row_make(const char *what, uint64_t size)
{
	struct row *row;

	rows = reallocarray(rows, nrows + 1, sizeof(*rows));
	if (rows == NULL)
		bench_die("out of memory");
	row = &rows[nrows++];
	*row = (struct row){ .size = size };
	snprintf(row->what, sizeof(row->what), "%s", what);
	return (row);
}

static void
row_add(struct row *row, enum bench_side side, double value)
{
	row->value[side] = reallocarray(row->value[side], row->n[side] + 1, sizeof(double));
	if (row->value[side] == NULL)
		bench_die("out of memory");
	row->value[side][row->n[side]++] = value;
}

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return ((x > y) - (x < y));
}

/* => negative: no samples. */
static double
row_median(struct row *row, enum bench_side side)
{
	double *v = row->value[side];
	size_t n = row->n[side];

	if (n == 0)
		return (-1);
	qsort(v, n, sizeof(*v), compare);
	return (n % 2 != 0 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2);
}

double
bench_median(const char *what, uint64_t size, enum bench_side side)
{
	struct row *row = row_find(what, size);

	return (row == NULL ? -1 : row_median(row, side));
}

void
bench_derived(const char *what, uint64_t size, double vmfault_us)
{
	row_add(row_make(what, size), VMFAULT, vmfault_us);
}

static const char *
size_text(uint64_t size)
{
	static char buf[4][32];
	static unsigned turn;
	char *b = buf[turn++ % 4];

	if (size >= 1u << 30 && size % (1u << 30) == 0)
		snprintf(b, sizeof(buf[0]), "%lluG", (unsigned long long)(size >> 30));
	else if (size >= 1u << 20)
		snprintf(b, sizeof(buf[0]), "%lluM", (unsigned long long)(size >> 20));
	else
		snprintf(b, sizeof(buf[0]), "%lluK", (unsigned long long)(size >> 10));
	return (b);
}

/*
 * The driver
 */

static void
skip(uint64_t size, const char *why)
{
	fprintf(stderr, "%s: %s skipped: %s\n", program, size_text(size), why);
	if (nskipped == SKIPS)
		return;
	skipped[nskipped].size = size;
	snprintf(skipped[nskipped++].why, sizeof(skipped[0].why), "%s", why);
}

/* Run fn in a process of its own and take its samples.  => false: the size is skipped. */
static bool
measure(const struct bench_pair *pair, uint64_t size, enum bench_side side, bool warmup)
{
	struct record r = { .what = "" };
	struct row *row;
	char why[128];
	pid_t pid;
	int fds[2], status;

	fflush(NULL);
	if (pipe(fds) != 0 || (pid = fork()) < 0)
		bench_die("%s", strerror(errno));
	if (pid == 0) {
		close(fds[0]);
		report_fd = fds[1];
		pair->side[side](size, warmup, pair->what);
		_exit(0);
	}
	close(fds[1]);
	while (read(fds[0], &r, sizeof(r)) == (ssize_t)sizeof(r)) {
		if (warmup)
			continue;
		if ((row = row_find(r.what, size)) == NULL)
			row = row_make(r.what, size);
		row->pages = r.pages;
		row->resident = r.resident != 0 ? r.resident : row->resident;
		if (side == VMFAULT)
			row->faults = r.faults;
		row_add(row, side, r.value);
	}
	close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return (true);
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
		snprintf(why, sizeof(why), "%s: %.64s", side_name[side], r.what);
	} else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
		snprintf(why, sizeof(why), "%s: killed, out of memory?", side_name[side]);
	} else {
		if (WIFSIGNALED(status))
			fprintf(stderr, "%s: signal %d\n", program, WTERMSIG(status));
		bench_die("measuring %s at %s failed", side_name[side], size_text(size));
	}
	skip(size, why);
	return (false);
}

/* The value of a line "name: value" of a file below /proc; false: not there. */
static bool
proc_value(const char *path, const char *name, char *value, size_t len)
{
	char line[4096];
	FILE *f;
	bool found = false;

	if ((f = fopen(path, "re")) == NULL)
		return (false);
	while (!found && fgets(line, sizeof(line), f) != NULL) {
		char *colon = strchr(line, ':');

		if (colon == NULL || strncmp(line, name, strlen(name)) != 0)
			continue;
		colon++;
		colon += strspn(colon, " \t");
		colon[strcspn(colon, "\n")] = '\0';
		snprintf(value, len, "%s", colon);
		found = true;
	}
	fclose(f);
	return (found);
}

static uint64_t
meminfo(const char *name)
{
	char value[64];

	if (!proc_value("/proc/meminfo", name, value, sizeof(value)))
		return (0);
	return (strtoull(value, NULL, 10) * 1024);
}

static void
progress(uint64_t size, unsigned round, unsigned rounds, enum bench_side side)
{
	if (!isatty(STDERR_FILENO))
		return;
	if (size == 0)
		fprintf(stderr, "\r\033[K");
	else
		fprintf(stderr, "\r\033[K%s: %s, round %u of %u, %s", program, size_text(size),
		    round, rounds, side_name[side]);
}

/*
 * Output
 */

struct machine {
	char cpu[128];
	long cores;
	char kernel[80];
	uint64_t memory;
	bool is_virtual;
	long max_map_count;
};

static void
machine_describe(struct machine *m)
{
	char flags[4096];
	struct utsname u;
	FILE *f;

	*m = (struct machine){ .cpu = "unknown", .cores = sysconf(_SC_NPROCESSORS_ONLN),
	    .memory = meminfo("MemTotal") };
	proc_value("/proc/cpuinfo", "model name", m->cpu, sizeof(m->cpu));
	if (proc_value("/proc/cpuinfo", "flags", flags, sizeof(flags)))
		m->is_virtual = strstr(flags, " hypervisor") != NULL;
	if (uname(&u) == 0)
		snprintf(m->kernel, sizeof(m->kernel), "%.10s %.60s", u.sysname, u.release);
	if ((f = fopen("/proc/sys/vm/max_map_count", "re")) != NULL) {
		if (fscanf(f, "%ld", &m->max_map_count) != 1)
			m->max_map_count = 0;
		fclose(f);
	}
}

static void
json_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s != '\0'; s++) {
		if ((unsigned char)*s < ' ')
			continue;
		if (*s == '"' || *s == '\\')
			fputc('\\', f);
		fputc(*s, f);
	}
	fputc('"', f);
}

static void
json_number(FILE *f, const char *name, double value)
{
	if (value < 0)
		fprintf(f, ", \"%s\": null", name);
	else
		fprintf(f, ", \"%s\": %.6g", name, value);
}

static void
json_row(FILE *f, struct row *row)
{
	double v = row_median(row, VMFAULT), k = row_median(row, KERNEL);
	bool bytes = row->resident != 0;

	fprintf(f, "    {\"what\": ");
	json_string(f, row->what);
	fprintf(f, ", \"size\": %llu", (unsigned long long)row->size);
	json_number(f, "vmfault_us", bytes ? -1 : v);
	json_number(f, "kernel_us", bytes ? -1 : k);
	json_number(f, "ratio", v >= 0 && k > 0 ? v / k : -1);
	if (bytes) {
		json_number(f, "vmfault_bytes", v);
		json_number(f, "kernel_bytes", k);
		fprintf(f, ", \"resident_bytes\": %llu", (unsigned long long)row->resident);
		json_number(f, "percent", v >= 0 ? 100 * v / (double)row->resident : -1);
	} else {
		fprintf(f, ", \"per\": \"%s\"", row->pages != 0 ? "page" : "call");
	}
	if (row->pages != 0)
		fprintf(f, ", \"pages\": %llu", (unsigned long long)row->pages);
	if (row->faults != 0)
		fprintf(f, ", \"faults\": %llu", (unsigned long long)row->faults);
	for (unsigned s = 0; s < SIDES; s++)
		if (row->n[s] > 1)
			fprintf(f, ", \"%s_samples\": %zu, \"%s_min\": %.6g, \"%s_max\": %.6g",
			    side_name[s], row->n[s], side_name[s], row->value[s][0], side_name[s],
			    row->value[s][row->n[s] - 1]);
	fputc('}', f);
}

static void
print_json(FILE *f, const char *when, unsigned rounds)
{
	struct machine m;

	machine_describe(&m);
	fprintf(f, "{\n  \"bench\": \"%s\",\n  \"machine\": {\"cpu\": ", program);
	json_string(f, m.cpu);
	fprintf(f, ", \"cores\": %ld, \"kernel\": ", m.cores);
	json_string(f, m.kernel);
	fprintf(f, ", \"memory\": %llu, \"virtual\": %s, \"max_map_count\": %ld, \"bits\": %zu},\n",
	    (unsigned long long)m.memory, m.is_virtual ? "true" : "false", m.max_map_count,
	    sizeof(void *) * 8);
	fprintf(f, "  \"when\": \"%s\",\n  \"rounds\": %u,\n  \"rows\": [", when, rounds);
	for (size_t i = 0; i < nrows; i++) {
		fputs(i == 0 ? "\n" : ",\n", f);
		json_row(f, &rows[i]);
	}
	fprintf(f, "\n  ],\n  \"skipped\": [");
	for (size_t i = 0; i < nskipped; i++) {
		fprintf(f, "%s{\"size\": %llu, \"why\": ", i == 0 ? "" : ", ",
		    (unsigned long long)skipped[i].size);
		json_string(f, skipped[i].why);
		fputc('}', f);
	}
	fprintf(f, "]\n}\n");
}

static const char *
bytes_text(double v)
{
	static char buf[2][32];
	static unsigned turn;
	char *b = buf[turn++ % 2];

	if (v < 0)
		return ("-");
	snprintf(b, sizeof(buf[0]), "%.1fK", v / 1024);
	return (b);
}

/* Three digits that count. */
static const char *
number(double v)
{
	static char buf[8][32];
	static unsigned turn;
	char *b = buf[turn++ % 8];

	if (v < 0)
		return ("-");
	snprintf(b, sizeof(buf[0]), "%.*f", v < 1 ? 3 : v < 10 ? 2 : v < 100 ? 1 : 0, v);
	return (b);
}

static const char *
spread(const struct row *row, enum bench_side side)
{
	static char buf[2][72];
	static unsigned turn;
	char *b = buf[turn++ % 2];

	if (row->n[side] < 2)
		return ("");
	snprintf(b, sizeof(buf[0]), "%s..%s", number(row->value[side][0]),
	    number(row->value[side][row->n[side] - 1]));
	return (b);
}

static void
print_text(const char *when, unsigned rounds)
{
	struct machine m;
	uint64_t size = 0;

	machine_describe(&m);
	printf("%s  %s\n%s, %ld cores%s, %s of memory, %s, max_map_count %ld, %zu-bit\n"
	    "%u rounds, vmfault and kernel in turn; medians of microseconds; only ratios "
	    "mean something elsewhere\n", program, when, m.cpu, m.cores,
	    m.is_virtual ? " (virtual)" : "", size_text(m.memory), m.kernel, m.max_map_count,
	    sizeof(void *) * 8, rounds);
	for (size_t i = 0; i < nrows; i++) {
		struct row *row = &rows[i];
		double v = row_median(row, VMFAULT), k = row_median(row, KERNEL);
		char ratio[32] = "-", note[64] = "";

		if (row->size != size) {
			size = row->size;
			printf("\n%-44s %12s %12s %8s   %-20s %-20s\n", size_text(size), "vmfault",
			    "kernel", "ratio", "vmfault spread", "kernel spread");
		}
		if (v >= 0 && k > 0)
			snprintf(ratio, sizeof(ratio), "%.3f", v / k);
		if (row->resident != 0) {
			if (v >= 0)
				snprintf(note, sizeof(note), "%.2f %% of what is resident",
				    100 * v / (double)row->resident);
			printf("%-44s %12s %12s %8s   %s\n", row->what,
			    bytes_text(v), bytes_text(k), ratio, note);
			continue;
		}
		if (row->faults != 0 && row->pages != 0)
			snprintf(note, sizeof(note), "  %.1f pages a fault",
			    (double)row->pages / (double)row->faults);
		printf("%-36s %7s %12s %12s %8s   %-20s %-20s%s\n", row->what,
		    row->pages != 0 ? "/page" : "", number(v), number(k), ratio,
		    spread(row, VMFAULT), spread(row, KERNEL), note);
	}
	for (size_t i = 0; i < nskipped; i++)
		printf("\n%s skipped: %s\n", size_text(skipped[i].size), skipped[i].why);
}

/* Hand the JSON to plot.py, which lies beside the program or in the source tree. */
static int
plot(const char *file, const char *when, unsigned rounds)
{
	static const char *const where[] = { "plot.py", "../../bench/plot.py" };
	char self[PATH_MAX], script[PATH_MAX + 64];
	const char *dir;
	FILE *f;
	pid_t pid;
	ssize_t n;
	int fds[2], status;

	if ((n = readlink("/proc/self/exe", self, sizeof(self) - 1)) < 0)
		n = 0;
	self[n] = '\0';
	dir = dirname(self);
	script[0] = '\0';
	for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		snprintf(script, sizeof(script), "%s/%s", dir, where[i]);
		if (access(script, R_OK) == 0)
			break;
	}
	fflush(NULL);
	if (pipe(fds) != 0 || (pid = fork()) < 0)
		bench_die("%s", strerror(errno));
	if (pid == 0) {
		dup2(fds[0], STDIN_FILENO);
		close(fds[0]);
		close(fds[1]);
		execlp("python3", "python3", script, file, (char *)NULL);
		fprintf(stderr, "%s: python3: %s\n", program, strerror(errno));
		_exit(1);
	}
	close(fds[0]);
	signal(SIGPIPE, SIG_IGN);
	if ((f = fdopen(fds[1], "w")) != NULL) {
		print_json(f, when, rounds);
		fclose(f);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return (WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 1);
}

/*
 * Have so much memory in the machine.  A virtual one gives what has been free for some seconds back to its
 * host, and each page that is used again is a fault out there, of several microseconds: whichever
 * side comes upon these would pay for them.
 */
static void
warm_memory(double bytes)
{
	int status;
	pid_t pid;

	fflush(NULL);
	bytes = bytes < WARM_MOST ? bytes : WARM_MOST;
	pid = fork();
	if (pid == 0) {
		/* If it cannot be had, so be it. */
		(void)mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		_exit(0);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
}

void
bench_need(double bytes)
{
	uint64_t available = meminfo("MemAvailable");

	if ((double)available < bytes + MEMORY_LEFT)
		bench_skip("needs %s, %s are available", size_text((uint64_t)bytes),
		    size_text(available));
	warm_memory(bytes);
}

/* All rounds of a pair, the sides by turns; each takes so much memory. */
static void
measure_pair(const struct bench_pair *pair, uint64_t size, unsigned rounds, double memory)
{
	bool ok = true;

	for (unsigned round = 0; ok && round <= rounds; round++) {
		for (unsigned s = 0; ok && s < SIDES; s++) {
			if (pair->side[s] == NULL)
				continue;
			progress(size, round, rounds, s);
			warm_memory(memory);
			ok = measure(pair, size, s, round == 0);
		}
	}
}

int
bench_main(const struct bench_options *o, const struct bench_pair *pair, size_t pairs, double memory,
    void (*finish)(void))
{
	char when[32];
	time_t now;

	now = time(NULL);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
	for (size_t i = 0; i < o->sizes; i++) {
		uint64_t size = o->size[i];
		char why[64];

		if ((double)meminfo("MemAvailable") < memory * (double)size + MEMORY_LEFT) {
			snprintf(why, sizeof(why), "needs %s, %s are available",
			    size_text((uint64_t)(memory * (double)size)),
			    size_text(meminfo("MemAvailable")));
			skip(size, why);
			continue;
		}
		if (size != (size_t)size) {
			skip(size, "no such addresses on this machine");
			continue;
		}
		for (size_t p = 0; p < pairs; p++)
			measure_pair(&pair[p], size, o->rounds, memory * (double)size);
	}
	progress(0, 0, 0, 0);
	if (finish != NULL)
		finish();
	if (o->json)
		print_json(stdout, when, o->rounds);
	else
		print_text(when, o->rounds);
	return (o->plot != NULL ? plot(o->plot, when, o->rounds) : 0);
}

/*
 * The command line
 */

static void __attribute__((__noreturn__))
mistake(const char *what, const char *arg)
{
	fprintf(stderr, "%s: %s: %s (--help tells more)\n", program, arg, what);
	exit(2);
}

static uint64_t
parse_size(const char *s, char **end)
{
	static const char units[] = "KMG";
	const char *unit;
	uint64_t v;

	if (*s < '0' || *s > '9')
		return (0);
	v = strtoull(s, end, 10);
	if (v >= UINT64_C(1) << 44)
		return (0);
	if (**end != '\0' && (unit = strchr(units, **end)) != NULL) {
		v <<= 10 * (unit - units + 1);
		(*end)++;
	}
	return (v < (UINT64_C(1) << 44) ? v / BENCH_PAGE * BENCH_PAGE : 0);
}

static void
parse_sizes(struct bench_options *o, const char *arg)
{
	const char *s = arg;
	char *end = NULL;

	for (o->sizes = 0;; s = end + 1) {
		uint64_t v = parse_size(s, &end);

		if (v < 1u << 20 || (*end != ',' && *end != '\0'))
			mistake("sizes are like 64M,1G, of 1M at least", arg);
		if (o->sizes == BENCH_SIZES)
			mistake("too many sizes", arg);
		o->size[o->sizes++] = v;
		if (*end == '\0')
			return;
	}
}

void
bench_options(struct bench_options *o, int argc, char **argv, const char *about)
{
	static const struct option longopts[] = {
		{ "sizes", required_argument, NULL, 's' },
		{ "rounds", required_argument, NULL, 'r' },
		{ "seconds", required_argument, NULL, 't' },
		{ "plot", required_argument, NULL, 'p' },
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	const char *dot;
	char *end;
	int c;

	program = program_invocation_short_name;
	while ((c = getopt_long(argc, argv, "", longopts, NULL)) != -1) {
		switch (c) {
		case 's':
			parse_sizes(o, optarg);
			break;
		case 'r':
			o->rounds = (unsigned)strtoul(optarg, &end, 10);
			if (o->rounds < 1 || o->rounds > 1000 || *end != '\0')
				mistake("rounds are a number from 1 to 1000", optarg);
			break;
		case 't':
			if (o->seconds == 0)
				mistake("there is no such option here", "--seconds");
			o->seconds = (unsigned)strtoul(optarg, &end, 10);
			if (o->seconds < 1 || o->seconds > 600 || *end != '\0')
				mistake("seconds are a number from 1 to 600", optarg);
			break;
		case 'j':
			o->json = true;
			break;
		case 'p':
			dot = strrchr(optarg, '.');
			if (dot == NULL || (strcmp(dot, ".svg") != 0 && strcmp(dot, ".png") != 0))
				mistake("the picture must be a .svg or a .png", optarg);
			o->plot = optarg;
			break;
		case 'h':
			printf("usage: %s [--sizes LIST] [--rounds N]%s [--json] [--plot FILE]\n\n"
			    "%s\n  --sizes LIST   sizes of memory (", program,
			    o->seconds != 0 ? " [--seconds N]" : "", about);
			for (size_t i = 0; i < o->sizes; i++)
				printf("%s%s", i != 0 ? "," : "", size_text(o->size[i]));
			printf("); what does not fit is skipped\n"
			    "  --rounds N     rounds after the warm-up (%u)\n", o->rounds);
			if (o->seconds != 0)
				printf("  --seconds N    how long each side is measured in a round "
				    "(%u)\n", o->seconds);
			printf("  --json         print JSON instead of a table\n"
			    "  --plot FILE    draw a picture too, a .svg or .png (python3)\n");
			exit(0);
		default:
			exit(2);		/* getopt_long() has said why */
		}
	}
	if (optind < argc)
		mistake("no operands are expected", argv[optind]);
}
