"""The MCP server: the tools generate_image and list_models, on standard input and output."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
)

from safelight._client.async_client import AsyncClient
from safelight._client.async_generation import AsyncGeneration
from safelight._version import __version__
from safelight.errors import SafelightError
from safelight.events import Accepted, Completed
from safelight.mcp.answers import GenerationProgress, show_error, show_images, show_models
from safelight.mcp.arguments import ImageArguments, NoArguments, parse_image_arguments

_GENERATE, _LIST = "generate_image", "list_models"
_TOOLS = [
    Tool(
        name=_GENERATE,
        title="Generate images",
        description="Draw images from a prompt. Returns the images, then their seeds and all "
        "parameters as JSON. Omitted arguments take the model's defaults.",
        input_schema=ImageArguments.model_json_schema(),
        annotations=ToolAnnotations(destructive_hint=False, open_world_hint=False),
    ),
    Tool(
        name=_LIST,
        title="List models",
        description="List the text-to-image models, the default first, with their defaults, "
        "limits, schedulers and readiness.",
        input_schema=NoArguments.model_json_schema(),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    ),
]


class McpServer:
    """Serves the tools with a client, whose settings each call uses."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._running: dict[AsyncGeneration, anyio.Event] = {}
        """Generations, with events that are set once they have ended."""
        self._ending: asyncio.Task[None] | None = None
        self._server: Server[object] = Server(
            "safelight",
            version=__version__,
            title="Safelight",
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
        )

    async def run(self) -> None:
        """Serve until standard input ends. SIGINT and SIGTERM cancel the generations first."""
        loop = asyncio.get_running_loop()
        _handle_signals(lambda number, _: loop.call_soon_threadsafe(self._end, number))
        try:
            async with self._client, stdio_server() as (reading, writing):
                options = self._server.create_initialization_options()
                await self._server.run(reading, writing, options)
        finally:
            _handle_signals(signal.SIG_DFL)

    def _end(self, number: int) -> None:
        """Begin to end by a signal; a second one ends the process at once."""
        _handle_signals(signal.SIG_DFL)
        self._ending = asyncio.ensure_future(self._cancel_all(number))

    async def _cancel_all(self, number: int) -> None:
        """Cancel all generations, then die of the signal.

        A KeyboardInterrupt would not do: the thread that reads standard input waits for its end.
        """
        running = {**self._running}
        for generation in running:
            generation.cancel()
        for has_ended in running.values():
            await has_ended.wait()
        signal.raise_signal(number)

    async def _list_tools(
        self, context: ServerRequestContext[object], params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=_TOOLS)

    async def _call_tool(
        self, context: ServerRequestContext[object], params: CallToolRequestParams
    ) -> CallToolResult:
        try:
            if params.name == _GENERATE:
                return await self._generate(context, params.arguments or {})
            if params.name == _LIST:
                return show_models(await self._client.list_models())
        except (SafelightError, ValueError) as error:  # ValueError: too large for the contract
            return show_error(error)
        raise MCPError(INVALID_PARAMS, f"there is no tool {params.name!r}")

    async def _generate(
        self, context: ServerRequestContext[object], values: dict[str, object]
    ) -> CallToolResult:
        options = parse_image_arguments(values).model_dump()
        progress = GenerationProgress(context.session.report_progress)
        generation = self._client.generate(options.pop("prompt"), **options)
        async with self._entered(generation):
            async for event in generation:
                await progress.note(event)
                match event:
                    case Accepted():
                        accepted = event
                    case Completed():
                        completed = event
            return show_images(accepted, await generation.images(), completed)

    @asynccontextmanager
    async def _entered(self, generation: AsyncGeneration) -> AsyncIterator[None]:
        """Run a generation; its cancellation is not cut short by that of the tool call."""
        stack = AsyncExitStack()
        await stack.enter_async_context(generation)
        has_ended = self._running[generation] = anyio.Event()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await stack.aclose()
            del self._running[generation]
            has_ended.set()


def _handle_signals(handler: Callable[[int, object], object] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
