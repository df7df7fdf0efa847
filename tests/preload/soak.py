#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Much and for long: processes under the shim that do right to the end, and leave nothing behind.

usage: soak.py SHIM runs N
       soak.py SHIM mixed SECONDS

    runs N         short programs, one after another, in all settings: output and status as without the shim
    mixed SECONDS  so long at least, servers and programs that do the same over and over, side by side, and short programs between;
                   after each round what a process holds is counted: descriptors, threads, mappings, and
                   bytes in memory, in swap and in memory files.  It must not grow.  At first it does: until it has
                   had its most, and what is freed goes as fast as it comes.  How long that takes shows: where
                   something seems to grow the rounds go on, up to ninety; by then what does not end has grown all the more

At the end there must be no process left, no memory file of one, and no file.
"""

import ctypes
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

JOBS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'jobs')
PR_SET_CHILD_SUBREAPER = 36
HANGS = 300		# seconds
WARM = 3		# rounds that say what may be held, at least; and as many to compare with
ENOUGH = 90		# rounds: a heap in pieces has its most after some twenty; who grows then grows
SPARE = 2 << 20		# bytes that an allocator may come to keep
SPARE_MAPPINGS = 40

LITTLE = {'VMFAULT_MEMORY': '8M', 'VMFAULT_SWAP_SIZE': '512M'}
SETTINGS = {
    'plain': {},
    'little': LITTLE,
    'compress': dict(LITTLE, VMFAULT_COMPRESS='1'),
    'mapped': dict(LITTLE, VMFAULT_MANAGE='heap+mmap', VMFAULT_MIN_MMAP='16K', VMFAULT_CHAOS='1000'),
    'copy': dict(LITTLE, VMFAULT_FORK='copy'),
    'chaos': {'VMFAULT_CHAOS': '5000'},
    'stats': dict(LITTLE, VMFAULT_STATS='stats'),		# in the directory
}

SHORT = [
    'true', 'false', 'echo hello', 'ls /', 'cat /proc/self/comm',
    'seq 20000 | sort -rn | head -n 3',
    'awk "BEGIN { for (i = 0; i < 20000; i++) a[i] = i i; print length(a) }"',
    'for i in 1 2 3; do (echo $i) & done | sort; wait',
    'find /usr/include/linux -name "a*" | sort',
    'seq 50000 | gzip -c | gzip -dc | cksum',
    'sh -c "kill -SEGV \\$\\$"; echo $?',
    'sh -c "kill -9 \\$\\$"; echo $?',
    'timeout -s KILL 0.1 sleep 100; echo $?',
    'perl -e \'my @a = map { $_ x 3 } 1 .. 20000; print scalar(@a), "\\n"; exit 4\'',
    'sqlite3 :memory: "with recursive c(x) as (select 1 union all select x + 1 from c where x < 9999) select sum(x) from c"',
    'python3 -c "import os, threading; t = threading.Thread(target=print, args=(1,)); t.start(); t.join(); '
    'os.fork() or os._exit(0); print(os.wait()[1])"',
    # One that goes on when its parent has ended, and ends later.
    '(exec >/dev/null 2>&1; sleep 0.2) & echo gone',
]

failures = []


def fail(what):
    failures.append(what)
    print('FAILED:', what, flush=True)


def environment(shim, settings, directory):
    env = {k: v for k, v in os.environ.items() if not k.startswith('VMFAULT_')}
    env.update(settings, LC_ALL='C', TMPDIR=directory, PYTHONHASHSEED='0')
    if 'VMFAULT_STATS' in env:
        env['VMFAULT_STATS'] = os.path.join(directory, env['VMFAULT_STATS'])
    if shim:
        env['LD_PRELOAD'] = shim
    return env


# Short programs

def short(command, env):
    try:
        p = subprocess.run(['/bin/sh', '-c', command], env=env, stdin=subprocess.DEVNULL, capture_output=True,
                           timeout=HANGS, check=False)
    except subprocess.TimeoutExpired:
        return 'it hangs'
    return p.stdout, p.stderr, p.returncode


class Runs:
    """All commands in all settings, round and round."""

    def __init__(self, shim, directory):
        native = environment(None, {}, directory)
        self.commands = [(c, short(c, native)) for c in SHORT if shutil.which(c.split()[0]) or c[0] in '(f']
        self.settings = [(name, environment(shim, s, directory)) for name, s in SETTINGS.items()]
        self.turns = itertools.cycle(itertools.product(self.settings, self.commands))
        self.done = 0

    def one(self):
        (name, env), (command, native) = next(self.turns)
        got = short(command, env)
        if got != native:
            fail(f'{command!r} ({name}): {native} is {got}')
        self.done += 1


# What a process holds

def threads_of(proc):
    """The program's and ours.  The kernel has others for io_uring, that come and go."""
    n = 0
    for tid in os.listdir(proc + '/task'):
        try:
            with open(f'{proc}/task/{tid}/comm', encoding='utf-8', errors='replace') as f:
                n += not f.read().startswith('iou-wrk-')
        except (FileNotFoundError, ProcessLookupError):
            pass		# it has ended
    return n


