/* SPDX-License-Identifier: BSD-2-Clause */

#include "vmfault_watch.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vmfault_cmd.h"

#define STATS_LINK	"/memfd:" PUBLISH_NAME " "
#define FRAMES_LINK	"/memfd:vmfault "

static double
clock_seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/*
 * The descriptor of a process that links to such a memfd, by its path.
 * => 0, -ENOENT, or why its descriptors cannot be seen
 */
static int
find_fd(pid_t pid, const char *link, char *path, size_t size)
{
	char dir[32], to[64];
	int error = -ENOENT;
	struct dirent *d;
	DIR *fds;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", (int)pid);
	fds = opendir(dir);
	if (fds == NULL)
		return errno == ENOENT ? -ESRCH : -errno;
	while (error == -ENOENT && (d = readdir(fds)) != NULL) {
		ssize_t n = readlinkat(dirfd(fds), d->d_name, to, sizeof(to));

		if (n >= (ssize_t)strlen(link) && memcmp(to, link, strlen(link)) == 0 &&
		    (size_t)snprintf(path, size, "%s/%s", dir, d->d_name) < size)
			error = 0;
	}
	(void)closedir(fds);
	return error;
}

/*
 * The same by its mappings, for a process that has closed its descriptors.
 * => -ENODATA: it has the shim, but no such memfd
 */
static int
find_mapping(pid_t pid, char *path, size_t size)
{
	char line[PATH_MAX + 128];
	int error = -ENOENT, found = -ENOENT;
	FILE *maps;

	snprintf(line, sizeof(line), "/proc/%d/maps", (int)pid);
	maps = fopen(line, "re");
	while (maps != NULL && error != 0 && fgets(line, sizeof(line), maps) != NULL) {
		if (strstr(line, STATS_LINK) == NULL) {
			if (strstr(line, "/" SHIM_NAME) != NULL)
				found = -ENODATA;
			continue;
		}
		line[strcspn(line, " ")] = '\0';
		if ((size_t)snprintf(path, size, "/proc/%d/map_files/%s", (int)pid, line) < size)
			error = 0;
	}
	if (maps != NULL)
		(void)fclose(maps);
	return error != 0 ? found : 0;
}

/* What the process itself calls its id, in its own namespace; 0: not known. */
static uint32_t
inner_pid(pid_t pid)
{
	unsigned long inner = (unsigned long)pid;
	char line[256];
	FILE *status;

	snprintf(line, sizeof(line), "/proc/%d/status", (int)pid);
	status = fopen(line, "re");
	if (status == NULL)
		return 0;
	while (fgets(line, sizeof(line), status) != NULL)
		if (strncmp(line, "NSpid:", 6) == 0)
			inner = strtoul(strrchr(line, '\t'), NULL, 10);
	(void)fclose(status);
	return (uint32_t)inner;
}

static void
read_command(pid_t pid, char *command, size_t size)
{
	char path[32];
	FILE *comm;

	*command = '\0';
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	comm = fopen(path, "re");
	if (comm == NULL)
		return;
	if (fgets(command, (int)size, comm) != NULL)
		command[strcspn(command, "\n")] = '\0';
	for (char *p = command; *p != '\0'; p++)
		if (!isprint((unsigned char)*p))
			*p = '?';
	(void)fclose(comm);
}

/* => false: what is there is no page that we know */
static bool
read_page(int fd, struct publish_page *page)
{
	for (int tries = 0; tries < 1000; tries++) {
		uint32_t seq[2];
		const off_t at = offsetof(struct publish_page, seq);

		if (pread(fd, &seq[0], sizeof(seq[0]), at) != sizeof(seq[0]) ||
		    pread(fd, page, sizeof(*page), 0) != sizeof(*page) ||
		    pread(fd, &seq[1], sizeof(seq[1]), at) != sizeof(seq[1]))
			return false;
		if (page->magic != PUBLISH_MAGIC || page->version != PUBLISH_VERSION || page->n > PUBLISH_NUMBERS)
			return false;
		if ((seq[0] & 1) == 0 && seq[0] == seq[1]) {
			for (uint32_t i = 0; i < page->n; i++) {
				char *name = page->number[i].name;

				name[sizeof(page->number[i].name) - 1] = '\0';
				for (; *name != '\0'; name++)
					if (!isalnum((unsigned char)*name))
						*name = '_';
			}
			page->release[sizeof(page->release) - 1] = '\0';
			return true;
		}
		(void)sched_yield();
	}
	return false;
}

int
watch_open(struct watch *w, pid_t pid)
{
	char path[128];
	struct stat st;
	int error;

	memset(w, 0, sizeof(*w));
	w->pid = pid;
	error = find_fd(pid, STATS_LINK, path, sizeof(path));
	if (error == -ENOENT)
		error = find_mapping(pid, path, sizeof(path));
	if (error != 0)
		return error;
	w->fd = open(path, O_RDWR | O_CLOEXEC);
	if (w->fd < 0)
		return errno == ENOENT ? -ESRCH : -errno;
	w->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	w->page = MAP_FAILED;
	if (w->pidfd < 0)
		error = -errno;
	else if (fstat(w->fd, &st) != 0 || st.st_size < PUBLISH_SIZE || !read_page(w->fd, &w->now.page))
		error = -EPROTO;
	else if (w->now.page.pid != inner_pid(pid))
		error = -ENOENT;
	if (error == 0) {
		w->page = mmap(NULL, PUBLISH_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->fd, 0);
		if (w->page == MAP_FAILED)
			error = -errno;
	}
	if (error != 0)
		watch_close(w);
	else
		read_command(pid, w->command, sizeof(w->command));
	return error;
}

