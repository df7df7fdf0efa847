#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
#
# programs_long.py SHIM PEAK NAME [MODE...]: like programs.py, with jobs that take minutes: see there for the modes.
#
# programs_long.py --list prints the names.  What a job needs besides the program that it is named after is in jobs/.

import os
import shutil
import sys

import programs

JOBS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'jobs')
POSTGRES = '/usr/lib/postgresql'
TIME = 1800		# seconds, on a machine that has other things to do


def postgres():
    """The newest PostgreSQL's programs are in no directory of $PATH."""
    try:
        newest = max((v for v in os.listdir(POSTGRES) if v.isdigit()), key=int)
    except (OSError, ValueError):
        return ''
    return f'{POSTGRES}/{newest}/bin'


# A server that does not run as root.
UNPRIVILEGED = 'setpriv --reuid=65534 --regid=65534 --clear-groups ' if os.getuid() == 0 else ''

LONG = {
    'sort-merge': {'needs': ['sort'], 'sh':
                   'cat words words words >w; sort -S 2M --parallel=4 --compress-program=gzip -k3 w | sha256sum; '
                   'sort -n -r w | uniq -c | sha256sum; shuf --random-source=words w | sort -c; echo $?; '
                   'split -n l/7 w && sort -m x?? | sha256sum; join -j 2 words words | head -n 100000 | sha256sum'},
    'find-exec': {'sh': 'find /usr/include -type f -exec sha256sum {} + | sort | sha256sum; '
                        'find /usr/include -name "*.h" -print0 | xargs -0 -n 50 -P 4 wc -c | sort | sha256sum',
                  'needs': ['find', 'xargs']},
    'tar-gzip': {'sh': 'tar czf t.gz -C /usr include; tar tzf t.gz | sha256sum; mkdir x; tar xzf t.gz -C x; '
                       'diff -r x/include /usr/include; echo $?', 'needs': ['tar', 'gzip', 'diff']},
    'xz-threads': {'sh': 'xz -T4 --block-size=1MiB -3 -c words | tee w.xz | sha256sum; xz -T4 -dc w.xz | sha256sum',
                   'needs': ['xz']},
    'zstd-threads': {'sh': 'zstd -q -T4 -B512K -12 -c words | tee w.zst | sha256sum; zstd -dc w.zst | sha256sum; '
                           'zstd -q --train -B1K words -o dict; sha256sum dict', 'needs': ['zstd']},
    # This library's own sources, two compilers at a time.
    'gcc-tree': {'needs': ['gcc', 'make'], 'source': ['lib', 'pagers'], 'sh':
                 'printf "%s\\n" "O := \\$(patsubst %.c,%.o,\\$(wildcard lib/*.c lib/kern/*.c pagers/*.c))" '
                 '"all: \\$(O)" "%.o: %.c" "\tgcc -std=gnu17 -O2 -g -fPIC -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 '
                 '-ffile-prefix-map=\\$(CURDIR)=. -ftls-model=initial-exec -Ilib -Ilib/arch/x86_64 -Ipagers '
                 '-c \\$< -o \\$@" >Makefile; make -s -j2; find . -name "*.o" | sort | xargs sha256sum'},
    'g++': {'sh': 'printf "#include <regex>\\n#include <map>\\n#include <iostream>\\nint main() { std::map<std::string,'
                  'int> m; for (int i = 0; i < 200000; i++) m[std::to_string(i * 7919 %% 100003)]++; '
                  'try { throw 1; } catch (int) { std::cout << m.size() << std::regex_match(\\"aab\\", '
                  'std::regex(\\"a*b\\")); } }" >x.cc; g++ -O2 -frandom-seed=1 x.cc -o x && ./x'},
    'clang': {'sh': 'for f in tree/*.c; do clang -O2 -fdebug-prefix-map=$PWD=. -c $f -o x.o && sha256sum x.o; done'},
    'sqlite3-500M': {'needs': ['python3'], 'sh': 'python3 database.py 500', },
    'sqlite3-shell': {'needs': ['sqlite3'], 'sh':
                      'sqlite3 db "pragma journal_mode=wal; create table t(a, b); with recursive c(x) as (select 1 '
                      'union all select x + 1 from c where x < 200000) insert into t select x, hex(x * x) from c"; '
                      'for i in 1 2 3 4; do sqlite3 -cmd ".timeout 200000" db "update t set b = b || \'$i\' where a % 4 '
                      '= $i - 1; select sum(a) from t" & done; wait; sqlite3 db "select count(*), sum(length(b)) from t; '
                      'create index i on t(b); select a, b from t order by b limit 5; vacuum; pragma integrity_check; '
                      '" .dump | sha256sum; sqlite3 db "select edit"; echo $?'},
    'lua-garbage': {'needs': ['lua5.4'], 'sh':
                    'lua5.4 -e "collectgarbage(\'generational\') local t, s = {}, 1 for i = 1, 3000000 do s = (s * 1103515245 + '
                    '12345) & 0x7fffffff t[(s >> 8) % 5000] = {i, (\'x\'):rep(s % 50)} end local n = 0 for k, v in '
                    'pairs(t) do n = n + k * #v[2] end print(n) print(pcall(string.rep, \'x\', -1)) '
                    'print(select(2, pcall(function() local function f() return 1 + f() end return f() end)))"'},
    'redis-threads': {'needs': ['redis-server', 'redis-cli', 'redis-benchmark'], 'sh': 'sh redis-threads.sh'},
    'java-garbage': {'needs': ['java', 'javac'], 'sh':
                     'javac Garbage.java && for gc in Serial Parallel G1; do java -Xmx128m -XX:+Use${gc}GC Garbage; done'},
    'jshell': {'sh': 'printf "int f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\\nf(25)\\n/exit\\n" '
                                  '| jshell -s - 2>&1'},
    'node': {'sh': 'node garbage.js'},
    'sbcl': {'sh': 'sbcl --noinform --no-sysinit --no-userinit --disable-debugger --load garbage.lisp --quit 2>/dev/null'},
    'boehm-gc': {'needs': ['gcc'], 'if': 'echo "#include <gc.h>" | gcc -E - -o /dev/null',
                 'sh': 'gcc -O1 boehm.c -lgc -o boehm && ./boehm'},
    'guile': {'sh': 'guile --no-auto-compile -s garbage.scm'},
    'ocaml': {'sh': 'ocamlfind ocamlopt garbage.ml -o g 2>/dev/null || ocamlopt garbage.ml -o g; ./g; ocaml garbage.ml'},
    'ruby': {'sh': 'ruby garbage.rb'},
    'php': {'sh': 'php garbage.php'},
    'git': {'sh': 'sh git.sh'},
    'postgres-bench': {'needs': ['setpriv'], 'if': f'test -x {postgres()}/initdb',
                 'sh': f'chmod 777 .; {UNPRIVILEGED}sh postgres.sh {postgres()}'},
    'nginx': {'needs': ['curl'], 'sh': 'sh nginx.sh'},
    'curl': {'needs': ['python3'], 'sh':
             'python3 -u -m http.server -b 127.0.0.1 0 >log 2>&1 & s=$!; until p=$(sed -n "s/.*port \\([0-9]*\\).*/\\1/p" '
             'log) && [ -n "$p" ]; do sleep 0.1; done; for i in 1 2 3; do curl -s http://127.0.0.1:$p/words '
             'http://127.0.0.1:$p/tree/big.c | sha256sum; done; kill $s; wait $s 2>/dev/null; echo $?'},
    'vim': {'sh': 'vim -u NONE -es words -c "%s/dog/cats/g" -c "sort u" -c "w! out" -c q; sha256sum out'},
    'emacs': {'sh': 'emacs -Q --batch --eval "(progn (find-file \\"words\\") (sort-lines nil (point-min) (point-max)) '
                    '(while (re-search-forward \\"d\\\\\\\\(o\\\\\\\\)g\\" nil t) (replace-match \\"\\\\\\\\1\\")) '
                    '(garbage-collect) (write-file \\"out\\") (princ (shell-command-to-string \\"echo hi\\")))" 2>/dev/null; '
                    'sha256sum out'},
    'awk': {'sh': 'awk \'{ n[$2]++; s[$3 $1] = s[$3 $1] $2 } END { for (w in n) print w, n[w]; for (k in s) t += length(k s[k]); '
                  'print t; "echo hi" | getline x; print x; print 1 | "sort" }\' words | sort'},
    'sed': {'needs': ['grep'], 'sh': 'sed -E "s/(\\w+) (\\w+)/\\2 \\1/; 1~50H; \\$!d; x" words | sha256sum; '
                          'sed -n "/the/,/fox/p" words | sha256sum; grep -c -E "(fox|dog).*\\1" words; '
                          'grep -P -o "(?<=fox )\\w+" words | sha256sum'},
    'openssl': {'sh': 'openssl enc -aes-256-cbc -pbkdf2 -S 0102030405060708 -k x -in words | tee e | sha256sum; openssl enc '
                      '-d -aes-256-cbc -pbkdf2 -k x -S 0102030405060708 -in e | sha256sum; openssl dgst -sha3-512 words; '
                      'openssl genrsa 2048 2>/dev/null >k; openssl rsa -in k -check -noout; '
                      'openssl dgst -sign k words | wc -c; '
                      'openssl speed -seconds 1 -multi 2 sha256 >/dev/null 2>&1; echo $?'},
    'R': {'sh': 'R --vanilla -s -e "set.seed(1); x <- matrix(runif(250000), 500); print(sum(solve(x) %*% x)); l <- list(); '
                'for (i in 1:200000) l[[i %% 1000 + 1]] <- runif(i %% 100); print(sum(unlist(l))); gc(); print(summary(lm('
                'x[,1] ~ x[,2])))"'},
}

