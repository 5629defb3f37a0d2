"""Third-party Python clients that run against a gateway, in their own environment.

Reads a JSON object from standard input. Writes a line of JSON for each of its `cases`: the bytes of
the image in base64 or the exception, and the requests that the gateway has received.
"""

import asyncio
import base64
import io
import json
import os
import sys
import time
import urllib.request
from collections.abc import Callable
from typing import Any

CLIENTS: dict[str, Callable[[], Any]] = {}
OTHERS = ("guidance_scale", "scheduler", "negative_prompt", "seed")
job: dict[str, Any] = json.load(sys.stdin)
prompt = job["prompt"]
base = token = model = ""
parameters: dict[str, Any] = {}


def begin(case: dict[str, Any]) -> None:
    """Apply the settings of a case."""
    global base, token, model, parameters
    base, token, model, parameters = (
        case[name] for name in ("base", "token", "model", "parameters")
    )


def size() -> dict[str, int]:
    return {name: parameters[name] for name in ("width", "height")}


def others() -> dict[str, Any]:
    return {name: parameters[name] for name in OTHERS}


def steps() -> int:
    count: int = parameters["num_inference_steps"]
    return count


if job["is_impatient"]:
    # The tests count retries; the waits between them do not matter.
    time.sleep = lambda _: None


def client(function: Callable[[], Any]) -> Callable[[], Any]:
    CLIENTS[function.__name__] = function
    return function


def download(url: str) -> bytes:
    with urllib.request.urlopen(url) as response:
        data: bytes = response.read()
        return data


# huggingface_hub


def import_hub() -> Any:
    os.environ["HF_ENDPOINT"] = base
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    import huggingface_hub.constants

    huggingface_hub.constants.INFERENCE_PROXY_TEMPLATE = f"{base}/{{provider}}"
    return huggingface_hub


def hub(provider: str | None = None, **arguments: Any) -> Any:
    named = {"provider": provider} if provider else {}
    inference = import_hub().InferenceClient(api_key=token, **named, **arguments)
    chosen = {} if "base_url" in arguments else {"model": model}
    return inference.text_to_image(prompt, **parameters, **chosen)


@client
def hub_base_url() -> Any:
    return hub(base_url=f"{base}/hf-inference/models/{model}")


@client
def hub_unset_provider() -> Any:
    return hub()


for name in ("hf-inference", "fal-ai", "nebius", "replicate", "together"):
    CLIENTS[f"hub_{name}"] = lambda provider=name: hub(provider)


@client
def hub_async() -> Any:
    inference = import_hub().AsyncInferenceClient(provider="fal-ai", api_key=token)
    return asyncio.run(inference.text_to_image(prompt, model=model, **parameters))


# the documented examples with `requests`, unchanged except for the address


@client
def requests_hf_inference() -> Any:
    return post(f"/hf-inference/models/{model}")


@client
def requests_models() -> Any:
    return post(f"/models/{model}")


@client
def requests_fal() -> Any:
    return post(f"/fal-ai/{model}")


@client
def requests_nebius() -> Any:
    return post("/nebius/v1/images/generations")


@client
def requests_replicate() -> Any:
    return post(f"/replicate/v1/models/{model}/predictions")


@client
def requests_together() -> Any:
    return post("/together/v1/images/generations")


def post(path: str) -> bytes:
    import requests

    headers = {"Authorization": f"Bearer {token}"}
    payload = {"inputs": prompt, "parameters": parameters, "model": model}
    response = requests.post(f"{base}{path}", headers=headers, json=payload)
    if not response.ok:
        raise RuntimeError(f"{response.status_code} {response.text}")
    data: bytes = response.content
    return data


# fal_client


def import_fal() -> Any:
    if base.startswith("https://"):
        host = base.removeprefix("https://")
        os.environ |= {"FAL_RUN_HOST": f"{host}/fal-ai", "FAL_QUEUE_RUN_HOST": f"{host}/fal-queue"}
        import fal_client.client
    else:
        import fal_client.client

        fal_client.client.QUEUE_URL_FORMAT = f"{base}/fal-queue/"
        fal_client.client.RUN_URL_FORMAT = f"{base}/fal-ai/"
    return fal_client.SyncClient(key=token)


