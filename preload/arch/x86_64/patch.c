/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Rewriting the `syscall` instructions of libc and ld.so.
 *
 * `syscall` has two bytes, a jump to a slot (gate.S) has five.  These patterns leave room for it:
 *
 *	b8 nr nr nr nr  0f 05		mov $nr,%eax; syscall		the number is known: calls without
 *								memory stay as they are
 *	4c 8b 4c 24 xx  0f 05		mov xx(%rsp),%r9; syscall	syscall()
 *	4c 89 5c 24 xx  0f 05		mov %r11,xx(%rsp); syscall	cancellation points, from glibc 2.41
 *	0f 05  48 3d xx xx xx xx	syscall; cmp $xx,%rax		the slot compares
 *	0f 05  3d xx xx xx xx		syscall; cmp $xx,%eax
 *
 * Where neither stands, or something jumps into the middle of it, or the slots are too far away, the first byte of
 * `syscall` becomes hlt, which traps (SIGSEGV, SI_KERNEL), and the trap goes on in the slot: 3 us.
 *
 * Two bytes 0f 05 may be part of another instruction, and so may what looks like a mov before them: 49 8b b8 27 00 00 00
 * is mov 0x27(%r8),%rdi.  So we decode from 16 places before: an x86 decoder that began out of step is soon in step,
 * and comes by if it is an instruction.  Of glibc's, 999 in 1000 are met from 4 of 16 places or more, of other
 * addresses 3 in 10000.  The comparison is long enough to be what it seems.
 *
 * Jumps are found by what might be one, and be it data.  Those by a table are not; so where the `syscall` was behind a
 * mov there is a hlt, too, for who comes there by another way.
 *
 * Signals are blocked, and nothing of libc is called, while its text is not executable.  Pages are made
 * writable once, for a private copy of those that change.  The process has one thread.
 */

#include <emmintrin.h>
#include <errno.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "gate_impl.h"
#include "insn.h"

#define PAGE		((uintptr_t)4096)
#define SLOT_SIZE	64
#define SLOTS		704
#define SITES		1024		/* of which some need no slot */
#define WAYS		16u		/* to decode by */
#define SIGRETURN	15
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#endif

enum site_kind { SITE_MOV, SITE_CMP, SITE_TRAP };

struct site {
	unsigned char *at;		/* the `syscall` */
	enum site_kind kind;
	unsigned char tail;		/* SITE_CMP: length of the comparison */
	bool mov, cmp;			/* what there is room for */
	bool bare;			/* mov: of a number that needs no gate */
};

struct text {
	unsigned char *start, *end;
};

struct slot {
	unsigned char mov[5], made[5], call[5], unlea[8], jc[2], syscall[2], cmp[6], jmp[6], pad[9];
	const unsigned char *resume;
	uint64_t unused;
};

_Static_assert(sizeof(struct slot) == SLOT_SIZE && offsetof(struct slot, resume) == 48, "gate.S");

extern struct slot gate_slots[], gate_slots_end[];
extern unsigned char gate_has_avx;
unsigned char gate_has_avx;

/* Written by gate_patch(), constant afterwards.  site[i] goes through gate_slots[i]. */
static struct site site[SITES];
static unsigned sites;

/*
 * Finding
 */

/* Decode from places before at, or from the start of the text: do enough of the ways come by it? */
static bool
is_instruction(const struct text *t, const unsigned char *at)
{
	unsigned hits = 0;

	for (size_t back = 48; back < 48 + WAYS; back++) {
		const unsigned char *p = (size_t)(at - t->start) < back ? t->start : at - back;

		while (p < at) {
			size_t n = insn_length(p, (size_t)(t->end - p));

			if (n == 0)
				break;
			p += n;
		}
		hits += p == at;
	}
	return hits >= WAYS / 4;
}

static inline bool
is_rex_b(unsigned char c)
{
	return (c & 0xf1) == 0x41;
}

/*
 * May b8 at p be no mov, but the ModRM of another instruction, with a base of the upper registers (rax is the
 * number's), or its SIB?  => there are 5 bytes before it
 */
static bool
may_be_operand(const unsigned char *p)
{
	return is_rex_b(p[-2]) || (p[-2] == 0x0f && is_rex_b(p[-3])) || (p[-3] == 0x0f && is_rex_b(p[-4])) ||
	    p[-4] == 0xc4 || p[-5] == 0x62 || (p[-1] & 0xc7) == 0x84;
}

