"""Processes in which benchmarks measure several things at a time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

import torch

C = TypeVar("C")


def workers(jobs: int) -> ProcessPoolExecutor:
    """Return so many processes, each with its share of the cores."""
    threads = max(len(os.sched_getaffinity(0)) // jobs, 1)
    # Threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,))


def measured(
    measure: Callable[[C, list[str], Path], tuple[dict[str, Any], dict[str, Any]]],
    cases: Sequence[C],
    methods: Sequence[str],
    folder: Path,
    results: dict[str, Any],
    jobs: int,
) -> Iterator[C]:
    """Measure the methods that each case has no result of yet, add them to the results, and yield the case.

    Args:
        measure: takes a case, methods and the folder of the models; returns what is known of the case, and what of each
            method.
        cases: what is measured.
        methods: the names of the methods.
        folder: where models are kept.
        results: by the case's text: what is known of it, and its ``methods`` by name.
        jobs: so many cases at a time.
    """
    with workers(jobs) as pool:
        running = {}
        for case in cases:
            there = results.get(str(case), {"methods": {}})["methods"]
            if missing := [method for method in methods if method not in there]:
                running[pool.submit(measure, case, missing, folder)] = case, there
        for done in as_completed(running):
            case, there = running[done]
            facts, said = done.result()
            results[str(case)] = {**facts, "methods": {**there, **said}}
            yield case
