#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
#
# programs.py SHIM PEAK NAME [MODE...]: a real program, as it is and under the shim: output and exit status
# must be the same.  PEAK (peak.c) says how much memory it takes.
#
#	plain	without a limit: nothing is watched
#	chaos	a thread takes 20,000 pages a second away, at random
#	little	a quarter of the memory that the program takes by itself, and swap
#	mapped	all that and the program's own mappings, too
#
# 77: the program is not installed.

import os
import shutil
import subprocess
import sys
import tempfile
import time

TIME = 240		# seconds: more is a hang
LEAST = 1 << 20		# bytes: a smaller share is of no interest

# What each needs besides itself is in `needs'; `sh' is run by /bin/sh -c in a directory of its own that
# has words (a text of 12 MB), and tree (some files).
PROGRAMS = {
    'sort': {'sh': 'sort words | sha256sum; sort -u --parallel=4 -S 8M -k2 words | sha256sum'},
    'sha256sum': {'sh': 'sha256sum words tree/*'},
    'find': {'sh': 'find /usr/share -name "*a*" 2>&1 | sort | sha256sum'},
    'tar': {'sh': 'tar cf - tree words | tar tvf - | cut -c1-30,48- | sha256sum'},
    'bash': {'sh': 'bash -c \'for i in $(seq 40); do x=$(echo $i | cat); echo "$x" | (read y; echo $y$y); done; '
                   'f() { local a=("$@"); echo ${#a[@]}; }; f $(seq 5000)\''},
    'dash': {'sh': 'for i in 1 2 3 4 5 6 7 8 9; do (echo $i; (echo $i$i)) & done | sort; wait'},
    'perl': {'sh': 'perl -e \'my %h; $h{$_} = $_ x 3 for 1..25000; my $s = 0; $s += length $h{$_} for keys %h; '
                   'print "$s\\n"; for (1..5) { my $p = fork; if (!$p) { exit $_ } waitpid $p, 0; print $? >> 8, "\\n" } '
                   'print `echo hi`\''},
    'gzip': {'sh': 'gzip -c words | gzip -dc | sha256sum'},
    'xz': {'sh': 'xz -T2 -0 -c words | xz -T2 -dc | sha256sum'},
    'zstd': {'sh': 'zstd -q -T2 -c words | zstd -q -dc | sha256sum'},
    'gcc': {'sh': 'for f in tree/*.c; do gcc -O2 -g -ffile-prefix-map=$PWD=. -c $f -o x.o && sha256sum x.o; done; gcc -c missing.c; echo $?'},
    'sqlite3': {'sh': 'sqlite3 db <<END\n'
                      'pragma journal_mode=wal;\n'
                      'create table t(a, b); create index i on t(b);\n'
                      'with recursive c(x) as (select 1 union all select x + 1 from c where x < 60000)\n'
                      'insert into t select x, x * 7919 % 100003 || "text" from c;\n'
                      'update t set b = b || a where a % 7 = 0; delete from t where a % 11 = 0;\n'
                      'select count(*), sum(a), max(b) from t where b like "%77%"; pragma integrity_check;\n'
                      'END\n'},
    'python3': {'sh': 'python3 threads.py; python3 children.py; python3 memory.py'},
    'lua5.4': {'sh': 'lua5.4 -e "local t = {} for i = 1, 100000 do t[i] = tostring(i) .. \'x\' end table.sort(t) '
                     'print(#table.concat(t)) error(\'end\')"'},
    'redis-server': {'needs': ['redis-cli', 'redis-benchmark'], 'sh': 'sh redis.sh', 'server': True},
    'memcached': {'sh': 'python3 memcached.py', 'server': True},
    'java': {'sh': 'java -version 2>&1'},
}

