#!/usr/bin/env python3
"""NumPy and the command `rowfork`, both ways: a matrix that NumPy makes in shared memory is summed where it lies, the answer is
mapped and compared with math.fsum, and nothing is left behind.

python3 examples/numpy_both_ways.py [ROWS [COLUMNS]]

`rowfork` has to be on the PATH: cargo install --path . --features cli
"""

import math
import os
import shutil
import subprocess
import sys
import time

try:
    import numpy as np
except ImportError:
    sys.exit("numpy_both_ways: NumPy is not installed (python3 -m pip install numpy)")


def count(text):
    """A number from 1 on, or the end."""
    if not text.isdecimal() or int(text) == 0:
        sys.exit(f"numpy_both_ways: {text!r} is no number of rows or columns; usage: numpy_both_ways.py [ROWS [COLUMNS]]")
    return int(text)


def rowfork(*arguments):
    """Runs the command. What it has to say stands on standard error by then, in one line."""
    status = subprocess.run(["rowfork", *arguments]).returncode
    if status != 0:
        sys.exit(f"numpy_both_ways: rowfork {arguments[0]} ended with exit code {status}")


def shared(path, shape):
    """A matrix in shared memory. All of its memory is had here: on a full /dev/shm a sparse file is a SIGBUS later."""
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype="<f8", shape=shape)
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
        except OSError as error:
            sys.exit(f"numpy_both_ways: {matrix.nbytes} bytes in /dev/shm: {error.strerror}; try fewer rows")
    return matrix


def main():
    given = [count(text) for text in sys.argv[1:3]]
    n_rows, n_columns = given + [10_000, 128][len(given) :]
    if shutil.which("rowfork") is None:
        sys.exit("numpy_both_ways: no command rowfork on the PATH (cargo install --path . --features cli)")

    # Two of these at a time do not get in each other's way.
    hours, sums = f"rowfork-hours-{os.getpid()}", f"rowfork-sums-{os.getpid()}"
    try:
        matrix = shared(f"/dev/shm/{hours}", (n_rows, n_columns))
        matrix[:] = np.random.default_rng(7).normal(15.0, 8.0, size=matrix.shape)

        start = time.perf_counter()
        rowfork("sum", f"shm:{hours}", "-o", f"shm:{sums}")
        took = time.perf_counter() - start

        answer = np.load(f"/dev/shm/{sums}", mmap_mode="r")  # no copy here either
        wrong = [i for i, row in enumerate(matrix) if answer[i] != math.fsum(row)]
        if wrong:
            sys.exit(f"numpy_both_ways: {len(wrong)} sums are not those of math.fsum, the first of row {wrong[0]}")
        print(f"{n_rows} rows of {n_columns}: every sum is that of math.fsum, to the last bit ({took * 1e3:.0f} ms in all)")
    finally:
        # Whoever made it takes it away. The mappings keep the memory until they go.
        if os.path.exists(f"/dev/shm/{hours}"):
            os.unlink(f"/dev/shm/{hours}")
        if os.path.exists(f"/dev/shm/{sums}"):
            rowfork("rm", sums)


if __name__ == "__main__":
    main()
