"""Processes in which benchmarks measure several things at a time."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import torch


def workers(jobs: int) -> ProcessPoolExecutor:
    """Return so many processes, each with its share of the cores."""
    threads = max(len(os.sched_getaffinity(0)) // jobs, 1)
    # Threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,))
