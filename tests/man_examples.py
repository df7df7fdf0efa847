#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""man_examples.py LIBRARY HEADER PAGE...

The programs in the manual work.  In each page, the text between .Bd -literal
and .Ed under .Sh EXAMPLES that begins with #include is a complete program: it
is compiled without a warning, linked with the library, and must run and exit
with 0.  Other literal text there, a shell line or an excerpt, is left alone.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile

ESCAPES = {r'\e': '\\', r'\&': '', r'\-': '-', r'\(aq': "'", r'\(dq': '"', r'\(rs': '\\',
           r'\(ti': '~', r'\(ha': '^', r'\(ga': '`'}
ESCAPE = re.compile('|'.join(re.escape(e) for e in ESCAPES) + r'|\\.')


def unescape(line):
    """A line of roff text as a reader sees it."""
    return ESCAPE.sub(lambda m: ESCAPES[m.group(0)], line)


def programs(page):
    """The programs of a page: (line number, text) of each."""
    examples, block = False, None
    with open(page, encoding='utf-8') as lines:
        for number, line in enumerate(lines, 1):
            if line.startswith('.Sh'):
                examples = line.split()[1] == 'EXAMPLES'
            elif line.startswith('.Bd') and examples and '-literal' in line:
                block, start = [], number + 1
            elif line.startswith('.Ed') and block is not None:
                text = ''.join(block)
                if text.lstrip().startswith('#include'):
                    yield start, text
                block = None
            elif block is not None:
                block.append(unescape(line))


def run(program, page, line, library, header):
    """Compile, link and run a program.  Returns what went wrong, or None."""
    libdir = os.path.dirname(os.path.abspath(library))
    with tempfile.TemporaryDirectory() as work:
        source, exe = os.path.join(work, 'example.c'), os.path.join(work, 'example')
        with open(source, 'w', encoding='utf-8') as file:
            file.write(f'#line {line} "{page}"\n{program}')
        command = shlex.split(os.environ.get('CC', 'cc')) + ['-std=gnu17', '-g', '-Wall', '-Wextra', '-Werror']
        if os.environ.get('SANITIZE', 'none') != 'none':
            command.append('-fsanitize=' + os.environ['SANITIZE'])
        command += ['-I', os.path.dirname(os.path.abspath(header)), source, '-o', exe,
                    os.path.abspath(library), '-Wl,-rpath,' + libdir, '-pthread']
        if subprocess.run(command, check=False).returncode != 0:
            return 'does not build'
        try:
            status = subprocess.run([exe], cwd=work, check=False, timeout=60,
                                    stdin=subprocess.DEVNULL).returncode
        except subprocess.TimeoutExpired:
            return 'does not end'
        return None if status == 0 else f'exit status {status}'


def main():
    library, header, *pages = sys.argv[1:]
    ran = failed = 0
    for page in pages:
        name = os.path.basename(page)
        for line, program in programs(page):
            trouble = run(program, name, line, library, header)
            print(f'{name}:{line}: {trouble or "ok"}', flush=True)
            ran += 1
            failed += trouble is not None
    print(f'{ran} programs, {failed} failed')
    return 1 if failed or not ran else 0


if __name__ == '__main__':
    sys.exit(main())
