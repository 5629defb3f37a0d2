"""`make bench-gpu`: the service on a GPU, in stages that cannot harm each other.

`python -m benchmarks.gpu` measures and writes JSON lines; `python -m benchmarks.gpu.report` turns
these into the tables and the plot of docs/performance.md.
"""
