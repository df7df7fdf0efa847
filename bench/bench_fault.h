/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef BENCH_FAULT_H
#define BENCH_FAULT_H

/* Faults of many threads at a time, bench_fault_threads.c: what bench_fault.c measures as well. */

#include "bench.h"

enum { FAULT_THREADS_PAIRS = 10 };

/* Fill in the pairs. */
void bench_fault_threads(struct bench_pair pairs[FAULT_THREADS_PAIRS]);

#endif
