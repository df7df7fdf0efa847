#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""test_command.py COMMAND SHIM MANUAL

The vmfault command, from outside: what it sets and runs, what it sees of other processes, and what it
says when it cannot.  SHIM is the least that a shim can be (tiny_shim.c); it lies beside a copy of the
command, under the name that the command looks for.
"""

import fcntl
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest

COMMAND, SHIM, MANUAL = (os.path.abspath(arg) for arg in sys.argv[1:4])
del sys.argv[1:4]
NAME = 'libvmfault-preload.so'
PYTHON = sys.executable
SIZE = 8192
MAGIC = 0x53464d56

# A program that does what it is told on standard input, one expression a line, and says when it is done.
OBEDIENT = """
import ctypes, os, sys, time
tiny = ctypes.CDLL(None)
print('ready', flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""


def contents(path):
    with open(path, 'rb') as file:
        return file.read()


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith('VMFAULT_') and k != 'LD_PRELOAD'}
    return {**env, **more}


def vmfault(*args, env=None, **more):
    return subprocess.run([HERE + '/vmfault', *args], capture_output=True, text=True, check=False, timeout=60,
                          env=env if env is not None else environment(), **more)


class Program:
    """A program under the shim that does what it is told."""

    def __init__(self, *options, code=OBEDIENT, within=()):
        self.process = subprocess.Popen([*within, HERE + '/vmfault', 'run', *options, PYTHON, '-c', code], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        self.pid = self.process.pid
        assert self.process.stdout.readline() == 'ready\n'
        if within:
            self.pid = int(contents(f'/proc/{self.pid}/task/{self.pid}/children'))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()

    def tell(self, expression):
        self.process.stdin.write(expression + '\n')
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def end(self):
        self.process.stdin.close()
        self.process.wait()

    def stat(self, *args):
        out = vmfault('stat', str(self.pid), '--json', *args)
        assert out.returncode == 0, out.stderr
        return [json.loads(line) for line in out.stdout.splitlines()]


class Case(unittest.TestCase):
    def refused(self, out, status, pattern):
        """It ended with this status, and one line that says so."""
        self.assertEqual(out.returncode, status, out)
        self.assertEqual(out.stdout, '')
        self.assertRegex(out.stderr, r'\Avmfault: [^\n]*' + pattern + r'[^\n]*\n\Z')

    def file(self, name, text='', mode=0o644):
        path = os.path.join(self.work, name)
        with open(path, 'w', encoding='utf-8') as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def setUp(self):
        # Another user must get there.
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = work.name
        os.chmod(self.work, 0o755)


class Run(Case):
    def env_of(self, *args, **env):
        out = vmfault('run', *args, 'env', '-0', env=environment(**env))
        self.assertEqual((out.returncode, out.stderr), (0, ''))
        return dict(entry.split('=', 1) for entry in out.stdout.split('\0') if entry)

    def test_settings_are_in_the_environment(self):
        env = self.env_of('--memory', '64M', '--swap=/var/tmp', '--swap-size', '1G', '--compress', '--manage',
                          'heap+mmap', '--min-mmap=64K', '--fork', 'copy', '--gate', 'plt', '--strict', '--quiet', '--')
        self.assertEqual({k: v for k, v in env.items() if k.startswith('VMFAULT_')}, {
            'VMFAULT_MEMORY': '64M', 'VMFAULT_SWAP': '/var/tmp', 'VMFAULT_SWAP_SIZE': '1G', 'VMFAULT_COMPRESS': '1',
            'VMFAULT_MANAGE': 'heap+mmap', 'VMFAULT_MIN_MMAP': '64K', 'VMFAULT_FORK': 'copy', 'VMFAULT_GATE': 'plt',
            'VMFAULT_STRICT': '1', 'VMFAULT_QUIET': '1'})

    def test_what_the_environment_says_stays_unless_an_option_says_otherwise(self):
        env = self.env_of('--memory', '64M', VMFAULT_MEMORY='nonsense', VMFAULT_CHAOS='5')
        self.assertEqual((env['VMFAULT_MEMORY'], env['VMFAULT_CHAOS']), ('64M', '5'))

    def test_the_shim_is_preloaded_first_and_once(self):
        shim = HERE + '/' + NAME
        self.assertEqual(self.env_of()['LD_PRELOAD'], shim)
        libm = '/usr/lib/libnothing.so'
        out = vmfault('run', 'env', env=environment(LD_PRELOAD=libm))
        self.assertIn(f'LD_PRELOAD={shim}:{libm}\n', out.stdout)
        for old in (shim, libm + ' ' + shim, shim + ':' + libm):
            out = vmfault('run', 'env', env=environment(LD_PRELOAD=old))
            self.assertIn(f'LD_PRELOAD={old}\n', out.stdout)
        out = vmfault('run', 'env', env=environment(LD_PRELOAD=shim + 'x'))
        self.assertIn(f'LD_PRELOAD={shim}:{shim}x\n', out.stdout)

    def test_arguments_and_status_are_the_programs(self):
        out = vmfault('run', 'sh', '-c', 'echo "$@"; exit 37', 'sh', '--memory', '--', '-x')
        self.assertEqual((out.returncode, out.stdout), (37, '--memory -- -x\n'))
        self.assertEqual(vmfault('run', '--', 'sh', '-c', 'kill -USR1 $$').returncode, -signal.SIGUSR1)
        self.assertEqual(vmfault('run', 'cat', input='through').stdout, 'through')

    def test_bad_use(self):
        for args, pattern in [
                ([], 'no program'), (['--'], 'no program'), (['--memory', '1G'], 'no program'),
                (['--memory'], 'memory wants an argument'), (['--memory=', 'true'], 'wants an argument'),
                (['--memory', 'lots', 'true'], '--memory lots: not a size'), (['--memroy', '1G', 'true'], 'memroy'),
                (['--gate=best', 'true'], '--gate best: can be auto, patch or plt'),
                (['--compress=1', 'true'], 'takes no argument'), (['--stats=', 'true'], 'wants an argument'),
                (['--swap', 'none', '--swap-size', '1G', 'no-such'], 'VMFAULT_SWAP_SIZE'), (['--chaos=1', 'true'], 'chaos'),
                (['--memory', '1\x1b[2J\n', 'true'], r'1\?\[2J\?: not a size')]:
            with self.subTest(args):
                self.refused(vmfault('run', *args), 2, pattern)
        self.refused(vmfault('run', 'no-such', env=environment(VMFAULT_FORK='never')), 2, 'VMFAULT_FORK=never')

    def test_programs_that_cannot_be_run(self):
        self.refused(vmfault('run', 'no-such-program'), 127, 'no-such-program: No such file')
        self.refused(vmfault('run', '/no/such'), 127, 'No such file')
        self.refused(vmfault('run', self.file('plain')), 126, 'Permission denied')
        self.refused(vmfault('run', self.work), 126, 'Permission denied')

    def test_without_a_shim_nothing_is_run(self):
        shutil.copy(HERE + '/vmfault', self.work)
        if os.path.exists(re.search(rb'(/[^\0]*)/' + NAME.encode(), contents(COMMAND) + b'/x/' +
                                    NAME.encode()).group(0)):
            self.skipTest('the shim is installed')
        out = subprocess.run([self.work + '/vmfault', 'run', 'true'], capture_output=True, text=True, check=False)
        self.refused(out, 125, NAME)

    def test_an_installed_tree_may_be_moved(self):
        libdir = re.search(rb'\0\.\./([^\0]*)/' + NAME.encode() + rb'\0', contents(COMMAND))
        tree = self.work + '/tree'
        os.makedirs(tree + '/bin')
        os.makedirs(tree + '/' + libdir.group(1).decode())
        shutil.copy(COMMAND, tree + '/bin/vmfault')
        shutil.copy(SHIM, f'{tree}/{libdir.group(1).decode()}/{NAME}')
        out = subprocess.run([tree + '/bin/vmfault', 'run', 'env'], capture_output=True, text=True, check=False,
                             env=environment())
        self.assertRegex(out.stdout, rf'LD_PRELOAD={tree}/bin/\.\./.*{NAME}\n')

    def test_a_path_that_the_linker_cannot_take(self):
        for name in 'with space', 'with:colon':
            os.mkdir(f'{self.work}/{name}')
            for what in 'vmfault', NAME:
                shutil.copy(f'{HERE}/{what}', f'{self.work}/{name}')
            out = subprocess.run([f'{self.work}/{name}/vmfault', 'run', 'true'], capture_output=True, text=True,
                                 check=False)
            self.refused(out, 125, 'space or a colon')

    def unmanaged(self, program, why):
        out = vmfault('run', program)
        self.assertEqual(out.returncode, 0, out)
        self.assertRegex(out.stderr, rf'\Avmfault: {program}: {why}: it runs unmanaged\n\Z')
        out = vmfault('run', '--quiet', program)
        self.assertEqual((out.returncode, out.stderr), (0, ''))
        self.refused(vmfault('run', '--strict', program), 126, f'{why}: it cannot be managed')

    def test_static_programs_run_unmanaged_with_a_line(self):
        source = self.file('static.c', 'int main(void) { return 0; }\n')
        static = self.work + '/static'
        subprocess.run([*os.environ.get('CC', 'cc').split(), '-static', '-o', static, source], check=True)
        self.unmanaged(static, 'statically linked')
        self.unmanaged(self.file('script', f'#! {static} argument\n', 0o755), 'statically linked')
        self.assertEqual(vmfault('run', self.file('script', '#!/bin/sh\nexit 0\n', 0o755)).stderr, '')

    def test_programs_of_another_libc_run_without_the_shim(self):
        # One whose linker has such a name, and is glibc's.
        cc = os.environ.get('CC', 'cc').split()
        source = self.file('musl.c', '#include <stdlib.h>\nint main(void) { return getenv("LD_PRELOAD") != NULL; }\n')
        program, linker = self.work + '/musl', self.work + '/ld-musl-x86_64.so.1'
        subprocess.run([*cc, '-o', program, source], check=True)
        headers = subprocess.run(['readelf', '-l', program], check=True, capture_output=True, text=True).stdout
        os.symlink(re.search(r'interpreter: ([^\]]*)', headers).group(1), linker)
        subprocess.run([*cc, '-Wl,--dynamic-linker=' + linker, '-o', program, source], check=True)
        self.unmanaged(program, r'linked with another C library \(musl\)')

    @unittest.skipIf(os.getuid() != 0, 'skip: only root can make a set-id program of another user')
    def test_set_id_programs_run_unmanaged_with_a_line(self):
        program = shutil.copy('/bin/true', self.work + '/true')
        os.chown(program, 65534, 65534)
        os.chmod(program, 0o4755)
        self.unmanaged(program, 'set-user-id')
        os.chmod(program, 0o2755)
        self.unmanaged(program, 'set-group-id')
        os.chown(program, 0, 0)
        os.chmod(program, 0o4755)
        self.assertEqual(vmfault('run', program).stderr, '')

    def test_statistics_at_exit(self):
        with Program('--memory', '64M', f'--stats={self.work}/s.%p.json') as p:
            self.assertEqual(p.tell('tiny.tiny_touch(100)'), '1')
            self.assertEqual(p.tell('os.chdir("/")'), 'None')
            self.assertEqual(os.listdir(self.work), [])
            p.end()
            with open(f'{self.work}/s.{p.pid}.json', encoding='utf-8') as file:
                stats = json.load(file)
        self.assertEqual((stats['pid'], stats['counters']['v_zfod']), (p.pid, 100))
        self.assertEqual(stats['counters']['v_page_count'], (64 << 20) // 4096)
        self.assertRegex(stats['command'], 'python')
        self.assertGreater(stats['milliseconds'], 0)
        out = vmfault('run', '--stats', 'echo', 'hello')
        self.assertEqual((out.returncode, out.stdout), (0, 'hello\n'))
        self.assertIn('v_vm_faults', json.loads(out.stderr)['counters'])


class Stat(Case):
    def test_numbers_are_those_of_now(self):
        with Program('--memory', '128M') as p:
            p.tell('tiny.tiny_touch(100)')
            first, = p.stat()
            p.tell('tiny.tiny_touch(50)')
            p.tell('tiny.tiny_fork(250)')
            second, = p.stat()
        self.assertEqual((first['pid'], first['fresh']), (p.pid, True))
        self.assertRegex(first['command'], 'python')
        self.assertEqual(first['counters']['v_zfod'], 100)
        self.assertEqual(second['counters']['v_zfod'], 150)
        self.assertEqual(second['counters']['forks'], 1)
        self.assertEqual(second['counters']['fork_ns'], 250000)
        self.assertEqual(second['counters']['v_page_count'], (128 << 20) // 4096)
        self.assertGreaterEqual(second['frame_bytes'], 150 * 4096)
        self.assertGreater(second['seconds'], first['seconds'])

    def test_a_line_is_since_the_start_and_then_since_the_last(self):
        with Program() as p:
            p.tell('tiny.tiny_touch(2000)')
            p.tell('tiny.tiny_fork(300)')
            out = vmfault('stat', str(p.pid), '--interval', '0.2', '--count', '3')
            once = vmfault('stat', str(p.pid))
        self.assertEqual((out.returncode, out.stderr), (0, ''))
        heading, names, *lines = out.stdout.splitlines()
        self.assertEqual(len(lines), 3)
        self.assertEqual(len(once.stdout.splitlines()), 3)
        self.assertEqual({len(line) for line in [heading, names, *lines]}, {len(names)})
        rows = [line.split() for line in lines]
        self.assertEqual({len(row) for row in rows}, {len(names.split())})
        zero, forks = names.split().index('zero'), names.split().index('n')
        self.assertGreater(int(rows[0][zero]), 0)
        self.assertEqual([row[zero] for row in rows[1:]], ['0', '0'])
        self.assertEqual(rows[0][forks:forks + 2], ['1', '300'])
        self.assertEqual(rows[1][forks:forks + 2], ['0', '-'])

    def test_intervals_are_kept(self):
        with Program() as p:
            began = time.monotonic()
            looks = p.stat('--interval=0.25', '--count=5')
            took = time.monotonic() - began
        self.assertEqual(len(looks), 5)
        self.assertTrue(0.99 < took < 3, took)
        # One that comes late makes the next come early.
        self.assertTrue(0.8 < sum(look['interval'] for look in looks[1:]) < 3, looks)
        self.assertNotIn('interval', looks[0])

    def test_all_of_them(self):
        with Program() as a, Program() as b:
            out = vmfault('stat', '--all', '--json')
            pids = [json.loads(line)['pid'] for line in out.stdout.splitlines()]
            self.assertEqual(pids, sorted(pids))
            self.assertLessEqual({a.pid, b.pid}, set(pids))
            text = vmfault('stat', '--all').stdout
            for p in a, b:
                self.assertRegex(text, rf'(?m)^ *{p.pid} .* python')
            b.end()
            pids = [json.loads(line)['pid'] for line in vmfault('stat', '--all', '--json').stdout.splitlines()]
            self.assertIn(a.pid, pids)
            self.assertNotIn(b.pid, pids)

    def test_those_that_end_leave_the_list(self):
        with Program() as stays, Program() as p:
            watcher = subprocess.Popen([HERE + '/vmfault', 'stat', '--all', '--json', '--interval=0.1'], text=True,
                                       stdout=subprocess.PIPE)
            pids = (json.loads(line)['pid'] for line in watcher.stdout)
            try:
                self.assertIn(p.pid, pids)
                p.end()
                # From one to the next time that the other is there all have been.
                while p.pid in list(itertools.takewhile(lambda pid: pid != stays.pid, pids)):
                    pass
            finally:
                watcher.kill()
                watcher.communicate()

    def test_it_ends_with_the_process(self):
        with Program() as p:
            watcher = subprocess.Popen([HERE + '/vmfault', 'stat', str(p.pid), '--interval', '0.1'], text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertIn('memory', watcher.stdout.readline())
            p.end()
            _, said = watcher.communicate(timeout=20)
        self.assertEqual((watcher.returncode, said), (0, f'vmfault: {p.pid}: it has ended\n'))

    def test_the_process_is_not_disturbed(self):
        """No signal, no thread, and its main thread is not even woken."""
        def state(pid):
            with open(f'/proc/{pid}/task/{pid}/status', encoding='ascii') as file:
                status = dict(line.split(':', 1) for line in file)
            return [status[k].strip() for k in ('voluntary_ctxt_switches', 'nonvoluntary_ctxt_switches', 'Threads')]

        with Program() as p:
            p.tell('tiny.tiny_touch(10)')
            fds = sorted(os.listdir(f'/proc/{p.pid}/fd'))
            time.sleep(0.3)
            before = state(p.pid)
            self.assertEqual(len(p.stat('--interval=0.01', '--count=100')), 100)
            self.assertEqual(state(p.pid), before)
            self.assertEqual(sorted(os.listdir(f'/proc/{p.pid}/fd')), fds)

    def test_a_stopped_process_is_said_not_to_answer(self):
        with Program() as p:
            p.tell('tiny.tiny_touch(100)')
            p.stat()
            os.kill(p.pid, signal.SIGSTOP)
            while {contents(f'/proc/{p.pid}/task/{t}/stat').split()[2] for t in os.listdir(f'/proc/{p.pid}/task')} != {b'T'}:
                time.sleep(0.01)
            look, = p.stat()
            text = vmfault('stat', str(p.pid)).stdout
            os.kill(p.pid, signal.SIGCONT)
            again, = p.stat()
        self.assertEqual((look['fresh'], look['counters']['v_zfod']), (False, 100))
        self.assertIn('(does not answer)', text)
        self.assertTrue(again['fresh'])

    def test_who_is_not_watched(self):
        self.refused(vmfault('stat', str(os.getpid())), 1, 'not under vmfault')
        gone = subprocess.Popen(['true'])
        gone.wait()
        self.refused(vmfault('stat', str(gone.pid)), 1, 'no such process')
        with Program(code=OBEDIENT.replace("print('ready'", "child = os.fork() or time.sleep(60)\nprint('ready'")) as p:
            child = int(p.tell('child'))
            self.addCleanup(os.kill, child, signal.SIGKILL)
            self.refused(vmfault('stat', str(child)), 1, 'no managed memory')
            self.assertNotIn(f'{child} ', vmfault('stat', '--all').stdout)

    @unittest.skipIf(os.getuid() != 0, 'skip: only root can be another user')
    def test_other_users_are_told(self):
        with Program() as p:
            shutil.copytree(HERE, self.work + '/copy')
            os.chmod(self.work + '/copy', 0o755)
            out = subprocess.run([self.work + '/copy/vmfault', 'stat', str(p.pid)], capture_output=True, text=True,
                                 check=False, user=65534, group=65534, extra_groups=[])
        self.refused(out, 1, "another user's")

    def test_a_process_in_another_pid_namespace(self):
        within = ['unshare', *([] if os.getuid() == 0 else ['--user']), '--pid', '--fork']
        if subprocess.run([*within, 'true'], capture_output=True, check=False).returncode != 0:
            self.skipTest('skip: no namespaces here')
        with Program(within=within) as p:
            self.assertEqual(p.tell('os.getpid()'), '1')
            p.tell('tiny.tiny_touch(33)')
            look, = p.stat()
            p.end()
        self.assertEqual((look['pid'], look['fresh'], look['counters']['v_zfod']), (p.pid, True, 33))

    @unittest.skipIf(os.getuid() != 0, 'skip: only root may open /proc/PID/map_files')
    def test_a_process_that_closed_all_descriptors(self):
        with Program() as p:
            p.tell('tiny.tiny_touch(100)')
            p.tell('os.closerange(3, 20000)')
            try:
                os.open(f'/proc/self/map_files/{contents("/proc/self/maps").split()[0].decode()}', os.O_RDONLY)
            except PermissionError:
                self.skipTest('skip: /proc/PID/map_files is refused here, to root as well')
            look, = p.stat()
        self.assertEqual(look['counters']['v_zfod'], 100)

    def test_pages_that_lie(self):
        """A process may show what it likes; the watcher neither crashes nor believes it."""
        def page(pid, n=1, magic=MAGIC, version=1, seq=0):
            return (struct.pack('<IIIIIIIIQQ16s', magic, version, pid, n, 0, 0, seq, 0, 0, 0, b'r' * 16) +
                    struct.pack('<24sQ', b'n\x1b"' * 8, 7) * 252).ljust(SIZE, b'\0')

        def look(data, size=SIZE):
            fd = os.memfd_create('vmfault-stats')
            os.write(fd, data)
            os.ftruncate(fd, size)
            try:
                return vmfault('stat', str(os.getpid()), '--json')
            finally:
                os.close(fd)

        me = os.getpid()
        for data, size, pattern in [
                (b'', SIZE, 'format'), (page(me), 4096, 'format'), (page(me), 0, 'format'),
                (page(me, magic=1), SIZE, 'format'), (page(me, version=2), SIZE, 'format'),
                (page(me, n=253), SIZE, 'format'), (page(me, n=2**32 - 1), SIZE, 'format'),
                (page(me, seq=1), SIZE, 'format'), (page(me + 1), SIZE, 'not under vmfault')]:
            self.refused(look(data, size), 1, pattern)
        out = look(page(me, n=252))
        self.assertEqual(out.returncode, 0)
        told = json.loads(out.stdout)
        self.assertEqual((told['fresh'], told['counters']), (False, {'n__' * 7 + 'n_': 7}))

    def test_bad_use(self):
        for args in ([], ['0'], ['-1'], ['12x'], ['99999999999'], ['1', '2'], ['1', '--all'], ['--all', '--interval'],
                     ['--all', '--interval', '0'], ['--all', '--interval', 'nan'], ['--all', '--count=0'], ['--al']):
            with self.subTest(args):
                self.refused(vmfault('stat', *args), 2, 'try vmfault --help')


# What a shell does with a job: a process group of its own, whose parent waits outside of it.  Without that
# parent the kernel would not let it be stopped.
JOB = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if job == 0:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.argv[1], sys.argv[1:])
print(job, file=sys.stderr, flush=True)
status = os.waitpid(job, 0)[1]
print('signal' if os.WIFSIGNALED(status) else 'status', status >> 8 | status & 127, file=sys.stderr)
"""


class Top(Case):
    """In a terminal of the test's own."""

    def setUp(self):
        super().setUp()
        self.master, slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.resize(20, 150)
        self.cooked = termios.tcgetattr(slave)
        self.leader = subprocess.Popen([PYTHON, '-c', JOB, HERE + '/vmfault', 'top', '--interval', '0.2'], text=True,
                                       stdin=slave, stdout=slave, stderr=subprocess.PIPE, start_new_session=True,
                                       env=environment(), preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.slave = slave
        self.top = int(self.leader.stderr.readline())
        self.addCleanup(os.close, slave)
        self.addCleanup(self.reap)
        self.seen = ''

    def reap(self):
        if self.leader.poll() is None:
            os.kill(self.top, signal.SIGKILL)
        self.leader.communicate()

    def ended(self, how):
        self.assertEqual(self.leader.communicate(timeout=20)[1].strip(), how)

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack('HHHH', rows, columns, 0, 0))

    def until(self, pattern, seconds=15):
        """Read until it has been seen; returns what was read, up to there."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen, re.S)):
            self.assertTrue(select.select([self.master], [], [], max(0, end - time.monotonic()))[0],
                            f'no {pattern} in {self.seen!r}')
            self.seen += os.read(self.master, 65536).decode()
        seen, self.seen = self.seen[:found.end()], self.seen[found.end():]
        return seen

    def restored(self):
        self.until(re.escape('\x1b[?25h\x1b[?1049l'))
        self.assertEqual(termios.tcgetattr(self.slave), self.cooked)

    def entered(self):
        self.until(re.escape('\x1b[?1049h\x1b[?25l'))
        self.until(r'vmfault top .*resid.*\x1b\[J')
        self.assertNotEqual(termios.tcgetattr(self.slave), self.cooked)

    def test_it_shows_processes_until_q(self):
        with Program() as p:
            self.entered()
            self.until(rf' {p.pid} .*python')
            os.write(self.master, b'f')
            self.until('by faults')
            os.write(self.master, b'x q')
            self.restored()
        self.ended('status 0')

    def test_signals_put_the_terminal_back(self):
        self.entered()
        os.kill(self.top, signal.SIGTERM)
        self.restored()
        self.ended('signal 15')

    def test_the_interrupt_key_does_too(self):
        self.entered()
        os.write(self.master, b'\x03')
        self.restored()
        self.ended('signal 2')

    def test_it_can_be_stopped_and_continued(self):
        self.entered()
        os.write(self.master, b'\x1a')
        self.restored()
        end = time.monotonic() + 10
        while (state := contents(f'/proc/{self.top}/stat').split()[2]) != b'T':
            self.assertLess(time.monotonic(), end, state)
        os.kill(self.top, signal.SIGCONT)
        self.entered()
        os.write(self.master, b'q')
        self.restored()
        self.ended('status 0')

    def test_it_keeps_to_the_window(self):
        self.entered()
        self.resize(3, 40)
        self.until('\x1b\\[H')
        self.seen = ''
        self.until('\x1b\\[H')
        screen = self.until('\x1b\\[J')
        lines = re.sub(r'\x1b\[[0-9;?]*[A-Za-z]|\r', '', screen).split('\n')
        self.assertEqual(len(lines), 3)
        self.assertLessEqual(max(map(len, lines)), 40)

    def test_without_a_terminal(self):
        self.refused(vmfault('top', stdin=subprocess.DEVNULL), 2, 'no terminal')


class Real(Case):
    """With the shim that lies beside the command in the build tree."""

    def command(self, *args, **more):
        return subprocess.run([COMMAND, *args], capture_output=True, text=True, check=False, timeout=120,
                              env=environment(), **more)

    def setUp(self):
        super().setUp()
        if not os.path.exists(os.path.join(os.path.dirname(COMMAND), NAME)):
            self.skipTest('skip: the shim is not built here')

    def stats(self, name):
        with open(os.path.join(self.work, name), encoding='utf-8') as file:
            return json.load(file)

    # 40 MB that do not compress, in 16 MB; then its bytes are summed up.
    WORK = """
import os, random, sys
r = random.Random(1)
blocks = [r.randbytes(100000) for i in range(400)]
print(sum(b[0] for b in blocks), flush=True)
"""

    def test_a_limit_is_kept_and_told(self):
        native = subprocess.run([PYTHON, '-c', self.WORK], capture_output=True, text=True, check=True).stdout
        out = self.command('run', '--memory', '16M', f'--stats={self.work}/s', PYTHON, '-c', self.WORK)
        self.assertEqual((out.returncode, out.stdout, out.stderr), (0, native, ''))
        counters = self.stats('s')['counters']
        self.assertEqual(counters['v_page_count'], 4096)
        self.assertGreater(counters['v_pageouts'], 4096)
        self.assertGreater(counters['swap_used'], 4096)
        self.assertGreater(counters['gate_sites'], 0)

    def test_every_way_out_writes(self):
        for way, status in ('sys.exit(3)', 3), ('os._exit(4)', 4), ('None', 0):
            out = self.command('run', '--memory', '64M', f'--stats={self.work}/s', PYTHON, '-c', self.WORK + way)
            self.assertEqual(out.returncode, status, out)
            self.assertGreater(self.stats('s')['counters']['v_vm_faults'], 0)
            os.unlink(f'{self.work}/s')

    def test_children_write_their_own(self):
        code = self.WORK + """
for i in range(3):
    if os.fork() == 0:
        os._exit(sum(b[0] for b in blocks) != sum(list(b)[0] for b in blocks))
    assert os.wait()[1] == 0
"""
        out = self.command('run', '--memory', '64M', f'--stats={self.work}/%p', PYTHON, '-c', code)
        self.assertEqual((out.returncode, out.stderr), (0, ''))
        told = [self.stats(name) for name in os.listdir(self.work)]
        self.assertEqual(len(told), 4)
        for stats in told:
            self.assertIn(str(stats['pid']), os.listdir(self.work))
        self.assertEqual(sorted(stats['counters']['forks'] for stats in told), [0, 0, 0, 3])
        parent = max(told, key=lambda stats: stats['counters']['forks'])['counters']
        self.assertGreaterEqual(parent['fork_ns'], parent['fork_ns_max'])
        self.assertGreater(parent['fork_ns_max'], 10000)

    def test_with_neither_limit_nor_fast_fork_nothing_is_managed_and_that_is_told(self):
        out = self.command('run', '--fork', 'copy', f'--stats={self.work}/s', PYTHON, '-c', self.WORK)
        self.assertEqual((out.returncode, out.stderr), (0, ''))
        self.assertEqual(set(self.stats('s')['counters'].values()), {0})
        process = subprocess.Popen([COMMAND, 'run', '--fork', 'copy', 'cat'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   env=environment())
        process.stdin.write(b'x')
        process.stdin.flush()
        process.stdout.read(1)
        self.refused(self.command('stat', str(process.pid)), 1, 'no managed memory')
        process.communicate()

    def test_it_is_watched_at_work(self):
        code = self.WORK + "while True: sum(b.count(b'x') for b in blocks)"
        process = subprocess.Popen([COMMAND, 'run', '--memory', '16M', PYTHON, '-c', code], text=True,
                                   stdout=subprocess.PIPE, env=environment())
        try:
            process.stdout.readline()
            out = self.command('stat', str(process.pid), '--interval', '0.3', '--count', '4', '--json')
        finally:
            process.kill()
            process.communicate()
        looks = [json.loads(line) for line in out.stdout.splitlines()]
        self.assertEqual(len(looks), 4, out)
        for a, b in zip(looks, looks[1:]):
            self.assertTrue(b['fresh'])
            self.assertGreater(b['counters']['v_pageins'], a['counters']['v_pageins'])
            self.assertLessEqual(b['frame_bytes'], 17 << 20)


class Doctor(Case):
    def test_this_machine_runs_programs(self):
        out = vmfault('doctor')
        self.assertEqual((out.returncode, out.stderr), (0, ''))
        self.assertIn('Programs can be run', out.stdout)
        told = json.loads(vmfault('doctor', '--json').stdout)
        names = {row['check'] for row in told}
        self.assertLessEqual({'io_uring', 'mremap', 'userfaultfd', 'mappings', 'memlock', 'huge pages', 'run'}, names)
        for row in told:
            self.assertIn(row['state'], ('ok', 'limited', 'note'), row)
            if row['state'] == 'limited':
                self.assertTrue(row['instead'])

    def test_a_limit_of_address_space_is_found(self):
        out = subprocess.run(['sh', '-c', 'ulimit -v 2000000; exec "$0" doctor --json', HERE + '/vmfault'],
                             capture_output=True, text=True, check=False, env=environment())
        row, = (row for row in json.loads(out.stdout) if row['check'] == 'address space')
        self.assertEqual((row['state'], row['more']), ('limited', 'ulimit -v unlimited'))

    def test_a_shim_that_does_not_work_is_found(self):
        shutil.copy(HERE + '/vmfault', self.work)
        source = self.file('bad.c', '#include <unistd.h>\n__attribute__((constructor)) static void f(void) { _exit(3); }\n')
        subprocess.run([*os.environ.get('CC', 'cc').split(), '-shared', '-fPIC', '-o', f'{self.work}/{NAME}', source],
                       check=True)
        out = subprocess.run([self.work + '/vmfault', 'doctor'], capture_output=True, text=True, check=False)
        self.assertEqual(out.returncode, 1)
        self.assertRegex(out.stdout, '(?m)^missing  run .*status 3')
        self.assertIn('cannot be run', out.stdout.splitlines()[-1])

    def test_bad_use(self):
        self.refused(vmfault('doctor', '--yaml'), 2, 'yaml')
        self.refused(vmfault('doctor', '--json', 'x'), 2, 'x: not understood')


class Front(Case):
    def test_help_and_version(self):
        self.assertRegex(vmfault('--help').stdout, r'\Ausage: vmfault run \[--memory SIZE\]')
        self.assertLess(max(map(len, vmfault('--help').stdout.splitlines())), 100)
        self.assertRegex(vmfault('--version').stdout, r'\Avmfault \d+\.\d+\.\d+\n\Z')
        self.refused(vmfault('frobnicate'), 2, 'no such command')
        self.assertEqual(vmfault().returncode, 2)

    def test_the_manual_has_every_option_and_variable(self):
        with open(MANUAL, encoding='utf-8') as file:
            manual = file.read()
        variables = set(re.findall(rb'(VMFAULT_[A-Z_]+)(?=\0)', contents(COMMAND)))
        self.assertGreaterEqual(len(variables), 12)
        for variable in variables:
            self.assertIn('.It Ev ' + variable.decode() + '\n', manual)
        for option in set(re.findall(r'--([a-z-]+)', vmfault('--help').stdout)):
            self.assertTrue(re.search(r'Fl -' + option + r'\b', manual), option)

    def test_output_that_cannot_be_written_is_an_error(self):
        with open('/dev/full', 'w', encoding='ascii') as full:
            out = subprocess.run([HERE + '/vmfault', '--help'], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(out.returncode, 1)


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as HERE:
        shutil.copy(COMMAND, HERE + '/vmfault')
        shutil.copy(SHIM, f'{HERE}/{NAME}')
        unittest.main(verbosity=2)
