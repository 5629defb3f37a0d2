"""OpenAI's images API, at OpenAI, Nebius and Together."""

from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from tests.gateway.dialects.requests import PROMPT, send
from tests.gateway.http_call import post


def test_openai_answers_hold_a_link_or_bytes_and_never_both(gateway: RunningGateway) -> None:
    body = {**PROMPT, "model": "black-forest-labs/flux-dev", "n": 2}
    linked = post(f"{gateway.url}/together/v1/images/generations", body).json
    assert [set(image) for image in linked["data"]] == [{"index", "type", "url"}] * 2
    assert linked["model"] == "black-forest-labs/flux-dev"
    inline = post(f"{gateway.url}/nebius/v1/images/generations", body).json
    assert [set(image) for image in inline["data"]] == [{"index", "type", "b64_json"}] * 2


def test_host_of_together_answers_with_links(gateway: RunningGateway) -> None:
    answer = post(f"{gateway.url}/v1/images/generations", PROMPT, Host="api.together.xyz").json
    assert answer["data"][0]["url"].startswith("http://api.together.xyz/files/")


def test_openai_clients_do_not_repeat_what_fails_for_good(failing_gateway: RunningGateway) -> None:
    answer = send(failing_gateway, "openai", "faulty")
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json["error"]["type"] == "server_error"
    assert "x-should-retry" not in send(failing_gateway, "openai", "queue-full").headers


def test_models_of_dall_e_answer_with_links_unless_asked_for_bytes(service: RunningService) -> None:
    with run_gateway(service.target, aliases={"*": "shapes"}) as gateway:
        url = f"{gateway.url}/v1/images/generations"
        formats = [
            post(url, {**PROMPT, "model": model, **wish}).json["data"][0]["type"]
            for model, wish in (
                ("dall-e-3", {}),
                ("dall-e-3", {"response_format": "b64_json"}),
                ("gpt-image-1", {}),
                ("gpt-image-1", {"response_format": "url"}),
            )
        ]
    assert formats == ["url", "b64_json", "b64_json", "url"]
