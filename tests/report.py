#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""report.py BENCH-DIRECTORY

What bench/report makes of figures that are known: the page is well-formed, has every row and needs
nothing from elsewhere, and mistakes end in one line.  No benchmark is run; where report
runs some, they are scripts that print what is known.
"""

import html.parser
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

BENCH = sys.argv.pop(1)
REPORT = os.path.join(BENCH, "report")
M, G = 1 << 20, 1 << 30
MACHINE = {"cpu": "A <fast> & \"small\" CPU", "cores": 2, "kernel": "Linux 6.18.1", "memory": 8 * G,
           "virtual": True, "max_map_count": 65530, "bits": 64}
MARKS = ("<!-- bench_redis, by bench/report --readme -->", "<!-- bench_redis ends -->")
ENV = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
VOID = {"meta", "br", "hr", "img", "input", "link"}


def row(what, size, vmfault, kernel, per="call", **more):
    ratio = vmfault / kernel if vmfault is not None and kernel else None
    return {"what": what, "size": size, "vmfault_us": vmfault, "kernel_us": kernel, "ratio": ratio,
            "per": per, **more}


def bench(name, rows, skipped=()):
    return {"bench": name, "machine": MACHINE, "when": "2026-11-23T09:30:00Z", "rounds": 3,
            "rows": rows, "skipped": list(skipped)}


def snapshot_rows():
    for size, us in ((256 * M, 30), (G, 31.5), (4 * G, 42)):
        yield row("snapshot first", size, us, us * 1024, vmfault_samples=3, vmfault_min=us - 9,
                  vmfault_max=us + 512, kernel_samples=3, kernel_min=1, kernel_max=99999)
        for order in "sequential", "random":
            yield row(f"snapshot again after 1 % {order}", size, us / 8, us * 16)
            for share in 1, 10, 100:
                yield row(f"write {share} % {order}", size, 2.25, 3.125, "page", pages=share * 4096)
                yield row(f"snapshot + write {share} % {order}", size, share * 707, share * 1001.0)
        yield row("rollback after 1 % random", size, 777, None)
        yield {"what": "metadata", "size": size, "vmfault_us": None, "kernel_us": None, "ratio": 7.25,
               "vmfault_bytes": size / 128, "kernel_bytes": None, "resident_bytes": size,
               "percent": 0.78125}


def fork_rows():
    for size, us in ((256 * M, 210), (G, 235)):
        yield row("fork", size, us, us * 128)
        yield row("fork, 91st to 100th in a row", size, us + 5, us * 64)
        for order in "sequential", "random":
            for share in 1, 10, 100:
                yield row(f"fork + write {share} % {order}", size, share * 303, share * 1010)


def redis_rows():
    for size, us in ((G, 301), (4 * G, 405)):
        for what, factor in (("latest_fork_usec", 1), ("worst, until its end", 20), ("worst after it", 0.25),
                             ("99.9 % of the writes within", 10), ("time to its end", 1e4)):
            yield row(f"small keys, BGSAVE: {what}", size, us * factor, us * factor * 100, vmfault_min=us / 2,
                      vmfault_max=us * factor * 2)
    yield row("large values, BGSAVE: latest_fork_usec", G, 303, 202)
    yield {"what": "small keys, memory that a save takes besides", "size": 4 * G, "vmfault_us": None, "kernel_us": None,
           "ratio": 9.5, "vmfault_bytes": 1216 * M, "kernel_bytes": 128 * M, "resident_bytes": 4 * G, "percent": 29.7}
    yield {"what": "mappings", "size": G, "vmfault_us": None, "kernel_us": None, "ratio": 1.5,
           "vmfault_count": 333, "kernel_count": 222, "unit": "mappings"}


def known():
    parts = "50", "90", "99", "99.9", "99.99", "99.999"
    return {d["bench"]: d for d in (
        bench("bench_snapshot", list(snapshot_rows()),
              [{"size": 8 * G, "why": "needs <more> than & is there"}]),
        bench("bench_stall", [row("stall, longest of each second", G, 812, 20480, vmfault_samples=15,
                                  vmfault_min=101, vmfault_max=999, kernel_min=17000, kernel_max=23000),
                              row("stall, longest of all", G, 999, 23000),
                              row("write, a snapshot every second", G, 0.1234, 0.25, "page", pages=7)] +
              [row(p + " % of the writes within", G, i + 0.5, i + 0.75) for i, p in enumerate(parts)]),
        bench("bench_fault", [row(f"zero-fill {order}, {advice}", 64 * M, 0.625, 1.375, "page",
                                  pages=16384, faults=64)
                              for order in ("sequential", "random")
                              for advice in ("NORMAL", "RANDOM", "SEQUENTIAL")] +
              [row("rest of a fault", 64 * M, 0, None)]),
        bench("bench_rollback", [row("rollback, 64 <dirty> pages", 64 * M, 88, 1900)]),
        bench("bench_fork", list(fork_rows())),
        bench("bench_redis", list(redis_rows())),
        bench("bench_pager", [row("swap in, warm", 2 * G, 4.75, 0.512, "page", pages=512)]))}


class Page(html.parser.HTMLParser):
    """A page: what is open, the text of each table row below each caption, all text."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.wrong, self.seen, self.text = [], [], [], ""
        self.caption, self.rows, self.cell = "", [], None
        self.feed(text)
        self.close()
        self.wrong += [f"{t} stays open" for t in self.stack]

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
        if tag == "caption":
            self.caption = ""
        if tag == "tr":
            self.rows.append((self.caption, []))
        if tag in ("td", "th"):
            self.rows[-1][1].append("")

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if "svg" not in self.stack and tag not in VOID:
            self.wrong.append(f"{tag} may not close itself")

    def handle_endtag(self, tag):
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        self.text += data
        if "caption" in self.stack:
            self.caption += data
        elif self.stack and self.stack[-1] in ("td", "th"):
            self.rows[-1][1][-1] += data