/* A number that a system call may have, in the immediate of a mov: its upper bytes tell. */
static bool
is_mov(const struct text *t, const unsigned char *at)
{
	if (at - t->start < 10 || at[-5] != 0xb8 || at[-3] > 3 || at[-2] != 0 || at[-1] != 0)
		return false;
	/* 41 b8 is a mov to r8d: unless the 41 ends another instruction. */
	if ((at[-6] & 0xf0) == 0x40)
		return false;
	return !may_be_operand(at - 5) || is_instruction(t, at - 5);
}

/* Another instruction of five bytes, that does the same in the slot. */
static bool
is_stack_mov(const struct text *t, const unsigned char *at)
{
	if (at - t->start < 5 || at[-5] != 0x4c || at[-2] != 0x24)
		return false;
	if (!(at[-4] == 0x8b && at[-3] == 0x4c) && !(at[-4] == 0x89 && at[-3] == 0x5c))
		return false;
	return is_instruction(t, at - 5);
}

static unsigned char
cmp_length(const struct text *t, const unsigned char *at)
{
	if (t->end - at < 8)
		return 0;
	if (at[2] == 0x48 && at[3] == 0x3d && at[6] == 0xff && at[7] == 0xff)
		return 6;
	if (at[2] == 0x3d && at[5] == 0xff && at[6] == 0xff)
		return 5;
	return 0;
}

static void
site_add(const struct text *t, unsigned char *at)
{
	struct site s = { .at = at, .kind = SITE_TRAP };
	long nr = -1;

	/* mov $15,%rax: sigreturn, which debuggers know by its bytes */
	if (at - t->start >= 7 && at[-7] == 0x48 && at[-6] == 0xc7 && at[-5] == 0xc0 && at[-4] == SIGRETURN)
		return;
	s.mov = is_mov(t, at);
	if (s.mov)
		nr = at[-4] | at[-3] << 8;
	s.mov = s.mov || is_stack_mov(t, at);
	s.tail = cmp_length(t, at);
	s.cmp = s.tail != 0;
	s.bare = nr >= 0 && nr < GATE_NR && gate_bare[nr];
	if (!s.mov && !s.cmp && !is_instruction(t, at))
		return;
	if (sites < SITES)
		site[sites] = s;
	sites++;
}

/* The bytes 0f 05, 16 at a time. */
static void
find_sites(const struct text *t)
{
	const __m128i first = _mm_set1_epi8(0x0f), second = _mm_set1_epi8(0x05);
	unsigned char *p = t->start;

	for (; t->end - p >= 17; p += 16) {
		__m128i a = _mm_loadu_si128((const __m128i *)(const void *)p);
		__m128i b = _mm_loadu_si128((const __m128i *)(const void *)(p + 1));
		unsigned m = (unsigned)_mm_movemask_epi8(
		    _mm_and_si128(_mm_cmpeq_epi8(a, first), _mm_cmpeq_epi8(b, second)));

		for (; m != 0; m &= m - 1)
			site_add(t, p + __builtin_ctz(m));
	}
	for (; t->end - p >= 2; p++)
		if (p[0] == 0x0f && p[1] == 0x05)
			site_add(t, p);
}

/*
 * Where sites are, by 64 bytes of text, modulo the size of the map: nearly all targets are far from any, and are
 * told so without a search.
 */
#define NEAR_BITS	65536

static uint64_t near_site[NEAR_BITS / 64];

static inline uintptr_t
near_line(const unsigned char *p)
{
	return (uintptr_t)p / 64 % NEAR_BITS;
}

static void
near_add(const unsigned char *at)
{
	for (int d = -8; d <= 8; d += 8)
		near_site[near_line(at + d) / 64] |= UINT64_C(1) << near_line(at + d) % 64;
}

static inline bool
near(const unsigned char *p)
{
	return (near_site[near_line(p) / 64] >> near_line(p) % 64 & 1) != 0;
}

/*
 * Something jumps to target: no pattern may have it in its middle.  The sites from first on are this text's, in
 * order of address.
 */
static void
jump_to(unsigned first, const unsigned char *target)
{
	unsigned low = first, high = sites;

	if (!near(target))
		return;

	while (low < high) {		/* the first site whose patterns end above target */
		unsigned mid = (low + high) / 2;

		if (site[mid].at + 8 <= target)
			low = mid + 1;
		else
			high = mid;
	}
	for (; low < sites && site[low].at - 5 < target; low++) {
		struct site *s = &site[low];

		if (target > s->at - 5 && target < s->at + 2)
			s->mov = false;
		if (target > s->at && target < s->at + 2 + s->tail)
			s->cmp = false;
	}
}

