"""The Hub: what clients look up before they ask for an image."""

from support.running_gateway import RunningGateway
from tests.gateway.failing_service import BAD_TOKEN, READY
from tests.gateway.http_call import get


def test_mapping_names_every_provider_hf_inference_first(gateway: RunningGateway) -> None:
    id_ = "black-forest-labs/FLUX.1-dev"
    url = f"{gateway.url}/api/models/{id_}?expand=inferenceProviderMapping"
    mapping = get(url).json["inferenceProviderMapping"]
    assert list(mapping) == ["hf-inference", "fal-ai", "nebius", "replicate", "together"]
    assert {entry["task"] for entry in mapping.values()} == {"text-to-image"}


def test_mapping_of_an_unknown_model_is_the_error_of_the_hub(gateway: RunningGateway) -> None:
    answer = get(f"{gateway.url}/api/models/nobody/nothing")
    assert answer.status == 404
    assert answer.headers["x-error-code"] == "RepoNotFound"


def test_mapping_needs_no_token_that_the_service_knows(failing_gateway: RunningGateway) -> None:
    url = f"{failing_gateway.url}/api/models/safelight/{READY}"
    for header in (f"Bearer {BAD_TOKEN}", "nonsense"):
        assert get(url, Authorization=header).status == 200


def test_tasks_name_the_default_model_first(gateway: RunningGateway) -> None:
    task = get(f"{gateway.url}/api/tasks").json["text-to-image"]
    assert task == {"models": [{"id": "shapes"}], "widgetModels": ["shapes"]}
    assert get(f"{gateway.url}/api/agent-harnesses").json == {
        "standardEnvVars": [],
        "harnesses": {},
    }
