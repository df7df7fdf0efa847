/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * The columns of stat and top.
 *
 * Amounts are of now.  Rates are per second: between the last two looks, or since the process began where there
 * was one look only, as in vmstat's first line.  Times are the mean of an event in the same span.
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "vmfault_watch.h"

#define PAGE	4096u

/* A size in four characters and its unit: 1023K, 9.8M, 512M, 1.5G. */
static void
size_text(char text[12], uint64_t bytes)
{
	static const char unit[] = "KMGTPE";
	double n = (double)bytes / 1024;
	int u = 0;

	for (; n >= 999.5 && unit[u + 1] != '\0'; u++)
		n /= 1024;
	snprintf(text, 12, n < 9.95 && u > 0 ? "%.1f%c" : "%.0f%c", n, unit[u]);
}

/* A count in five characters: 99999, 100k, 12M. */
static void
count_text(char text[12], double n)
{
	snprintf(text, 12, n < 99999.5 ? "%.0f" : n < 999999.5 * 1e3 ? "%.0fk" : "%.0fM",
	    n < 99999.5 ? n : n < 999999.5 * 1e3 ? n / 1e3 : n / 1e6);
}

static uint64_t
pages(const struct watch *w, const char *name)
{
	return watch_number(&w->now, name) * PAGE;
}

static void
resident(const struct watch *w, char text[12], const char *a, const char *b)
{
	uint64_t used = watch_number(&w->now, "v_page_count") - watch_number(&w->now, "v_free_count");

	(void)a, (void)b;
	size_text(text, w->now.frames != UINT64_MAX ? w->now.frames : used * PAGE);
}

static void
amount(const struct watch *w, char text[12], const char *a, const char *b)
{
	(void)b;
	size_text(text, pages(w, a));
}

/* More than any machine has is none. */
static void
limit(const struct watch *w, char text[12], const char *a, const char *b)
{
	if (watch_number(&w->now, a) > UINT64_MAX / PAGE / 2)
		strcpy(text, "-");
	else
		amount(w, text, a, b);
}

static void
bytes(const struct watch *w, char text[12], const char *a, const char *b)
{
	(void)b;
	size_text(text, watch_number(&w->now, a));
}

static void
rate(const struct watch *w, char text[12], const char *a, const char *b)
{
	double s = watch_interval(w);

	(void)b;
	count_text(text, s > 0 ? (double)watch_growth(w, a) / s : 0);
}

static void
events(const struct watch *w, char text[12], const char *a, const char *b)
{
	(void)b;
	count_text(text, (double)watch_growth(w, a));
}

/* Microseconds of one: b nanoseconds for a of them. */
static void
mean(const struct watch *w, char text[12], const char *a, const char *b)
{
	uint64_t n = watch_growth(w, a);

	if (n == 0)
		strcpy(text, "-");
	else
		count_text(text, (double)watch_growth(w, b) / (double)n / 1e3);
}

static void
share(const struct watch *w, char text[12], const char *a, const char *b)
{
	uint64_t n = watch_number(&w->now, a), of = watch_number(&w->now, b);

	if (of == 0)
		strcpy(text, "-");
	else
		snprintf(text, 12, "%.0f%%", (double)n * 100 / (double)of);
}

static void
count(const struct watch *w, char text[12], const char *a, const char *b)
{
	(void)b;
	count_text(text, (double)watch_number(&w->now, a));
}

static const char CHILDREN[] = "children";

bool watch_brief;

static const struct column {
	const char *group;		/* null: that of the column before; CHILDREN: not where lines are short of room */
	const char *name;
	int width;
	void (*text)(const struct watch *, char text[12], const char *a, const char *b);
	const char *a, *b;
} columns[] = {
	{ "memory", "resid", 6, resident, NULL, NULL },
	{ NULL, "limit", 6, limit, "v_page_count", NULL },
	{ NULL, "swap", 6, amount, "swap_used", NULL },
	{ NULL, "comp", 6, bytes, "compress_resident", NULL },
	{ "faults/s", "all", 6, rate, "v_vm_faults", NULL },
	{ NULL, "zero", 6, rate, "v_zfod", NULL },
	{ NULL, "cow", 6, rate, "v_cow_faults", NULL },
	{ NULL, "push", 6, rate, "v_pushes", NULL },
	{ NULL, "soft", 6, rate, "v_soft", NULL },
	{ "pages/s", "in", 6, rate, "v_pageins", NULL },
	{ NULL, "out", 6, rate, "v_pageouts", NULL },
	{ "forks", "n", 5, events, "forks", NULL },
	{ NULL, "us", 6, mean, "forks", "fork_ns" },
	{ CHILDREN, "frozen", 6, amount, "frames_frozen", NULL },
	{ NULL, "own", 6, amount, "frames_private", NULL },
	{ NULL, "theirs", 6, amount, "frames_superseded", NULL },
	{ "snapshots", "n", 5, events, "v_snapshots", NULL },
	{ NULL, "us", 6, mean, "v_snapshots", "v_snapshot_ns" },
	{ "mappings", "n", 6, count, "mappings", NULL },
	{ NULL, "of", 5, share, "mappings", "mappings_max" },
};
#define NCOLUMNS	(sizeof(columns) / sizeof(columns[0]))

/* Is *i the first of a group that is not shown?  Then it becomes the first of the next one. */
static bool
is_left_out(size_t *i)
{
	bool out = watch_brief && columns[*i].group == CHILDREN;

	while (out && columns[++*i].group == NULL)
		;
	return out;
}

void
watch_heading(char line[2][256])
{
	char *at[2] = { line[0], line[1] };

	for (size_t i = 0, next; i < NCOLUMNS; i = next) {
		int width = -1, len = (int)strlen(columns[i].group), left;

		if (is_left_out(&i)) {
			next = i;
			continue;
		}
		for (next = i; next == i || (next < NCOLUMNS && columns[next].group == NULL); next++) {
			width += columns[next].width + 1;
			at[1] += sprintf(at[1], " %*s", columns[next].width, columns[next].name);
		}
		/* " ----faults/s----": the first column's empty places are the gap before it. */
		*at[0]++ = ' ';
		left = (width - len) / 2;
		for (int k = 0; k < width; k++)
			*at[0]++ = k >= left && k < left + len ? columns[i].group[k - left] : k == 0 ? ' ' : '-';
	}
	*at[0] = *at[1] = '\0';
}

void
watch_line(const struct watch *w, char line[256])
{
	char text[12];

	for (size_t i = 0; i < NCOLUMNS; i++) {
		(void)is_left_out(&i);
		columns[i].text(w, text, columns[i].a, columns[i].b);
		line += sprintf(line, " %*s", columns[i].width, text);
	}
}
