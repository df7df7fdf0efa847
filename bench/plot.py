#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Draw the JSON of a benchmark.

    bench_snapshot --json | plot.py snapshot.svg

Each row of the benchmark is a line between two dots on a logarithmic scale of
microseconds: vmfault is the filled one, the kernel the open one, and the ratio
stands at the right end.  Rows of one kind stand together, one line per size.

The picture is written as SVG without any library; for a .png it is handed to
rsvg-convert, inkscape or ImageMagick, whichever is there.
"""

import json
import shutil
import subprocess
import sys

sys.dont_write_bytecode = True
# pylint: disable=wrong-import-position
import figure

CONVERTERS = (
    ("rsvg-convert", lambda out: ["rsvg-convert", "-z", "1.5", "-o", out]),
    ("inkscape", lambda out: ["inkscape", "--pipe", "--export-type=png", "-o", out]),
    ("convert", lambda out: ["convert", "svg:-", "png:" + out]),
)


def draw(data):
    dots = figure.dots(data, data["bench"], 66)
    if dots is None:
        sys.exit("plot.py: there is nothing to draw")
    width, height, title, body = dots
    head = [figure.text(16, 24, data["bench"], size=16, weight="bold"),
            figure.text(16, 42, f"{figure.machine_text(data)}, {figure.when_text(data)}", size=11,
                        colour="grey")]
    return figure.standalone((width, height, title, "\n".join(head + [body])))


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: bench_snapshot --json | plot.py FILE.svg|FILE.png")
    out, svg = sys.argv[1], draw(json.load(sys.stdin))
    if not out.endswith(".png"):
        with open(out, "w", encoding="utf-8") as f:
            f.write(svg)
        return
    for name, command in CONVERTERS:
        if shutil.which(name):
            subprocess.run(command(out), input=svg.encode(), check=True)
            return
    sys.exit("plot.py: a .png needs rsvg-convert, inkscape or ImageMagick; .svg needs nothing")


if __name__ == "__main__":
    main()
