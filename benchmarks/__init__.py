"""How fast it is, beside others: ``python -m benchmarks``, see docs/benchmarks.rst.

``python -m benchmarks.codec`` and ``python -m benchmarks.idle`` look at a part each.
"""
