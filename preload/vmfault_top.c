/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * vmfault top: all processes that can be watched, over the whole screen, again and again.
 *
 * No curses: the few sequences needed are those of every terminal since the VT100.  What is changed of the
 * terminal (raw input, the other screen, no cursor) is put back whatever ends us: the way out of
 * main, exit() from below, a signal that ends or stops.  Signals only happen while we wait, so their handler
 * has nothing to interrupt.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "vmfault_cmd.h"
#include "vmfault_watch.h"

#define ANSWER_MS	200
#define ENTER	"\033[?1049h\033[?25l"		/* the other screen; no cursor */
#define LEAVE	"\033[?25h\033[?1049l"
#define HOME	"\033[H"
#define TO_EOL	"\033[K"
#define BELOW	"\033[J"
#define REVERSE	"\033[7m"
#define BOLD	"\033[1m"
#define PLAIN	"\033[m"

static struct termios cooked;
static bool raw;			/* the terminal is changed */
static volatile sig_atomic_t caught;	/* a signal that ends or stops us */

static const int ending[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP };

static void
restore(void)
{
	if (!raw)
		return;
	raw = false;
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &cooked);
	fputs(LEAVE, stdout);
	fflush(stdout);
}

static void
change(void)
{
	struct termios t = cooked;

	t.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
	t.c_cc[VMIN] = 0;
	t.c_cc[VTIME] = 0;
	raw = true;
	(void)tcsetattr(STDIN_FILENO, TCSANOW, &t);
	fputs(ENTER, stdout);
}

static void
on_signal(int sig)
{
	if (sig != SIGWINCH)
		caught = sig;
}

/* As if we had never caught it.  Comes back if it only stopped us. */
static void
obey(int sig, const sigset_t *open)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL }, ours;
	sigset_t blocked;

	restore();
	(void)sigaction(sig, &dfl, &ours);
	(void)raise(sig);
	(void)sigprocmask(SIG_SETMASK, open, &blocked);
	/* Continued. */
	(void)sigprocmask(SIG_SETMASK, &blocked, NULL);
	(void)sigaction(sig, &ours, NULL);
	change();
}

enum order { BY_RESIDENT, BY_FAULTS, BY_PAGING, BY_PID };
static enum order order;

static double
weight(const struct watch *w)
{
	double s = watch_interval(w);

	switch (order) {
	case BY_FAULTS:
		return s > 0 ? (double)watch_growth(w, "v_vm_faults") / s : 0;
	case BY_PAGING:
		return s > 0 ? (double)(watch_growth(w, "v_pageins") + watch_growth(w, "v_pageouts")) / s : 0;
	case BY_RESIDENT:
		return (double)w->now.frames;
	default:
		return -(double)w->pid;
	}
}

static int
heavier(const void *a, const void *b)
{
	double x = weight(*(const struct watch *const *)a), y = weight(*(const struct watch *const *)b);

	return x < y ? 1 : x > y ? -1 : 0;
}

/* One line of the screen, no longer than that is wide.  false: there is none left. */
static bool
line(int *left, int width, const char *look, const char *text)
{
	if (*left <= 0)
		return false;
	printf("%s%s%.*s%s" TO_EOL, look, *look != '\0' ? "" : PLAIN, width, text, PLAIN);
	if (--*left > 0)
		fputs("\r\n", stdout);
	return true;
}

/* Memory that the machine has left, in MB; -1: it does not say. */
static long
available(void)
{
	FILE *f = fopen("/proc/meminfo", "re");
	char text[128];
	long kb = -1;

	while (f != NULL && fgets(text, sizeof(text), f) != NULL)
		if (sscanf(text, "MemAvailable: %ld", &kb) == 1)
			break;
	if (f != NULL)
		(void)fclose(f);
	return kb < 0 ? -1 : kb / 1024;
}

