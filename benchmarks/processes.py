"""One function in several processes at once, timed from the first start to the last end."""

import logging
import multiprocessing
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from acezero_gpu.runtime import InputError

_PATIENCE_S = 3600


@dataclass(frozen=True, slots=True)
class Timed:
    """One job: what the processes made, and how long they took."""

    seconds: float
    """Median over the repeats, of the time between the first start and the last end."""
    results: list[Any]
    """Of the last repeat, one per process."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How each job is run."""

    threads: int = 1
    """Per process."""
    repeats: int = 1
    warm_ups: int = 0
    """Calls before the clock runs: libraries load and compilers compile."""


def timed_in_processes(
    function: Callable[[Any], Any], jobs: Sequence[Sequence[Any]], effort: Effort
) -> list[Timed]:
    """``function(argument)`` in one process per argument of a job; the same processes do all jobs in turn."""
    context = multiprocessing.get_context("spawn")
    processes = len(jobs[0])
    barrier, queue = context.Barrier(processes), context.Queue()
    workers = []
    for row in range(processes):
        arguments = [job[row] for job in jobs]
        worker = context.Process(target=_work, args=(function, arguments, row, effort, barrier, queue))
        worker.start()
        workers.append(worker)
    answers = dict(queue.get(timeout=_PATIENCE_S) for _ in workers)
    for worker in workers:
        worker.join()
    failed = [answer for answer in answers.values() if isinstance(answer, str)]
    if failed:
        raise InputError(f"a worker process failed:\n{failed[0]}")
    return [_timed([answers[row][number] for row in range(processes)]) for number in range(len(jobs))]


def _timed(answers: list[tuple[list[tuple[float, float]], Any]]) -> Timed:
    spans = zip(*(spans for spans, _ in answers), strict=True)
    seconds = [max(end for _, end in span) - min(start for start, _ in span) for span in spans]
    return Timed(statistics.median(seconds), [result for _, result in answers])


def _work(
    function: Callable[[Any], Any], arguments: list[Any], row: int, effort: Effort, barrier: Any, queue: Any
) -> None:
    try:
        torch.set_num_threads(effort.threads)
        logging.getLogger("acezero_gpu").setLevel(logging.ERROR)  # compilation is announced by each process
        answers = []
        for argument in arguments:
            for _ in range(effort.warm_ups):
                function(argument)
            spans, result = [], None
            for _ in range(effort.repeats):
                barrier.wait(_PATIENCE_S)
                start = time.monotonic()
                result = function(argument)
                spans.append((start, time.monotonic()))
            answers.append((spans, result))
        queue.put((row, answers))
    except Exception:  # told to the parent, which would wait for ever
        barrier.abort()
        queue.put((row, traceback.format_exc()))
