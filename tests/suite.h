/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef SUITE_H
#define SUITE_H

/* The end of every Check program's main(): return run_suite(s); */

#include <check.h>
#include <stdlib.h>

static inline int
run_suite(Suite *s)
{
	SRunner *sr = srunner_create(s);
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