def fal_arguments() -> dict[str, Any]:
    return {"prompt": prompt, "image_size": size(), "num_inference_steps": steps(), **others()}


@client
def fal_run() -> Any:
    result = import_fal().run(model, arguments=fal_arguments())
    assert result["seed"] == parameters["seed"]
    return download(result["images"][0]["url"])


@client
def fal_run_sync_mode() -> Any:
    result = import_fal().run(model, arguments={**fal_arguments(), "sync_mode": True})
    return download(result["images"][0]["url"])


@client
def fal_subscribe() -> Any:
    result = import_fal().subscribe(model, arguments=fal_arguments(), with_logs=True)
    return download(result["images"][0]["url"])


@client
def fal_cancel() -> Any:
    handle = import_fal().submit(model, arguments=fal_arguments())
    handle.cancel()
    for _ in handle.iter_events():
        pass
    assert handle.status().error_type == "client_cancelled"
    return handle.get()


@client
def fal_submit() -> Any:
    handle = import_fal().submit(model, arguments=fal_arguments())
    for _ in handle.iter_events(with_logs=True):
        pass
    return download(handle.get()["images"][0]["url"])


# replicate


def replicate() -> Any:
    from replicate.client import Client

    return Client(api_token=token, base_url=f"{base}/replicate")


def replicate_input() -> dict[str, Any]:
    return {"prompt": prompt, **size(), "num_inference_steps": steps(), **others()}


@client
def replicate_run() -> Any:
    [output] = replicate().run(model, input=replicate_input())
    return output.read()


@client
def replicate_version() -> Any:
    [output] = replicate().run(f"{model}:{job['version']}", input=replicate_input())
    return output.read()


@client
def replicate_poll() -> Any:
    prediction = replicate().models.predictions.create(model, input=replicate_input())
    prediction.wait()
    assert prediction.status == "succeeded", prediction.error
    return download(prediction.output[0])


# together and openai


def together(**arguments: Any) -> Any:
    from together import Together

    images = Together(api_key=token, base_url=f"{base}/together").images
    return images.generate(
        model=model, prompt=prompt, steps=steps(), **size(), extra_body=others(), **arguments
    ).data[0]


@client
def together_b64() -> Any:
    return base64.b64decode(together(response_format="base64").b64_json)


@client
def together_url() -> Any:
    return download(together().url)


def openai(root: str, **arguments: Any) -> Any:
    from openai import OpenAI

    images = OpenAI(api_key=token, base_url=f"{base}{root}").images
    text = f"{parameters['width']}x{parameters['height']}"
    extra = {"num_inference_steps": steps(), **others()}
    return images.generate(
        model=model, prompt=prompt, size=text, extra_body=extra, **arguments
    ).data[0]


@client
def openai_b64() -> Any:
    return base64.b64decode(openai("/v1").b64_json)


@client
def openai_nebius_url() -> Any:
    return download(openai("/nebius/v1", response_format="url").url)


@client
def openai_stream() -> Any:
    import openai as module

    api = module.OpenAI(api_key=token, base_url=f"{base}/v1")
    assert [each.id for each in api.models.list()] == ["shapes"]
    assert api.models.retrieve(model).id == model
    extra = {"num_inference_steps": steps(), **others()}
    text = f"{parameters['width']}x{parameters['height']}"
    stream = api.images.generate(
        model=model, prompt=prompt, size=text, stream=True, partial_images=1, extra_body=extra
    )
    events = list(stream)
    assert events[-1].type == "image_generation.completed"
    return base64.b64decode(events[-1].b64_json)


# output for the test


def recorded() -> Any:
    return json.loads(download(f"{base}/recorded"))


def run(case: dict[str, Any]) -> dict[str, Any]:
    begin(case)
    recorded()
    try:
        image = CLIENTS[case["client"]]()
    except Exception as error:
        outcome = {"exception": type(error).__name__, "message": str(error)}
    else:
        if not isinstance(image, bytes):
            file = io.BytesIO()
            image.save(file, "PNG")
            image = file.getvalue()
        outcome = {"image": base64.b64encode(image).decode()}
    return {**outcome, "requests": recorded()}


for asked in job["cases"]:
    print(json.dumps(run(asked)), flush=True)
