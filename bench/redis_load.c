/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * What bench_redis does to a Redis server: fill it, write to it at a fixed rate, and say whether what it has is right.
 *
 *	redis_load fill SOCKET SHAPE KEYS SEED
 *	redis_load run SOCKET SHAPE KEYS SEED RATE
 *	redis_load verify SOCKET SHAPE KEYS SEED
 *
 * THE RATE.  A write is due at its time, whatever the server does: who would have asked while it stood still has waited,
 * and is counted from when he would have asked (open loop).  A generator that waits for an answer before it asks
 * again sees a stall once, where hundreds of users would have.
 *
 * PHASES.  Each line on standard input begins a phase of that name, which is confirmed by {"begun": NAME}; its end, or
 * the next one, ends it.  A write belongs to the phase in which it was due.  When the last of a phase is answered its
 * latencies are a line of JSON:
 *
 *	{"phase": "save", "count": 9, "max_us": 80, "lag_us": 70, "answered": 3, "sent": 12, "buckets": [[64, 8], [80, 1]]}
 *
 * A bucket is the least latency in it, in microseconds, and how many; it is 1/32 wide.  lag is by how much we ourselves were
 * late: then the machine was busy, and not the server.  answered is the number of writes ever that the server had
 * confirmed when the phase began, sent that of those it can have seen when it ended.
 *
 * WHAT IS WRITTEN.  Each key belongs to one client.  Its n-th write is
 *
 *	SET a:CLIENT n;  SET key value;  SET b:CLIENT n
 *
 * in this order, and which key it is, and the value, follow from the seed, the client and n.  So what a server
 * held at one instant proves itself: for each client a is b or b + 1, each of its keys has the value of its last write
 * up to b, and where a is b + 1 that of this very write may be there, or not yet.  Nothing else is right.  `verify'
 * prints {"keys": ..., "writes": ...}, the sum of all b, and ends with 1 if a byte is wrong.
 */

#define _FILE_OFFSET_BITS 64

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS		16u
#define PHASES		64u
#define VALUE_MOST	65536u
#define BATCH		512u		/* keys asked at once */
#define BATCH_BYTES	(1u << 20)
#define SUB		32u		/* buckets in a power of two */
#define BUCKETS		(SUB * 40)

/* A value is of min to min + spread - 1 bytes, as its key says.  Both fill a size class of the allocator's. */
static const struct shape {
	const char *name;
	uint32_t min, spread;
} shapes[] = {
	{ "small", 96, 24 },
	{ "large", 60000, 5000 },
};

static const struct shape *shape;
static uint64_t seed;
static uint32_t keys;
static const char *path;

static void __attribute__((__format__(__printf__, 1, 2), __noreturn__))
die(const char *fmt, ...)
{
	va_list ap;

	fputs("redis_load: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

/*
 * What is written
 */

static uint64_t
mix(uint64_t a, uint64_t b)
{
	a = (a ^ b) * UINT64_C(0x9e3779b97f4a7c15) + 1;
	a = (a ^ a >> 32) * UINT64_C(0xd6e8feb86659fd93);
	return (a ^ a >> 29);
}

/* The key of a client's n-th write: k % CLIENTS is the client. */
static uint32_t
key_of(uint32_t client, uint64_t n)
{
	uint32_t own = keys / CLIENTS;

	return ((uint32_t)(mix(mix(seed, client), n) % own) * CLIENTS + client);
}

/* => its length; version: the write's number, 0 for what it was filled with */
static uint32_t
value_of(char value[VALUE_MOST], uint32_t key, uint64_t version)
{
	uint64_t x = mix(mix(seed, key), version) | 1;
	uint32_t len = shape->min + key % shape->spread;

	for (uint32_t i = 0; i < len; i += 8) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(value + i, &x, 8);
	}
	return (len);
}

/* SET name value, in Redis's protocol.  => bytes */
static size_t
put_set(char *out, const char *name, const char *value, size_t len)
{
	size_t n = (size_t)sprintf(out, "*3\r\n$3\r\nSET\r\n$%zu\r\n%s\r\n$%zu\r\n", strlen(name), name, len);

	memcpy(out + n, value, len);
	memcpy(out + n + len, "\r\n", 2);
	return (n + len + 2);
}

static size_t
put_counter(char *out, char which, uint32_t client, uint64_t n)
{
	char name[16], value[24];

	snprintf(name, sizeof(name), "%c:%u", which, client);
	return (put_set(out, name, value, (size_t)snprintf(value, sizeof(value), "%llu", (unsigned long long)n)));
}

static size_t
put_key(char *out, uint32_t key, uint64_t version)
{
	char name[24], value[VALUE_MOST];

	snprintf(name, sizeof(name), "key:%010u", key);
	return (put_set(out, name, value, value_of(value, key, version)));
}

#define WRITE_MOST	(VALUE_MOST + 512)	/* bytes of one write, with its counters */
#define REPLIES		3u			/* to one */

static size_t
put_write(char *out, uint32_t client, uint64_t n)
{
	size_t len = put_counter(out, 'a', client, n);

	len += put_key(out + len, key_of(client, n), n);
	return (len + put_counter(out + len, 'b', client, n));
}

/*
 * One question after another: filling and verifying
 */

static int
connect_to_server(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	if (strlen(path) >= sizeof(a.sun_path))
		die("%s: too long for a socket", path);
	memcpy(a.sun_path, path, strlen(path));
	if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof(a)) != 0)
		die("%s: %s", path, strerror(errno));
	return (fd);
}

static void
write_all(int fd, const char *p, size_t len)
{
	for (ssize_t n; len > 0; p += n, len -= (size_t)n)
		if ((n = send(fd, p, len, MSG_NOSIGNAL)) <= 0)
			die("the server is gone: %s", strerror(errno));
}

/* A line of an answer, without its end. */
static void
read_line(FILE *f, char *line, size_t room)
{
	if (fgets(line, (int)room, f) == NULL)
		die("the server is gone");
	line[strcspn(line, "\r\n")] = '\0';
}

static void
expect_line(FILE *f, const char *want)
{
	char line[256];

	read_line(f, line, sizeof(line));
	if (strcmp(line, want) != 0)
		die("the server says: %s", line);
}

/* A string.  => its length; -1: there is none */
static long
read_bulk(FILE *f, char value[VALUE_MOST + 2])
{
	char line[256];
	long len;

	read_line(f, line, sizeof(line));
	if (line[0] != '$')
		die("the server says: %s", line);
	len = strtol(line + 1, NULL, 10);
	if (len > (long)VALUE_MOST)
		die("a value of %ld bytes was never written", len);
	if (len >= 0 && fread(value, 1, (size_t)len + 2, f) != (size_t)len + 2)
		die("the server is gone");
	return (len);
}

static uint64_t
read_counter(int fd, FILE *f, char which, uint32_t client)
{
	char ask[64], value[VALUE_MOST + 2];
	long len;

	write_all(fd, ask, (size_t)snprintf(ask, sizeof(ask), "GET %c:%u\r\n", which, client));
	len = read_bulk(f, value);
	if (len <= 0 || len > 20)
		die("the counter %c:%u is not there", which, client);
	value[len] = '\0';
	return (strtoull(value, NULL, 10));
}

static void
fill(void)
{
	char *out = malloc(BATCH_BYTES + WRITE_MOST);
	int fd = connect_to_server();
	FILE *f = fdopen(fd, "r");

	if (out == NULL || f == NULL)
		die("%s", strerror(errno));
	for (uint32_t client = 0; client < CLIENTS; client++) {
		size_t len = put_counter(out, 'a', client, 0);

		write_all(fd, out, len + put_counter(out + len, 'b', client, 0));
		expect_line(f, "+OK");
		expect_line(f, "+OK");
	}
	for (uint32_t k = 0, first = 0; k < keys; first = k) {
		size_t len = 0;

		while (k < keys && k - first < 4 * BATCH && len < BATCH_BYTES)
			len += put_key(out + len, k++, 0);
		write_all(fd, out, len);
		for (uint32_t i = first; i < k; i++)
			expect_line(f, "+OK");
	}
	fclose(f);
	free(out);
}

/* Is it the value of this write? */
static bool
is_version(const char *value, long len, uint32_t key, uint64_t version)
{
	char want[VALUE_MOST];

	return (len == (long)value_of(want, key, version) && memcmp(value, want, (size_t)len) == 0);
}

static void
verify(void)
{
	uint32_t *last = calloc(keys, sizeof(*last));
	uint64_t begun[CLIENTS], writes = 0;
	char value[VALUE_MOST + 2], ask[BATCH * 40], line[256], want[32];
	int fd = connect_to_server();
	FILE *f = fdopen(fd, "r");

	if (last == NULL || f == NULL)
		die("%s", strerror(errno));
	for (uint32_t c = 0; c < CLIENTS; c++) {
		uint64_t done = read_counter(fd, f, 'b', c);

		begun[c] = read_counter(fd, f, 'a', c);
		if (begun[c] != done && begun[c] != done + 1)
			die("client %u had begun %llu writes and done %llu: no instant", c,
			    (unsigned long long)begun[c], (unsigned long long)done);
		for (uint64_t n = 1; n <= done; n++)
			last[key_of(c, n)] = (uint32_t)n;
		if (begun[c] == done)
			begun[c] = 0;		/* none is open */
		writes += done;
	}
	for (uint32_t first = 0, end; first < keys; first = end) {
		size_t len = 0;

		end = keys - first < BATCH ? keys : first + BATCH;
		for (uint32_t k = first; k < end; k++)
			len += (size_t)snprintf(ask + len, sizeof(ask) - len, "GET key:%010u\r\n", k);
		write_all(fd, ask, len);
		for (uint32_t k = first; k < end; k++) {
			uint64_t open = begun[k % CLIENTS];
			long got = read_bulk(f, value);

			if (is_version(value, got, k, last[k]))
				continue;
			if (open == 0 || key_of(k % CLIENTS, open) != k || !is_version(value, got, k, open))
				die("key %u is not what it was after write %u of client %u", k, last[k],
				    k % CLIENTS);
		}
	}
	write_all(fd, "DBSIZE\r\n", 8);
	read_line(f, line, sizeof(line));
	snprintf(want, sizeof(want), ":%u", keys + 2 * CLIENTS);
	if (strcmp(line, want) != 0)
		die("%s keys, and not %s", line, want);
	printf("{\"keys\": %u, \"writes\": %llu}\n", keys, (unsigned long long)writes);
	fclose(f);
	free(last);
}

/*
 * At a fixed rate
 */

static struct phase {
	char name[32];
	uint64_t bucket[BUCKETS];
	uint64_t count, max, lag, answered, sent;	/* times in microseconds */
	uint64_t open;			/* writes that are due and not answered */
} phases[PHASES];
static uint32_t nphase, nprinted;	/* begun; printed */

struct due {
	uint64_t at;			/* nanoseconds */
	uint32_t phase;
};

static struct client {
	int fd;
	char out[WRITE_MOST];
	size_t at, len;			/* what of it has been sent, and what is to be */
	struct due *due;		/* a ring: writes that are due, in order */
	uint64_t first, sent, end, room;	/* of it: not answered, not put out, next */
	uint64_t done;			/* writes before all of these */
	unsigned got;			/* bytes of the first one's replies */
} clients[CLIENTS];

static uint64_t answered, sent;		/* writes ever */

static uint64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ((uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec);
}

static unsigned
bucket_of(uint64_t us)
{
	unsigned shift;

	if (us < SUB)
		return ((unsigned)us);
	shift = 63 - (unsigned)__builtin_clzll(us) - 5;
	return (SUB * shift + (unsigned)(us >> shift) < BUCKETS ? SUB * shift + (unsigned)(us >> shift) : BUCKETS - 1);
}

static uint64_t
least_of(unsigned bucket)
{
	unsigned shift = bucket < SUB ? 0 : bucket / SUB - 1;

	return ((uint64_t)(bucket - SUB * shift) << shift);
}

/* Those that are over, in their order.  all: there will be no other */
static void
print_phases(bool all)
{
	for (; nprinted + !all < nphase && phases[nprinted].open == 0; nprinted++) {
		const struct phase *p = &phases[nprinted];
		const char *sep = "";

		printf("{\"phase\": \"%s\", \"count\": %llu, \"max_us\": %llu, \"lag_us\": %llu, \"answered\": %llu, "
		    "\"sent\": %llu, \"buckets\": [", p->name, (unsigned long long)p->count,
		    (unsigned long long)p->max, (unsigned long long)p->lag, (unsigned long long)p->answered,
		    (unsigned long long)p->sent);
		for (unsigned b = 0; b < BUCKETS; b++) {
			if (p->bucket[b] == 0)
				continue;
			printf("%s[%llu, %llu]", sep, (unsigned long long)least_of(b),
			    (unsigned long long)p->bucket[b]);
			sep = ", ";
		}
		puts("]}");
		fflush(stdout);
	}
}

static void
begin_phase(const char *name, size_t len)
{
	if (nphase == PHASES)
		die("too many phases");
	if (nphase > 0)
		phases[nphase - 1].sent = sent;
	snprintf(phases[nphase].name, sizeof(phases[0].name), "%.*s", (int)len, name);
	phases[nphase++].answered = answered;
	printf("{\"begun\": \"%s\"}\n", phases[nphase - 1].name);
	fflush(stdout);
}

/* => false: it has ended */
static bool
hear_phases(void)
{
	static char line[256];
	static size_t len;
	ssize_t n = read(STDIN_FILENO, line + len, sizeof(line) - len);
	char *end;

	if (n <= 0) {
		phases[nphase - 1].sent = sent;
		return (false);
	}
	len += (size_t)n;
	while ((end = memchr(line, '\n', len)) != NULL) {
		begin_phase(line, (size_t)(end - line));
		len -= (size_t)(end + 1 - line);
		memmove(line, end + 1, len);
	}
	if (len == sizeof(line))
		die("what a name for a phase");
	return (true);
}

static struct due *
due_at(const struct client *c, uint64_t i)
{
	return (&c->due[i % c->room]);
}

static void
is_due(struct client *c, uint64_t at, uint64_t lag)
{
	struct phase *p = &phases[nphase - 1];

	if (c->end - c->first == c->room) {
		struct due *more = reallocarray(NULL, 2 * c->room, sizeof(*more));

		if (more == NULL)
			die("out of memory");
		for (uint64_t i = c->first; i < c->end; i++)
			more[i % (2 * c->room)] = *due_at(c, i);
		free(c->due);
		c->due = more;
		c->room *= 2;
	}
	*due_at(c, c->end++) = (struct due){ at, nphase - 1 };
	p->open++;
	if (lag / 1000 > p->lag)
		p->lag = lag / 1000;
}

/* Put out what is due, as far as the server takes it. */
static void
flush(struct client *c)
{
	for (;;) {
		ssize_t n;

		if (c->at == c->len) {
			if (c->sent == c->end)
				return;
			c->at = 0;
			c->len = put_write(c->out, (uint32_t)(c - clients), c->done + ++c->sent);
			sent++;
		}
		n = send(c->fd, c->out + c->at, c->len - c->at, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0)
			die("the server is gone: %s", strerror(errno));
		c->at += (size_t)n;
	}
}

static void
take_answer(struct client *c)
{
	const struct due *d = due_at(c, c->first++);
	struct phase *p = &phases[d->phase];
	uint64_t us = (now() - d->at) / 1000;

	p->bucket[bucket_of(us)]++;
	p->count++;
	p->open--;
	if (us > p->max)
		p->max = us;
	answered++;
}

static void
hear(struct client *c)
{
	static const char ok[] = "+OK\r\n";
	char buf[16384];
	ssize_t n = recv(c->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		die("the server is gone: %s", n < 0 ? strerror(errno) : "it hung up");
	for (ssize_t i = 0; i < n; i++) {
		if (c->first == c->sent || buf[i] != ok[c->got % 5])
			die("the server says: %.*s", (int)(n - i < 200 ? n - i : 200), buf + i);
		if (++c->got == 5 * REPLIES) {
			c->got = 0;
			take_answer(c);
		}
	}
}

static void
start_clients(void)
{
	for (uint32_t i = 0; i < CLIENTS; i++) {
		struct client *c = &clients[i];
		FILE *f;

		c->fd = connect_to_server();
		if ((f = fdopen(dup(c->fd), "r")) == NULL)
			die("%s", strerror(errno));
		c->done = read_counter(c->fd, f, 'b', i);
		if (read_counter(c->fd, f, 'a', i) != c->done)
			die("client %u has a write open", i);
		fclose(f);
		c->room = 256;
		c->due = reallocarray(NULL, c->room, sizeof(*c->due));
		if (c->due == NULL)
			die("out of memory");
		answered += c->done;
	}
	sent = answered;
}

static void
run(uint64_t rate)
{
	struct pollfd fds[CLIENTS + 1] = { 0 };
	uint64_t start, t, n = 0, next;
	bool on = true;

	/* Clients have machines of their own.  Who may not have a higher priority has more lag. */
	(void)setpriority(PRIO_PROCESS, 0, -10);
	start_clients();
	begin_phase("start", 5);
	start = next = now();
	while (on || nprinted < nphase) {
		struct timespec wait = { .tv_sec = 1 };

		for (t = now(); on && next <= t; next = start + n * 1000000000u / rate)
			is_due(&clients[n++ % CLIENTS], next, t - next);
		for (uint32_t i = 0; i < CLIENTS; i++) {
			flush(&clients[i]);
			fds[i].fd = clients[i].fd;
			fds[i].events = clients[i].at < clients[i].len ? POLLIN | POLLOUT : POLLIN;
		}
		fds[CLIENTS] = (struct pollfd){ .fd = on ? STDIN_FILENO : -1, .events = POLLIN };
		t = now();
		if (on)
			wait = (struct timespec){ .tv_nsec = next > t ? (long)(next - t) % 1000000000 : 0 };
		if (ppoll(fds, CLIENTS + 1, &wait, NULL) < 0 && errno != EINTR)
			die("poll: %s", strerror(errno));
		for (uint32_t i = 0; i < CLIENTS; i++)
			if (fds[i].revents != 0)
				hear(&clients[i]);
		if (fds[CLIENTS].revents != 0)
			on = hear_phases();
		print_phases(!on);
	}
}

static uint64_t
number(const char *s, uint64_t most)
{
	char *end;
	uint64_t v = strtoull(s, &end, 10);

	if (end == s || *end != '\0' || v < 1 || v > most)
		die("%s: a number from 1 to %llu is expected", s, (unsigned long long)most);
	return (v);
}

int
main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	bool runs = strcmp(verb, "run") == 0;

	if (argc != 6 + runs)
		die("usage: redis_load fill|verify SOCKET small|large KEYS SEED; redis_load run ... RATE");
	path = argv[2];
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		if (strcmp(shapes[i].name, argv[3]) == 0)
			shape = &shapes[i];
	if (shape == NULL)
		die("%s: there is no such shape", argv[3]);
	keys = (uint32_t)number(argv[4], UINT32_MAX / 2);
	if (keys < CLIENTS || keys % CLIENTS != 0)
		die("the number of keys is a multiple of %u", CLIENTS);
	seed = number(argv[5], UINT64_MAX);
	if (runs)
		run(number(argv[6], 10000000));
	else if (strcmp(verb, "fill") == 0)
		fill();
	else if (strcmp(verb, "verify") == 0)
		verify();
	else
		die("%s: what?", verb);
	return (0);
}
