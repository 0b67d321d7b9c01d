"""A command on several processes, as torchrun starts them: rank 0 runs it, the others help."""

import atexit
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
import typer

from acezero_gpu.cli.failure import RunFailedError, sentence_and_code
from acezero_gpu.cli.settings import Settings
from acezero_gpu.reconstruction.memory_budget import working_bytes
from acezero_gpu.reconstruction.parallel import serve
from acezero_gpu.runtime import InputError, limited_working_memory
from acezero_gpu.runtime.distributed import (
    RankLostError,
    Ranks,
    join_ranks,
    leave_ranks,
    process_count,
    process_rank,
)

SHARED = ("map", "reconstruct", "register")
"""Commands that can share their work."""
PATIENCE_S = 10.0
"""How long a process may take to end in order once torchrun has told it to; torchrun kills it after 30 s."""


def refuse_ranks(command: str) -> None:
    """``InputError`` for a command that several processes would only do several times."""
    if process_count() > 1 and command not in SHARED:
        raise InputError(
            f"acezero {command} cannot share its work; torchrun is for {', '.join(SHARED)}. Call it without torchrun."
        )


def speaks() -> bool:
    """Whether this process tells what is wrong with the input: rank 0 finds the same as all others."""
    return process_rank() == 0


@contextmanager
def all_ranks(settings: Settings) -> Iterator[Settings]:
    """The settings with the processes that share the work.

    Runs its block on rank 0 alone. The others do what that calls for, and leave with ``typer.Exit``. On all of them
    the working memory is that of the settings' budget.
    """
    with limited_working_memory(working_bytes(settings.config.bank.memory_budget_bytes)):
        if process_count() == 1:
            yield settings
        else:
            with _joined(settings) as joined:
                yield joined


@contextmanager
def _joined(settings: Settings) -> Iterator[Settings]:
    if settings.device.type == "cuda":
        torch.cuda.set_device(settings.device)
    _heed_termination()
    ranks = join_ranks(settings.device)
    if ranks.rank > 0:
        _help(ranks, settings.device)
        raise typer.Exit
    try:
        yield replace(settings, ranks=ranks)
    except RankLostError:
        atexit.register(_end_at_once)
        if not ranks.has_the_last_word():
            raise typer.Exit(1) from None
        raise
    finally:
        ranks.end()
    leave_ranks()


def _help(ranks: Ranks, device: torch.device) -> None:
    # Rank 0 warns of the same, and torchrun interrupts all processes at once: rank 0 ends the others.
    logging.getLogger("acezero_gpu").addHandler(logging.NullHandler())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        serve(ranks, device)
    except RankLostError:
        atexit.register(_end_at_once)
        if ranks.has_the_last_word():
            raise
        raise typer.Exit(1) from None
    except Exception as error:
        told = sentence_and_code(error)
        if told is None:
            raise
        raise RunFailedError(f"rank {ranks.rank}: {told[0]}") from error
    leave_ranks()


def _end_at_once() -> None:
    """The last of a process whose group is broken: what gloo's threads do while the library is taken down may abort
    it, in the place of the exit status that it is to have."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _heed_termination() -> None:
    """torchrun ends all processes when one of them has died: that shall be told, and files be closed.

    A thread looks after a main thread that hangs in a library and never comes back to hear the signal.
    """

    def end(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise RankLostError

    def insist() -> None:
        while os.read(heard, 1) != bytes([signal.SIGTERM]):
            pass
        time.sleep(PATIENCE_S)
        if process_rank() == 0:
            sys.stderr.write(f"acezero: {RankLostError()}\n")
            sys.stderr.flush()
        os._exit(1)

    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=insist, daemon=True).start()