FILES = {
    'threads.py': '''
import hashlib, queue, threading
q = queue.Queue()
def work(n):
    d = b''
    for i in range(200):
        d = hashlib.sha256(d + bytes(range(256)) * 50).digest()
    q.put((n, d.hex()))
ts = [threading.Thread(target=work, args=(i,)) for i in range(8)]
[t.start() for t in ts]
[t.join() for t in ts]
print(sorted(q.get() for _ in ts))
''',
    'children.py': '''
import multiprocessing, os, signal, socket, subprocess
def square(x): return x * x
if __name__ == '__main__':
    for i in range(8):
        print(subprocess.run(['sh', '-c', 'echo %d; exit %d' % (i, i)], capture_output=True))
    with multiprocessing.get_context('fork').Pool(3) as p:
        print(sum(p.map(square, range(3000))))
    a, b = socket.socketpair()
    keep = [str(i) * 10 for i in range(30000)]
    for i in range(8):
        pid = os.fork()
        if pid == 0:
            b.sendall(keep[-1 - i].encode())
            keep = None
            os._exit(i)
        print(os.waitpid(pid, 0)[1] >> 8, a.recv(1000))
    print(subprocess.run(['python3', '-c', 'import os; os.kill(os.getpid(), 11)']).returncode)
    print(hash(tuple(keep)) == hash(tuple(str(i) * 10 for i in range(30000))))
''',
    'memory.py': '''
import gc, hashlib, json, mmap, signal
m = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for i in range(0, len(m), 4096): m[i] = i // 4096 % 251
m.resize(6 << 20)
print(hashlib.md5(m).hexdigest())
m.madvise(mmap.MADV_DONTNEED)
print(m[:4096] == bytes(4096))
with open('words', 'rb') as f:
    w = mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    w[0:4] = b'none'
    print(hashlib.md5(w).hexdigest())
n = []
signal.signal(signal.SIGALRM, lambda *_: n.append(str(len(n))))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
d = json.dumps([{'a': [i], 'b': str(i)} for i in range(40000)])
x = []; x.append(x); del x
gc.collect()
signal.setitimer(signal.ITIMER_REAL, 0)
print(hashlib.md5(d.encode()).hexdigest(), len(n) > 0)
''',
    'redis.sh': '''
redis-server --port 0 --unixsocket ./s --dir . --save '' --appendonly yes --enable-debug-command yes >/dev/null 2>&1 &
server=$!
cli() { env -u LD_PRELOAD redis-cli -s ./s "$@"; }
i=0; until [ "$(cli ping 2>/dev/null)" = PONG ]; do sleep 0.1; i=$((i + 1)); [ $i -lt 300 ] || exit 9; done
env -u LD_PRELOAD redis-benchmark -s ./s -q -n 5000 -r 1000 -t set,lpush,hset >/dev/null
cli eval "for i = 1, 20000 do redis.call('set', 'k' .. i, string.rep(i, 9)) end return 1" 0
cli del mylist myhash >/dev/null; cli eval "for _, k in ipairs(redis.call('keys', 'key:*')) do redis.call('del', k) end" 0
cli debug digest
cli bgsave
i=0; while [ "$(cli info persistence | grep -c rdb_bgsave_in_progress:1)" = 1 ]; do sleep 0.1; done
cli info persistence | grep -o rdb_last_bgsave_status:..
cli bgrewriteaof
sleep 0.5; while [ "$(cli info persistence | grep -c aof_rewrite_in_progress:1)" = 1 ]; do sleep 0.1; done
cli info persistence | grep -o aof_last_bgrewrite_status:..
cli shutdown nosave
wait $server
echo $?
''',
    'memcached.py': '''
import os, socket, subprocess, time
env = dict(os.environ)
user = ['-u', 'nobody'] if os.getuid() == 0 else []
path = os.path.abspath('m')
os.chmod('.', 0o777)
server = subprocess.Popen(['memcached', '-s', path, '-a', '777', '-t', '4', '-m', '64'] + user)
s = socket.socket(socket.AF_UNIX)
for i in range(300):
    try:
        s.connect(path)
        break
    except OSError:
        time.sleep(0.1)
f = s.makefile('rwb')
answers = set()
for i in range(5000):
    v = str(i).encode() * 100
    f.write(b'set k%d 0 0 %d\\r\\n%s\\r\\n' % (i, len(v), v))
    f.flush()
    answers.add(f.readline())
print(answers)
bad = 0
for i in range(5000):
    f.write(b'get k%d\\r\\n' % i)
    f.flush()
    head, value, end = f.readline(), f.readline(), f.readline()
    bad += value.strip() != str(i).encode() * 100
print(bad)
server.terminate()
print(server.wait())
''',
}


