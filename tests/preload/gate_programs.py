#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Programs with the gate and a thread that takes their heap's pages away all the time: output and exit
status are what they are without.  And with a gate that pins nothing some must fail, or this is no test.

usage: gate_programs.py libgate-fake.so
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile

PYTHON = r"""
import hashlib, os, signal, socket, subprocess, sys, threading, time
print(len(subprocess.run(["cat"], input=b"x" * 300000, capture_output=True).stdout))
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for i in range(500):
    a.send(bytes([i % 256]) * 5000)
    assert b.recv(6000) == bytes([i % 256]) * 5000
def work(out):
    n = 0
    for k in range(100):
        n += len(os.listdir("/usr/bin")) + len(os.getcwd())
        os.stat("/usr/bin/env")
        with open("/proc/self/status") as f:
            n += len(f.readline())
    out.append(n)
out = []
threads = [threading.Thread(target=work, args=(out,)) for i in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(out), len(set(out)))
print(hashlib.md5(open(sys.executable, "rb").read()).hexdigest())
signal.signal(signal.SIGALRM, lambda *_: print("alarm"))
signal.setitimer(signal.ITIMER_REAL, 0.05)
time.sleep(0.2)
pid = os.fork()
if pid == 0:
    os._exit(3)
print(os.waitpid(pid, 0)[1])
"""

PYTHON_CRASH = "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(0)"

SQL = """create table t(a, b);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 50000) insert into t select x, hex(x * x) from c;
create index i on t(b); select count(*), sum(a), max(b) from t; pragma integrity_check;"""

PERL = r"""my %h; while (<STDIN>) { chomp; $h{$_} = $_ * 2 } my $s = 0; $s += $h{$_} for keys %h; print "$s\n";
print `echo sub`; opendir(D, "/etc"); my @a = readdir D; print scalar(@a), "\n"; exec "echo", "last";"""

BASH = r"""for i in $(seq 20); do x=$(echo $i | cat); echo $x; done; trap 'echo usr1' USR1; kill -USR1 $$
read -t 1 a < /dev/null; echo $?; (exit 3); echo $?; printf '%s\n' {1..300} | sort -rn | head -3"""


def programs(tmp):
    """name -> argv; every one reads a file of numbers"""
    db = os.path.join(tmp, "db")
    return {
        "sort": ["sort", "-n"],
        "sort-parallel": ["sort", "--parallel=4", "-S", "1M", "-n"],
        "sha256sum": ["sha256sum", "/bin/bash"],
        "find": ["find", "/usr/include", "-name", "*.h", "-size", "+3k"],
        "tar": ["tar", "cf", "-", "-C", "/usr/include", "linux"],
        "xz": ["xz", "-T2", "-1", "-c"],
        "awk": ["awk", "{ s += $1; a[$1] = $0 } END { print s, length(a) }"],
        "bash": ["bash", "-c", BASH],
        "perl": ["perl", "-e", PERL],
        "python3": ["/usr/bin/python3", "-c", PYTHON],
        "python3-crash": ["/usr/bin/python3", "-c", PYTHON_CRASH],
        "sqlite3": ["sqlite3", "-batch", ":memory:", SQL],
        "sqlite3-wal": ["sh", "-c", f"rm -f {db}*; sqlite3 -batch {db} 'pragma journal_mode=wal' \"$0\"", SQL],
        "gcc": ["gcc", "-O1", "-S", "-o", "-", "-x", "c", "/usr/include/stdio.h"],
        "dash-segv": ["sh", "-c", "kill -SEGV $$; echo not reached"],
        "ulimit-core": ["sh", "-c", "ulimit -c 0; sh -c 'kill -BUS $$'; echo $?"],
    }


def run(argv, data, env):
    with open(data, "rb") as stdin:
        p = subprocess.run(argv, stdin=stdin, capture_output=True, env=env, timeout=60, check=False)
    return p.returncode, p.stdout, p.stderr


def main():
    so = os.path.abspath(sys.argv[1])
    failed, seen_failing, faults = 0, 0, 0
    with tempfile.TemporaryDirectory() as tmp:
        data = os.path.join(tmp, "numbers")
        report = os.path.join(tmp, "report")
        numbers = [str(i) for i in range(60000)]
        random.Random(1).shuffle(numbers)
        with open(data, "w", encoding="ascii") as f:
            f.write("\n".join(numbers) + "\n")
        plain = dict(os.environ, LC_ALL="C")
        for name, argv in programs(tmp).items():
            if shutil.which(argv[0]) is None:
                print(f"skip: {name}: not installed")
                continue
            want = run(argv, data, plain)
            for pin_max in ("0", "8192"):
                env = dict(plain, LD_PRELOAD=so, FAKE_PAUSE="20", FAKE_PIN_MAX=pin_max, FAKE_REPORT=report)
                got = run(argv, data, env)
                if got[:2] != want[:2] or ("crash" in name) != (b"Fatal Python error" in got[2]):
                    failed += 1
                    print(f"FAIL: {name} (pin_max {pin_max}): status {got[0]}, not {want[0]}\n{got[2][:500]!r}")
                else:
                    print(f"ok: {name} (pin_max {pin_max})")
            env = dict(plain, LD_PRELOAD=so, FAKE_PAUSE="20", FAKE_GATE="blind")
            try:
                seen_failing += run(argv, data, env)[:2] != want[:2]
            except subprocess.TimeoutExpired:
                seen_failing += 1
        with open(report, encoding="ascii") as f:
            for line in f:
                words = line.split()
                faults += int(words[words.index("faults,") - 1])
                if int(words[-3]) != 0:
                    failed += 1
                    print("FAIL: pins left behind: " + line)
    print(f"{faults} faults; {seen_failing} programs failed without pins")
    if faults < 1000 or seen_failing < 3:
        failed += 1
        print("FAIL: the evictor did nothing")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
