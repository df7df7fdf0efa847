#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""tools.py TOOL LIBRARY HEADER EXAMPLE

Programs that use the library, under debuggers and sanitizers: the recipes of vmfault(7).  The example
prints what it prints without the tool, and the tool finds nothing; a mistake that is planted in a
program is still found.

77: the tool is not here, or does not run so much as an empty program.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile

CC = shlex.split(os.environ.get('CC', 'cc'))
TIME = 280		# seconds: more is a hang

# The example, and after it a mistake, which the argument names.
PLANTED = r'''
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
int tour(void);
static int shared;
static void *add(void *arg) { for (int i = 0; i < 100000; i++) ++*(volatile int *)&shared; return arg; }
static __attribute__((noinline)) void heap(volatile char *p) { p[10] = 1; }
static __attribute__((noinline)) int overflow(int n) { return n + 1; }
static __attribute__((noinline)) void crash(volatile int *p) { *p = 1; }
int main(int argc, char **argv)
{
	int error = tour();
	if (argc < 2)
		return error;
	if (strcmp(argv[1], "heap") == 0) {
		char *p = malloc(10);
		heap(p);
		free(p);
	} else if (strcmp(argv[1], "overflow") == 0) {
		error |= overflow(2147483647 - (error != 0)) == 0;
	} else if (strcmp(argv[1], "race") == 0) {
		pthread_t t;
		pthread_create(&t, NULL, add, NULL);
		add(NULL);
		pthread_join(t, NULL);
	} else {
		crash((void *)16);
	}
	return error;
}
'''

VALGRIND = ['valgrind', '-q', '--error-exitcode=9', '--vex-iropt-register-updates=allregs-at-mem-access']
# (What gdb says of threads would stand in the middle of the program's lines.)
GDB = ['gdb', '-q', '-batch', '-nx', '-ex', 'set print thread-events off', '-ex', 'handle SIGSEGV nostop noprint pass']
# Stop where the program's own mistake is: at a fault that is in none of what the library manages.
GDB_CRASH = ['gdb', '-q', '-batch', '-nx', '-ex', 'handle SIGSEGV noprint pass', '-ex', 'catch signal SIGSEGV',
             '-ex', 'condition 1 (unsigned long)$_siginfo._sifields._sigfault.si_addr < 65536',
             '-ex', 'run', '-ex', 'backtrace 1']

# What this sanitizer knows of the address space is no match for a kernel's randomness.
SETARCH = ['setarch', '-R']

# How it is built, run, and what more is in the environment; the mistake, and what is said of it.
TOOLS = {
    'address': (['-fsanitize=address'], [], {}, 'heap', 'heap-buffer-overflow'),
    'undefined': (['-fsanitize=undefined'], [], {}, 'overflow', 'signed integer overflow'),
    'thread': (['-fsanitize=thread'], SETARCH, {'TSAN_OPTIONS': 'suppressions=tsan.supp'}, 'race',
               'data race'),
    'valgrind': (['-gdwarf-4'], VALGRIND, {}, 'heap', '0 bytes after a block of size 10'),
    'gdb': ([], GDB, {}, 'crash', '#0  crash (p='),
}


def skip(why):
    print('skip: ' + why)
    sys.exit(77)


def fail(why, *outputs):
    print(why, *outputs, sep='\n')
    sys.exit(1)


def build(out, *args):
    made = subprocess.run(CC + ['-g', '-O1', '-o', out] + list(args), capture_output=True, text=True, check=False)
    return made.stderr if made.returncode != 0 else None


def command(tool, program, *args):
    """argv of a program under a tool."""
    how = TOOLS[tool][1]
    if tool == 'gdb':
        how = GDB_CRASH if args else GDB + ['-ex', 'run']
        return how + ['--args', program] + list(args)
    return how + [program] + list(args)


def run(argv, env):
    p = subprocess.run(argv, env=dict(os.environ, **env), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                       timeout=TIME, check=False, stdin=subprocess.DEVNULL)
    return p.returncode, p.stdout, p.stderr


def main():
    tool, library, header, example = sys.argv[1], *map(os.path.abspath, sys.argv[2:5])
    flags, how, env, mistake, said = TOOLS[tool]
    libdir = os.path.dirname(library)
    if how and shutil.which(how[0]) is None:
        skip(how[0] + ' is not installed')
    with tempfile.TemporaryDirectory(prefix='vmfault-') as work:
        os.chdir(work)
        with open('empty.c', 'w', encoding='ascii') as f:
            f.write('int main(void) { return 0; }\n')
        with open('tsan.supp', 'w', encoding='ascii') as f:
            f.write('called_from_lib:libvmfault.so\n')
        with open('planted.c', 'w', encoding='ascii') as f:
            f.write(PLANTED)
        if build('empty', 'empty.c', *flags) is not None:
            skip('this compiler has no ' + ' '.join(flags))
        status, out, err = run(command(tool, './empty'), env)
        if status != 0 or 'not permitted' in err:
            skip(f'{tool} does not run an empty program: {err.strip()[-200:]}')
        use = ['-I', os.path.dirname(header), library, '-Wl,-rpath,' + libdir, '-pthread']
        for name, args in {'native': [], 'example': flags}.items():
            complaint = build(name, example, *args, *use)
            if complaint is not None:
                fail('does not build', complaint)
        complaint = build('planted', '-Dmain=tour', '-c', example, *flags, *use[:2]) or \
            build('program', 'planted.c', 'planted', *flags, *use)
        if complaint is not None:
            fail('does not build', complaint)

        native = run(['./native'], {})
        got = run(command(tool, './example'), env)
        if native[0] != 0 or not native[1].endswith('done\n'):
            fail('the example fails by itself', native)
        if tool == 'valgrind' and 'unhandled dwarf' in got[2]:
            skip('this valgrind cannot read what this compiler says of the library; with -gdwarf-4 it could')
        if tool == 'gdb' and native[1] in got[1]:
            got = got[0], native[1], got[2]
        if got[:2] != native[:2]:
            fail('under the tool it is another program', native, got)
        if tool != 'gdb' and got[2] != '':
            fail('the tool has something to say of a program without mistakes', got[2])
        got = run(command(tool, './program', mistake), env)
        if said not in got[1] + got[2]:
            fail('the tool does not find what is planted', got)
        if tool == 'gdb' and 'SIGSEGV' not in got[1]:
            fail('the debugger does not stop', got)


if __name__ == '__main__':
    main()
