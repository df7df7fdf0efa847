/* SPDX-License-Identifier: BSD-2-Clause */

/* main() is in the shared object that holds the test. */
