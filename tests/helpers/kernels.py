"""Kernels for notebooks: forks of one process that has imported what is slow to import.

That takes a new interpreter some ten seconds of a processor, and a fork none. The process has done
nothing else, so a notebook begins as in a kernel of its own; Pyro and the package it imports anew,
so that what they say at import is seen.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import count
from pathlib import Path

from jupyter_client.manager import AsyncKernelManager

IMPORTED = [
    "arviz", "ipykernel.kernelapp", "matplotlib.pyplot", "pandas", "scipy.stats",
    "sklearn.ensemble", "sklearn.linear_model", "sklearn.mixture", "torch._dynamo",
]  # fmt: skip


def serve() -> None:
    """Fork a kernel for each connection file named on standard input, and end the one before.

    Where a kernel dies by itself, so does this process.
    """
    for name in IMPORTED:
        import_module(name)
    import_module("pandas").set_option("display.max_columns", 20)  # as where a kernel imports it
    child = 0
    while True:
        line = sys.stdin.readline()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if not line:
            return
        child = os.fork()
        if not child:
            kernel(line.strip())
        signal.signal(signal.SIGCHLD, lambda *_: os._exit(1))


def kernel(file: str) -> None:
    """What a fork is, until it is ended."""
    from ipykernel.kernelapp import IPKernelApp

    parent = f"--IPKernelApp.parent_handle={os.getppid()}"  # it ends with its parent
    IPKernelApp.launch_instance(["-f", file, parent, "--HistoryManager.hist_file=:memory:"])
    os._exit(0)


class Forked(AsyncKernelManager):
    """The manager of a kernel that another process began."""

    has_kernel = True

    def __init__(self, server: subprocess.Popen, file: Path) -> None:
        super().__init__(owns_kernel=False, transport="ipc", connection_file=str(file))
        self.write_connection_file()
        self.server = server

    async def is_alive(self) -> bool:
        return self.server.poll() is None

    _async_is_alive = is_alive


@contextmanager
def forked_kernels(root: Path) -> Iterator[Callable[[], Forked]]:
    """A function that begins a kernel in the folder ``root``, and ends the one before."""
    env = os.environ | {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # figures are drawn inline
        "OMP_NUM_THREADS": "1",  # small models; a busy machine makes threads wait for each other
    }
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, cwd=root, env=env, text=True, bufsize=1
    )
    numbers = count()
    with tempfile.TemporaryDirectory() as folder, process as server:

        def start() -> Forked:
            file = Path(folder) / f"{next(numbers)}.json"
            manager = Forked(server, file)
            print(file, file=server.stdin)
            return manager

        yield start


if __name__ == "__main__":
    serve()
