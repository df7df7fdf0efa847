#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
#
# test_process.py SHIM GUEST: processes that the shim is preloaded into: which are managed, which are not, and say so.

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

SHIM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else ''
GUEST = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else ''
CC = os.environ.get('CC', 'cc').split()
LIMIT = {'VMFAULT_MEMORY': '16M'}


def run(*args, env=None, preload=True, **more):
    full = {k: v for k, v in os.environ.items() if not k.startswith('VMFAULT_')}
    full.update(env or {})
    if preload:
        full['LD_PRELOAD'] = SHIM
    return subprocess.run(args, env=full, capture_output=True, timeout=100, check=False, text=True, **more)


def build(directory, source, *flags):
    """A program; None: this compiler cannot."""
    path = os.path.join(directory, 'program')
    with open(path + '.c', 'w', encoding='ascii') as out:
        out.write(source)
    made = subprocess.run(CC + [path + '.c', '-o', path] + list(flags), capture_output=True, check=False)
    return path if made.returncode == 0 else None


def limit_address_space():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


class Unwatched(unittest.TestCase):
    def test_with_neither_limit_nor_fast_fork_there_is_nothing_to_fault(self):
        got = run('cat', '/proc/self/status', '/proc/self/maps', env={'VMFAULT_FORK': 'copy'})
        caught = int(got.stdout.split('SigCgt:')[1].split()[0], 16)
        self.assertEqual(caught & (1 << signal.SIGSEGV - 1 | 1 << signal.SIGBUS - 1), 0)
        self.assertNotIn('memfd', got.stdout)
        self.assertEqual(got.stderr, '')

    def test_with_one_there_is(self):
        got = run('cat', '/proc/self/status', '/proc/self/maps', env=LIMIT)
        caught = int(got.stdout.split('SigCgt:')[1].split()[0], 16)
        self.assertNotEqual(caught & 1 << signal.SIGSEGV - 1, 0)
        self.assertIn('memfd:vmfault', got.stdout)

    def test_a_child_without_the_environment_is_its_own(self):
        got = run('env', '-i', '/bin/grep', '-c', 'vmfault', '/proc/self/maps', env=LIMIT)
        self.assertEqual(got.stdout, '0\n')

    def test_a_bad_value_ends_it(self):
        got = run('/bin/echo', 'hello', env={'VMFAULT_MEMORY': 'much'})
        self.assertEqual((got.stdout, got.returncode, got.stderr.count('\n')), ('', 2, 1))


