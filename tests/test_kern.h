/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef TEST_KERN_H
#define TEST_KERN_H

/*
 * What the tests of lib/kern share: panics, which happen in a child so that
 * the words can be read, threads, and randomness.
 */

#include <check.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "suite.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN	1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN	1
#endif
#endif

/* ck_assert() for loops: that one tells the parent process each time it is passed. */
#define must(e)		((e) ? (void)0 : ck_abort_msg("not so: %s", #e))

/* => what fn wrote to standard error; how it ended in *status. */
static inline const char *
words_of(void (*fn)(void), int *status)
{
	static char text[4096];
	size_t len = 0;
	ssize_t n;
	int fds[2];
	pid_t pid;

	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		dup2(fds[1], 2);
		close(fds[0]);
		close(fds[1]);
		fn();
		_exit(0);
	}
	close(fds[1]);
	while (len < sizeof(text) - 1 && (n = read(fds[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	text[len] = '\0';
	close(fds[0]);
	ck_assert_int_eq(waitpid(pid, status, 0), pid);
	return (text);
}

/* fn panics, and its last words contain both. */
#define ck_assert_panics(fn, word1, word2) do {						\
	int status_;									\
	const char *words_ = words_of(fn, &status_);					\
	ck_assert_msg(WIFSIGNALED(status_) && WTERMSIG(status_) == SIGABRT,		\
	    #fn " did not abort: status %#x, it said: %s", (unsigned)status_, words_);	\
	ck_assert_msg(strstr(words_, "vmfault: panic: ") == words_ &&			\
	    strstr(words_, word1) != NULL && strstr(words_, word2) != NULL,		\
	    #fn " said: %s", words_);							\
} while (0)

static inline void
msleep(long ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	while (nanosleep(&ts, &ts) != 0)
		;
}

static inline pthread_t
spawn(void *(*fn)(void *), void *arg)
{
	pthread_t t;

	ck_assert_int_eq(pthread_create(&t, NULL, fn, arg), 0);
	return (t);
}

static inline void
join(pthread_t t)
{
	ck_assert_int_eq(pthread_join(t, NULL), 0);
}

/* xorshift64*; the state is not 0. */
static inline uint64_t
rng(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (*state * 0x2545f4914f6cdd1d >> 16);
}

#endif