void
watch_close(struct watch *w)
{
	if (w->page != MAP_FAILED)
		(void)munmap(w->page, PUBLISH_SIZE);
	if (w->pidfd >= 0)
		(void)close(w->pidfd);
	(void)close(w->fd);
}

const char *
watch_error(int error)
{
	switch (error) {
	case -ESRCH:
		return "no such process";
	case -ENOENT:
		return "not under vmfault";
	case -ENODATA:
		return "it has the shim, but no managed memory: there is nothing to count";
	case -EACCES:
		return "it is another user's, or cannot be looked at (prctl PR_SET_DUMPABLE); root may";
	case -EPERM:
		return "it has closed its descriptors; only root can find its numbers now";
	case -EPROTO:
		return "its numbers are in a format of another version";
	default:
		return strerror(-error);
	}
}

void
watch_ask(struct watch *w)
{
	w->want = atomic_fetch_add(&w->page->bell, 1) + 1;
	(void)syscall(SYS_futex, &w->page->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Bytes of memory that the frames of a process have: what the kernel says, whoever filled them. */
static uint64_t
frames_of(pid_t pid)
{
	char path[128];
	struct stat st;

	if (find_fd(pid, FRAMES_LINK, path, sizeof(path)) != 0 || stat(path, &st) != 0)
		return UINT64_MAX;
	return (uint64_t)st.st_blocks * 512;
}

bool
watch_look(struct watch *w, int ms)
{
	double until = clock_seconds() + ms / 1e3;
	struct pollfd end = { .fd = w->pidfd, .events = POLLIN };
	uint32_t got;

	for (;;) {
		double left = until - clock_seconds();
		struct timespec ts = { 0, 5000000 };

		if (pread(w->fd, &got, sizeof(got), offsetof(struct publish_page, answered)) != sizeof(got) ||
		    (int32_t)(got - w->want) >= 0 || left <= 0 || poll(&end, 1, 0) > 0)
			break;
		/* It may end meanwhile, so never for long. */
		(void)syscall(SYS_futex, &w->page->answered, FUTEX_WAIT, got, &ts, NULL, 0);
	}
	if (w->now.at != 0) {
		w->before = w->now;
		w->has_before = true;
	}
	w->now.frames = frames_of(w->pid);
	w->now.at = clock_seconds();
	w->now.fresh = (int32_t)(got - w->want) >= 0;
	return poll(&end, 1, 0) == 0 && read_page(w->fd, &w->now.page);
}

uint64_t
watch_number(const struct watch_sample *s, const char *name)
{
	for (uint32_t i = 0; i < s->page.n; i++)
		if (strcmp(s->page.number[i].name, name) == 0)
			return s->page.number[i].value;
	return 0;
}

uint64_t
watch_growth(const struct watch *w, const char *name)
{
	uint64_t now = watch_number(&w->now, name), before = w->has_before ? watch_number(&w->before, name) : 0;

	return now > before ? now - before : 0;
}

/*
 * By the process's own clock where it answered, so that rates are exact.
 */
double
watch_interval(const struct watch *w)
{
	uint64_t from = w->has_before ? w->before.page.when : w->now.page.started;

	return w->now.page.when > from ? (double)(w->now.page.when - from) / 1e9 : 0;
}

static int
by_pid(const void *a, const void *b)
{
	const struct watch *const *x = a, *const *y = b;

	return (*x)->pid < (*y)->pid ? -1 : (*x)->pid > (*y)->pid;
}

static bool
is_listed(const struct watch_list *l, pid_t pid)
{
	for (unsigned i = 0; i < l->n; i++)
		if (l->watch[i]->pid == pid)
			return true;
	return false;
}

void
watch_all(struct watch_list *l)
{
	DIR *proc = opendir("/proc");
	char path[128];
	struct dirent *d;

	while (proc != NULL && (d = readdir(proc)) != NULL) {
		pid_t pid = (pid_t)strtol(d->d_name, NULL, 10);
		struct watch *w;

		/* The descriptors first: asking each process for its mappings would cost it something. */
		if (pid <= 0 || is_listed(l, pid) || find_fd(pid, STATS_LINK, path, sizeof(path)) != 0)
			continue;
		w = malloc(sizeof(*w));
		if (w != NULL && watch_open(w, pid) == 0) {
			struct watch **more = realloc(l->watch, (l->n + 1) * sizeof(*more));

			if (more != NULL) {
				l->watch = more;
				l->watch[l->n++] = w;
				continue;
			}
			watch_close(w);
		}
		free(w);
	}
	if (proc != NULL)
		(void)closedir(proc);
	if (l->n != 0)
		qsort(l->watch, l->n, sizeof(*l->watch), by_pid);
}

void
watch_list_look(struct watch_list *l, int ms)
{
	double until = clock_seconds() + ms / 1e3;
	unsigned kept = 0;

	for (unsigned i = 0; i < l->n; i++)
		watch_ask(l->watch[i]);
	for (unsigned i = 0; i < l->n; i++) {
		struct watch *w = l->watch[i];
		double left = (until - clock_seconds()) * 1e3;

		if (watch_look(w, left > 0 ? (int)left : 0)) {
			l->watch[kept++] = w;
		} else {
			watch_close(w);
			free(w);
		}
	}
	l->n = kept;
}
