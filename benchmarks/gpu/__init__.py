"""`make bench-gpu`: the service on a GPU, in stages that cannot harm each other.

`python -m benchmarks.gpu` measures and writes JSON lines; `python -m benchmarks.gpu.report` turns
these into the tables and the plot of docs/performance.md.
"""

import sys
from pathlib import Path

# A machine with a GPU may have the libraries and this checkout, but none of its distributions.
_CHECKOUT = Path(__file__).parents[2]
sys.path += [str(_CHECKOUT / folder) for folder in ("service", "settings", "clients/python")]
