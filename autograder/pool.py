"""Who judges: threads of this process, or the workers of a Dask cluster.

Either takes work through the interface of ``concurrent.futures``. Each thread
drives a station of its own, which is processes of its own.
"""

import logging
import os
import platform
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from typing import Any

from autograder import engine
from autograder.chapters import Chapter, find
from autograder.errors import CourseError
from autograder.submissions import Cell

PER_THREAD = 2  # submissions in flight, so that no thread waits for another
LEAST_IN_FLIGHT = 16  # with a cluster, to which workers may be added
CONNECT_TIMEOUT = 20  # seconds

_here = threading.local()
_stations: list[engine.Station] = []


@cache
def version(chapter: Chapter) -> str:
    """Identify all that a chapter's verdicts depend on."""
    found, root = sha256(), chapter.root
    mistakes = root / "autograder" / "misconceptions" / f"{chapter.name}.py"
    # Answers, checks and what they import are among the sources.
    for path in [chapter.path, *chapter.sources, mistakes]:
        if path.is_file():
            found.update(path.relative_to(root).as_posix().encode())
            found.update(path.read_bytes())
    return found.hexdigest()


def task(chapter: Chapter, cells: list[Cell], floor: str) -> dict[str, Any]:
    """Write down what is to be judged, for whatever machine."""
    return {
        "chapter": chapter.name,
        "version": version(chapter),
        "floor": floor,
        "cells": [[c.label, c.source, c.definitions_only] for c in cells],
    }


def judge(task: dict[str, Any]) -> dict[str, Any]:
    """Judge on this thread's station; runs wherever there is a worker.

    Raises:
        CourseError: if this machine has another version of the chapter, or
            can't protect itself as well as it should.
    """
    chapter = find(task["chapter"])
    if version(chapter) != task["version"]:
        raise CourseError(
            f"{_name()} has another version of {chapter.name}; bring its copy "
            "of the course up to date and start it anew"
        )
    cells = [Cell(*cell) for cell in task["cells"]]
    return _station(task["floor"]).judge(chapter.name, cells)


def _name() -> str:
    """Name this process, which may run on another machine."""
    name = f"process {os.getpid()} on {platform.node()}"
    try:
        from distributed import get_worker

        return f"the worker {get_worker().address} ({name})"
    except ValueError:  # it is none
        return name


def _station(floor: str) -> engine.Station:
    stations = _here.__dict__.setdefault("stations", {})
    if floor not in stations:
        stations[floor] = engine.Station(floor)
        _stations.append(stations[floor])
    return stations[floor]


@contextmanager
def judges(
    workers: int = 1, cluster: str | None = None
) -> Iterator[tuple[Executor, int]]:
    """Open an executor.

    Yields:
        The executor, and how many submissions may be in flight.

    Raises:
        CourseError: if there is no cluster at the address.
    """
    opened = _cluster(cluster) if cluster else _threads(workers)
    with opened as found:
        yield found


@contextmanager
def _threads(workers: int) -> Iterator[tuple[Executor, int]]:
    executor = ThreadPoolExecutor(workers, thread_name_prefix="judge")
    try:
        yield executor, PER_THREAD * workers
    except KeyboardInterrupt:  # the stations end with this process
        executor.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:
        _close(executor)
        raise
    _close(executor)


def _close(executor: Executor) -> None:
    executor.shutdown(cancel_futures=True)
    while _stations:
        _stations.pop().close()


@contextmanager
def _cluster(address: str) -> Iterator[tuple[Executor, int]]:
    from distributed import Client

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError) as error:  # TimeoutError among them
        raise CourseError(
            f"no Dask scheduler answers at {address} ({error}); start one by "
            "'dask scheduler' and name the address that it prints"
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
        except TimeoutError:
            raise CourseError(
                f"the Dask scheduler at {address} has no workers; start some "
                f"by 'dask worker {address}'"
            ) from None
        threads = sum(client.nthreads().values())
        executor = client.get_executor(pure=False)
        try:
            yield executor, max(PER_THREAD * threads, LEAST_IN_FLIGHT)
        finally:
            executor.shutdown(wait=False)
