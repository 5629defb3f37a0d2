"""The runner of the Python client; with --async, of its asyncio client."""

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from lines import enum_name, error_line, event_line, model_line
from safelight import AsyncClient, Client, SafelightError

_OPTIONS = {
    "generation_id": ("generation_id",),
    "model": ("model",),
    "image_count": ("image_count",),
    "output_mime_type": ("output", "mime_type"),
    "output_quality": ("output", "quality"),
    "preview_every": ("preview", "interval_steps"),
    "preview_mime_type": ("preview", "mime_type"),
    "preview_max_side_px": ("preview", "max_side_px"),
    "guidance_scale": ("parameters", "guidance_scale"),
    "negative_prompt": ("parameters", "negative_prompt"),
    "num_inference_steps": ("parameters", "num_inference_steps"),
    "step_reuse": ("parameters", "step_reuse"),
    "width": ("parameters", "width"),
    "height": ("parameters", "height"),
    "scheduler": ("parameters", "scheduler"),
    "seed": ("parameters", "seed"),
    "adapters": ("adapters",),
    "linger": ("linger",),
}
"""Paths of the client's options in a request."""


def client_arguments(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a client."""
    return {
        "target": job["target"],
        "token": job.get("token"),
        "timeout": job["timeout_ms"] / 1e3 if "timeout_ms" in job else None,
        "metadata": [*job.get("metadata", {}).items()],
    }


def generate_options(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a generation that a request has."""
    options = dict(_find_options(request))
    if "linger" in options:
        options["linger"] = float(options["linger"].removesuffix("s"))
    if "seed" in options:
        options["seed"] = int(options["seed"])
    if "adapters" in options:
        options["adapters"] = {each["name"]: each.get("scale") for each in options["adapters"]}
    return options


def _find_options(request: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for option, path in _OPTIONS.items():
        value: Any = request
        for key in path:
            value = value.get(key, {})
        if value != {}:
            yield option, value


def say(line: Mapping[str, Any]) -> None:
    """Print a line."""
    print(json.dumps(line), flush=True)


def run(job: Mapping[str, Any]) -> None:
    """Do a job with the blocking client."""
    request = job["request"]
    with Client(**client_arguments(job)) as client:
        match job["method"]:
            case "CancelGeneration":
                outcome = client.cancel(request["generation_id"])
                say({"state": enum_name("GENERATION_STATE", outcome)})
            case "ListModels":
                say({"models": [model_line(model) for model in client.list_models()]})
            case "GetModel":
                say({"model": model_line(client.get_model(request["model"]))})
            case method:
                if method == "WatchGeneration":
                    prepared = client.watch(request["generation_id"])
                else:
                    prepared = client.generate(request["inputs"], **generate_options(request))
                with prepared as generation:
                    for number, event in enumerate(generation, 1):
                        say(event_line(event))
                        if number == job.get("leave_after"):
                            break


async def run_async(job: Mapping[str, Any]) -> None:
    """Do a job with the asyncio client."""
    request = job["request"]
    async with AsyncClient(**client_arguments(job)) as client:
        match job["method"]:
            case "CancelGeneration":
                outcome = await client.cancel(request["generation_id"])
                say({"state": enum_name("GENERATION_STATE", outcome)})
            case "ListModels":
                say({"models": [model_line(model) for model in await client.list_models()]})
            case "GetModel":
                say({"model": model_line(await client.get_model(request["model"]))})
            case method:
                if method == "WatchGeneration":
                    prepared = client.watch(request["generation_id"])
                else:
                    prepared = client.generate(request["inputs"], **generate_options(request))
                count = 0
                async with prepared as generation:
                    async for event in generation:
                        say(event_line(event))
                        count += 1
                        if count == job.get("leave_after"):
                            break


def main() -> None:
    """Do the jobs of standard input."""
    for line in sys.stdin:
        job = json.loads(line)
        try:
            if sys.argv[1:] == ["--async"]:
                asyncio.run(run_async(job))
            else:
                run(job)
        except SafelightError as error:
            say(error_line(error))
        print(flush=True)


main()