class Boundless(unittest.TestCase):
    """No limit, and fork() is to be fast: the heap is the library's, and hardly ever faulted on."""

    def counters(self, directory, *args):
        path = os.path.join(directory, 'stats')
        got = run(*args, env={'VMFAULT_STATS': path})
        self.assertEqual((got.stderr, got.returncode), ('', 0))
        with open(path, encoding='ascii') as f:
            return got.stdout, json.load(f)['counters']

    def test_a_fault_for_each_piece_of_two_megabytes(self):
        program = """
#include <stdlib.h>
#include <string.h>
int main(void)
{
	char *big = malloc(64 << 20), *small[20000];

	memset(big, 1, 64 << 20);
	for (int i = 0; i < 20000; i++)
		memset(small[i] = malloc(1000), 2, 1000);
	for (int i = 0; i < 64 << 20; i++)
		if (big[i] != 1)
			return 1;
	for (int i = 0; i < 20000; i++)
		if (small[i][999] != 2)
			return 1;
	return 0;
}
"""
        with tempfile.TemporaryDirectory() as directory:
            path = build(directory, program)
            if path is None:
                self.skipTest('no compiler')
            _, counters = self.counters(directory, path)
        self.assertGreaterEqual(counters['v_zfod'], (64 << 20) // 4096)
        self.assertLess(counters['v_vm_faults'], 84 // 2 + 30)

    def test_calls_take_no_faults(self):
        """Buffers are noted, not held: a hold is a fault each time."""
        program = ("import os\nf = os.open('/dev/null', os.O_WRONLY)\nz = os.open('/dev/zero', os.O_RDONLY)\n"
                   "b = bytearray(100000)\n"
                   "for i in range(3000): os.write(f, b); os.readv(z, [b])\nprint(sum(b))")
        with tempfile.TemporaryDirectory() as directory:
            said, counters = self.counters(directory, sys.executable, '-I', '-S', '-c',
                                           program)
        self.assertEqual(said, '0\n')
        self.assertGreaterEqual(counters['gate_pins'], 6000)
        self.assertLess(counters['v_vm_faults'], 1000)

    def test_more_address_space_than_ours(self):
        """What the library has no room for is the kernel's, and a child has it all the same."""
        program = """
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#define EACH ((size_t)1 << (sizeof(size_t) == 8 ? 33 : 27))
#define N (sizeof(size_t) == 8 ? 160 : 12)
int main(void)
{
	char *p[N];
	int status;

	for (int i = 0; i < N; i++) {
		p[i] = malloc(EACH);
		if (p[i] == NULL)
			return 1;
		p[i][0] = p[i][EACH - 1] = (char)(i % 100 + 1);
	}
	if (fork() == 0) {
		for (int i = 0; i < N; i++) {
			if (p[i][0] != i % 100 + 1 || p[i][EACH - 1] != i % 100 + 1)
				_exit(2);
			p[i][0] = 0;
		}
		_exit(0);
	}
	if (wait(&status) < 0 || status != 0)
		return 3;
	for (int i = 0; i < N; i++)
		if (p[i][0] != i % 100 + 1)
			return 4;
	return 0;
}
"""
        with tempfile.TemporaryDirectory() as directory:
            path = build(directory, program)
            if path is None:
                self.skipTest('no compiler')
            with open('/proc/sys/vm/overcommit_memory', encoding='ascii') as f:
                if f.read().strip() == '2':
                    self.skipTest('what is mapped must be there')
            got = run(path)
        self.assertEqual((got.stderr, got.returncode), ('', 0))


class Descriptors(unittest.TestCase):
    def test_the_library_s_are_not_there(self):
        """Whoever tries all numbers finds those that there are without us."""
        program = """
import fcntl, os
def there(call):
    found = []
    for fd in range(1100):
        try:
            x = call(fd)
        except OSError:
            continue
        found.append(fd)
        if call == os.dup:
            os.close(x)
    return found
print(there(os.fstat), there(os.dup), there(lambda fd: fcntl.fcntl(fd, fcntl.F_GETFD)))
print(there(lambda fd: os.stat(fd)), there(lambda fd: os.set_inheritable(fd, False) if fd > 2 else None))
os.closerange(3, 1100)
print(len(bytearray(50 << 20)))
"""
        native = run(sys.executable, '-c', program, preload=False)
        self.assertEqual((native.stderr, native.returncode), ('', 0))
        got = run(sys.executable, '-c', program, env=LIMIT)
        self.assertEqual((got.stdout, got.stderr, got.returncode), (native.stdout, '', 0))


class Objects(unittest.TestCase):
    def test_blocks_of_objects_that_bind_deeply(self):
        """Their free() must be the one that goes with everybody's malloc(); and they are found where the caller says."""
        inner = '#include <stdlib.h>\n#include <string.h>\n' \
            'char *make(void) { return strdup("made"); }\nvoid drop(char *p) { free(p); }'
        outer = r'''
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(void)
{
	void *o = dlopen("inner.so", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
	if (o == NULL)
		return puts(dlerror()), 1;
	char *(*make)(void) = (char *(*)(void))dlsym(o, "make");
	void (*drop)(char *) = (void (*)(char *))dlsym(o, "drop");
	char *p = make(), *q = strdup("a long one, for another size class than the first one has");
	puts(p);
	free(p);
	drop(q);
	return 3;
}'''
        with tempfile.TemporaryDirectory() as directory:
            os.mkdir(os.path.join(directory, 'sub'))
            path = build(os.path.join(directory, 'sub'), inner, '-shared', '-fPIC')
            os.rename(path, os.path.join(directory, 'sub', 'inner.so'))
            program = build(directory, outer, '-Wl,--enable-new-dtags,-rpath,$ORIGIN/sub')
            for env in {}, LIMIT:
                got = run(program, env=env)
                self.assertEqual((got.stdout, got.stderr, got.returncode), ('made\n', '', 3))


class Threads(unittest.TestCase):
    def test_the_last_thread_ends_it_whatever_the_kernel_runs(self):
        """The kernel's threads for io_uring are none of the program's."""
        source = r'''
#include <dirent.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
static struct io_uring ring;
static char c;
static int workers(void)
{
	int n = 0;
	DIR *d = opendir("/proc/self/task");
	for (struct dirent *e; (e = readdir(d)) != 0;) {
		char name[300], line[99] = "";
		snprintf(name, sizeof(name), "/proc/self/task/%s/comm", e->d_name);
		FILE *f = fopen(name, "r");
		if (f != 0) {
			n += e->d_name[0] != '.' && fgets(line, sizeof(line), f) && strncmp(line, "iou-wrk", 7) == 0;
			fclose(f);
		}
	}
	closedir(d);
	return n;
}
int main(void)
{
	int fds[2];
	if (pipe(fds) != 0 || io_uring_queue_init(4, &ring, 0) != 0)
		return 77;
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	io_uring_prep_read(sqe, fds[0], &c, 1, 0);
	sqe->flags |= IOSQE_ASYNC;
	io_uring_submit(&ring);
	while (workers() == 0)		/* it has come */
		usleep(1000);
	write(1, "last\n", 5);
	pthread_exit(0);
}'''
        with tempfile.TemporaryDirectory() as directory:
            program = build(directory, source, '-luring', '-pthread')
            if program is None or run(program, preload=False).returncode == 77:
                self.skipTest('no io_uring')
            got = run(program, env=LIMIT)
            self.assertEqual((got.stdout, got.stderr, got.returncode), ('last\n', '', 0))


@unittest.skipIf(os.getuid() != 0, 'this is not root')
class Users(unittest.TestCase):
    """libc changes a process's user in every thread, and ends it when these do not agree."""

    def test_capabilities_of_the_one_thread_are_the_process_s(self):
        source = r'''
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static void raise_(unsigned bits)
{
	struct __user_cap_header_struct h = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct d[2] = { { bits, bits, 0 } };
	printf("capset %ld\n", syscall(SYS_capset, &h, d));
}
#define SAY(call)	(printf("%s: %d\n", #call, (call)), fflush(stdout))
int main(int argc, char **argv)
{
	gid_t *groups = calloc(5000, sizeof(*groups));
	groups[0] = 7;
	if (argc > 1) {		/* more than the threads have */
		prctl(PR_SET_KEEPCAPS, 1);
		SAY(setresuid(65534, 65534, 65534));
		SAY(setgid(3));
		raise_(1 << CAP_SETGID | 1 << CAP_SETUID);
		SAY(setresgid(65533, 65533, 65533));
		SAY(setgroups(1, groups));
		SAY(setuid(5));
		SAY(setresgid(2, 4, 6));
		raise_(0);
		SAY(setregid(-1, 2));
		SAY(setresgid(6, 6, 2));
	} else {		/* less */
		raise_(1 << CAP_SETGID);
		SAY(setuid(1));
		SAY(setresuid(0, 0, 0));
		SAY(setgid(1));
		SAY(setreuid(-1, 1));
	}
	SAY(setgid(65532));
	uid_t r, e, s; gid_t x, y, z;
	getresuid(&r, &e, &s); getresgid(&x, &y, &z);
	printf("%d %d %d %d %d %d %d %s\n", r, e, s, x, y, z, getgroups(5000, groups), strerror(errno));
	return 3;
}'''
        with tempfile.TemporaryDirectory() as directory:
            program = build(directory, source)
            os.chmod(directory, 0o755)
            for args in (), ('more',):
                native = run(program, *args, preload=False)
                self.assertEqual((native.stderr, native.returncode), ('', 3))
                for env in LIMIT, dict(LIMIT, VMFAULT_CHAOS='20000'):
                    got = run(program, *args, env=env)
                    self.assertEqual((got.stdout, got.stderr, got.returncode), (native.stdout, '', 3))


class Refused(unittest.TestCase):
    def check(self, args, why, limit=None, **more):
        """Runs, with a line; without one, if that is not wanted; not at all, if it must be managed."""
        limit = LIMIT if limit is None else limit
        native = run(*args, preload=False, **more)
        got = run(*args, env=limit, **more)
        self.assertEqual((got.stdout, got.returncode), (native.stdout, native.returncode))
        self.assertRegex(got.stderr, r'^vmfault: \S+: runs unmanaged: .*' + why + r'.*\n$')
        got = run(*args, env=dict(limit, VMFAULT_QUIET='1'), **more)
        self.assertEqual((got.stdout, got.stderr, got.returncode), (native.stdout, native.stderr, native.returncode))
        got = run(*args, env=dict(limit, VMFAULT_STRICT='1'), **more)
        self.assertEqual((got.stdout, got.returncode), ('', 2))

    def test_limited_address_space(self):
        self.check(['/bin/echo', 'hello'], 'ulimit -v', preexec_fn=limit_address_space)

    def test_limited_files(self):
        self.check(['/bin/echo', 'hello'], 'ulimit -f', limit={'VMFAULT_FORK': 'fast'},
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)))

    def test_no_descriptors(self):
        self.check(['/bin/echo', 'hello'], 'open files',
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4, 4)))

    def test_sanitizers(self):
        source = '#include <stdlib.h>\n#include <stdio.h>\n' \
            'int main(void) { char *volatile p = malloc(9); p = realloc(p, 99); free(p); puts("good"); return 3; }'
        for sanitizer in 'address', 'thread', 'leak':
            with tempfile.TemporaryDirectory() as directory, self.subTest(sanitizer):
                program = build(directory, source, '-fsanitize=' + sanitizer)
                if program is not None:
                    self.check([program], 'sanitizer')
                    # Without a limit there is nothing to say.
                    got = run(program)
                    self.assertEqual((got.stdout, got.stderr, got.returncode), ('good\n', '', 3))

    def test_seccomp(self):
        """A filter that the process was born with: no memfd_create()."""
        source = '''
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_memfd_create, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = { 4, f };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) != 0)
		return 99;
	execvp(argv[1], argv + 1);
	return 98;
}
'''
        with tempfile.TemporaryDirectory() as directory:
            program = build(directory, source)
            self.assertIsNotNone(program)
            # The confining program itself is managed, and from then on without a limit.
            got = run(program, '/bin/echo', 'hello', env=LIMIT)
            self.assertEqual((got.stdout, got.returncode), ('hello\n', 0))
            self.assertRegex(got.stderr, r'\Avmfault: program: runs without a limit of memory .*seccomp.*\n'
                             r'vmfault: echo: runs unmanaged: .*\n\Z')


