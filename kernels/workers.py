"""Threads for NumPy. Meanwhile BLAS, NumPy's matrix library, uses one thread in each of them."""
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from queue import SimpleQueue
from threading import Thread

import numpy as np
from threadpoolctl import ThreadpoolController

CHUNK_BYTES = 1 << 21       # of maps that a worker computes at once: about its share of the cache
ONE_WORKER_BYTES = 1 << 18  # with less, waking another worker (about 0.1 ms) does not pay


def available_cores():
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


@cache
def _blas():
    return ThreadpoolController()  # looks for the loaded libraries, which takes milliseconds


def blas_threads(count):
    """A context in which BLAS uses `count` threads; afterwards it uses as many as before."""
    return _blas().limit(limits=count, user_api="blas")


def threads_start():
    """Whether threads can be started here. In a browser they cannot."""
    try:
        Thread(target=int).start()
    except RuntimeError:
        return False
    return True


@contextmanager
def thread_map(threads):
    """A context that gives a function like `map` which computes on several threads, in order.

    BLAS uses one thread in each. Where threads cannot be started it gives `map` itself.
    """
    if not threads_start():
        yield map
        return
    with blas_threads(1), ThreadPoolExecutor(threads) as pool:
        yield pool.map


_tasks = SimpleQueue()  # of all workers; a ThreadPoolExecutor takes twice as long for a task
_threads = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.clear)  # a child has none of its parent's threads


def _work():
    np.seterr(all="ignore")  # set in each thread; the caller looks for infinities and NaN
    while True:
        run, worker, done = _tasks.get()
        try:
            done.put(run(worker))  # None: no error
        except Exception as error:
            done.put(error)


class Workers:
    """Threads that share a loop over maps. Worker 0 is the calling thread.

    As a context: inside, BLAS uses one thread. `share` enters it by itself; a caller of many loops
    enters it once around them all, since entering takes 8 microseconds.
    """
    def __init__(self, count=None):
        """count: default one per core, up to 8; there are fewer if threads cannot be started."""
        self.count = count or min(8, available_cores())
        self.depth = 0  # of entered contexts
        while len(_threads) < self.count - 1:
            thread = Thread(target=_work, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                self.count = len(_threads) + 1
                break
            _threads.append(thread)

    def __str__(self):
        return f"{self.count} CPU core{'s' * (self.count > 1)}"

    def __enter__(self):
        self.depth += 1
        if self.depth == 1:
            self.limit = blas_threads(1)
            self.limit.__enter__()

    def __exit__(self, *exception):
        self.depth -= 1
        if self.depth == 0:
            self.limit.__exit__(*exception)

    def share(self, compute, n, item_bytes):
        """Calls compute(worker, chunk) for slices `chunk` of range(n), of about CHUNK_BYTES each.

        Each worker takes a fixed part of the range in order, so results do not depend on timing.
        An error in a worker is raised here.
        """
        size = max(1, CHUNK_BYTES // max(1, item_bytes))
        workers = min(self.count, n) if n * item_bytes > ONE_WORKER_BYTES else 1

        def run(worker):
            stop = n * (worker + 1) // workers
            for start in range(n * worker // workers, stop, size):
                compute(worker, slice(start, min(start + size, stop)))

        done = SimpleQueue()
        with self:
            for worker in range(1, workers):
                _tasks.put((run, worker, done))
            try:
                run(0)
            finally:
                errors = [error for error in (done.get() for _ in range(1, workers)) if error]
        if errors:
            raise errors[0]
