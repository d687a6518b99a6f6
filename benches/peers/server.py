"""The Rust side: builds it, starts it, asks it. It owns the matrix that everybody sums."""

import os
import subprocess
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
SHM = Path("/dev/shm")


def build():
    """The path of the program, built if need be, in `target/` like everything else that cargo makes here."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target")).resolve()
    command = ["cargo", "build", "--release", "--quiet", "--target-dir", target]
    subprocess.run([*command, "--manifest-path", HERE / "server" / "Cargo.toml"], check=True)
    return target / "release" / "peer-server"


class Server:
    """A Rust program with a matrix of its own in /dev/shm; `mapped` and `sums` are its memory, by `np.load`."""

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
            self.mapped = np.load(SHM / matrix, mmap_mode="r")
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