class Guest(unittest.TestCase):
    """Programs that change what they may do while they run: see guest.c."""

    GOOD = 'memory 1 1\nchild 7\nthread 1\n'
    LITTLE = {'VMFAULT_MEMORY': '4M', 'VMFAULT_SWAP_SIZE': '1G'}

    def check(self, *words, root=False, said=''):
        if root and os.getuid() != 0:
            self.skipTest('skip: this is for root')
        native = run(GUEST, *words, preload=False)
        if native.returncode == 97:
            self.skipTest('skip: not to be done here: ' + native.stderr)
        self.assertEqual((native.stdout, native.returncode), (self.GOOD, 0), words)
        for more in {}, {'VMFAULT_COMPRESS': '1'}, {'VMFAULT_CHAOS': '20000'}:
            got = run(GUEST, *words, env=dict(self.LITTLE, **more))
            self.assertEqual((got.stdout, got.returncode), (self.GOOD, 0), (words, more, got.stderr))
            self.assertRegex(got.stderr, r'\A' + said + r'\Z')
        got = run(GUEST, *words, env=dict(self.LITTLE, VMFAULT_QUIET='1'))
        self.assertEqual((got.stdout, got.stderr, got.returncode), (self.GOOD, '', 0))

    def test_as_it_is(self):
        self.check()

    def test_descriptors_are_closed(self):
        self.check('close')
        self.check('close-range')

    def test_a_daemon(self):
        self.check('daemon')

    def test_an_empty_chroot(self):
        self.check('chroot', root=True)

    def test_another_user(self):
        self.check('nobody', root=True)

    def test_a_confined_daemon(self):
        self.check('daemon', 'mount-namespace', 'chroot', 'nobody', 'close-range', root=True)

    def test_parent_and_child_are_both_number_one(self):
        self.check('pid-namespace', root=True)
        self.check('pid-namespace', 'pid-namespace', root=True)

    def test_limits(self):
        self.check('limit-as')
        self.check('limit-nofile')
        self.check('limit-memlock')
        self.check('limit-as', 'close', 'limit-nofile')
        self.check('limit-fsize', said=r'vmfault: guest: runs without a limit of memory .*ulimit -f.*\n')

    def test_filters(self):
        said = r'vmfault: guest: runs without a limit of memory .*seccomp.*\n'
        self.check('refuse-rings', said=said)
        self.check('refuse-mremap', said=said)
        self.check('refuse-mprotect', said=said)

    def test_a_fork_that_cannot_be(self):
        """It fails, as the man page says; all else is as it was, and where the reason goes, the next one does not."""
        native = run(GUEST, 'refuse-memfd', 'refuse-madvise', 'few-descriptors', 'try-to-fork', preload=False)
        self.assertEqual((native.stdout, native.returncode), ('forks 0 Success\n' + self.GOOD, 0))
        confined = r'\Avmfault: guest: runs without a limit of memory .*seccomp.*\n\Z'
        for more in {}, {'VMFAULT_FORK': 'copy'}, {'VMFAULT_CHAOS': '20000'}:
            # To share takes no madvise().
            for word in ('refuse-memfd', 'refuse-madvise') if 'VMFAULT_FORK' in more else ('refuse-memfd',):
                got = run(GUEST, word, 'try-to-fork', env=dict(self.LITTLE, **more))
                self.assertEqual((got.stdout, got.returncode),
                                 ('forks 20 Cannot allocate memory\nmemory 1 1\n', 2), (word, got.stderr))
                self.assertRegex(got.stderr, confined)
            got = run(GUEST, 'few-descriptors', 'try-to-fork', 'many-descriptors', env=dict(self.LITTLE, **more))
            self.assertEqual((got.stdout, got.stderr, got.returncode),
                             ('forks 20 Resource temporarily unavailable\n' + self.GOOD, '', 0))

    def test_limits_are_handed_on(self):
        """A shell that sets them runs on, and what it runs has them."""
        script = 'ulimit -v 4000000; ulimit -v; ulimit -Hv; nosuchprogram; x=$(echo a | cat); echo $x $(ulimit -v); ' \
            'env sh -c "ulimit -v"; ulimit -Sv 3000000; env sh -c "ulimit -v"'
        native = run('sh', '-c', script, preload=False)
        got = run('sh', '-c', script, env=dict(LIMIT, VMFAULT_QUIET='1'))
        self.assertEqual((got.stdout, got.stderr, got.returncode), (native.stdout, native.stderr, native.returncode))
        self.assertEqual(native.stdout.split()[-2:], ['4000000', '3000000'])

    def test_a_file_does_not_grow_past_its_limit(self):
        code = 'import os, resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); ' \
            'resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 8192)); print(resource.getrlimit(resource.RLIMIT_FSIZE)); ' \
            'f = os.memfd_create("f"); print(os.pwrite(f, bytes(5000), 0)); os.fork() and os.wait(); print(os.pwrite(f, bytes(9), 4090))'
        native = run(sys.executable, '-c', code, preload=False)
        got = run(sys.executable, '-c', code, env=dict(LIMIT, VMFAULT_QUIET='1'))
        self.assertEqual((got.stdout, got.stderr, got.returncode), (native.stdout, native.stderr, native.returncode))


