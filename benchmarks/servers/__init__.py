"""One small program for each peer: ``/echo`` sends messages back, ``/tick`` gets one now and then.

A tick is the server's ``time.monotonic_ns()`` as text, the same for all connections, sent every
``BENCHMARK_TICK`` seconds in the way that suits the library.
"""
