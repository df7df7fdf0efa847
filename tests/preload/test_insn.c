/* SPDX-License-Identifier: BSD-2-Clause */

/*
 * Reads instructions, one a line in hexadecimal, as objdump prints them: insn_length() must find them as long.
 */

#include <stdio.h>
#include <string.h>

#include "insn.h"

int
main(void)
{
	static char line[4096];
	unsigned long n = 0, wrong = 0;

	while (fgets(line, sizeof(line), stdin) != NULL) {
		unsigned char b[32];
		size_t k = 0, length;
		unsigned byte;
		int used;

		memset(b, 0x90, sizeof(b));
		for (const char *p = line; k < 16 && sscanf(p, "%2x%n", &byte, &used) == 1; p += used)
			b[k++] = (unsigned char)byte;
		length = insn_length(b, sizeof(b));
		n++;
		if (length != k && wrong++ < 20)
			printf("%zu, not %zu: %s", length, k, line);
	}
	printf("%lu instructions, %lu wrong\n", n, wrong);
	return n < 1000 || wrong != 0;
}
