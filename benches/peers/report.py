"""What peers.py tells: tables in Markdown and a picture in SVG, of nothing but text."""

from dataclasses import dataclass
from html import escape

import numpy as np

from rivals import RIVALS

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
BASE = RIVALS[0].key

# Bars are cut here, and say so: some rivals take a hundred times as long, others a half.
LONGEST_RATIO = 6.0
WIDTH, LEFT, RIGHT, BAR, STEP, HEAD = 760, 190, 180, 16, 24, 46
SCALE = (WIDTH - LEFT - RIGHT) / LONGEST_RATIO

STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .exact { fill: #1a7f37 }
  .other { fill: #8c959f }
  .base { stroke: #1f2328; stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .exact { fill: #3fb950 }
    .other { fill: #6e7681 }
    .base { stroke: #e6edf3 }
  }
"""


@dataclass(frozen=True)
class Line:
    """A rival's results on one shape, the quickest first in tables and pictures."""

    rival: object
    result: dict
    seconds: float
    ratio: tuple  # quartiles of the paired ratios to rowfork's time

    @property
    def is_sample(self):
        return self.result["n_rows"] < self.result["all_rows"]


def lines(outcome):
    """Medians and paired ratios of one shape."""
    base = np.array(outcome["results"][BASE]["seconds"])
    found = []
    for rival in RIVALS:
        if result := outcome["results"].get(rival.key):
            seconds = np.array(result["seconds"])
            ratio = tuple(np.percentile(seconds / base, [25, 50, 75]))
            result = result | {"all_rows": outcome["shape"][0]}
            found.append(Line(rival, result, float(np.median(seconds)), ratio))
    return sorted(found, key=lambda line: line.ratio[1])


def short(number):
    """Three digits or so."""
    return f"{number:.2f}" if number < 10 else f"{number:.1f}" if number < 100 else f"{number:.0f}"


def exactness(line):
    """How many sums are not the nearest double, and by how much."""
    if line.rival.is_ceiling:
        return "no sums"
    if line.rival.exact:
        return "all"
    if line.result["rows_off"] == 0:
        return "all, by luck"
    share = 1 - line.result["rows_off"] / line.result["n_rows"]
    return f"{share:.0%}, others off by up to {line.result['max_ulps']:.0f} ulp"


def table(outcome):
    """One shape."""
    n_rows, n_columns = outcome["shape"]
    n_bytes = n_rows * n_columns * 8
    n_rounds = len(outcome["results"][BASE]["seconds"])
    said = [
        f"### {n_rows:,} x {n_columns}",
        "",
        f"{n_bytes / 2**20:,.0f} MiB, {outcome['huge_mib']:,} of them in 2 MiB pages, "
        f"{outcome['python_huge_mib']:,} as Python has them mapped; {n_rounds} rounds.",
        "",
        "| | ms | GB/s | time, rowfork forked = 1 (quartiles) | sums that are exact |",
        "|---|---|---|---|---|",
    ]
    for line in lines(outcome):
        low, middle, high = map(short, line.ratio)
        title = line.rival.title + (f" (from {line.result['n_rows']:,} rows)" if line.is_sample else "")
        title = f"**{title}**" if line.rival.key == BASE else title
        time, rate = short(line.seconds * 1e3), short(n_bytes / line.seconds / 1e9)
        said.append(f"| {title} | {time} | {rate} | {middle} ({low} to {high}) | {exactness(line)} |")
    for rival in RIVALS:
        if rival.key in outcome["skipped"]:
            said.append(f"| {rival.title} | | | not installed | |")
    return "\n".join(said)


def markdown(outcome):
    """All shapes, and what they ran on."""
    machine = outcome["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    extra = [
        np.median(np.subtract(shape["results"][BASE]["seen"], shape["results"][BASE]["seconds"]))
        for shape in outcome["shapes"]
    ]
    head = (
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['linux']}, "
        f"Python {machine['python']}; {packages}.\n"
        "Times of rowfork and rayon are the Rust program's own; "
        f"seen through its pipe a call takes {max(extra) * 1e3:.2f} ms more."
    )
    return "\n\n".join([head, *map(table, outcome["shapes"]), who()]) + "\n"


def who():
    """What each rival does."""
    said = [f"| {rival.title} | {rival.line} |" for rival in RIVALS]
    return "\n".join(["### Who does what", "", "| | |", "|---|---|", *said])


def bar(line, y):
    """One bar, its name before and its ratio behind it: and behind the mark of 1, which else would cross the number."""
    ratio = line.ratio[1]
    end = LEFT + min(ratio, LONGEST_RATIO) * SCALE
    # A bar that is cut ends in a tip.
    tip = BAR / 2 if ratio > LONGEST_RATIO else 0
    shape = f"M{LEFT} {y} H{end:.1f} l{tip} {BAR / 2} l{-tip} {BAR / 2} H{LEFT} Z"
    kind = "exact" if line.rival.exact else "other"
    notes = {", exact": line.rival.exact, ", no sums": line.rival.is_ceiling, ", from a sample": line.is_sample}
    label = short(ratio) + "".join(note for note, holds in notes.items() if holds)
    return (
        f'<text x="{LEFT - 8}" y="{y + BAR - 3}" text-anchor="end">{escape(line.rival.title)}</text>'
        f'<path class="{kind}" d="{shape}"/>'
        f'<text x="{max(end + tip, LEFT + SCALE) + 6:.1f}" y="{y + BAR - 3}">{label}</text>'
    )


def panel(outcome, top):
    """One shape, from `top` down; and where it ends."""
    n_rows, n_columns = outcome["shape"]
    found = lines(outcome)
    bottom = top + HEAD + STEP * len(found)
    one = LEFT + SCALE
    title = f"{n_rows:,} x {n_columns}: time for the sums of all rows, rowfork with forked workers = 1"
    drawn = [f'<text class="title" x="12" y="{top + 26}">{title}</text>']
    drawn += [bar(line, top + HEAD + STEP * i) for i, line in enumerate(found)]
    drawn.append(f'<path class="base" d="M{one:.1f} {top + HEAD - 6} V{bottom}"/>')
    return "\n".join(drawn), bottom


def svg(outcome):
    """All shapes below each other. No background, and colours for light and for dark pages."""
    drawn, bottom = [], 0
    for shape in outcome["shapes"]:
        text, bottom = panel(shape, bottom)
        drawn.append(text)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 12}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *drawn, "</svg>"]) + "\n"


def rewrite_docs(directory, outcome):
    """The tables between the two marks of BENCHMARKS.md, and the picture beside it."""
    page = directory / "BENCHMARKS.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"{page} has no {BEGIN} and {END} to write between")
    (directory / "peers.svg").write_text(svg(outcome))
    page.write_text(f"{before}{BEGIN}\n{markdown(outcome)}{END}{after}")
