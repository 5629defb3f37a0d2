"""`make bench`: runs every benchmark, prints its table and writes its results as JSON."""

from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from benchmarks import overhead, previews

for logging in (diffusers_logging, transformers_logging):
    logging.set_verbosity_error()
    logging.disable_progress_bar()

overhead.main()
previews.main()
