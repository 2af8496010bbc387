"""A stepper for the asynchronous client: coroutines on virtual time, without an event loop, threads or sockets.

A call of a simulated client takes virtual seconds. The stepper runs whichever coroutine is ready first, so the same
program has the same course each time.
"""

import heapq
import itertools


class PendingCall:
    """A call of a simulated client: what it answers, and after how many virtual seconds."""

    def __init__(self, answer, seconds=0.0):
        self._answer = answer
        self._seconds = seconds

    def wait(self):
        return self._answer()

    def __await__(self):
        yield self._seconds
        return self._answer()


class Stepper:
    """Runs coroutines on virtual time."""

    def __init__(self):
        self.time = 0.0
        self._order = itertools.count()

    def now(self):
        return self.time

    def sleep(self, seconds):
        return PendingCall(lambda: None, seconds)

    def run(self, *coroutines):
        """Run coroutines side by side; returns their results."""
        results = [None] * len(coroutines)
        ready = [(self.time, next(self._order), number) for number in range(len(coroutines))]
        heapq.heapify(ready)
        while ready:
            self.time, _, number = heapq.heappop(ready)
            try:
                seconds = coroutines[number].send(None)
            except StopIteration as stop:
                results[number] = stop.value
            else:
                heapq.heappush(ready, (self.time + seconds, next(self._order), number))
        return results
