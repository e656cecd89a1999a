"""Benchmarks: Quarterdeck's own account of its speed, and its peers' on the same workload in the same run.

``python -m benchmarks`` measures everything and writes ``build/bench.json``. Each figure is taken in a process of its own. Nothing
here is a test: machines are noisy, so figures are published with their machine and compared as ratios taken side by side.
"""
