"""The MCP server in its own process, asked by the SDK's client over standard input and output."""

import base64
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from subprocess import PIPE, Popen, run
from typing import Any

import anyio
import grpc
import pytest
from anyio.abc import TaskGroup
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, ImageContent, TextContent
from safelight import QueueFullError, ServiceUnavailableError
from safelight.mcp.answers import show_error
from safelight.options import CallOptions, TextToImageOptions
from safelight.v1 import text_to_image_pb2 as pb

from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    completed,
    failure,
    image,
    png,
    progress,
    queued,
    status,
    whole_generation,
)

pytestmark = pytest.mark.anyio  # the tests that are coroutines
PROMPT = {"prompt": "a red circle"}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def served() -> Iterator[ScriptedService]:
    with ScriptedService() as service:
        service.models = [pb.Model(name="shapes", is_default=True)]
        yield service


def begin_session(target: str) -> Client:
    """Prepare a session with a server process of its own."""
    command = ["-W", "error", "-m", "safelight", "mcp", "--target", target]
    environment = {**os.environ, "SAFELIGHT_TOKEN": "secret"}
    parameters = StdioServerParameters(command=sys.executable, args=command, env=environment)
    return Client(parameters, read_timeout_seconds=30)


@pytest.fixture(scope="module")
async def session(served: ScriptedService) -> AsyncIterator[Client]:
    """A session that most tests share."""
    async with begin_session(served.target) as client:
        yield client


@pytest.fixture
def scripted(served: ScriptedService) -> ScriptedService:
    """The service, without traces of earlier tests."""
    served.requests.clear()
    served.cancelled.clear()
    served.cancelled_by_id.clear()
    served.play()
    return served


def text_of(result: CallToolResult) -> str:
    *_, last = result.content
    assert isinstance(last, TextContent)
    return last.text


async def test_the_tools_describe_their_arguments(session: Client) -> None:
    tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert {*tools} == {"generate_image", "list_models"}
    schema = tools["generate_image"].input_schema
    assert schema["required"] == ["prompt"]
    assert schema["additionalProperties"] is False
    parameters = pb.TextToImageParameters.DESCRIPTOR.fields
    assert {field.name for field in parameters} <= schema["properties"].keys()
    options = TextToImageOptions.__annotations__.keys() - CallOptions.__annotations__.keys()
    assert options <= schema["properties"].keys()
    assert all(argument["description"] for argument in schema["properties"].values())


async def test_it_returns_the_images_and_the_facts(
    session: Client, scripted: ScriptedService
) -> None:
    scripted.play(accepted(2), image(0), image(1, "blue"), completed())
    arguments = {
        **PROMPT,
        "width": 64,
        "num_inference_steps": 4,
        "guidance_scale": 2,
        "seed": 7,
        "image_count": 2,
        "output_mime_type": "image/webp",
        "output_quality": 80,
        "adapters": {"ink": 0.5},
        "generation_id": "mine",
        "linger": 3,
        "use_cache": False,
    }
    result = await session.call_tool("generate_image", arguments)
    assert not result.is_error
    pictures = [each for each in result.content if isinstance(each, ImageContent)]
    assert [base64.b64decode(each.data) for each in pictures] == [png("red"), png("blue")]
    assert {each.mime_type for each in pictures} == {"image/png"}
    facts: dict[str, Any] = result.structured_content
    assert json.loads(text_of(result)) == facts
    assert facts["model"] == "shapes"
    assert [each["seed"] for each in facts["images"]] == [7, 8]
    assert facts["parameters"]["num_inference_steps"] == 4
    (request,) = scripted.requests
    assert (request.inputs, request.image_count, request.output.quality) == ("a red circle", 2, 80)
    assert (request.generation_id, request.linger.seconds) == ("mine", 3)
    assert [(each.name, each.scale) for each in request.adapters] == [("ink", 0.5)]
    assert (request.parameters.width, request.parameters.guidance_scale) == (64, 2)
    assert scripted.metadata["authorization"] == "Bearer secret"
    assert scripted.metadata["x-use-cache"] == "false"


async def test_progress_rises(session: Client, scripted: ScriptedService) -> None:
    steps = [progress(step, image_index=index) for step in (1, 4) for index in (0, 1)]
    images = [*image(0), *image(1)]
    scripted.play(queued(2), queued(1), accepted(2), *steps, *images, completed())
    seen: list[tuple[float, float | None, str | None]] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    await session.call_tool("generate_image", PROMPT, progress_callback=note)
    assert seen == [
        (0, None, "waiting at position 2"),
        (1, 8, "step 1 of 8"),
        (2, 8, "step 2 of 8"),
        (5, 8, "step 5 of 8"),
        (8, 8, "step 8 of 8"),
    ]


