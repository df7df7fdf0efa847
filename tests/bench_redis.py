#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""bench_redis.py BENCH_REDIS

The benchmark of Redis, tiny: every row is there, what it prints is what bench/report reads, and what would be a wrong
byte in a file that was saved is found.  No figure is looked at.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

BENCH = sys.argv.pop(1)
HERE = os.path.dirname(BENCH)
REPORT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../bench/report")
KEYS, SEED = 1600, "5"
ENV = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD" and not k.startswith("VMFAULT_")}


def run(*args, **more):
    return subprocess.run(args, capture_output=True, text=True, timeout=250, check=False, env=ENV, **more)


class Benchmark(unittest.TestCase):
    def test_every_row_is_there_and_can_be_reported(self):
        with tempfile.TemporaryDirectory() as d:
            p = run(BENCH, "--quick", "--sizes", "8M", "--saves", "4", "--json", "--plot", os.path.join(d, "x.svg"))
            self.assertEqual(p.returncode, 0, p.stderr)
            data = json.loads(p.stdout)
            self.assertEqual(data["skipped"], [])
            rows = {r["what"]: r for r in data["rows"]}
            for shape in "small keys", "large values":
                for command in "BGSAVE", "BGREWRITEAOF":
                    for what in ("latest_fork_usec", "time to its end", "worst, first second",
                                 "99.9 % of the writes within", "worst after it"):
                        self.full(rows[f"{shape}, {command}: {what}"], "us")
                self.full(rows[f"{shape}, memory of the server"], "bytes")
                self.assertIn(f"{shape}, memory that a save takes besides", rows)
            for part in "first", "last":
                self.full(rows[f"small keys, 4 in a row, the {part} 2: mappings"], "count")
            with open(os.path.join(d, "bench_redis.json"), "w", encoding="utf-8") as f:
                f.write(p.stdout)
            p = run(sys.executable, REPORT, "--from", d)
            self.assertEqual(p.returncode, 0, p.stderr)
            with open(os.path.join(d, "report.html"), encoding="utf-8") as f:
                page = f.read()
            for what in rows:
                self.assertIn(what, page)
            p = run(sys.executable, REPORT, "--from", os.path.join(d, "bench_redis.json"), "--table")
            self.assertEqual(p.returncode, 0, p.stderr)
            for shape in "small keys", "large values":
                table = p.stdout.split(f"A Redis server with 8M of {shape}:\n\n")[1].split("\n\n")[0].splitlines()
                self.assertEqual(len(table), 2 + 6, p.stdout)
                for line in table[2:]:
                    self.assertNotIn("–", line.rsplit("|", 2)[0])	# a ratio to no bytes at all is none

    def full(self, row, unit):
        for side in "vmfault", "kernel":
            self.assertGreater(row[f"{side}_{unit}"], 0, row)
        self.assertAlmostEqual(row["ratio"], row[f"vmfault_{unit}"] / row[f"kernel_{unit}"])

    def test_mistakes_are_one_line(self):
        for args in (["--sizes", "x"], ["--sizes", "1K"], ["--shapes", "round"], ["--rounds", "0"], ["--fork", "slow"],
                     ["--plot", "x.gif"], ["--bogus"], ["more"]):
            with self.subTest(args):
                p = run(BENCH, *args)
                self.assertEqual((p.returncode, p.stdout), (2, ""))
                self.assertRegex(p.stderr, r"^bench_redis: [^\n]+\n$")

    def test_what_is_not_there_is_skipped(self):
        p = run(BENCH, "--quick", "--program", "no-such-server", "--json")
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn("not installed", json.loads(p.stdout)["skipped"][0]["why"])

    def test_a_server_that_ends_is_no_figure(self):
        p = run(BENCH, "--quick", "--program", "false", "--json")
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertIn("ended with status 1", p.stderr)


class Load(unittest.TestCase):
    """What redis_load finds to be wrong."""

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.socket = os.path.join(self.directory.name, "s")
        server = subprocess.Popen(["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "",
                                   "--dir", self.directory.name], stdout=subprocess.DEVNULL, env=ENV)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)
        while self.ask("ping") != "PONG":
            time.sleep(0.02)
        self.assertEqual(self.load("fill").returncode, 0)

    def ask(self, *words):
        return run("redis-cli", "-s", self.socket, *words).stdout.strip()

    def load(self, verb, *more, **kw):
        return run(os.path.join(HERE, "redis_load"), verb, self.socket, "small", str(KEYS), SEED, *more, **kw)

    def wrong(self, why):
        p = self.load("verify")
        self.assertEqual((p.returncode, p.stdout), (1, ""))
        self.assertRegex(p.stderr, why)

    def test_what_was_written_is_right(self):
        p = self.load("run", "5000", input="one\ntwo\n")
        self.assertEqual(p.returncode, 0, p.stderr)
        lines = [json.loads(line) for line in p.stdout.splitlines()]
        phases = {line["phase"]: line for line in lines if "phase" in line}
        self.assertEqual(list(phases), ["start", "one", "two"])
        self.assertEqual([line["begun"] for line in lines if "begun" in line], ["start", "one", "two"])
        for phase in phases.values():
            self.assertEqual(sum(n for _, n in phase["buckets"]), phase["count"])
        p = self.load("verify")
        self.assertEqual(json.loads(p.stdout), {"keys": KEYS, "writes": phases["two"]["sent"]})

    def test_a_changed_value_is_found(self):
        self.ask("setrange", "key:0000000077", "50", "x")
        self.wrong("key 77 is not what it was")

    def test_a_lost_and_an_extra_key_are_found(self):
        self.ask("set", "more", "x")
        self.wrong(":1633 keys")
        self.ask("del", "more", "key:0000000003")
        self.wrong("key 3 is not")

    def test_an_older_and_a_newer_write_are_found(self):
        # Client 3 has written, says its counter; its keys are as they were filled.
        self.ask("set", "a:3", "1")
        self.assertEqual(self.load("verify").returncode, 0)
        self.ask("set", "b:3", "1")
        self.wrong("after write 1 of client 3")
        self.ask("set", "a:3", "3")
        self.wrong("no instant")


if __name__ == "__main__":
    if any(shutil.which(p) is None for p in ("redis-server", "redis-cli")):
        print("skip: redis-server is not installed")
        sys.exit(77)
    unittest.main()
