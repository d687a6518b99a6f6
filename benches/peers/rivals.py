"""Everybody who sums rows. A rival is a context manager: it sets up what a program would set up once, and gives a
function that sums all rows of `bench.rows` and returns the sums. Packages are imported in there: without one its rival
is left out, and the others stay. Where a rival can write into an output that is there already, it does.
"""

import contextlib
import multiprocessing
import signal
from dataclasses import dataclass
from functools import cache, partial
from math import fsum
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from server import map_aligned

# What is pickled at a time: one chunk waits in its pipe, one is being read by each worker.
PICKLED_BYTES = 16 << 20
# Python's exact sum takes a minute for 1 GiB: it sums so many rows, and the rest is arithmetic.
FSUM_ROWS = 2000


@dataclass(frozen=True)
class Rival:
    """`line` says in the docs what it does; `exact` is what it promises, and is checked bit for bit. A ceiling has no sums."""

    key: str
    title: str
    line: str
    set_up: object
    exact: bool = False
    is_ceiling: bool = False


@dataclass(frozen=True)
class Bench:
    """What rivals are given: `rows` is the server's memory."""

    server: object
    rows: np.ndarray
    n_workers: int

    def spans(self, n):
        """All rows in `n` parts of about the same length."""
        bounds = [len(self.rows) * i // n for i in range(n + 1)]
        return [span for span in zip(bounds, bounds[1:]) if span[0] < span[1]]


def row_sums(rows):
    """What worker processes run."""
    return np.asarray(rows).sum(axis=1)


mapped_once = cache(map_aligned)


def mapped_row_sums(path, lo, hi):
    """The same in processes that are started, not forked: the first call in each maps the matrix."""
    return row_sums(mapped_once(path)[lo:hi])


def default_signals():
    """For workers: ^C and the end are the driver's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def rowfork(command, bench):
    """One command of the Rust program, whose own clock counts: `seconds` is what the caller of rowfork waits."""

    def call():
        call.seconds = bench.server.ask(command)
        return bench.server.sums

    yield call


@contextlib.contextmanager
def numpy_sum(bench):
    out = np.empty(len(bench.rows))
    yield partial(bench.rows.sum, axis=1, out=out)


@contextlib.contextmanager
def openblas(bench):
    ones, out = np.ones(bench.rows.shape[1]), np.empty(len(bench.rows))
    yield partial(np.dot, bench.rows, ones, out=out)


@contextlib.contextmanager
def numba_prange(fastmath, bench):
    import numba

    numba.set_num_threads(bench.n_workers)

    @numba.njit(parallel=True, fastmath=fastmath)
    def loop(rows, out):
        for i in numba.prange(rows.shape[0]):
            total = 0.0
            for j in range(rows.shape[1]):
                total += rows[i, j]
            out[i] = total
        return out

    yield partial(loop, bench.rows, np.empty(len(bench.rows)))


@contextlib.contextmanager
def bottleneck(bench):
    import bottleneck as bn

    yield partial(bn.nansum, bench.rows, axis=1)


@contextlib.contextmanager
def joblib_loky(bench):
    import joblib
    from joblib.externals.loky import get_reusable_executor

    tasks = [joblib.delayed(mapped_row_sums)(bench.server.path, *span) for span in bench.spans(4 * bench.n_workers)]
    try:
        with joblib.Parallel(n_jobs=bench.n_workers, backend="loky") as parallel:
            yield lambda: np.concatenate(parallel(tasks))
    finally:
        get_reusable_executor().shutdown(wait=True, kill_workers=True)


@contextlib.contextmanager
def pymp_regions(bench):
    import pymp

    out = pymp.shared.array((len(bench.rows),), dtype="float64")
    spans = bench.spans(bench.n_workers)

    def call():
        with pymp.Parallel(bench.n_workers) as region:
            for part in region.range(len(spans)):
                lo, hi = spans[part]
                bench.rows[lo:hi].sum(axis=1, out=out[lo:hi])
        return out

    yield call


@contextlib.contextmanager
def pool_pickled(bench):
    rows_at_once = max(1, PICKLED_BYTES // bench.rows[0].nbytes)
    out = np.empty(len(bench.rows))

    def call():
        chunks = (bench.rows[lo : lo + rows_at_once] for lo in range(0, len(out), rows_at_once))
        return np.concatenate(list(pool.imap(row_sums, chunks)), out=out)

    with multiprocessing.get_context("fork").Pool(bench.n_workers, initializer=default_signals) as pool:
        yield call


@contextlib.contextmanager
def processes_shared(bench):
    context = multiprocessing.get_context("fork")
    memory = SharedMemory(create=True, size=len(bench.rows) * 8)

    def sums():
        return np.ndarray(len(bench.rows), buffer=memory.buf)

    def work(lo, hi):
        default_signals()
        bench.rows[lo:hi].sum(axis=1, out=sums()[lo:hi])

    def call():
        workers = [context.Process(target=work, args=span, daemon=True) for span in bench.spans(bench.n_workers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        if any(worker.exitcode for worker in workers):
            raise RuntimeError("a process has died")
        return sums()

    try:
        yield call
    finally:
        memory.unlink()
        memory.close()


@contextlib.contextmanager
def python_fsum(bench):
    yield lambda: np.array([fsum(row.tolist()) for row in bench.rows[:FSUM_ROWS]])


# In the order of the first round. The first is what all others are compared with.
RIVALS = [
    Rival("fork", "rowfork, forked workers", "`row_sums_into`: workers are forked for each call, and gone after it",
          partial(rowfork, "fork"), exact=True),
    Rival("threads", "rowfork, threads", "`exact_row_sums` in chunks by rayon's threads, the same kernel",
          partial(rowfork, "threads"), exact=True),
    Rival("read", "reading the bytes, no more",
          "the ceiling: additions in any order by rayon's threads, in the way that is the quickest here",
          partial(rowfork, "read"), is_ceiling=True),
    Rival("rayon", "rayon + ndarray", "`row.sum()` by rayon's threads", partial(rowfork, "rayon")),
    Rival("numpy", "NumPy", "`a.sum(axis=1, out=out)`: one thread, pairwise within a row", numpy_sum),
    Rival("blas", "OpenBLAS", "`np.dot(a, ones, out=out)`: a product with a vector, by threads", openblas),
    Rival("numba", "numba", "a loop over the elements of a row, `prange` over the rows", partial(numba_prange, False)),
    Rival("numba_fast", "numba, fastmath", "the same, and the compiler may reorder the additions",
          partial(numba_prange, True)),
    Rival("bottleneck", "bottleneck", "`bn.nansum(a, axis=1)`: one thread, one element after the other", bottleneck),
    Rival("joblib", "joblib", "loky's processes, kept; they map the segment, and sums come back pickled", joblib_loky),
    Rival("pymp", "pymp", "a parallel region: forks for each call, sums written into a shared array", pymp_regions),
    Rival("process", "Process + shared_memory",
          "`multiprocessing`: forks for each call, sums written into shared memory", processes_shared),
    Rival("pool", "multiprocessing.Pool", "processes, kept; chunks of 16 MiB are pickled to them, sums pickled back",
          pool_pickled),
    Rival("fsum", "math.fsum", "Python's exact sum, row by row: what `rowfork` promises, by one thread", python_fsum,
          exact=True),
]
