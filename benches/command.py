#!/usr/bin/env python3
"""The command beside NumPy and cp: from the start of the process to its end, rivals alternating in one run, medians.

    cargo build --release --features cli && python3 benches/command.py [--rounds 11] [--big] [--dir DIR]

Needs NumPy, 5 GiB of disk (13 with --big), 5 GiB in /dev/shm and as much besides, a quiet machine. DIR is where the files are made; it must
be on a disk, and what is read of them is in the page cache, which is checked by reading them before.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROWFORK = os.path.join(HERE, "..", "target", "release", "rowfork")
GIB = 1 << 30
COLUMNS = 1024

NUMPY = "import sys, numpy as np; np.save(sys.argv[2], np.load(sys.argv[1]).sum(axis=1))"
NUMPY_MAPPED = "import sys, numpy as np; np.save(sys.argv[2], np.load(sys.argv[1], mmap_mode='r').sum(axis=1))"


def seconds(*command):
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def make(path, gib):
    """A file of so many GiB, of normally distributed numbers; its pages stay in the cache if there is room."""
    rows = gib * GIB // (8 * COLUMNS)
    block = np.random.default_rng(1).standard_normal((8192, COLUMNS))
    with open(path, "wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (rows, COLUMNS)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, rows, len(block)):
            block[0, 0] = start
            block[: rows - start].tofile(file)
    return path


def warm(path):
    with open(path, "rb", buffering=0) as file:
        while file.read(64 << 20):
            pass


def touch_memory(gib):
    """A virtual machine may have to ask its host for memory that was free for a while, at a tenth of the speed: this is had."""
    np.ones(gib * GIB // 8)


def alternate(rivals, rounds, before=lambda: None, after=lambda: None):
    """The times of each rival by name, taken in turn."""
    times = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, run in rivals.items():
            before()
            times[name].append(run())
            after()
    return times


def table(title, times, ours):
    print(f"\n{title}")
    mine = times[ours]
    for name, theirs in times.items():
        ratios = [a / b for a, b in zip(mine, theirs)]
        print(f"  {name:34} {statistics.median(theirs) * 1e3:9.1f} ms   ours / it {statistics.median(ratios):5.2f}"
              f"   (from {min(theirs) * 1e3:.1f} to {max(theirs) * 1e3:.1f})")


def sums(directory, rounds):
    matrix = make(os.path.join(directory, "one.npy"), 1)
    out, theirs = os.path.join(directory, "out.npy"), os.path.join(directory, "theirs.npy")
    seconds(ROWFORK, "sum", matrix, "-o", out)
    seconds(sys.executable, "-c", NUMPY, matrix, theirs)
    assert np.allclose(np.load(out), np.load(theirs), rtol=0, atol=1e-9)
    warm(matrix)
    rivals = {"rowfork sum": lambda: seconds(ROWFORK, "sum", matrix, "-o", out)}
    for executor in ("pool",):
        rivals[f"rowfork sum --executor {executor}"] = lambda: seconds(
            ROWFORK, "sum", matrix, "-o", out, "--executor", executor)
    rivals["rowfork sum-fast"] = lambda: seconds(ROWFORK, "sum-fast", matrix, "-o", out)
    rivals["rowfork load, sum shm:, rm"] = lambda: placed(matrix, out)
    rivals["python: np.load, sum, np.save"] = lambda: seconds(sys.executable, "-c", NUMPY, matrix, theirs)
    rivals["python: np.load mapped, likewise"] = lambda: seconds(sys.executable, "-c", NUMPY_MAPPED, matrix, theirs)
    table("sums of the rows of 1 GiB (131072 x 1024) in the page cache, start to exit", alternate(rivals, rounds), "rowfork sum")
    os.remove(matrix)


def placed(matrix, out):
    name = f"rowfork-bench-{os.getpid()}"
    start = time.perf_counter()
    for command in (["load", "-q", matrix, name], ["sum", f"shm:{name}", "-o", out], ["rm", name]):
        subprocess.run([ROWFORK, *command], check=True)
    return time.perf_counter() - start


def placing(directory, rounds):
    matrix = make(os.path.join(directory, "four.npy"), 4)
    name = f"rowfork-bench-{os.getpid()}"
    path = f"/dev/shm/{name}"
    warm(matrix)
    rivals = {
        "rowfork load": lambda: seconds(ROWFORK, "load", "-q", matrix, name),
        "cp": lambda: seconds("cp", matrix, path),
    }

    def clear():
        with open(path, "rb") as copy, open(matrix, "rb") as original:
            ours = os.fstat(copy.fileno()).st_size - 4 * GIB
            copy.seek(ours + 3 * GIB), original.seek(128 + 3 * GIB)
            assert copy.read(1 << 20) == original.read(1 << 20)
        os.remove(path)

    title = "4 GiB from the page cache into /dev/shm"
    warmed = alternate(rivals, rounds, before=lambda: touch_memory(5), after=clear)
    table(f"{title}, memory touched and freed just before", warmed, "rowfork load")
    table(f"{title}, memory as it comes", alternate(rivals, rounds, after=clear), "rowfork load")
    os.remove(matrix)


def starting(rounds):
    rivals = {"rowfork --version": lambda: seconds(ROWFORK, "--version"), "true": lambda: seconds("true")}
    table("start and end", alternate(rivals, 10 * rounds), "rowfork --version")


def private_memory(directory):
    """12 GiB, with a look every few milliseconds at the private pages of all processes of the command together."""
    matrix, out = make(os.path.join(directory, "twelve.npy"), 12), os.path.join(directory, "out.npy")
    for executor in ("fork", "pool"):
        start = time.perf_counter()
        child = subprocess.Popen([ROWFORK, "sum", matrix, "-o", out, "--executor", executor], start_new_session=True)
        peaks = {"Private_Clean": 0, "Private_Dirty": 0, "both": 0}
        while child.poll() is None:
            now = {"Private_Clean": 0, "Private_Dirty": 0}
            for pid in processes(child.pid):
                try:
                    with open(f"/proc/{pid}/smaps_rollup") as rollup:
                        fields = dict(line.split(":", 1) for line in rollup if line.startswith("Private_"))
                except OSError:
                    continue
                for kind in now:
                    now[kind] += int(fields.get(kind, "0 kB").split()[0])
            now["both"] = sum(now.values())
            peaks = {kind: max(peaks[kind], now[kind]) for kind in peaks}
            time.sleep(0.005)
        assert child.returncode == 0 and len(np.load(out)) == 12 * GIB // (8 * COLUMNS)
        told = ", ".join(f"{kind} {kib / 1024:.1f} MiB" for kind, kib in peaks.items())
        print(f"\nsums of 12 GiB by {executor}: {time.perf_counter() - start:.1f} s; peaks of all processes together: {told}")
    os.remove(matrix)


def processes(session):
    """Those of a session."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if int(stat.read().rsplit(") ", 1)[1].split()[3]) == session:
                    yield pid
        except OSError:
            pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--big", action="store_true", help="the memory of a sum over 12 GiB, too")
    parser.add_argument("--dir", default=os.path.join(HERE, "..", "target"))
    args = parser.parse_args()
    if not os.path.exists(ROWFORK):
        sys.exit("build it first: cargo build --release --features cli")
    with tempfile.TemporaryDirectory(dir=args.dir) as directory:
        starting(args.rounds)
        sums(directory, args.rounds)
        placing(directory, max(args.rounds // 2, 1))
        if args.big:
            private_memory(directory)


main()
