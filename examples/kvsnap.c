/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * kvsnap: save a key-value index to disk again and again while it is written.
 *
 * Databases save a consistent image of their memory by fork(): the child has
 * the contents of an instant and all the time to write them down.  What it costs is
 * seen by the writers: the fork copies the page tables while they wait, and then
 * every first write to a page is a fault that copies it.  This program does that
 * job on real files, once with snapshots of vmfault and once with fork(), and
 * compares.
 *
 *	kvsnap.c	the command line, and the comparison
 *	kvjob.c		the job: load, write, save, verify
 *	kvmem.c		the two kinds of memory: the calls of vmfault are here
 *	kvstore.c	the index and its updates
 *	kvverify.c	is an image what the index was at one instant?
 */

#define _FILE_OFFSET_BITS 64

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvjob.h"
#include "kvmem.h"

#define DEFAULT_DATA	(sizeof(void *) == 8 ? 400 * MB : 96 * MB)
#define MOST_DATA	(sizeof(void *) == 8 ? UINT64_C(1) << 40 : 128 * MB)

struct options options = { .snapshots = 3, .threads = 2, .rate = 10000 };

/*
 * Comparing
 */

static int
compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return ((x > y) - (x < y));
}

static double
median(double *v, unsigned n)
{
	qsort(v, n, sizeof(*v), compare);
	return (v[n / 2]);
}

static void
line(const char *what, const char *unit, double ours, double theirs)
{
	if (ours > 0 && theirs > 0)
		printf("%-46s %12.3f %12.3f %-3s %8.3f\n", what, ours, theirs, unit, ours / theirs);
	else
		printf("%-46s %12.3f %12.3f %-3s %8s\n", what, ours, theirs, unit, "-");
}

static void
print_comparison(struct result *r)
{
	static const char *const when[PHASES] = { "no snapshot", "while saving" };
	struct result *a = &r[0], *b = &r[1];
	double extra[2] = { 0, 0 };

	for (unsigned i = 0; i < options.snapshots; i++)
		for (unsigned k = 0; k < 2; k++)
			if ((double)r[k].extra[i] > extra[k])
				extra[k] = (double)r[k].extra[i];
	printf("\n%-46s %12s %12s %12s\n", "", "vmfault", "fork()", "ratio");
	line("taking a snapshot, median", "ms", median(a->call, options.snapshots) / 1e3,
	    median(b->call, options.snapshots) / 1e3);
	line("saving it, median", "s", median(a->save, options.snapshots) / 1e6,
	    median(b->save, options.snapshots) / 1e6);
	line("extra memory, at most", "MB", extra[0] / 1e6, extra[1] / 1e6);
	for (unsigned p = 0; p < PHASES; p++) {
		char what[64];
		static const struct {
			const char *name;
			double share;
		} at[] = { { "median", 0.5 }, { "99 %", 0.99 }, { "99.9 %", 0.999 } };

		for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
			snprintf(what, sizeof(what), "an update, %s, %s", when[p], at[i].name);
			line(what, "us", times_at(&a->times[p], at[i].share),
			    times_at(&b->times[p], at[i].share));
		}
		snprintf(what, sizeof(what), "an update, %s, worst", when[p]);
		line(what, "us", (double)a->times[p].worst / 1e3, (double)b->times[p].worst / 1e3);
		snprintf(what, sizeof(what), "updates a second, %s", when[p]);
		line(what, "", (double)a->times[p].count / a->span[p] * 1e6,
		    (double)b->times[p].count / b->span[p] * 1e6);
	}
	line("updates that took over 1 ms, while saving", "", (double)a->stalls, (double)b->stalls);
	line("... all of them together", "ms", (double)a->stalled / 1e6, (double)b->stalled / 1e6);
}

/*
 * The command line, and tidying up
 */

static volatile sig_atomic_t interrupted;

static void
interrupt(int sig)
{
	interrupted = sig;
}

