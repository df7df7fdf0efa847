/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * A program for the gate of the PLT (plt_program.py): what libc does by itself, and what goes by its functions'
 * names.  It prints the same each time.
 */

#include <dirent.h>
#include <locale.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE	((size_t)3 << 20)	/* more than the limit that this runs with */

static void
transfers(char *big)
{
	unsigned sum = 0;
	FILE *f = tmpfile();

	for (size_t i = 0; i < SIZE; i++)
		big[i] = (char)(i * 7 >> 3);
	for (int k = 0; k < 3 && f != NULL; k++) {
		if (fwrite(big, 1, SIZE, f) != SIZE || fflush(f) != 0)
			puts("short");
		rewind(f);
		memset(big, 0, SIZE);
		if (fread(big, 1, SIZE, f) != SIZE)
			puts("short");
		rewind(f);
		if (pwrite(fileno(f), big, SIZE, 0) != (ssize_t)SIZE || pread(fileno(f), big, SIZE, 0) != (ssize_t)SIZE)
			puts("short");
	}
	for (size_t i = 0; i < SIZE; i++)
		sum = sum * 31 + (unsigned char)big[i];
	printf("%u\n", sum);
}

static void *
allocate(void *arg)
{
	char *p = malloc(50000);

	memset(p, 1, 50000);
	free(p);
	return arg;
}

static void
threads(void)
{
	pthread_t t;

	for (int i = 0; i < 20; i++)
		printf("%d", pthread_create(&t, NULL, allocate, NULL) + pthread_join(t, NULL));
	puts("");
}

static void
directories(void)
{
	char *path = strdup("/usr/bin"), line[4096], *where = malloc(4096);
	DIR *d = opendir(path);
	FILE *f = fopen("/proc/self/status", "r");
	int n = 0;

	while (d != NULL && readdir(d) != NULL)
		n++;
	printf("%d %d ", n > 10, fgets(line, sizeof(line), f) != NULL);
	printf("%d %s\n", getcwd(where, 4096) != NULL, realpath("/proc/../usr/./bin", line));
	closedir(d);
	fclose(f);
}

static void
children(char *big)
{
	extern char **environ;
	int status;
	pid_t pid;

	for (int i = 0; i < 10; i++) {
		pid = fork();
		if (pid == 0) {
			big[5] = 9;
			_exit(big[6] == (char)(6 * 7 >> 3) ? 0 : 1);
		}
		waitpid(pid, &status, 0);
		printf("%d ", status);
	}
	for (int i = 0; i < 10; i++) {
		char **argv = malloc(4 * sizeof(*argv)), *path = strdup("/bin/sh");

		argv[0] = strdup("sh");
		argv[1] = strdup("-c");
		argv[2] = strcpy(malloc(20), "exit 7");
		argv[3] = NULL;
		if (posix_spawn(&pid, path, NULL, NULL, argv, environ) != 0)
			puts("no child");
		waitpid(pid, &status, 0);
		printf("%d ", status >> 8);
	}
	printf("%d\n", system(strcpy(malloc(20), "exit 3")) >> 8);
}

static void
mappings(void)
{
	size_t n = (size_t)1 << 20;
	char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	memset(p, 4, n);
	p = mremap(p, n, 2 * n, MREMAP_MAYMOVE);
	printf("%d %d ", p[5], p[2 * n - 1]);
	memset(p, 5, 2 * n);
	printf("%d ", madvise(p, n, MADV_DONTNEED));
	printf("%d %d ", p[5], p[n]);
	printf("%d\n", munmap(p, 2 * n));
}

int
main(void)
{
	char *big = malloc(SIZE);

	setlocale(LC_ALL, "");
	transfers(big);
	threads();
	directories();
	children(big);
	mappings();
	for (int fd = 3; fd < 2000; fd++)
		close(fd);
	transfers(big);
	fflush(stdout);
	execlp("echo", "echo", strdup("end"), (char *)NULL);
	return 1;
}
