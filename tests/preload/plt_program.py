#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""plt_program.py SHIM PROGRAM: plt_program.c prints the same with the gate of the PLT as by itself.

It runs other programs, which on i386 are this machine's own: what their linker says of the shim is left out.
"""

import os
import subprocess
import sys

MODES = {
    'plain': {},
    'chaos': {'VMFAULT_CHAOS': '20000'},
    'little': {'VMFAULT_MEMORY': '2M', 'VMFAULT_SWAP_SIZE': '1G'},
    'mapped': {'VMFAULT_MEMORY': '2M', 'VMFAULT_SWAP_SIZE': '1G', 'VMFAULT_MANAGE': 'heap+mmap',
               'VMFAULT_MIN_MMAP': '4K', 'VMFAULT_CHAOS': '3000'},
}


def run(program, settings):
    env = {k: v for k, v in os.environ.items() if not k.startswith('VMFAULT_')}
    p = subprocess.run([program], env=dict(env, **settings), capture_output=True, text=True, timeout=120, check=False)
    errors = [line for line in p.stderr.splitlines() if 'wrong ELF class' not in line]
    return p.returncode, p.stdout, errors


def main():
    shim, program = map(os.path.abspath, sys.argv[1:3])
    native = run(program, {})
    failed = native[0] != 0 or not native[1].endswith('end\n')
    for name, settings in MODES.items():
        got = run(program, dict(settings, LD_PRELOAD=shim, VMFAULT_GATE='plt', VMFAULT_STRICT='1'))
        if got != native:
            failed = True
            print(f'{name}: not what it is by itself:', native, got, sep='\n')
    return failed


if __name__ == '__main__':
    sys.exit(main())