def make_directory(path, _program=None):
    words = 'the quick brown fox jumps over the lazy dog and does not come back'.split()
    x = 1
    with open(os.path.join(path, 'words'), 'w', encoding='ascii') as out:
        for i in range(250000):
            x = x * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
            out.write(f'{x >> 20:x} {words[x >> 33 & 7]} {words[x >> 40 & 7] * (x >> 50 & 7)}\n')
    tree = os.path.join(path, 'tree')
    os.mkdir(tree)
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'preload')
    for name in ('config.c', 'config.h', 'gate.h'):
        shutil.copy(os.path.join(source, name), tree)
    with open(os.path.join(tree, 'big.c'), 'w', encoding='ascii') as out:
        for i in range(1500):
            out.write(f'int f{i}(int x) {{ int s = 0; for (int i = 0; i < x; i++) s += i * {i} ^ x; return s; }}\n')
    for name, text in FILES.items():
        with open(os.path.join(path, name), 'w', encoding='ascii') as out:
            out.write(text)


def run(program, settings, prepare, seconds, before=()):
    """Output, errors and exit status; `before' is what the shell that runs it is run by."""
    with tempfile.TemporaryDirectory(prefix='vmfault-', ignore_cleanup_errors=True) as path:
        prepare(path, program)
        env = {k: v for k, v in os.environ.items() if not k.startswith('VMFAULT_')}
        # The interpreter itself, not a script that looks for one.
        env['PATH'] = os.path.dirname(os.path.realpath(sys.executable)) + ':' + env['PATH']
        env.update(settings, LC_ALL='C', PYTHONHASHSEED='0', TMPDIR=path)
        with subprocess.Popen([*before, '/bin/sh', '-c', program['sh']], cwd=path, env=env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as p:
            try:
                out, err = p.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                os.killpg(p.pid, 9)
                out, err = p.communicate()
                return out, err + b'\nIT HANGS\n', -1
        return out, err, p.returncode


def missing(name, program):
    """Why it cannot be tried here, or None."""
    for need in program.get('needs', []) + ([] if '-' in name else [name]):
        if shutil.which(need) is None:
            return f'{need} is not installed'
    if 'if' in program and subprocess.run(program['if'], shell=True, stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL, check=False).returncode != 0:
        return f'not installed: {program["if"]}'
    return None


def differences(program, native, again, got):
    """What is not as it is without us: (what, want, have), ...

    Of a program whose output is what passes, each line counts that is always there by itself; more is welcome.
    """
    if program.get('passes'):
        lost = set(native[0].split()) & set(again[0].split()) - set(got[0].split())
        return [('passes', b' '.join(sorted(lost)), got[1])] if lost else []
    return [d for d in zip(('output', 'errors', 'status'), native, got) if d[1] != d[2]]


def main(table, prepare, seconds):
    shim, peak, name = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[3]
    program = table[name]
    why = missing(name, program)
    if why is not None:
        print(f'skip: {why}')
        return 77
    with tempfile.NamedTemporaryFile(prefix='vmfault-') as file:
        native = run(program, {}, prepare, seconds, [peak, file.name])
        quarter = max(int(file.read()) * 1024 // 4, LEAST)
    again = run(program, {}, prepare, seconds) if program.get('passes') else native
    if not native[0]:
        print(f'{name}: says nothing, so there is nothing to compare:\n{native}')
        return 1
    little = {'VMFAULT_MEMORY': str(quarter), 'VMFAULT_SWAP_SIZE': '1G'}
    modes = {
        'plain': {},
        'chaos': {'VMFAULT_CHAOS': '20000'},
        'little': little,
        'mapped': dict(little, VMFAULT_MANAGE='heap+mmap', VMFAULT_MIN_MMAP='16K', VMFAULT_CHAOS='2000'),
    }
    failed = False
    for mode in sys.argv[4:] or modes:
        began = time.monotonic()
        got = run(program, dict(modes[mode], LD_PRELOAD=shim), prepare, seconds)
        wrong = differences(program, native, again, got)
        failed |= bool(wrong)
        print(f'{name}: {mode}: {"FAILED" if wrong else "ok"}, {time.monotonic() - began:.1f} s')
        for what, want, have in wrong:
            print(f'  {what}: {want[-600:] if isinstance(want, bytes) else want}\n'
                  f'  under the shim: {have[-900:] if isinstance(have, bytes) else have}')
        sys.stdout.flush()
    # Is that our fault?
    if failed and not program.get('passes') and run(program, {}, prepare, seconds) != native:
        print(f'{name}: does not say the same twice by itself')
    return failed


if __name__ == '__main__':
    sys.exit(main(PROGRAMS, make_directory, TIME))