class Report(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = work.name

    def file(self, name, text, mode=0o644):
        path = os.path.join(self.work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)
        return path

    def keep(self, data):
        for name, d in data.items():
            self.file(f"json/{name}.json", json.dumps(d))
        return os.path.join(self.work, "json")

    def report(self, *args, status=0):
        p = subprocess.run([sys.executable, REPORT, *args], capture_output=True, text=True, check=False,
                           timeout=60, env=ENV)
        self.assertEqual(p.returncode, status, p.stdout + p.stderr)
        return p

    def page(self, data):
        where = self.keep(data)
        self.report("--from", where)
        with open(os.path.join(where, "report.html"), encoding="utf-8") as f:
            text = f.read()
        page = Page(text)
        self.assertEqual(page.wrong, [])
        return page, text

    def test_page_is_well_formed_and_alone(self):
        page, text = self.page(known())
        self.assertTrue(text.startswith("<!DOCTYPE html>"))
        for outside in ("http", "src=", "href", "url(", "@import", "<script", "<link", "//"):
            self.assertNotIn(outside, text.lower().replace("</", "<"))
        ids = [a["id"] for _, a in page.seen if "id" in a]
        self.assertEqual(len(ids), len(set(ids)))

    def test_page_has_every_row(self):
        page, _ = self.page(known())
        size_of = {256 * M: "256M", G: "1G", 2 * G: "2G", 4 * G: "4G", 64 * M: "64M"}
        every = [(c, r) for c, r in page.rows if c in size_of.values()]
        heads = sum(r[0] == "row" for _, r in every)
        self.assertEqual(len(every) - heads, sum(len(d["rows"]) for d in known().values()))
        for d in known().values():
            for r in d["rows"]:
                mine = [cells for c, cells in every if c == size_of[r["size"]] and cells[0] == r["what"]]
                self.assertEqual(len(mine), 1, r)
                values = [float(v) if v != "–" else None for v in mine[0][2:5]] \
                    if "resident_bytes" not in r and "unit" not in r else []
                for shown, key in zip(values, ("vmfault_us", "kernel_us", "ratio")):
                    if r[key]:
                        self.assertAlmostEqual(shown / r[key], 1, delta=0.05, msg=f"{r}: {mine}")
                    else:
                        self.assertEqual(shown, r[key], f"{r}: {mine}")
        self.assertIn(["metadata", "bytes", "8192 KB", "–", "7.25", "", "", "0.78 % of what is resident"],
                      [r for c, r in every if c == "1G"])
        self.assertIn(["mappings", "mappings", "333", "222", "1.50", "", "", ""], [r for c, r in every if c == "1G"])
        self.assertIn("22.5 … 544", [v for _, r in every for v in r])
        self.assertIn("256.0 pages a fault", [v for _, r in every for v in r])

    def test_page_says_where_when_and_what_not(self):
        page, _ = self.page(known())
        for said in (MACHINE["cpu"], "2 cores (virtual)", "8.0 GB", "Linux 6.18.1", "64-bit", "65530",
                     "2026-11-23T09:30:00Z", "3 rounds", "8G: needs <more> than & is there"):
            self.assertIn(said, page.text)
        self.assertNotIn("not measured on the same machine", page.text)
        self.assertNotIn("A quick run", page.text)

    def test_other_machine_is_told(self):
        data = known()
        data["bench_stall"]["machine"] = {**MACHINE, "cpu": "Another"}
        page, _ = self.page(data)
        self.assertIn("Not all of this was measured on the same machine.", page.text)
        self.assertIn("Another", page.text)

    def test_page_has_its_figures(self):
        page, _ = self.page(known())
        drawn = re.findall(r"<title>([^<]*)</title>\n", self.page(known())[1])
        self.assertEqual(len(drawn), 1 + 12, drawn)
        self.assertEqual(sum(tag == "svg" for tag, _ in page.seen), 12)
        self.assertIn("second snapshot, 4G: 5.25 µs", page.text)
        self.assertIn("as dear as fork()", page.text)
        self.assertIn("sequential, 10 %: 0.706", page.text)
        self.assertIn("vmfault, 99.999 %: 5.5 µs", page.text)
        for tag, attrs in page.seen:
            for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
                self.assertRegex(attrs.get(name, "0"), r"^-?[0-9.]+$")
                self.assertGreaterEqual(float(attrs.get(name, "0")), 0, (tag, attrs))

    def test_one_benchmark_is_enough(self):
        for name, data in known().items():
            with self.subTest(name):
                self.setUp()
                page, _ = self.page({name: data})
                self.assertEqual(page.text.count(": not run"), 7)

    def test_nothing_but_zeros_is_no_trouble(self):
        data = known()
        for d in data.values():
            for r in d["rows"]:
                r.update(vmfault_us=0, kernel_us=None, ratio=None)
        self.page(data)

    def test_table_is_markdown(self):
        out = self.report("--from", self.keep(known()), "--table").stdout
        lines = [re.sub(" +", " ", l) for l in out.splitlines() if l.startswith("|")]
        self.assertTrue(all(l.count("|") == 5 and l.endswith("|") for l in lines))
        for line in ("| 1G | 31.5 | 32256 | 0.00098 |", "| 10 % of the pages, random | 7070 | 10010 | 0.71 |",
                     "| longest stall of a second, median | 812 | 20480 | 0.040 |",
                     "| 10 % of the pages, sequential | 3030 | 10100 | 0.30 |", "| 256M | 215 | 13440 | 0.016 |",
                     "| fork() holds the server up (latest_fork_usec) | 40.5 ms | 405 µs | 0.010 |",
                     "| swap in, warm | 4.75 | 0.512 | 9.28 |", "| | vmfault | `fork()` | ratio |"):
            self.assertIn(line, lines)
        self.assertFalse(os.path.exists(os.path.join(self.work, "json/report.html")))

    def test_one_file_is_enough(self):
        where = self.keep(known())
        out = self.report("--from", os.path.join(where, "bench_rollback.json"), "--table").stdout
        self.assertIn("rollback, 64 <dirty> pages", out)
        self.assertNotIn("swap in", out)
        other = self.file("other/name", json.dumps(known()["bench_redis"]))
        self.report("--from", other)
        with open(os.path.join(self.work, "other/report.html"), encoding="utf-8") as f:
            self.assertIn("bench_rollback</code>: not run", f.read())

    def readme(self, text):
        path = self.file("readme/README.md", text)
        os.makedirs(os.path.join(self.work, "readme/bench"), exist_ok=True)
        return path

    def fill(self, readme, data=None):
        """=> what stands in it then, and the picture"""
        figures = self.file("figures", json.dumps(data or known()["bench_redis"]))
        self.assertEqual(self.report("--from", figures, "--readme", readme).stdout, "")
        picture = os.path.join(self.work, "readme/bench/bench_redis.svg")
        picture = xml.etree.ElementTree.parse(picture).getroot()
        self.assertEqual(picture.tag, "{http://www.w3.org/2000/svg}svg")	# or a browser does not draw it
        with open(readme, encoding="utf-8") as f:
            return f.read(), " ".join(picture.itertext())

    def test_readme_has_the_tables_and_the_picture(self):
        filled, picture = self.fill(self.readme("\n".join(MARKS)))
        lines = [re.sub(" +", " ", l) for l in filled.splitlines()]
        at = lines.index("A Redis server with 4G of small keys:")
        self.assertEqual([l for l in lines[at + 2:at + 10] if not l.startswith("|--")], [
            "| | native | vmfault | ratio |",
            "| fork() holds the server up (latest_fork_usec) | 40.5 ms | 405 µs | 0.010 |",
            "| longest wait for a write while it saves | 810 ms | 8.1 ms | 0.010 |",
            "| 99.9 % of the writes meanwhile take at most | 405 ms | 4.05 ms | 0.010 |",
            "| longest wait for a write right after it | 10.1 ms | 101 µs | 0.010 |",
            "| the save, from the command to its end | 405 s | 4.05 s | 0.010 |",
            "| memory that the save takes besides | 128 MB | 1216 MB | 9.50 |"])
        self.assertIn("A Redis server with 1G of large values:", lines)
        self.assertIn("| fork() holds the server up (latest_fork_usec) | 202 µs | 303 µs | 1.50 |", lines)
        self.assertIn("| the save, from the command to its end | – | – | – |", lines)
        said = " ".join(lines)
        for what in (MACHINE["cpu"], "2 cores (virtual)", "Linux 6.18.1", "3 rounds", "2026-11-23T09:30:00Z",
                     "only the ratios mean something elsewhere", "bars reach", "](bench/bench_redis.svg)"):
            self.assertIn(what, said)
        for what in ("vmfault, small keys, 1G: 301 µs", "native, small keys, 4G: 40.5 ms",
                     "native, large values, 1G: 202 µs", "vmfault, small keys, 4G: 8.1 ms"):
            self.assertIn(what, picture)

    def test_readme_is_kept_around_the_figures(self):
        before, after = "# A\n\n| table | \\ |\n", "\n\n## B\n\nno newline"
        readme = self.readme(before + MARKS[0] + "\nold figures\n" + MARKS[1] + after)
        filled, _ = self.fill(readme)
        self.assertTrue(filled.startswith(before + MARKS[0] + "\n") and filled.endswith("\n" + MARKS[1] + after))
        self.assertNotIn("old figures", filled)
        self.assertEqual(self.fill(readme)[0], filled)
        data = known()["bench_redis"]
        data["rows"] = [r for r in data["rows"] if r["size"] == G]
        filled, picture = self.fill(readme, data)
        for text in filled, picture:
            self.assertIn("1G", text)
            self.assertNotIn("4G", text)

    def test_readme_without_marks_is_left_alone(self):
        where = self.keep(known())
        for text in ("", MARKS[0], MARKS[1] + MARKS[0], "".join(MARKS) * 2):
            with self.subTest(text):
                readme = self.readme(text)
                p = self.report("--from", where, "--readme", readme, status=1)
                self.assertRegex(p.stderr, r"^report: [^\n]*README.md does not have the marks[^\n]+\n$")
                with open(readme, encoding="utf-8") as f:
                    self.assertEqual(f.read(), text)
        p = self.report("--from", os.path.join(where, "bench_fork.json"), "--readme", self.readme("".join(MARKS)), status=1)
        self.assertEqual(p.stderr, "report: there are no figures of bench_redis\n")
        self.assertEqual(os.listdir(os.path.join(self.work, "readme/bench")), [])

    def test_our_readme_opens_with_them(self):
        with open(os.path.join(BENCH, "../README.md"), encoding="utf-8") as f:
            ours = f.read()
        self.assertLess(ours.index(MARKS[0]), ours.index("\n## "))
        self.assertIn("A Redis server with", ours[ours.index(MARKS[0]):ours.index(MARKS[1])])
        picture = xml.etree.ElementTree.parse(os.path.join(BENCH, "bench_redis.svg")).getroot()
        self.assertIn("small keys", " ".join(picture.itertext()))
        filled, _ = self.fill(self.readme(ours))
        self.assertEqual((filled.split(MARKS[0])[0], filled.split(MARKS[1])[1]),
                         (ours.split(MARKS[0])[0], ours.split(MARKS[1])[1]))

    def fake(self, name, script):
        self.file(f"build/bench/{name}", "#!/bin/sh\n" + script, 0o755)
        return os.path.join(self.work, "build")

    def test_run_keeps_what_was_printed(self):
        data = known()["bench_snapshot"]
        data["skipped"] = [{"size": 4096, "why": "x" * 150}] * 2000	# more than a pipe takes
        path = self.file("printed", json.dumps(data))
        build = self.fake("bench_snapshot", f'echo "$@" >{self.work}/args; cat {path}')
        self.fake("bench_fault", "echo first >&2; echo the disk is on fire >&2; exit 1")
        self.fake("bench_stall", "echo nonsense")
        self.fake("bench_pager", "kill -9 $$")
        p = self.report("--quick", build, status=1)
        with open(os.path.join(build, "report/report.html"), encoding="utf-8") as f:
            page = Page(f.read())
        for said in ("bench_fault: the disk is on fire", "bench_stall: what it printed is not the JSON",
                     "bench_pager: ended by signal 9", "bench_rollback: not built", "A quick run"):
            self.assertIn(said, page.text)
        self.assertIn("the disk is on fire", p.stderr)
        with open(os.path.join(self.work, "args"), encoding="utf-8") as f:
            self.assertEqual(f.read(), "--json --sizes 16M,64M --rounds 1\n")
        self.assertCountEqual(os.listdir(os.path.join(build, "report")),
                              ["bench_snapshot.json", "report.html"])
        self.report("--from", os.path.join(build, "report"), "--out", os.path.join(self.work, "again"))
        with open(os.path.join(self.work, "again"), encoding="utf-8") as f:
            self.assertEqual(len(Page(f.read()).rows), len(page.rows))

    def test_old_figures_do_not_stand_for_new_ones(self):
        build = self.fake("bench_fault", "exit 3")
        kept = self.file("build/report/bench_fault.json", json.dumps(known()["bench_fault"]))
        self.assertIn("nothing was measured", self.report(build, status=1).stderr)
        self.assertFalse(os.path.exists(kept))

    def test_mistakes_are_one_line(self):
        where, empty = self.keep(known()), os.path.join(self.work, "empty")
        os.mkdir(empty)
        for args in ([], ["--quick"], [empty, "--from", where], ["--from", where, "--quick"],
                     ["--bogus", where], [os.path.join(self.work, "nowhere")], [empty], ["--from", empty],
                     ["--from", where, "--table", "--out", "x"], ["--from", where, "--table", "--readme", "x"],
                     ["--from", where, "--out", "y", "--readme", "x"], ["--readme", "x", where],
                     ["--from", os.path.join(where, "nothing")], ["--from"], [where, "more"]):
            with self.subTest(args):
                p = self.report(*args, status=2)
                self.assertEqual(p.stdout, "")
                self.assertRegex(p.stderr, r"^report: [^\n]+\n$")

    def test_bad_figures_are_one_line(self):
        good = known()["bench_fault"]
        for text in ("", "[]", "{", json.dumps({**good, "rows": [{"what": "x"}]}),
                     json.dumps({**good, "bench": "bench_pager"}), json.dumps({**good, "machine": {}}),
                     json.dumps({**good, "rows": [row("x", "big", 1, 1)]}),
                     json.dumps({k: v for k, v in good.items() if k != "skipped"})):
            with self.subTest(text[:40]):
                where = os.path.dirname(self.file("bad/bench_fault.json", text))
                p = self.report("--from", where, status=1)
                self.assertRegex(p.stderr, r"^report: [^\n]*bench_fault.json is not the JSON of bench_fault[^\n]*\n$")
        for text in ("", "[]", json.dumps({**good, "bench": "bench_nothing"})):
            p = self.report("--from", self.file("one", text), status=1)
            self.assertRegex(p.stderr, r"^report: [^\n]*one is not the JSON of a benchmark[^\n]*\n$")
        p = self.report("--from", self.keep(known()), "--out", os.path.join(self.work, "no/where"), status=1)
        self.assertRegex(p.stderr, r"^report: [^\n]+No such file or directory\n$")

    def test_plot_draws_the_same_rows(self):
        out, cache = os.path.join(self.work, "x.svg"), os.path.join(BENCH, "__pycache__")
        cached = os.path.exists(cache)
        for data in known().values():
            subprocess.run([sys.executable, os.path.join(BENCH, "plot.py"), out], input=json.dumps(data),
                           text=True, check=True, timeout=60, env=ENV)
            text = " ".join(xml.etree.ElementTree.parse(out).getroot().itertext())
            for r in data["rows"]:
                if r["vmfault_us"]:
                    self.assertIn(r["what"], text)
        self.assertEqual(os.path.exists(cache), cached, "the source tree is not written to")


if __name__ == "__main__":
    unittest.main()
