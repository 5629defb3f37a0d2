"""OpenAI's list of models."""

import pytest

from support.running_gateway import RunningGateway
from tests.gateway.failing_service import BAD_TOKEN
from tests.gateway.http_call import get


@pytest.mark.parametrize("root", ["/v1", "/v1/v1", "/nebius/v1", "/together/v1"])
def test_models_are_listed(root: str, gateway: RunningGateway) -> None:
    answer = get(f"{gateway.url}{root}/models").json
    [model] = answer["data"]
    assert answer["object"] == "list"
    assert (model["id"], model["object"]) == ("shapes", "model")
    assert {"created", "owned_by"} <= set(model)


@pytest.mark.parametrize("id_", ["shapes", "safelight/shapes", "fal-ai/flux/dev", "SHAPES"])
def test_model_is_found_under_every_id(id_: str, gateway: RunningGateway) -> None:
    model = get(f"{gateway.url}/v1/models/{id_}").json
    assert (model["id"], model["object"], model["root"]) == (id_, "model", "shapes")


def test_unknown_model_and_token_are_reported_in_openais_format(
    gateway: RunningGateway, failing_gateway: RunningGateway
) -> None:
    answer = get(f"{gateway.url}/v1/models/nobody/nothing")
    assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
    answer = get(f"{failing_gateway.url}/v1/models/x", Authorization=f"Bearer {BAD_TOKEN}")
    assert (answer.status, answer.json["error"]["type"]) == (401, "authentication_error")


def test_versions_of_replicate_are_still_found_at_the_same_root(gateway: RunningGateway) -> None:
    answer = get(f"{gateway.url}/v1/models/safelight/shapes/versions/012")
    assert (answer.status, answer.json["id"]) == (200, "012")