static void
draw(struct watch_list *list, double interval)
{
	static const char *const names[] = { "resident", "faults", "paging", "pid" };
	struct winsize size = { .ws_row = 24, .ws_col = 80 };
	char text[512], heading[2][256], clock[16];
	time_t now = time(NULL);
	struct tm tm;
	int left;

	(void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	left = size.ws_row;
	(void)strftime(clock, sizeof(clock), "%T", localtime_r(&now, &tm));
	if (list->n > 0)
		qsort(list->watch, list->n, sizeof(*list->watch), heavier);

	fputs(HOME, stdout);
	snprintf(text, sizeof(text), "vmfault top  %s   %u process%s, each %g s, by %s   %ld MB available", clock,
	    list->n, list->n == 1 ? "" : "es", interval, names[order], available());
	(void)line(&left, size.ws_col, BOLD, text);
	(void)line(&left, size.ws_col, "", "by r resident, f faults, p paging, n pid; space: now; q: quit");
	/* The program's name is worth more. */
	watch_brief = true;
	watch_heading(heading);
	snprintf(text, sizeof(text), "        %s", heading[0]);
	(void)line(&left, size.ws_col, "", text);
	snprintf(text, sizeof(text), "    pid %s command%*s", heading[1], 80, "");
	(void)line(&left, size.ws_col, REVERSE, text);
	for (unsigned i = 0; i < list->n; i++) {
		const struct watch *w = list->watch[i];
		char numbers[256];

		watch_line(w, numbers);
		snprintf(text, sizeof(text), "%7d %s %s%s", (int)w->pid, numbers, w->command,
		    w->now.fresh ? "" : " (does not answer)");
		if (!line(&left, size.ws_col, "", text))
			break;
	}
	if (list->n == 0)
		(void)line(&left, size.ws_col, "", "no process under vmfault that can be watched");
	fputs(BELOW, stdout);
	fflush(stdout);
}

/* Keys, one after another.  => false: enough */
static bool
take_keys(void)
{
	char keys[64];
	ssize_t n = read(STDIN_FILENO, keys, sizeof(keys));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	for (ssize_t i = 0; i < n; i++) {
		switch (keys[i]) {
		case 'q':
		case 'Q':
			return false;
		case 'r':
			order = BY_RESIDENT;
			break;
		case 'f':
			order = BY_FAULTS;
			break;
		case 'p':
			order = BY_PAGING;
			break;
		case 'n':
			order = BY_PID;
			break;
		default:
			break;
		}
	}
	return true;
}

/* => false: the user, or the terminal, has had enough */
static bool
wait_for_user(double interval, const sigset_t *open)
{
	struct timespec ts = { (time_t)interval, (long)((interval - (double)(time_t)interval) * 1e9) };
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	int n = ppoll(&in, 1, &ts, open);

	if (caught != 0) {
		int sig = caught;

		caught = 0;
		obey(sig, open);
	}
	if (n > 0 && (in.revents & (POLLHUP | POLLERR | POLLNVAL)))
		return false;
	return n <= 0 || take_keys();
}

int
cmd_top(char **argv)
{
	struct watch_list list = { NULL, 0 };
	struct sigaction sa = { .sa_handler = on_signal };
	double interval = 2;
	const char *arg;
	sigset_t ours, open;

	for (; *argv != NULL; argv++) {
		if (!option_arg(&argv, "interval", &arg))
			return bad_use("top: %s: not understood", *argv);
		if (arg == NULL || !seconds(arg, &interval))
			return bad_use("--interval wants seconds, 0.01 to 86400");
	}
	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO) || tcgetattr(STDIN_FILENO, &cooked) != 0)
		return bad_use("top: this is no terminal; vmfault stat --all needs none");
	(void)sigemptyset(&ours);
	(void)sigaddset(&ours, SIGWINCH);
	for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
		(void)sigaddset(&ours, ending[i]);
	(void)sigprocmask(SIG_BLOCK, &ours, &open);
	(void)sigaction(SIGWINCH, &sa, NULL);
	for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
		(void)sigaction(ending[i], &sa, NULL);
	for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
		(void)sigdelset(&open, ending[i]);
	(void)sigdelset(&open, SIGWINCH);
	(void)atexit(restore);
	change();
	do {
		watch_all(&list);
		watch_list_look(&list, ANSWER_MS);
		draw(&list, interval);
	} while (wait_for_user(interval, &open));
	restore();
	return 0;
}
