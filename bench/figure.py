# SPDX-License-Identifier: BSD-2-Clause
"""Figures of benchmarks as SVG, drawn without any library.

What plot.py and report share: how sizes, times and machines are written, a
logarithmic scale, and two kinds of figure: lines(), values against something that
grows, and dots(), a line between two dots for each row of a benchmark.

vmfault is blue and filled, the kernel is orange and open, so that the two can be told
apart without the colours.  Colours are classes.  standalone() makes a file of a figure, with light
colours in it; a page that holds figures has css() in its style sheet, with variables.
"""

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

LIGHT = {"paper": "#ffffff", "ink": "#1f1f1f", "grey": "#626262", "grid": "#dddddd",
         "vmfault": "#0067a5", "kernel": "#b84a00"}
DARK = {"paper": "#15171a", "ink": "#e8e8e8", "grey": "#a6a6a6", "grid": "#3b3e43",
        "vmfault": "#5cb8f0", "kernel": "#f09a3e"}


def css(colour):
    """The style of figures; colour makes what stands in it of a colour's name."""
    return "\n".join(
        [f".f-{name} {{ fill: {colour(name)}; }}\n.s-{name} {{ stroke: {colour(name)}; }}"
         for name in LIGHT] + [".line { fill: none; stroke-width: 2; }"])


def standalone(figure):
    """The text of an .svg file."""
    width, height, title, body = figure
    return "\n".join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
         f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
         f"<title>{escape(title)}</title>",
         f"<style>{css(LIGHT.get)}</style>",
         f'<rect class="f-paper" width="{width}" height="{height}"/>', body, "</svg>", ""])


def beside(title, figures):
    """Several as one, from left to right."""
    out, x = [], 0
    for width, _, _, body in figures:
        out.append(f'<g transform="translate({x} 0)">\n{body}\n</g>')
        x += width
    return x, max(height for _, height, _, _ in figures), title, "\n".join(out)


def inline(figure):
    """A figure as part of a page."""
    width, height, title, body = figure
    return (f'<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif">\n<title>{escape(title)}</title>\n{body}\n</svg>')


# How things are written

def size_text(size):
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if size >= 1 << shift and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def time_text(us):
    for unit, factor in (("s", 1e6), ("ms", 1e3), ("µs", 1)):
        if us >= factor:
            return f"{us / factor:.3g} {unit}"
    return f"{us * 1e3:.3g} ns"


def number(value, digits=3):
    """So many digits that count, or more before the point; never an exponent."""
    if value is None:
        return "–"
    before = math.floor(math.log10(abs(value))) + 1 if value else 1
    return f"{value:.{max(digits - before, 0)}f}"


def machine_text(data):
    m = data["machine"]
    return (f'{m["cpu"]}, {m["cores"]} cores{" (virtual)" if m["virtual"] else ""}, '
            f'{m["memory"] / (1 << 30):.1f} GB of memory, {m["kernel"]}, {m["bits"]}-bit')


def when_text(data):
    rounds = data["rounds"]
    return f'{data["when"]}, {rounds} round{"s" if rounds != 1 else ""}, medians'


# What figures are made of

def text(x, y, s, anchor="start", size=12, colour="ink", weight="normal"):
    return (f'<text class="f-{colour}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
            f'font-size="{size}" font-weight="{weight}">{escape(s)}</text>')


def rule(x1, y1, x2, y2, colour="grid", more=""):
    return (f'<line class="s-{colour}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" '
            f'y2="{y2:.1f}"{more}/>')


def dot(x, y, side, title=""):
    """Filled for vmfault, open for the kernel."""
    fill = "vmfault" if side == "vmfault" else "paper"
    inner = f"<title>{escape(title)}</title>" if title else ""
    return (f'<circle class="f-{fill} s-{side}" cx="{x:.1f}" cy="{y:.1f}" r="4.5" '
            f'stroke-width="2">{inner}</circle>')


class Log:
    """A logarithmic scale from one pixel to another, of whole decades; tight: of these values,
    which are its ticks."""

    def __init__(self, values, start, end, label, tight=False):
        logs = [math.log10(v) for v in values]
        self.values = sorted(values) if tight else None
        self.low = min(logs) - 0.1 if tight else math.floor(min(logs) + 1e-9)
        self.high = max(logs) + 0.1 if tight else max(math.ceil(max(logs) - 1e-9), self.low + 1)
        self.start, self.end, self.label = start, end, label

    def at(self, value):
        return self.start + (self.end - self.start) * (math.log10(value) - self.low) / (
            self.high - self.low)

    def ticks(self):
        if self.values:
            return self.values
        few = self.high - self.low <= 2
        return [m * 10.0 ** e for e in range(self.low, self.high + 1)
                for m in ((1, 2, 5) if few and e < self.high else (1,))]


class Steps:
    """A scale of given values at equal distances."""

    def __init__(self, values, start, end, label):
        self.values, self.start, self.end, self.label = list(values), start, end, label

    def at(self, value):
        n = max(len(self.values) - 1, 1)
        return self.start + (self.end - self.start) * self.values.index(value) / n

    def ticks(self):
        return self.values


@dataclass
class Line:
    """A line of lines(): points are (x, y), or (x, y, lowest, highest)."""
    name: str
    side: str
    points: list
    dashed: bool = False


def apart(wanted, distance):
    """Positions near the wanted ones, in their order, but so far apart."""
    out = []
    for y in wanted:
        out.append(max(y, out[-1] + distance) if out else y)
    return out


