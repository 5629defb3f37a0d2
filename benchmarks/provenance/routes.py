"""Routes: the ways of a signed image to a caller, and whether it is valid at their ends.

The first route makes the images, and the result cache answers the others, so all of them must
deliver the same bytes.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import c2pa
from safelight import Accepted, Client

from support.provenance.samples import FORMATS, dev_settings
from support.running_gateway import run_gateway
from support.running_service import run_service

CALLERS = 8
PROMPT = "a red circle on a blue background"
PARAMETERS: Any = {"width": 64, "height": 64, "num_inference_steps": 1, "guidance_scale": 1.0}
TIMEOUT_S = 60.0

Fetch = Callable[[int, str], bytes]
"""Returns the image of a seed in a format, a MIME type."""


def count_valid(folder: Path, image_count: int) -> Iterator[tuple[str, int]]:
    """Yield each route, and how many of its images are valid and the same as in the stream.

    The images have all formats in turn. `folder` gets a certificate.
    """
    settings = dev_settings(folder, required=True)
    provenance = settings.model_dump_json(include={"certificate", "private_key", "required"})
    with (
        run_service(
            provenance=provenance,
            cache='{"memory_mib": 1024}',
            generations='{"keep_s": 3600, "keep_mib": 1024}',
            batching='{"max_width": 16}',
        ) as service,
        run_gateway(service.target) as gateway,
        Client(service.target) as client,
        ThreadPoolExecutor(CALLERS) as callers,
    ):
        made: dict[int, bytes] = {}
        for name, fetch in {**_grpc_routes(client), **_http_routes(gateway.url)}.items():

            def check(seed: int, fetch: Fetch = fetch) -> bool:
                mime_type = list(FORMATS)[seed % len(FORMATS)]
                data = fetch(seed, mime_type)
                reader = c2pa.Reader(mime_type, io.BytesIO(data))
                return data == made.setdefault(seed, data) and (
                    reader.get_validation_state() == "Valid"
                )

            yield name, sum(callers.map(check, range(image_count)))


def _grpc_routes(client: Client) -> dict[str, Fetch]:
    ids: dict[int, str] = {}

    def generate(seed: int, mime_type: str) -> bytes:
        with client.generate(
            PROMPT, seed=seed, output_mime_type=mime_type, **PARAMETERS
        ) as generation:
            for event in generation:
                if isinstance(event, Accepted):
                    ids[seed] = event.generation_id
            return generation.images()[0].data

    def watch(seed: int, mime_type: str) -> bytes:
        with client.watch(ids[seed]) as generation:
            return generation.images()[0].data

    return {"Generate": generate, "Generate, from the cache": generate, "WatchGeneration": watch}


def _http_routes(url: str) -> dict[str, Fetch]:
    def fields(seed: int, mime_type: str, **others: object) -> dict[str, object]:
        return {
            "prompt": PROMPT,
            "seed": seed,
            **PARAMETERS,
            "output_format": mime_type.removeprefix("image/"),
            **others,
        }

    def native(query: str) -> Fetch:
        def fetch(seed: int, mime_type: str) -> bytes:
            body = {
                "inputs": PROMPT,
                "parameters": {"seed": seed, **PARAMETERS},
                "output": {"mime_type": mime_type},
            }
            lines = _call(f"{url}/v1/generate{query}", body).decode().splitlines()
            image = json.loads(lines[lines.index("event: image") + 2].removeprefix("data: "))
            return _read(image.get("url") or image["data"])

        return fetch

    def hugging_face(seed: int, mime_type: str) -> bytes:
        body = fields(seed, mime_type)
        del body["output_format"]
        route = f"{url}/hf-inference/models/shapes"
        return _call(route, {"inputs": body.pop("prompt"), "parameters": body}, Accept=mime_type)

    def fal(**others: object) -> Fetch:
        def fetch(seed: int, mime_type: str) -> bytes:
            answer = _call(f"{url}/fal-ai/shapes", fields(seed, mime_type, **others))
            return _read(json.loads(answer)["images"][0]["url"])

        return fetch

    def fal_queue(seed: int, mime_type: str) -> bytes:
        submitted = json.loads(_call(f"{url}/fal-queue/shapes", fields(seed, mime_type)))
        while json.loads(_call(submitted["status_url"]))["status"] != "COMPLETED":
            pass
        result = json.loads(_call(submitted["response_url"]))
        return _read(result["images"][0]["url"])

    def replicate(agent: str) -> Fetch:
        def fetch(seed: int, mime_type: str) -> bytes:
            route = f"{url}/replicate/v1/models/safelight/shapes/predictions"
            headers = {"Prefer": "wait", "User-Agent": agent}
            answer = _call(route, {"input": fields(seed, mime_type)}, **headers)
            return _read(json.loads(answer)["output"][0])

        return fetch

    def openai(prefix: str = "", **others: object) -> Fetch:
        def fetch(seed: int, mime_type: str) -> bytes:
            route = f"{url}{prefix}/v1/images/generations"
            [image] = json.loads(_call(route, fields(seed, mime_type, **others)))["data"]
            return _read(image.get("url") or image["b64_json"])

        return fetch

    def openai_stream(seed: int, mime_type: str) -> bytes:
        route = f"{url}/v1/images/generations"
        lines = _call(route, fields(seed, mime_type, stream=True)).decode().splitlines()
        return _read(json.loads(lines[-1 if lines[-1] else -2].removeprefix("data: "))["b64_json"])

    return {
        "native, bytes": native(""),
        "native, link": native("?images=url"),
        "Hugging Face": hugging_face,
        "fal, link": fal(),
        "fal, bytes": fal(sync_mode=True),
        "fal, queue": fal_queue,
        "Replicate, link": replicate("curl/8"),
        "Replicate, bytes": replicate("replicate-python/1.0.7"),
        "OpenAI, bytes": openai(),
        "OpenAI, link": openai(response_format="url"),
        "OpenAI, stream": openai_stream,
        "Together": openai("/together"),
        "Nebius": openai("/nebius"),
    }


def _call(url: str, body: Mapping[str, object] | None = None, **headers: str) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = Request(url, data, {"Content-Type": "application/json", **headers})
    with urlopen(request, timeout=TIMEOUT_S) as response:
        content: bytes = response.read()
    return content


def _read(image: str) -> bytes:
    """Return the bytes of a link, of a data: URL or of base64."""
    if image.startswith("http"):
        return _call(image)
    return base64.b64decode(image.rpartition(",")[2])
