"""The command line, in this process and in one of its own."""

import contextlib
import io
import sys
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.context import ForkProcess
from typing import NamedTuple

import pytest
import typer

from pyro_vae import cli

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


class Fork(ForkProcess):
    """A function in a process of its own: a fork of ours, which need not import anything anew."""

    def __init__(self, act: Callable[[], object]) -> None:
        import torch._dynamo  # noqa: F401, which each captured step imports: seconds of a fork

        super().__init__(target=act)
        self.start()


class Command(Fork):
    """The command in a process of its own."""

    def __init__(self, *args: object) -> None:
        self.answer, end = Pipe(duplex=False)

        def act() -> None:
            done = run(*args)
            end.send(done)
            sys.exit(done.code)

        super().__init__(act)

    def done(self) -> Done:
        """How it ended."""
        assert self.answer.poll(60)
        done = self.answer.recv()
        self.join()
        return done