LEFT, RIGHT, TOP, BOTTOM = 70, 150, 30, 50


def lines(title, series, x_name, y_name, x_label, y_label=time_text, even=None, mark=None,
          values=False, width=680, height=360):
    """Values against something that grows.  even: the steps of x, where they are not a
    logarithmic scale; mark: a value of y with its name, to compare with; values: write them at the
    points.  None if there is nothing."""
    series = [s for s in series if s.points]
    if not series:
        return None
    across = {p[0] for s in series for p in s.points}
    up = [y for s in series for p in s.points for y in p[1:]] + ([mark[0]] if mark else [])
    if even:
        x = Steps([v for v in even if v in across], LEFT + 20, width - RIGHT - 20, x_label)
    else:
        x = Log(across, LEFT, width - RIGHT, x_label, tight=True)
    y = Log(up, height - BOTTOM, TOP, y_label)

    out = []
    for v in y.ticks():
        out += [rule(LEFT, y.at(v), width - RIGHT, y.at(v)),
                text(LEFT - 8, y.at(v) + 4, y.label(v), "end", 11, "grey")]
    for v in x.ticks():
        out += [rule(x.at(v), height - BOTTOM, x.at(v), height - BOTTOM + 5, "grey"),
                text(x.at(v), height - BOTTOM + 18, x.label(v), "middle", 11, "grey")]
    out += [text((LEFT + width - RIGHT) / 2, height - 10, x_name, "middle"),
            text(LEFT - 54, 16, y_name)]
    if mark:
        out += [rule(LEFT, y.at(mark[0]), width - RIGHT, y.at(mark[0]), "ink"),
                text(LEFT + (width - RIGHT - LEFT) / 4, y.at(mark[0]) - 5, mark[1], "middle", 11)]
    top = {v: max(p[1] for s in series for p in s.points if p[0] == v) for v in across}

    for s in series:
        dash = ' stroke-dasharray="6 4"' if s.dashed else ""
        path = " ".join(f"{x.at(p[0]):.1f},{y.at(p[1]):.1f}" for p in s.points)
        out.append(f'<polyline class="line s-{s.side}" points="{path}"{dash}/>')
        for p in s.points:
            if len(p) == 4:
                out.append(rule(x.at(p[0]), y.at(p[2]), x.at(p[0]), y.at(p[3]), s.side))
            what = f"{s.name}, {x.label(p[0])}: {y.label(p[1])}"
            out.append(dot(x.at(p[0]), y.at(p[1]), s.side, what))
            if values:
                out.append(text(x.at(p[0]), y.at(p[1]) + (-9 if p[1] == top[p[0]] else 18),
                                y.label(p[1]), "middle", 11))

    ends = sorted(series, key=lambda s: y.at(s.points[-1][1]))
    for s, at in zip(ends, apart([y.at(s.points[-1][1]) for s in ends], 15)):
        out.append(text(width - RIGHT + 6, at + 4, s.name, size=12, colour=s.side))
    return width, height, title, "\n".join(out)


D_WIDTH, D_RIGHT, D_LINE = 520, 90, 17


def dots(data, title, top):
    """Each row of a benchmark: a line between two dots, the ratio at the right
    end.  Rows of one kind stand together, a line for each size.  None if there is nothing."""
    rows = [r for r in data["rows"] if r["vmfault_us"] or r["kernel_us"]]
    if not rows:
        return None
    several = len({r["size"] for r in rows}) > 1
    names = {r["what"]: r["what"] + (" (a page)" if r.get("per") == "page" else "") for r in rows}
    left = 6.8 * max(len(n) for n in names.values()) + (72 if several else 24)
    edge = left + D_WIDTH
    scale = Log([r[k] for r in rows for k in ("vmfault_us", "kernel_us") if r[k]], left, edge,
                time_text)
    at = scale.at
    out, y = [], top + 26
    for kind, name in names.items():
        y += 8 if several else 0
        for i, row in enumerate(r for r in rows if r["what"] == kind):
            y += D_LINE
            if i == 0:
                out.append(text(left - (60 if several else 12), y + 4, name, "end"))
            if several:
                out.append(text(left - 12, y + 4, size_text(row["size"]), "end", 11, "grey"))
            v, k = row["vmfault_us"], row["kernel_us"]
            if v and k:
                out.append(rule(at(v), y, at(k), y, "vmfault" if v < k else "kernel",
                                ' stroke-width="2.5" stroke-opacity="0.35"'))
                out.append(text(edge + D_RIGHT - 12, y + 4, f'{v / k:.3f}', "end", 11))
            for us, side in ((k, "kernel"), (v, "vmfault")):
                if us:
                    out.append(dot(at(us), y, side, f"{kind}, {side}: {number(us)} µs"))
    bottom = y + D_LINE
    grid = []
    for v in scale.ticks():
        grid.append(rule(at(v), top + 26, at(v), bottom))
        for line in (top + 20, bottom + 14):
            grid.append(text(at(v), line, time_text(v), "middle", 11, "grey"))
    legend = [dot(edge - 150, top - 4, "vmfault"), text(edge - 140, top, "vmfault"),
              dot(edge - 70, top - 4, "kernel"), text(edge - 60, top, "kernel"),
              text(edge + D_RIGHT - 12, top + 20, "ratio", "end", 11, "grey")]
    return round(edge + D_RIGHT), bottom + 28, title, "\n".join(grid + legend + out)