async def test_cancelling_the_call_cancels_the_generation(
    session: Client, scripted: ScriptedService
) -> None:
    scripted.play(accepted(), progress(1), HOLD)
    has_begun = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        has_begun.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(session.call_tool, "generate_image", PROMPT, None, note)
        with anyio.fail_after(10):
            await has_begun.wait()
        tasks.cancel_scope.cancel()
    assert await anyio.to_thread.run_sync(scripted.cancelled.wait, 10)
    assert await anyio.to_thread.run_sync(scripted.cancelled_by_id.wait, 10)
    scripted.play(whole_generation())  # the session goes on
    assert not (await session.call_tool("generate_image", PROMPT)).is_error


async def test_a_client_that_goes_away_cancels_its_generation(scripted: ScriptedService) -> None:
    scripted.play(accepted(), progress(1), HOLD)
    has_begun = anyio.Event()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        has_begun.set()

    async def leave_at_progress(tasks: TaskGroup) -> None:
        await has_begun.wait()
        tasks.cancel_scope.cancel()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks, begin_session(scripted.target) as session:
            tasks.start_soon(leave_at_progress, tasks)
            await session.call_tool("generate_image", PROMPT, progress_callback=note)
    assert scripted.cancelled.wait(10)
    assert scripted.cancelled_by_id.wait(10)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_generation_and_ends_it(
    scripted: ScriptedService, number: signal.Signals
) -> None:
    scripted.play(accepted(), progress(1), HOLD)
    command = [sys.executable, "-m", "safelight", "mcp", "--target", scripted.target]
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    }
    call = {"name": "generate_image", "arguments": PROMPT, "_meta": {"progressToken": 1}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": call},
    ]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for message in messages:
            process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        process.stdin.flush()
        assert any("notifications/progress" in line for line in process.stdout)
        process.send_signal(number)
        assert process.wait(10) == -number
    assert scripted.cancelled_by_id.is_set()


def test_a_missing_package_is_named() -> None:
    code = "import sys; sys.modules['mcp'] = None; from safelight.cli import main; main()"
    process = run([sys.executable, "-c", code, "mcp"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.endswith("pip install 'safelight[mcp]'\n")
    assert process.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({}, {"prompt: Field required"}),
        ({**PROMPT, "steps": 3}, {"steps: Extra inputs are not permitted"}),
        (
            {**PROMPT, "width": "wide", "seed": 1.5},
            {
                "width: Input should be a valid integer",
                "seed: Input should be a valid integer",
            },
        ),
    ],
)
async def test_arguments_that_do_not_fit_are_named(
    session: Client, arguments: dict[str, object], lines: set[str]
) -> None:
    result = await session.call_tool("generate_image", arguments)
    assert result.is_error
    assert {*text_of(result).splitlines()} == lines


async def test_fields_that_the_service_refuses_have_the_names_of_arguments(
    session: Client, scripted: ScriptedService
) -> None:
    bad = BadRequest()
    for field in ("parameters.width", "inputs", "output.quality"):
        bad.field_violations.add(field=field, description="must be other")
    info = ErrorInfo(reason="INVALID_REQUEST", domain="safelight")
    scripted.play(status(grpc.StatusCode.INVALID_ARGUMENT, "bad", info, bad))
    result = await session.call_tool("generate_image", PROMPT)
    assert result.is_error
    assert text_of(result).splitlines() == [
        "width: must be other",
        "prompt: must be other",
        "output_quality: must be other",
    ]


async def test_a_number_that_the_contract_cannot_hold_is_an_error(session: Client) -> None:
    result = await session.call_tool("generate_image", {**PROMPT, "width": 2**40})
    assert result.is_error
    assert "width" in text_of(result)


async def test_a_failure_says_why(session: Client, scripted: ScriptedService) -> None:
    scripted.play(failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error, id=1"))
    result = await session.call_tool("generate_image", PROMPT)
    assert (result.is_error, text_of(result)) == (True, "internal error, id=1")


async def test_it_lists_the_models(session: Client, scripted: ScriptedService) -> None:
    result = await session.call_tool("list_models", {})
    models = result.structured_content["models"]
    assert [(model["name"], model["is_default"]) for model in models] == [("shapes", True)]
    assert json.loads(text_of(result))["models"] == models


async def test_another_tool_is_not_there(session: Client) -> None:
    with pytest.raises(MCPError, match="no tool 'paint'"):
        await session.call_tool("paint", {})


def test_a_service_that_is_not_there_is_named_as_the_cause() -> None:
    error = ServiceUnavailableError("Connection refused", code=grpc.StatusCode.UNAVAILABLE)
    assert text_of(show_error(error)) == "cannot reach the service: Connection refused"
    busy = QueueFullError("64 generations wait", reason="QUEUE_FULL", retry_after_s=2.4)
    assert text_of(show_error(busy)) == "64 generations wait (try again in 2 s)"
