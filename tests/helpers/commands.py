"""The command line, in this process and in one of its own."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from pyro_vae import cli

ROOT = Path(__file__).parents[2]
COMMAND = typer.main.get_command(cli.app)  # as ``cli.app()`` makes it at each call


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*args: object) -> Done:
    """The entry point in this process; an exception that it lets through fails the test."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pyro-vae", *map(str, args)])
        patch.setattr(cli, "app", COMMAND)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                code = end.code
    return Done(int(code or 0), out.getvalue(), err.getvalue())


def process(*args: object) -> subprocess.Popen:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "pyro_vae", *map(str, args)]
    env = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=env, **pipes)
