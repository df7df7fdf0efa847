/* SPDX-License-Identifier: BSD-2-Clause */

/* A collector that protects its pages and hears of writes by SIGSEGV: lists, rebuilt over and over. */

#include <gc.h>
#include <stdio.h>

struct node {
	struct node *next;
	unsigned long value;
};

int
main(void)
{
	static struct node *lists[1000];
	unsigned long state = 1, sum = 0;

	GC_INIT();
	GC_enable_incremental();
	for (unsigned i = 0; i < 1500000; i++) {
		struct node *n = GC_MALLOC(sizeof(*n)), **list;

		state = state * 6364136223846793005ul + 1442695040888963407ul;
		list = &lists[(state >> 33) % 1000];
		n->value = state >> 20;
		if ((state >> 50) % 300 == 0)
			*list = NULL;
		n->next = *list;
		*list = n;
	}
	for (unsigned i = 0; i < 1000; i++)
		for (struct node *n = lists[i]; n != NULL; n = n->next)
			sum = sum * 31 + n->value;
	printf("%lu\n", sum);
	return GC_get_gc_no() == 0;
}
