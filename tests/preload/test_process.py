#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
#
# test_process.py SHIM: processes that the shim is preloaded into: which are managed, which are not, and say so.

import os
import resource
import signal
import subprocess
import sys
import tempfile
import unittest

SHIM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else ''
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
    def test_without_a_limit_there_is_nothing_to_fault(self):
        got = run('cat', '/proc/self/status', '/proc/self/maps')
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
    def check(self, args, why, **more):
        """Runs, with a line; without one, if that is not wanted; not at all, if it must be managed."""
        native = run(*args, preload=False, **more)
        got = run(*args, env=LIMIT, **more)
        self.assertEqual((got.stdout, got.returncode), (native.stdout, native.returncode))
        self.assertRegex(got.stderr, r'^vmfault: \S+: runs unmanaged: .*' + why + r'.*\n$')
        got = run(*args, env=dict(LIMIT, VMFAULT_QUIET='1'), **more)
        self.assertEqual((got.stdout, got.stderr, got.returncode), (native.stdout, native.stderr, native.returncode))
        got = run(*args, env=dict(LIMIT, VMFAULT_STRICT='1'), **more)
        self.assertEqual((got.stdout, got.returncode), ('', 2))

    def test_limited_address_space(self):
        self.check(['/bin/echo', 'hello'], 'ulimit -v', preexec_fn=limit_address_space)

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
            # The confining program itself is managed.
            got = run(program, '/bin/echo', 'hello', env=LIMIT)
            self.assertEqual((got.stdout, got.returncode), ('hello\n', 0))
            self.assertRegex(got.stderr, r'^vmfault: \S+: runs unmanaged: .*\n$')


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

    def test_nothing_is_left_behind(self):
        with tempfile.TemporaryDirectory() as directory:
            for i in range(100):
                got = run('/bin/sh', '-c', f'x=$(echo {i}); echo $x', env=dict(LIMIT, VMFAULT_SWAP=directory))
                self.assertEqual((got.stdout, got.stderr), (f'{i}\n', ''))
            self.assertEqual(os.listdir(directory), [])


if __name__ == '__main__':
    unittest.main(verbosity=2)
