"""`make bench`: runs every benchmark, prints its table and writes its results as JSON."""

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from benchmarks import estimates, latency, memory, overhead, previews, streaming, throughput

for logging in (diffusers_logging, transformers_logging):
    logging.set_verbosity_error()
    logging.disable_progress_bar()

for benchmark in (overhead, throughput, latency, estimates, streaming, memory, previews):
    benchmark.main()