class Privileged(unittest.TestCase):
    """Programs with the rights of somebody else: the dynamic linker leaves our library out, and says nothing."""

    def check(self, prepare):
        if os.getuid() != 0:
            self.skipTest('skip: only root can make such a program')
        with tempfile.TemporaryDirectory() as directory:
            os.chmod(directory, 0o755)
            program = os.path.join(directory, 'cat')
            shutil.copy(shutil.which('cat'), program)
            nobody = {'user': 65534, 'group': 65534, 'extra_groups': []}
            # Without those rights it is managed: whoever looks finds it.
            self.assertIn('vmfault', run(program, '/proc/self/maps', env=LIMIT, **nobody).stdout)
            prepare(program)
            for preload in False, True:
                got = run(program, '/proc/self/maps', env=LIMIT, preload=preload, **nobody)
                if not preload and got.returncode != 0:
                    self.skipTest('skip: no such programs here: ' + got.stderr)
                self.assertEqual((got.returncode, got.stderr), (0, ''))
                self.assertNotIn('vmfault', got.stdout)
            # ... and what runs it is managed all the same.
            got = run('sh', '-c', '"$0" /proc/self/maps | grep -c vmfault; echo $?', program, env=LIMIT, **nobody)
            self.assertEqual((got.stdout, got.stderr), ('0\n1\n', ''))

    def test_set_user_id(self):
        self.check(lambda program: os.chmod(program, 0o4755))

    def test_set_group_id(self):
        self.check(lambda program: os.chmod(program, 0o2755))

    def test_capabilities(self):
        """cap_net_raw, permitted and effective."""
        def prepare(program):
            try:
                os.setxattr(program, 'security.capability', struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0))
            except OSError as error:
                self.skipTest(f'skip: no capabilities of files here: {error}')
        self.check(prepare)

    def test_static(self):
        with tempfile.TemporaryDirectory() as directory:
            program = build(directory, '#include <stdio.h>\nint main(void) { puts("static"); return 5; }', '-static')
            if program is None:
                self.skipTest('skip: no static libc')
            got = run('sh', '-c', '"$0"; echo $?', program, env=LIMIT)
            self.assertEqual((got.stdout, got.stderr), ('static\n5\n', ''))


