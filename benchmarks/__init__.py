"""How fast it is, beside others: run each as ``python -m benchmarks.<name>``."""
