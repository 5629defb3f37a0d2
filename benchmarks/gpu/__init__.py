"""GPU benchmarks: the service on a GPU, in isolated stages.

`python -m benchmarks.gpu` measures and writes JSON lines; `python -m benchmarks.gpu.report` turns
these into the tables and the plot of docs/performance.md.
"""

import sys
from pathlib import Path

# Run from a bare checkout: a machine with a GPU may lack this project's distributions.
_CHECKOUT = Path(__file__).parents[2]
sys.path += [str(_CHECKOUT / folder) for folder in ("service", "settings", "clients/python")]
