/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * memory_peak PID: the most memory that a process and those below it take together, until standard input ends.
 * Looks 50 times a second, at low priority, and no more often than half of the time: looking at gigabytes takes long, and
 * keeps the process from changing its mappings meanwhile.  Prints {"first": ..., "peak": ..., "looks": ...} in bytes.
 */

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "memory.h"

#define EVERY_MS	20

static int
now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((int)(ts.tv_sec % 1000000 * 1000 + ts.tv_nsec / 1000000));
}

int
main(int argc, char **argv)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	unsigned long long first = 0, peak = 0, looks = 0;
	pid_t root = argc == 2 ? (pid_t)strtol(argv[1], NULL, 10) : 0, pids[MEMORY_FAMILY];
	int wait = 0;

	if (root <= 0) {
		fprintf(stderr, "usage: memory_peak PID\n");
		return (2);
	}
	if (nice(5) < 0)
		return (1);
	do {
		int began = now_ms(), took;
		uint64_t bytes = memory_of(pids, memory_family(root, pids));

		if (looks++ == 0) {
			first = bytes;
			puts("looking");
			fflush(stdout);
		}
		peak = bytes > peak ? bytes : peak;
		took = now_ms() - began;
		wait = took < EVERY_MS / 2 ? EVERY_MS - took : took;
	} while (poll(&in, 1, wait) == 0);
	printf("{\"first\": %llu, \"peak\": %llu, \"looks\": %llu}\n", first, peak, looks);
	return (0);
}