static void
tidy(bool made_dir)
{
	char name[PATH_MAX];

	for (unsigned n = 0; n <= options.snapshots; n++) {
		unlink(image_name(name, sizeof(name), &kv_vmfault, n));
		unlink(image_name(name, sizeof(name), &kv_fork, n));
	}
	if (made_dir)
		rmdir(image_dir);
}

/* Do the job in another process.  => true: everything verified. */
static bool
run(const struct kv_memory *m, struct result *result)
{
	pid_t pid;
	int status;

	fflush(NULL);
	if ((pid = fork()) == 0) {
		status = job(m, result);
		fflush(NULL);
		_exit(status);
	}
	if (pid < 0) {
		fprintf(stderr, "kvsnap: fork: %s\n", strerror(errno));
		return (false);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (interrupted != 0)
			kill(pid, SIGKILL);
	if (WIFSIGNALED(status) && interrupted == 0)
		fprintf(stderr, "kvsnap: %s: signal %d\n", m->name, WTERMSIG(status));
	return (status == 0);
}

static void __attribute__((__noreturn__, __format__(__printf__, 1, 2)))
mistake(const char *fmt, ...)
{
	va_list ap;

	fputs("kvsnap: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs(" (--help tells more)\n", stderr);
	exit(2);
}

static unsigned
parse_number(const char *option, const char *arg, unsigned low, unsigned high)
{
	unsigned long v;
	char *end;

	errno = 0;
	v = strtoul(arg, &end, 10);
	if (*arg < '0' || *arg > '9' || *end != '\0' || errno != 0 || v < low || v > high)
		mistake("--%s %s: a number from %u to %u is expected", option, arg, low, high);
	return ((unsigned)v);
}

static uint64_t
parse_size(const char *arg)
{
	static const char units[] = "KMGT";
	const char *unit;
	uint64_t v = 0;
	char *end = NULL;

	if (*arg >= '0' && *arg <= '9')
		v = strtoull(arg, &end, 10);
	if (end != NULL && *end != '\0' && (unit = strchr(units, *end)) != NULL &&
	    v < UINT64_C(1) << 40) {
		v <<= 10 * (unit - units + 1);
		end++;
	}
	if (end == NULL || *end != '\0' || v < MB || v > MOST_DATA)
		mistake("--data %s: a size like 400M is expected, from 1M to %lluM", arg,
		    (unsigned long long)(MOST_DATA / MB));
	return (v);
}

static void
help(void)
{
	printf("usage: kvsnap [--snapshots N] [--threads N] [--rate N] [--data SIZE] [--dir DIR]\n"
	    "              [--keep] [FILE or DIRECTORY ...]\n\n"
	    "Load files (default: from /usr) into an index in memory, save snapshots of it\n"
	    "to disk while threads update it, verify every saved byte; once with vmfault and\n"
	    "once with fork(), and compare.\n\n"
	    "  --snapshots N  snapshots to take (%u)\n"
	    "  --threads N    writers (%u)\n"
	    "  --rate N       updates a second of each writer (%u); 0: as many as it can\n"
	    "  --data SIZE    bytes of files to load at most (%lluM, less on a small machine)\n"
	    "  --dir DIR      where to save (a temporary directory; TMPDIR, else /var/tmp)\n"
	    "  --keep         keep the saved files\n", options.snapshots, options.threads,
	    options.rate, (unsigned long long)(DEFAULT_DATA / MB));
	exit(0);
}

static void
parse(int argc, char **argv)
{
	static const struct option longopts[] = {
		{ "snapshots", required_argument, NULL, 's' },
		{ "threads", required_argument, NULL, 't' },
		{ "rate", required_argument, NULL, 'r' },
		{ "data", required_argument, NULL, 'd' },
		{ "dir", required_argument, NULL, 'D' },
		{ "keep", no_argument, NULL, 'k' }, { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 }
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", longopts, NULL)) != -1) {
		switch (c) {
		case 's':
			options.snapshots = parse_number("snapshots", optarg, 1, MOST_SNAPSHOTS);
			break;
		case 't':
			options.threads = parse_number("threads", optarg, 1, MOST_THREADS);
			break;
		case 'r':
			options.rate = parse_number("rate", optarg, 0, 100000000);
			break;
		case 'd':
			options.data = parse_size(optarg);
			break;
		case 'D':
			options.dir = optarg;
			break;
		case 'k':
			options.keep = true;
			break;
		case 'h':
			help();
			break;
		case ':':
			mistake("%s needs a value", argv[optind - 1]);
		default:
			mistake("%s: no such option", argv[optind - 1]);
		}
	}
}

/* What fits: the index and its copies in memory, the images on disk. */
static uint64_t
default_data(void)
{
	uint64_t data = DEFAULT_DATA, fits;
	struct statvfs fs;

	fits = (uint64_t)sysconf(_SC_AVPHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 4;
	data = fits < data ? fits : data;
	if (statvfs(image_dir, &fs) == 0) {
		fits = (uint64_t)fs.f_bavail * fs.f_frsize / (options.snapshots + 2) * 3 / 4;
		data = fits < data ? fits : data;
	}
	return (data > MB ? data : MB);
}

static bool
make_dir(void)
{
	const char *tmp = getenv("TMPDIR");
	struct stat st;

	if (options.dir != NULL) {
		snprintf(image_dir, sizeof(image_dir), "%s", options.dir);
		if (stat(options.dir, &st) != 0)
			mistake("%s: %s", options.dir, strerror(errno));
		if (!S_ISDIR(st.st_mode) || access(options.dir, W_OK | X_OK) != 0)
			mistake("%s: not a directory to write in", options.dir);
		return (false);
	}
	snprintf(image_dir, sizeof(image_dir), "%s/kvsnap.XXXXXX",
	    tmp != NULL && *tmp != '\0' ? tmp : "/var/tmp");
	if (mkdtemp(image_dir) == NULL) {
		fprintf(stderr, "kvsnap: %s: %s\n", image_dir, strerror(errno));
		exit(1);
	}
	return (true);
}

static void
find_files(char **operand, int n)
{
	static char usr[] = "/usr";
	char *usual[] = { usr };

	if (n == 0) {
		operand = usual;
		n = 1;
	}
	for (int i = 0; i < n; i++) {
		if (nftw(operand[i], add_file, 32, FTW_PHYS) < 0) {
			fprintf(stderr, "kvsnap: %s: %s\n", operand[i], strerror(errno));
			exit(1);
		}
	}
}

int
main(int argc, char **argv)
{
	static const struct kv_memory *const memories[] = { &kv_vmfault, &kv_fork };
	struct sigaction sa = { .sa_handler = interrupt };
	struct result *results;
	bool made_dir, right = true;

	parse(argc, argv);
	for (int i = optind; i < argc; i++)
		if (access(argv[i], R_OK) != 0)
			mistake("%s: %s", argv[i], strerror(errno));
	made_dir = make_dir();
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	if (options.data == 0)
		options.data = default_data();
	find_files(argv + optind, argc - optind);
	results = mmap(NULL, 2 * sizeof(*results), PROT_READ | PROT_WRITE,
	    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (results == MAP_FAILED || file_blocks() < 2 || file_blocks() > UINT32_MAX / 4) {
		fprintf(stderr, "kvsnap: %s\n", results == MAP_FAILED ? strerror(errno) :
		    "there are no two blocks of files to load");
		tidy(made_dir);
		return (1);
	}
	printf("kvsnap: %.0f MB of %zu files, %u writers, images in %s\n",
	    (double)file_bytes() / 1e6, file_count(), options.threads, image_dir);
	for (unsigned i = 0; i < 2 && interrupted == 0 && right; i++) {
		right = run(memories[i], &results[i]);
		if (!options.keep)
			tidy(false);
	}
	if (interrupted == 0 && right)
		print_comparison(results);
	if (!options.keep)
		tidy(made_dir);
	if (interrupted != 0)
		return (128 + interrupted);
	return (right ? 0 : 1);
}
