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
import math
import shutil
import subprocess
import sys
from xml.sax.saxutils import escape

LEFT, WIDTH, RIGHT, LINE, TOP = 300, 520, 90, 17, 78
VMFAULT, KERNEL, GREY = "#0b6e4f", "#b3541e", "#999999"
CONVERTERS = (
    ("rsvg-convert", lambda out: ["rsvg-convert", "-z", "1.5", "-o", out]),
    ("inkscape", lambda out: ["inkscape", "--pipe", "--export-type=png", "-o", out]),
    ("convert", lambda out: ["convert", "svg:-", "png:" + out]),
)


def size_text(size):
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def time_text(us):
    if us >= 1e6:
        return f"{us / 1e6:g} s"
    if us >= 1e3:
        return f"{us / 1e3:g} ms"
    return f"{us:g} µs"


def text(x, y, s, anchor="start", size=12, colour="#222222", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'font-weight="{weight}" fill="{colour}">{escape(s)}</text>')


def draw(data):
    rows = [r for r in data["rows"] if r["vmfault_us"] or r["kernel_us"]]
    if not rows:
        sys.exit("plot.py: there is nothing to draw")
    values = [r[k] for r in rows for k in ("vmfault_us", "kernel_us") if r[k]]
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + 1)

    def at(us):
        return LEFT + WIDTH * (math.log10(us) - low) / (high - low)

    kinds = list(dict.fromkeys(r["what"] for r in rows))
    several = len({r["size"] for r in rows}) > 1
    out, y = [], TOP
    for kind in kinds:
        y += 8 if several else 0
        for i, row in enumerate(r for r in rows if r["what"] == kind):
            y += LINE
            if i == 0:
                per = " (a page)" if row.get("per") == "page" else ""
                out.append(text(LEFT - 60 if several else LEFT - 12, y + 4, kind + per, "end"))
            if several:
                out.append(text(LEFT - 12, y + 4, size_text(row["size"]), "end", 11, GREY))
            v, k = row["vmfault_us"], row["kernel_us"]
            if v and k:
                out.append(f'<line x1="{at(v):.1f}" x2="{at(k):.1f}" y1="{y}" y2="{y}" '
                           f'stroke="{VMFAULT if v < k else KERNEL}" stroke-width="2.5" '
                           'stroke-opacity="0.35"/>')
                out.append(text(LEFT + WIDTH + RIGHT - 12, y + 4, f'{row["ratio"]:.3f}', "end", 11))
            if k:
                out.append(f'<circle cx="{at(k):.1f}" cy="{y}" r="4.5" fill="white" '
                           f'stroke="{KERNEL}" stroke-width="2"/>')
            if v:
                out.append(f'<circle cx="{at(v):.1f}" cy="{y}" r="4.5" fill="{VMFAULT}"/>')
    bottom = y + LINE
    scale = []
    for e in range(low, high + 1):
        x = at(10 ** e)
        scale.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}" '
                     'stroke="#e4e4e4"/>')
        scale.append(text(x, TOP - 6, time_text(10 ** e), "middle", 11, GREY))
        scale.append(text(x, bottom + 14, time_text(10 ** e), "middle", 11, GREY))
    m = data["machine"]
    head = [
        text(16, 24, data["bench"], size=16, weight="bold"),
        text(16, 44, f'{m["cpu"]}, {m["cores"]} cores{" (virtual)" if m["virtual"] else ""}, '
             f'{m["kernel"]}, {m["bits"]}-bit, {data["when"]}, {data["rounds"]} rounds, medians',
             size=11, colour=GREY),
        f'<circle cx="{LEFT + WIDTH - 150}" cy="20" r="4.5" fill="{VMFAULT}"/>',
        text(LEFT + WIDTH - 140, 24, "vmfault"),
        f'<circle cx="{LEFT + WIDTH - 70}" cy="20" r="4.5" fill="white" stroke="{KERNEL}" '
        'stroke-width="2"/>',
        text(LEFT + WIDTH - 60, 24, "kernel"),
        text(LEFT + WIDTH + RIGHT - 12, TOP - 6, "ratio", "end", 11, GREY),
    ]
    width, height = LEFT + WIDTH + RIGHT, bottom + 28
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
         f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
         f'<rect width="{width}" height="{height}" fill="white"/>'] + scale + head + out +
        ["</svg>", ""])


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
