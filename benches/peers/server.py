"""The Rust side: builds it, starts it, asks it. It owns the matrix that everybody sums."""

import ctypes
import mmap
import os
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SHM = Path("/dev/shm")
HUGE_BYTES = 2 << 20
MAP_FIXED = 0x10  # <linux/mman.h>; `mmap` has no name for it, as it takes no addresses

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


def map_aligned(path):
    """A `.npy` file as a read-only array, mapped where its 2 MiB pages fit: `np.load` maps it anywhere.

    A larger mapping of nothing reserves the addresses, and unmaps all when the last array on it is gone.
    """
    header = np.load(path, mmap_mode="r")
    n_bytes = header.offset + header.nbytes
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    reserved = mmap.mmap(-1, n_bytes + HUGE_BYTES, flags=private, prot=mmap.PROT_READ)
    start = np.frombuffer(reserved, np.uint8).ctypes.data
    aligned = -(-start // HUGE_BYTES) * HUGE_BYTES
    with open(path, "rb") as file:
        found = libc.mmap(aligned, n_bytes, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, file.fileno(), 0)
    if found != aligned:
        raise OSError(ctypes.get_errno(), f"cannot map {path}")
    rows = np.frombuffer(reserved, header.dtype, header.size, aligned - start + header.offset)
    return rows.reshape(header.shape)


def huge_mib(address):
    """MiB in 2 MiB pages of this process's mapping at `address`, as far as it has been touched."""
    inside = False
    with open("/proc/self/smaps") as smaps:
        for line in smaps:
            word, *values = line.split()
            if not word.endswith(":"):
                low, high = (int(bound, 16) for bound in word.split("-"))
                inside = low <= address < high
            elif inside and word == "ShmemPmdMapped:":
                return int(values[0]) >> 10
    return 0


def build():
    """The path of the program, built if need be, in `target/` like everything else that cargo makes here."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target")).resolve()
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", target]
    subprocess.run([*command, "--manifest-path", HERE / "server" / "Cargo.toml"], check=True)
    return target / "release" / "peer-server"


class Server:
    """A Rust program with a matrix of its own in /dev/shm; `rows` and `sums` are its memory, and `path` is the matrix's."""

    def __init__(self, program, n_rows, n_columns, n_workers):
        command = [program, str(n_rows), str(n_columns), str(n_workers)]
        # A session of its own: ^C is for this script, which then ends the program in order.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        # It ends with its standard input, so no forked child of ours may keep that open.
        os.register_at_fork(after_in_child=self.process.stdin.close)
        try:
            matrix, sums, huge_mib = self._line().split()
            self.huge_mib = int(huge_mib)
            self.path = SHM / matrix
            self.rows = map_aligned(self.path)
            self.sums = np.asarray(np.load(SHM / sums, mmap_mode="r+"))
        except BaseException:
            self.close()
            raise

    def _line(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"peer-server ended with {self.process.wait()}")
        return line

    def ask(self, rival):
        """Has one rival sum into `sums`; the seconds that it took by the program's own clock."""
        print(rival, file=self.process.stdin, flush=True)
        return float(self._line())

    def close(self):
        """Ends the program. Its names go with it, unless it has to be killed."""
        try:
            self.process.stdin.close()
            self.process.wait(timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        for name in SHM.glob(f"rowfork-peers-*-{self.process.pid}"):
            name.unlink(missing_ok=True)
