"""Threads for plain functions that do not keep the interpreter from ending: a function that hangs would, in a thread of any other kind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

IDLE_S = 10.0
"""How long a thread waits for another function before it ends, in seconds."""


class Workers(Executor):
    """As many threads as functions run at once; the callers limit how many. A function that never ends takes its thread with it."""

    def __init__(self) -> None:
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._forget)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run `fn` in a thread."""
        future: Future[T] = Future()
        with self._lock:
            worker = self._idle.pop() if self._idle else _Worker(self)
        worker.queue.put((future, fn, args, kwargs))
        return future

    def idle(self, worker: _Worker) -> None:
        """The worker has nothing to do."""
        with self._lock:
            self._idle.append(worker)

    def ends(self, worker: _Worker) -> bool:
        """Whether the worker may end; False: a function was given to it meanwhile."""
        with self._lock:
            if worker not in self._idle:
                return False
            self._idle.remove(worker)
            return True

    def _forget(self) -> None:
        # A forked child has none of the threads, and another thread may have held the lock.
        self._idle, self._lock = [], threading.Lock()


class _Worker:
    def __init__(self, workers: Workers) -> None:
        self.queue: SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = SimpleQueue()
        self._workers = workers
        threading.Thread(target=self._run, name="holdfast function", daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                future, fn, args, kwargs = self.queue.get(timeout=IDLE_S)
            except Empty:
                if self._workers.ends(self):
                    return
                continue
            if future.set_running_or_notify_cancel():
                try:
                    value = fn(*args, **kwargs)
                except BaseException as error:  # as the executors of the standard library: the caller gets it
                    future.set_exception(error)
                else:
                    future.set_result(value)
                    del value
            del future, fn, args, kwargs  # an idle thread keeps no caller's values
            self._workers.idle(self)