# Python's own tests: each that passes by itself passes under the shim, too.
MODULES = ['threading', 'thread', 'threading_local', 'threadsignals', 'queue', 'subprocess', 'multiprocessing_fork',
           'multiprocessing_spawn', 'multiprocessing_forkserver', 'concurrent_futures', 'mmap', 'signal', 'socket',
           'socketserver', 'selectors', 'io', 'fileio', 'gc', 'fork1', 'wait4', 'os', 'posix', 'popen', 'pty', 'faulthandler',
           'asyncio', 'select', 'epoll', 'poll', 'ctypes', 'zlib', 'sqlite3', 'shutil', 'tempfile']
# A python that was built by somebody may lack some of them: then Debian's.
WHICH = 'for p in python3 /usr/bin/python3; do $p -c "import test.test_{0}" 2>/dev/null && '
for module in MODULES:
    LONG['python3-test_' + module] = {
        'needs': ['python3'], 'if': WHICH.format(module) + 'exit 0; done; exit 1', 'passes': True,
        'sh': WHICH.format(module) + f'exec $p passes.py test_{module}; done'}


def prepare(path, program):
    """The files of programs.py, and what jobs take besides."""
    programs.make_directory(path)
    for name in os.listdir(JOBS):
        shutil.copy(os.path.join(JOBS, name), path)
    for name in program.get('source', []):
        shutil.copytree(os.path.join(JOBS, '..', '..', '..', name), os.path.join(path, name))


def main():
    if sys.argv[1:] == ['--list']:
        print(*LONG, sep='\n')
        return 0
    return programs.main(LONG, prepare, TIME)


if __name__ == '__main__':
    sys.exit(main())
