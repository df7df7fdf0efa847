/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * vmfault stat: a line now and then, as vmstat does it, or as JSON.
 */

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "vmfault_cmd.h"
#include "vmfault_watch.h"

#define ANSWER_MS	500		/* a process that takes longer is stopped, or very busy */

static struct {
	double interval;		/* seconds; 0: look once */
	long count;			/* looks; 0: until all have ended */
	bool json, all;
	pid_t pid;
} opt;

static void
print_json(const struct watch *w)
{
	const struct watch_sample *s = &w->now;

	printf("{\"pid\": %d, \"command\": ", (int)w->pid);
	json_string(w->command);
	printf(", \"vmfault\": ");
	json_string(s->page.release);
	printf(", \"fresh\": %s, \"seconds\": %.3f", s->fresh ? "true" : "false",
	    (double)(s->page.when - s->page.started) / 1e9);
	if (w->has_before)
		printf(", \"interval\": %.3f", watch_interval(w));
	if (s->frames != UINT64_MAX)
		printf(", \"frame_bytes\": %" PRIu64, s->frames);
	printf(", \"counters\": {");
	for (uint32_t i = 0; i < s->page.n; i++)
		printf("%s\"%s\": %" PRIu64, i == 0 ? "" : ", ", s->page.number[i].name,
		    (uint64_t)s->page.number[i].value);
	printf("}}\n");
}

static void
print_heading(void)
{
	char heading[2][256];

	watch_heading(heading);
	for (int i = 0; i < 2; i++)
		printf("%s%s%s\n", opt.all ? i == 0 ? "        " : "    pid " : "", heading[i], opt.all && i == 1 ? " command" : "");
}

/* Lines between two headings: a screen of them. */
static unsigned
screen_lines(void)
{
	struct winsize size;

	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 6 ? size.ws_row - 3u : 22;
}

static void
print_line(const struct watch *w, unsigned *until_heading)
{
	char line[256];

	if (opt.json) {
		print_json(w);
		return;
	}
	if (*until_heading == 0) {
		print_heading();
		*until_heading = screen_lines();
	}
	--*until_heading;
	watch_line(w, line);
	if (opt.all)
		printf("%7d %s %s%s\n", (int)w->pid, line, w->command, w->now.fresh ? "" : " (does not answer)");
	else
		printf("%s%s\n", line, w->now.fresh ? "" : "  (does not answer)");
}

static void
sleep_until(struct timespec *next)
{
	next->tv_nsec += (long)((opt.interval - (double)(time_t)opt.interval) * 1e9);
	next->tv_sec += (time_t)opt.interval + next->tv_nsec / 1000000000;
	next->tv_nsec %= 1000000000;
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, next, NULL) == EINTR)
		continue;
}

static int
watch_one(void)
{
	static struct watch w;
	struct timespec next;
	unsigned until_heading = 0;
	int error = watch_open(&w, opt.pid);

	if (error != 0) {
		say("%d: %s", (int)opt.pid, watch_error(error));
		return STATUS_FAILED;
	}
	(void)clock_gettime(CLOCK_MONOTONIC, &next);
	for (long i = 0;; sleep_until(&next)) {
		watch_ask(&w);
		if (!watch_look(&w, ANSWER_MS)) {
			say("%d: it has ended", (int)opt.pid);
			break;
		}
		print_line(&w, &until_heading);
		if (fflush(stdout) != 0 || ++i == opt.count)
			break;
	}
	watch_close(&w);
	return 0;
}

static int
watch_many(void)
{
	struct watch_list list = { NULL, 0 };
	struct timespec next;
	bool any = false;

	(void)clock_gettime(CLOCK_MONOTONIC, &next);
	for (long i = 0;; sleep_until(&next)) {
		unsigned until_heading = 0;

		watch_all(&list);
		watch_list_look(&list, ANSWER_MS);
		for (unsigned k = 0; k < list.n; k++)
			print_line(list.watch[k], &until_heading);
		any |= list.n > 0;
		if (fflush(stdout) != 0 || ++i == opt.count)
			break;
	}
	while (list.n > 0) {
		watch_close(list.watch[--list.n]);
		free(list.watch[list.n]);
	}
	free(list.watch);
	if (!any)
		say("there is no process under vmfault that can be watched");
	return any ? 0 : STATUS_FAILED;
}

/* A number from 1 to most.  => 0: it is none */
static long
number(const char *s, long most)
{
	char *end;
	long n;

	errno = 0;
	n = strtol(s, &end, 10);
	return *s >= '0' && *s <= '9' && *end == '\0' && errno == 0 && n <= most ? n : 0;
}

int
cmd_stat(char **argv)
{
	const char *arg, *who = NULL;

	for (; *argv != NULL; argv++) {
		if (strcmp(*argv, "--all") == 0) {
			opt.all = true;
		} else if (strcmp(*argv, "--json") == 0) {
			opt.json = true;
		} else if (option_arg(&argv, "interval", &arg)) {
			if (arg == NULL || !seconds(arg, &opt.interval))
				return bad_use("--interval wants seconds, 0.01 to 86400");
		} else if (option_arg(&argv, "count", &arg)) {
			opt.count = arg != NULL ? number(arg, LONG_MAX) : 0;
			if (opt.count == 0)
				return bad_use("--count wants a number, 1 or more");
		} else if (**argv == '-' || who != NULL) {
			return bad_use("stat: %s: not understood", *argv);
		} else {
			who = *argv;
			opt.pid = (pid_t)number(who, INT_MAX);
			if (opt.pid == 0)
				return bad_use("stat: %s: not a process id", who);
		}
	}
	if (opt.all == (who != NULL))
		return bad_use("stat: a process id or --all, one of them");
	if (opt.interval == 0) {
		if (opt.count == 0)
			opt.count = 1;
		opt.interval = 1;
	}
	return opt.all ? watch_many() : watch_one();
}
