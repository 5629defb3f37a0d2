"""Bare pipeline: diffusers without the service, in a separate process for each way to call it.

Ways in one process would disturb each other: once eight threads have called the pipeline, torch
keeps their arithmetic threads, and plain calls stay slower.
"""

import copy
import io
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from diffusers import DiffusionPipeline

from safelight_service.engine.models.loading import silence_libraries

PROMPT = "a red circle on a blue background"
THREADS = 8
BATCH = 8


@dataclass(frozen=True, slots=True)
class Request:
    """Request of one client: an image of `PROMPT`."""

    steps: int = 20
    guidance_scale: float = 4.0
    seed: int = 0
    size: int = 128
    """Width and height in pixels; the default is the model's own."""


Requests = Sequence[Request]
Draw = Callable[[Requests], None]
"""Makes all images, and returns when the last one is ready."""


@contextmanager
def run_bare_pipeline(torch_threads: int | None = None) -> Iterator[Callable[[Draw], Draw]]:
    """Yield a wrapper that runs a function in a new process with the embedded model loaded.

    `torch_threads` is the number of torch's arithmetic threads; None means one for each core.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as processes:

        def bare(draw: Draw) -> Draw:
            process = processes.enter_context(
                ProcessPoolExecutor(1, context, _load, (torch_threads,))
            )
            return lambda requests: process.submit(draw, requests).result()

        yield bare


def draw_one_after_another(requests: Requests) -> None:
    """Call the pipeline once for each request, as its documentation does."""
    for request in requests:
        _draw(_pipeline, request)


def draw_behind_a_lock(requests: Requests) -> None:
    """Share one pipeline among threads, with a lock around each call."""
    lock = threading.Lock()

    def call(request: Request) -> None:
        with lock:
            _draw(_pipeline, request)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(call, requests))


def draw_with_copies(requests: Requests) -> None:
    """Call shallow copies of the pipeline, all at once.

    Each copy has its own scheduler and tokenizer. With a shared tokenizer, calls sometimes get
    each other's padding and fail.
    """

    def call(request: Request) -> None:
        duplicate = copy.copy(_pipeline)
        duplicate.scheduler = copy.deepcopy(_pipeline.scheduler)
        duplicate.tokenizer = copy.deepcopy(_pipeline.tokenizer)
        _draw(duplicate, request)

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(call, requests))


def draw_in_batches(requests: Requests) -> None:
    """Call the pipeline for eight equal requests at once, as servers with static batches do."""
    for begin in range(0, len(requests), BATCH):
        batch = requests[begin : begin + BATCH]
        _draw_batch(_pipeline, batch[0], [request.seed for request in batch])


_pipeline: Any = None
"""The pipeline of this process, set by `_load`."""


def _load(torch_threads: int | None) -> None:
    """Load the embedded model as any user of diffusers would."""
    global _pipeline
    if torch_threads is not None:
        torch.set_num_threads(torch_threads)
    silence_libraries()
    folder = resources.files("safelight_service") / "models" / "shapes"
    _pipeline = DiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32)
    _pipeline.set_progress_bar_config(disable=True)


def _draw(pipeline: Any, request: Request) -> None:
    """Make one image and compress it."""
    _draw_batch(pipeline, request, [request.seed])


def _draw_batch(pipeline: Any, request: Request, seeds: Sequence[int]) -> None:
    """Make an image for each seed in one call, and compress them."""
    pictures = pipeline(
        [PROMPT] * len(seeds),
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        width=request.size,
        height=request.size,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
    ).images
    for picture in pictures:
        picture.save(io.BytesIO(), "PNG")
