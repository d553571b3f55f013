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
ONE_WORKER_BYTES = 1 << 19  # with less, waking another worker (about 0.1 ms) does not pay


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


class Pool:
    """Threads that wait for tasks: `count` of them, or fewer if no more can be started.

    A ThreadPoolExecutor takes twice as long to hand a task over.
    """
    def __init__(self, count):
        self.tasks = SimpleQueue()
        self.count = 0
        try:
            while self.count < count:
                Thread(target=self._work, daemon=True).start()
                self.count += 1
        except RuntimeError:  # can't start new thread
            pass

    def _work(self):
        np.seterr(all="ignore")  # set in each thread; the caller looks for infinities and NaN
        while True:
            task, number, results = self.tasks.get()
            try:
                results.put((task(number), None))
            except Exception as error:
                results.put((None, error))

    def run(self, task, count):
        """[task(0), ..., task(count - 1)] at once, task(0) in the calling thread.

        There are fewer calls if there are fewer threads. An error in any of them is raised here.
        """
        others = min(count - 1, self.count)
        if not others:
            return [task(0)]
        results = SimpleQueue()
        for number in range(1, others + 1):
            self.tasks.put((task, number, results))
        try:
            own = task(0)
        finally:  # after Ctrl-C too: the others write into the caller's arrays
            done = [results.get() for _ in range(others)]
        for _, error in done:
            if error:
                raise error
        return [own, *(result for result, _ in done)]


@cache
def worker_pool(count):
    return Pool(count)


if hasattr(os, "register_at_fork"):
    # A child process has none of its parent's threads.
    os.register_at_fork(after_in_child=worker_pool.cache_clear)


class Workers:
    """Threads that share a loop over maps. Worker 0 is the calling thread.

    As a context: inside, BLAS uses one thread. `share` enters it by itself; a caller of many loops
    enters it once around them all, since entering takes 8 microseconds.
    """
    def __init__(self, count=None):
        """count: default one per core, up to 8; there are fewer if threads cannot be started."""
        self.threads = (count or min(8, available_cores())) - 1
        self.count = 1 + worker_pool(self.threads).count
        self.depth = 0  # of entered contexts

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

        with self:
            worker_pool(self.threads).run(run, workers)
