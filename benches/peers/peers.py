#!/usr/bin/env python3
"""Row sums by rowfork and by others, over the same matrix in the same segment, in turns.

Every answer is checked before it is timed. docs/BENCHMARKS.md says how to read the outcome.
"""

import os

N_WORKERS = len(os.sched_getaffinity(0))
for library in ("OPENBLAS", "OMP", "MKL"):  # read when the libraries are loaded
    os.environ[f"{library}_NUM_THREADS"] = str(N_WORKERS)

import argparse
import contextlib
import json
import platform
import signal
import sys
import time
from importlib import metadata
from math import fsum
from pathlib import Path

import numpy as np

import report
from rivals import RIVALS, Bench
from server import Server, build, huge_mib

SHAPES = [(131_072, 1024), (1_342_177, 100), (16_777_216, 8)]  # 1 GiB each
QUICK_SHAPE = (5000, 100)
PACKAGES = ["numpy", "numba", "bottleneck", "joblib", "pymp-pypi"]
# Threads of OpenBLAS spin for some 40 ms after their work is done: not in the time of whoever comes next.
PAUSE_SECONDS = 0.1
# Rows whose exact sums are asked of Python, too.
ORACLE_ROWS = 10_000


def options():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, help="with --cols: this shape instead of three of 1 GiB")
    parser.add_argument("--cols", type=int)
    parser.add_argument("--rounds", type=int, default=16, help="each rival runs once in each (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="a tiny shape and 4 rounds, to see that all is there")
    parser.add_argument("--from", dest="source", metavar="JSON", type=Path, help="no measuring: what --json wrote")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every time of every round")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="write the tables")
    parser.add_argument("--svg", metavar="FILE", type=Path, help="write the picture")
    parser.add_argument("--docs", metavar="DIR", type=Path, help="rewrite BENCHMARKS.md's tables and peers.svg there")
    chosen = parser.parse_args()
    if (chosen.rows is None) != (chosen.cols is None):
        parser.error("--rows and --cols go together")
    if min(chosen.rounds, chosen.rows or 1, chosen.cols or 1) < 1:
        parser.error("--rows, --cols and --rounds take numbers from 1 on")
    return chosen


def in_turns(rivals, n_rounds):
    """The order of each round: there and back again, and everybody is first and last at some time."""
    for i in range(n_rounds):
        first = i // 2 % len(rivals)
        order = rivals[first:] + rivals[:first]
        yield order[::-1] if i % 2 else order


def clock(call):
    """Seconds until the sums are there: by the Rust program's own clock, where it is what sums; and as seen here."""
    start = time.perf_counter()
    call()
    seen = time.perf_counter() - start
    return getattr(call, "seconds", seen), seen


def exact_sums(bench):
    """rowfork's sums of all rows, which have to be Python's bit for bit wherever we ask for those."""
    bench.server.ask("fork")
    exact = bench.server.sums.copy()
    for i in np.linspace(0, len(exact) - 1, min(len(exact), ORACLE_ROWS)).astype(int):
        if fsum(bench.rows[i].tolist()) != exact[i]:
            raise SystemExit(f"rowfork's sum of row {i} is not math.fsum's")
    return exact


def check(rival, call, bench, exact):
    """How exact a rival's sums are, in units in the last place; ends everything if they are wrong."""
    if rival.is_ceiling:
        call()  # where the server finds the best way to read
        return {"n_rows": len(exact), "rows_off": 0, "max_ulps": 0.0}
    bench.server.sums[:] = np.nan  # what others have left there proves nothing
    sums = call()
    exact = exact[: len(sums)]
    error = np.abs(sums - exact)
    # Elements are not negative: any order of additions stays within this.
    bound = 0.0 if rival.exact else bench.rows.shape[1] * np.finfo(float).eps * exact
    if not np.all(error <= bound):
        raise SystemExit(f"{rival.title}: wrong sums, off by up to {np.max(error)}")
    return {
        "n_rows": len(sums),
        "rows_off": int(np.count_nonzero(error)),
        "max_ulps": float(np.max(error / np.spacing(exact), initial=0)),
    }


def set_up(stack, bench):
    """The calls of all rivals that there are, by key; and why others are left out."""
    calls, skipped = {}, {}
    for rival in RIVALS:
        try:
            calls[rival.key] = stack.enter_context(rival.set_up(bench))
        except ImportError as error:
            skipped[rival.key] = str(error)
            print(f"SKIPPED {rival.title}: {error}")
    return calls, skipped


def measure(program, shape, n_rounds):
    """One shape, all rivals, all rounds."""
    with contextlib.ExitStack() as stack:
        server = Server(program, *shape, N_WORKERS)
        stack.callback(server.close)
        bench = Bench(server, server.rows, N_WORKERS)
        calls, skipped = set_up(stack, bench)
        exact = exact_sums(bench)
        rivals = [rival for rival in RIVALS if rival.key in calls]
        results = {r.key: check(r, calls[r.key], bench, exact) | {"seconds": [], "seen": []} for r in rivals}
        for i, order in enumerate(in_turns(rivals, n_rounds)):
            print(f"\r{shape[0]} x {shape[1]}: round {i + 1} of {n_rounds}", end="", file=sys.stderr, flush=True)
            for rival in order:
                time.sleep(PAUSE_SECONDS)
                result = results[rival.key]
                scale = shape[0] / result["n_rows"]  # of a rival that sums a sample
                for key, seconds in zip(("seconds", "seen"), clock(calls[rival.key])):
                    result[key].append(seconds * scale)
        print(file=sys.stderr)
        pages = {"huge_mib": server.huge_mib, "python_huge_mib": huge_mib(server.rows.ctypes.data)}
        return {"shape": shape, **pages, "results": results, "skipped": skipped}


def machine():
    """What ran, on what."""
    cpu = next((line for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown: unknown")
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "cpu": cpu.split(":")[1].strip(),
        "cores": N_WORKERS,
        "linux": platform.release().split("-")[0],
        "python": platform.python_version(),
        "packages": versions,
    }


def measure_all(chosen):
    """All shapes that were asked for, one after the other."""
    shapes, n_rounds = SHAPES, chosen.rounds
    if chosen.quick:
        shapes, n_rounds = [QUICK_SHAPE], 4
    if chosen.rows:
        shapes = [(chosen.rows, chosen.cols)]
    program = build()
    return {"machine": machine(), "shapes": [measure(program, shape, n_rounds) for shape in shapes]}


def main():
    chosen = options()
    # As ^C does: through every `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    outcome = json.loads(chosen.source.read_text()) if chosen.source else measure_all(chosen)
    if chosen.json:
        chosen.json.write_text(json.dumps(outcome) + "\n")
    if chosen.markdown:
        chosen.markdown.write_text(report.markdown(outcome))
    if chosen.svg:
        chosen.svg.write_text(report.svg(outcome))
    if chosen.docs:
        report.rewrite_docs(chosen.docs, outcome)
    print(report.markdown(outcome))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
