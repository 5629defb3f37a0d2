"""Requests to every route that makes images, as its clients send them."""

from collections.abc import Mapping
from typing import Any

from support.running_gateway import RunningGateway
from tests.gateway.http_call import Answer, post

SIZE = {"width": 96, "height": 64, "num_inference_steps": 2, "seed": 7}
INPUTS = {"inputs": "a red circle", "parameters": SIZE}
PROMPT = {"prompt": "a red circle", **SIZE}
ROUTES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "hf-inference": ("/hf-inference/models/{}", INPUTS),
    "models": ("/models/{}", INPUTS),
    "pipeline": ("/pipeline/text-to-image/{}", INPUTS),
    "hf-inference pipeline": ("/hf-inference/pipeline/text-to-image/{}", INPUTS),
    "fal": ("/fal-ai/{}", PROMPT),
    "fal held": ("/fal-ai/{}?_subdomain=queue", PROMPT),
    "fal queue": ("/fal-queue/{}", PROMPT),
    "replicate": ("/replicate/v1/models/{}/predictions", {"input": PROMPT}),
    "replicate host": ("/v1/models/{}/predictions", {"input": PROMPT}),
    "together": ("/together/v1/images/generations", PROMPT),
    "nebius": ("/nebius/v1/images/generations", PROMPT),
    "openai": ("/v1/images/generations", PROMPT),
    "openai, /v1 twice": ("/v1/v1/images/generations", PROMPT),
}
OF_OPENAI = {"together", "nebius", "openai", "openai, /v1 twice"}


def send(gateway: RunningGateway, route: str, model: str, **headers: str) -> Answer:
    """Ask for a model on a route, as its clients do."""
    path, body = ROUTES[route]
    body = {**body, "model": model} if "{}" not in path else body
    return post(gateway.url + path.format(model), body, Prefer="wait", **headers)


def words_of(route: str, answer: Answer) -> object:
    """Return the text where the route's clients look for it."""
    if route in OF_OPENAI:
        assert set(answer.json) == {"error"}
        return answer.json["error"]["message"]
    if route.startswith("replicate"):
        assert answer.json["status"] == answer.status
        return answer.json["detail"]
    if route.startswith("fal"):
        assert answer.headers["x-fal-request-id"]
        assert answer.json["message"] == answer.json["error"]
    return answer.json["error"]