class Limited(unittest.TestCase):
    BIG = 'x = [bytes([i % 251]) * 100000 for i in range(600)]; print(sum(map(sum, x)))'

    def test_more_than_memory(self):
        native = run(sys.executable, '-c', self.BIG, preload=False)
        for more in {}, {'VMFAULT_COMPRESS': '1'}, {'VMFAULT_COMPRESS': '1', 'VMFAULT_SWAP': 'none',
                                                    'VMFAULT_MEMORY': '32M'}:
            with self.subTest(more):
                got = run(sys.executable, '-c', self.BIG, env=dict(LIMIT, **more))
                self.assertEqual((got.stdout, got.stderr, got.returncode), (native.stdout, '', 0))

    def test_more_than_memory_and_swap(self):
        got = run(sys.executable, '-c', self.BIG, env=dict(LIMIT, VMFAULT_SWAP='none'))
        self.assertEqual(got.returncode, -signal.SIGBUS)
        self.assertIn('memory budget is used up', got.stderr)

    def test_frames_are_bounded(self):
        program = self.BIG + '\nprint(*[l.split()[1] for l in open("/proc/self/status") if "RssShmem" in l])'
        got = run(sys.executable, '-c', program, env=LIMIT)
        self.assertLessEqual(int(got.stdout.split()[1]), 2 * 16 * 1024)

    def test_a_core_is_no_larger_than_memory(self):
        with open('/proc/sys/kernel/core_pattern', encoding='ascii') as file:
            if file.read()[0] in '|/':
                self.skipTest('skip: a core does not come into the directory')
        program = 'import os; x = [bytes([i % 251]) * 100000 for i in range(1000)]; os.abort()'
        with tempfile.TemporaryDirectory() as directory:
            got = run(sys.executable, '-c', program, env=LIMIT, cwd=directory,
                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 40, 1 << 40)))
            self.assertEqual(got.returncode, -signal.SIGABRT)
            core, = os.listdir(directory)
            stat = os.stat(os.path.join(directory, core))
            self.assertLess(stat.st_blocks * 512, 32 << 20)
            self.assertLess(stat.st_size, 512 << 20)

    def test_mappings_are_bounded(self):
        """Every other page is there, and they go and come one by one: not a mapping for each, which would be too many."""
        program = ('import ctypes, mmap, os\n'
                   'n = 160000\n'
                   'libc = ctypes.CDLL(None)\n'
                   'libc.aligned_alloc.restype = ctypes.c_void_p\n'
                   'p = libc.aligned_alloc(4096, n * 4096)\n'
                   'for i in range(0, n, 2): ctypes.memset(p + i * 4096, i % 251, 1)\n'
                   'print(all(ctypes.string_at(p + i * 4096, 2) == bytes([i % 251, 0]) for i in range(0, n, 2)))\n'
                   'print(sum(1 for _ in open("/proc/self/maps")))\n')
        with open('/proc/sys/vm/max_map_count', encoding='ascii') as file:
            most = int(file.read())
        got = run(sys.executable, '-c', program, env={'VMFAULT_MEMORY': '1G', 'VMFAULT_CHAOS': '20000'})
        self.assertEqual((got.stderr, got.returncode), ('', 0))
        good, mappings = got.stdout.split()
        self.assertEqual(good, 'True')
        self.assertLess(int(mappings), most)

    def test_nothing_is_left_behind(self):
        with tempfile.TemporaryDirectory() as directory:
            for i in range(100):
                got = run('/bin/sh', '-c', f'x=$(echo {i}); echo $x', env=dict(LIMIT, VMFAULT_SWAP=directory))
                self.assertEqual((got.stdout, got.stderr), (f'{i}\n', ''))
            self.assertEqual(os.listdir(directory), [])


if __name__ == '__main__':
    unittest.main(verbosity=2)