static int32_t
rel32(const unsigned char *p)
{
	int32_t d;

	memcpy(&d, p, sizeof(d));
	return d;
}

/* Everything that might be a jump, whether it is one or not. */
static void
find_jumps(const struct text *t, unsigned first)
{
	const __m128i call = _mm_set1_epi8((char)0xe8), jmp = _mm_set1_epi8((char)0xe9);
	const __m128i jcc = _mm_set1_epi8((char)0x80), high = _mm_set1_epi8((char)0xf0);
	const __m128i escape = _mm_set1_epi8(0x0f);
	unsigned char *p = t->start + 1;

	for (unsigned i = first; i < sites; i++)
		near_add(site[i].at);
	for (; t->end - p >= 32; p += 16) {
		__m128i a = _mm_loadu_si128((const __m128i *)(const void *)p);
		__m128i before = _mm_loadu_si128((const __m128i *)(const void *)(p - 1));
		__m128i one = _mm_or_si128(_mm_cmpeq_epi8(a, call), _mm_cmpeq_epi8(a, jmp));
		__m128i two = _mm_and_si128(_mm_cmpeq_epi8(before, escape),
		    _mm_cmpeq_epi8(_mm_and_si128(a, high), jcc));
		unsigned m = (unsigned)_mm_movemask_epi8(_mm_or_si128(one, two));

		for (; m != 0; m &= m - 1) {
			unsigned char *q = p + __builtin_ctz(m);

			jump_to(first, q + 5 + rel32(q + 1));
		}
	}
	for (unsigned i = first; i < sites; i++) {
		unsigned char *q = site[i].at - t->start < 140 ? t->start : site[i].at - 140;

		for (; q < site[i].at + 140 && t->end - q >= 2; q++)
			if ((*q & 0xf0) == 0x70 || *q == 0xeb || (*q & 0xfc) == 0xe0)
				jump_to(first, q + 2 + (signed char)q[1]);
	}
}

/* A number that needs no gate, and no other way to the call than by it. */
static void
drop_bare(unsigned first)
{
	unsigned n = first;

	for (unsigned i = first; i < sites; i++)
		if (!site[i].bare || !site[i].mov)
			site[n++] = site[i];
	sites = n;
}

/*
 * Writing.  No call of libc's from here on until its text can run again: also none that a compiler
 * would make of a loop.
 */

static void
put(volatile unsigned char *to, const unsigned char *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = from[i];
}

static void
put_jump(unsigned char *at, const void *to)
{
	static const unsigned char jmp = 0xe9;
	int32_t d = (int32_t)((const unsigned char *)to - (at + 5));

	put(at, &jmp, 1);
	put(at + 1, (const unsigned char *)&d, sizeof(d));
}

static bool
in_reach(const unsigned char *at, const void *to)
{
	intptr_t d = (const unsigned char *)to - at;

	return d > INT32_MIN + 16 && d < INT32_MAX - 16;
}

static void
site_write(struct site *s, struct slot *slot, struct gate_info *info)
{
	static const unsigned char nop[] = { 0x90, 0x90, 0x90 }, hlt[] = { 0xf4, 0x90 };
	bool reach = in_reach(s->at, slot);

	s->kind = reach && s->mov ? SITE_MOV : reach && s->cmp ? SITE_CMP : SITE_TRAP;
	switch (s->kind) {
	case SITE_MOV:
		put(slot->mov, s->at - 5, 5);
		slot->resume = s->at + 2;
		put_jump(s->at - 5, slot);
		put(s->at, hlt, 2);
		info->jumps++;
		break;
	case SITE_CMP:
		put(slot->cmp, s->at + 2, s->tail);
		if (s->tail == 5)
			put(slot->cmp + 5, nop, 1);
		slot->resume = s->at + 2 + s->tail;
		put_jump(s->at, slot);
		put(s->at + 5, nop, (size_t)s->tail - 3);
		info->jumps++;
		break;
	case SITE_TRAP:
		slot->resume = s->at + 2;
		put(s->at, hlt, 1);
		info->traps++;
		break;
	}
}