def held(pid):
    """Descriptors, threads, mappings and bytes: resident, in memory files, in files without a name."""
    proc = f'/proc/{pid}'
    files, fds = {}, os.listdir(proc + '/fd')
    for fd in fds:
        try:
            link = os.readlink(f'{proc}/fd/{fd}')
            if link.endswith(' (deleted)'):
                s = os.stat(f'{proc}/fd/{fd}')
                files[s.st_dev, s.st_ino] = s.st_blocks * 512
        except FileNotFoundError:
            pass
    with open(proc + '/status', encoding='ascii') as f:
        status = dict(re.findall(r'^(\w+):\s*(\d+)', f.read(), re.M))
    with open(proc + '/maps', 'rb') as f:
        mappings = len(f.readlines())
    return {'descriptors': len(fds), 'threads': threads_of(proc), 'mappings': mappings,
            'bytes': int(status['RssAnon']) * 1024 + sum(files.values())}


class Held:
    """The rounds' counts of a process: the first ones say what it may hold."""

    def __init__(self, name, pid):
        self.name, self.pid, self.counts = name, pid, []

    def count(self):
        self.counts.append(held(self.pid))

    def judge(self):
        """Lines that say what was at first and is at last; and those that say what grows."""
        n = len(self.counts)
        if n < 2 * WARM:
            return [], [f'{self.name}: {n} rounds: too few to say']
        first = self.counts[1:max(WARM, n // 4)]
        last = self.counts[-max(2, n // 8):]
        said, grows = [], []
        for what in first[0]:
            most, now = max(c[what] for c in first), min(c[what] for c in last)
            spare = {'bytes': SPARE, 'mappings': SPARE_MAPPINGS + most // 5}.get(what, 0)
            said.append(f'{self.name}: {n} rounds: {what}: {most} at first, {now} at last')
            if now > most + spare:
                grows.append(f'{self.name}: {what} grow: {[c[what] for c in self.counts][::max(1, n // 20)]}')
        return said, grows


# Those that go round

class Cycle:
    """cycle.py, and what it says without us."""

    def __init__(self, shim, setting, directory):
        self.name = f'python3 ({setting})'
        self.pair = [subprocess.Popen([sys.executable, os.path.join(JOBS, 'cycle.py')], cwd=directory,
                                      env=environment(s, SETTINGS[setting], directory), text=True, bufsize=1,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE) for s in (shim, None)]
        self.pid = self.pair[0].pid
        self.n = 0

    def round(self):
        self.n += 1
        answers = []
        for p in self.pair:
            p.stdin.write(f'{self.n}\n')
            p.stdin.flush()
            answers.append(p.stdout.readline())
        if answers[0] != answers[1] or not answers[0]:
            raise RuntimeError(f'{self.name}: round {self.n}: {answers}, {[p.poll() for p in self.pair]}')

    def stop(self):
        for p in self.pair:
            p.stdin.close()
            if p.wait(HANGS) != 0:
                fail(f'{self.name}: ends with {p.returncode}')


class Redis:
    """A server that is filled, saved, and emptied.  What it holds is known by its digest."""

    digests = {}

    def __init__(self, shim, setting, directory):
        self.name, self.n = f'redis-server ({setting})', 0
        self.directory = tempfile.mkdtemp(dir=directory)
        self.socket = os.path.join(self.directory, 's')
        self.plain = environment(None, {}, directory)
        self.server = subprocess.Popen(
            ['redis-server', '--port', '0', '--unixsocket', self.socket, '--dir', self.directory, '--save', '',
             '--appendonly', 'no', '--enable-debug-command', 'yes'], env=environment(shim, SETTINGS[setting], directory), stdout=subprocess.DEVNULL)
        self.pid = self.server.pid
        self.wait_for(lambda: self.cli('ping') == 'PONG')
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(self.socket)

    def wait_for(self, what):
        end = time.monotonic() + HANGS
        while not what():
            if self.server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f'{self.name}: round {self.n}: status {self.server.poll()}')
            time.sleep(0.05)

    def cli(self, *args):
        return subprocess.run(['redis-cli', '-s', self.socket, *args], env=self.plain, capture_output=True, text=True,
                              timeout=HANGS, check=False).stdout.strip()

    def expect(self, want, *args):
        got = self.cli(*args)
        if got != want:
            raise RuntimeError(f'{self.name}: round {self.n}: {args}: {got!r}, not {want!r}')

    def ask(self, command):
        """What it answers to a client that stays; a text."""
        self.line.sendall(command.encode() + b'\r\n')
        with self.line.makefile('rb') as f:
            return f.read(int(f.readline()[1:]) + 2).decode()

    def idle(self):
        self.wait_for(lambda: 'rdb_bgsave_in_progress:0' in self.cli('info', 'persistence'))

    def round(self):
        self.n += 1
        fill = ("for i = 1, 20000 do redis.call('set', 'k' .. i * 7 % 30011, string.rep(i, KEYS[1] % 7)) end "
                "for i = 1, 5000 do redis.call('rpush', 'l' .. i % 50, i * KEYS[1]) end return 1")
        self.expect('1', 'eval', fill, '1', str(self.n))
        digest = self.digests.setdefault(self.n, self.cli('debug', 'digest'))
        self.cli('bgsave')
        self.cli('eval', fill, '1', str(self.n + 1))
        self.idle()
        self.expect('OK', 'flushall')
        # The child wrote what was there when it was forked.
        self.expect('OK', 'debug', 'reload', 'nosave', 'noflush')
        self.expect(digest, 'debug', 'digest')
        self.expect('OK', 'flushall')
        self.cli('memory', 'purge')
        # A client that has ended is the server's until it gets to know of that, with a descriptor and its buffers.
        self.wait_for(lambda: 'connected_clients:1\r' in self.ask('info clients'))

    def stop(self):
        self.line.close()
        self.cli('shutdown', 'nosave')
        if self.server.wait(HANGS) != 0:
            fail(f'{self.name}: ends with {self.server.returncode}')
        shutil.rmtree(self.directory)


def go_round(loops, end):
    """Rounds of all that are in the list, one after another: until it is time, but often enough; and on while any seems to grow."""
    try:
        for n in itertools.count():
            if failures or n >= 2 * WARM and time.monotonic() > end and (
                    n >= ENOUGH or not any(counts.judge()[1] for _, counts in loops)):
                break
            for loop, counts in loops:
                loop.round()
                counts.count()
    except (RuntimeError, OSError, subprocess.SubprocessError) as e:
        fail(str(e))


def mixed(shim, seconds, directory):
    end = time.monotonic() + seconds
    loops = [Cycle(shim, s, directory) for s in SETTINGS]
    if shutil.which('redis-server') and shutil.which('redis-cli'):
        loops += [Redis(shim, s, directory) for s in ('little', 'mapped', 'copy', 'plain')]
    all_ = [(loop, Held(loop.name, loop.pid)) for loop in loops]
    ts = [threading.Thread(target=go_round, args=(all_[i::3], end)) for i in range(3)]
    for t in ts:
        t.start()
    runs = Runs(shim, directory)
    while any(t.is_alive() for t in ts) and not failures:
        runs.one()
    for t in ts:
        t.join()
    for loop, counts in all_:
        said, grows = counts.judge()
        for line in said:
            print(line)
        for line in grows:
            fail(line)
        loop.stop()
    print(f'{runs.done} short programs')


# What is left at the end

def left_behind(directory):
    """Whoever lost its parent is ours now.  They have a moment to end."""
    end = time.monotonic() + 20
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                if time.monotonic() > end:
                    with open('/proc/self/task/%d/children' % os.getpid(), encoding='ascii') as f:
                        children = f.read().split()
                    fail(f'{len(children)} processes are left')
                    for pid in children:
                        os.kill(int(pid), signal.SIGKILL)
                    break
                time.sleep(0.05)
        except ChildProcessError:
            break
    left = set(os.listdir(directory)) - {'stats'}
    if left:
        fail(f'files are left: {left}')


def main():
    shim, what, amount = os.path.abspath(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = os.listdir('/proc/self/fd')
    shared = set(os.listdir('/dev/shm'))
    directory = tempfile.mkdtemp(prefix='vmfault-soak-')
    try:
        if what == 'runs':
            runs = Runs(shim, directory)
            while runs.done < amount:
                runs.one()
            print(f'{runs.done} runs of {len(runs.commands)} commands in {len(runs.settings)} settings')
        else:
            mixed(shim, amount, directory)
        left_behind(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if any('vmfault' in name for name in set(os.listdir('/dev/shm')) - shared):
        fail('shared memory is left')
    if what == 'runs' and len(os.listdir('/proc/self/fd')) != len(before):
        fail('descriptors of this script are left')
    return bool(failures)


if __name__ == '__main__':
    sys.exit(main())
