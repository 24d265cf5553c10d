"""A room over several workers, beside others': ``python -m benchmarks.fanout``.

See docs/benchmarks.rst.
"""