static int
protect(const struct text *t, int prot)
{
	uintptr_t start = (uintptr_t)t->start & -PAGE, end = ((uintptr_t)t->end + PAGE - 1) & -PAGE;

	return (int)GATE_RAW(SYS_mprotect, start, end - start, prot, 0, 0, 0);
}

static int
text_write(const struct text *t, unsigned first, struct gate_info *info)
{
	const struct text slots = { (unsigned char *)gate_slots, (unsigned char *)gate_slots_end };
	uint64_t all = ~UINT64_C(0), old;
	int error;

	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_SETMASK, &all, &old, sizeof(all), 0, 0);
	error = protect(&slots, PROT_READ | PROT_WRITE);
	if (error == 0) {
		error = protect(t, PROT_READ | PROT_WRITE);
		if (error == 0)
			for (unsigned i = first; i < sites; i++)
				site_write(&site[i], &gate_slots[i], info);
		(void)protect(t, PROT_READ | PROT_EXEC);
		(void)protect(&slots, PROT_READ | PROT_EXEC);
	}
	(void)GATE_RAW(SYS_rt_sigprocmask, SIG_SETMASK, &old, NULL, sizeof(old), 0, 0);
	return error == 0 ? 0 : -EACCES;
}

/* All sites of a text, or none: a half-known libc is an unknown one. */
static int
text_patch(const struct text *t, struct gate_info *info)
{
	unsigned first = sites;

	/* One call for what would be a page fault for every few pages; older kernels do not know it. */
	(void)GATE_RAW(SYS_madvise, (uintptr_t)t->start & -PAGE, (uintptr_t)(t->end - t->start) & -PAGE,
	    MADV_POPULATE_READ, 0, 0, 0);
	find_sites(t);
	if (sites > SITES)
		return -ENOTSUP;
	find_jumps(t, first);
	drop_bare(first);
	if (sites > SLOTS)
		return -ENOTSUP;
	return sites == first ? 0 : text_write(t, first, info);
}

/*
 * Objects
 */

struct wanted {
	uintptr_t libc, loader;		/* an address in libc; where ld.so is loaded */
	struct text text[8];
	unsigned n;
	bool found;			/* libc */
};

static bool
starts_with(const char *path, const char *prefix)
{
	const char *name = strrchr(path, '/');

	name = name != NULL ? name + 1 : path;
	return strncmp(name, prefix, strlen(prefix)) == 0;
}

static int
find_object(struct dl_phdr_info *object, size_t size, void *arg)
{
	struct wanted *w = arg;
	bool libc = false, ours;

	(void)size;
	for (int i = 0; i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &object->dlpi_phdr[i];

		libc |= ph->p_type == PT_LOAD && w->libc - (object->dlpi_addr + ph->p_vaddr) < ph->p_memsz;
	}
	/* before glibc 2.34 the threads were in a library of their own */
	ours = libc || (w->loader != 0 && object->dlpi_addr == w->loader) ||
	    starts_with(object->dlpi_name, "libpthread.so.");
	w->found |= libc;
	for (int i = 0; ours && i < object->dlpi_phnum; i++) {
		const ElfW(Phdr) *ph = &object->dlpi_phdr[i];

		if (ph->p_type == PT_LOAD && (ph->p_flags & PF_X) && w->n < 8) {
			w->text[w->n].start = (unsigned char *)(object->dlpi_addr + ph->p_vaddr);
			w->text[w->n].end = w->text[w->n].start + ph->p_filesz;
			w->n++;
		}
	}
	return 0;
}

int
gate_patch(struct gate_info *info)
{
	struct wanted w = {
		.libc = (uintptr_t)gnu_get_libc_version,
		.loader = getauxval(AT_BASE),
	};
	int error = 0;

	gate_call_init();
	gate_has_avx = __builtin_cpu_supports("avx") != 0;
	(void)dl_iterate_phdr(find_object, &w);
	if (!w.found || sites != 0)
		return -ENOTSUP;
	for (unsigned i = 0; error == 0 && i < w.n; i++)
		error = text_patch(&w.text[i], info);
	return error;
}

/* A hlt of ours traps with the address of the hlt.  The number is known by then. */
bool
gate_patch_trap(void *context)
{
	greg_t *pc = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	for (unsigned i = 0; i < sites; i++)
		if (site[i].kind != SITE_CMP && (greg_t)(uintptr_t)site[i].at == *pc) {
			*pc = (greg_t)(uintptr_t)gate_slots[i].made;
			return true;
		}
	return false;
}
