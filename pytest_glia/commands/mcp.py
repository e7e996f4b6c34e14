"""``python -m pytest_glia mcp -- ARGUMENTS``: a search whose designer is an MCP client, over stdio."""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_glia.channel import Channel, ChannelClosed
from pytest_glia.designers.mcp import ENVIRONMENT, TOOLS
from pytest_glia.misuse import Misuse
from pytest_glia.visible import visible

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]

_INSTRUCTIONS = (
    "Design an algorithm until it meets its specs, within a budget. Read `problem` first. Measure before you "
    "change anything, state what each change should do, and end with `conclude`."
)

_TAIL = 40
"""Lines of what pytest has printed that the client is told in the end."""

_PATIENCE = 30.0
"""Seconds that pytest may take to exit after it has closed the channel."""


def add(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = subparsers.add_parser(
        "mcp",
        help="let an MCP client design",
        description="Serve the tools of a search over stdio, as the Model Context Protocol has it. The "
        "search (pytest --glia-optimize with these arguments) begins when the first tool is used.",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="-- ARGUMENTS", help="of pytest")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the client goes; raises `Misuse` without the mcp library."""
    try:
        import anyio
        import mcp.server.lowlevel
        import mcp_types as types  # Version 1 of the library has no such module.
        from mcp.server.stdio import stdio_server
    except ImportError as error:
        raise Misuse(
            f'the mcp library, 2.0 or later, is needed ({error}): pip install "pytest-glia[llm]"'
        ) from None
    search = Search([each for at, each in enumerate(args.arguments) if at or each != "--"])
    tools = [
        types.Tool(name=each.name, description=each.description, input_schema=dict(each.parameters))
        for each in TOOLS
    ]

    async def on_list_tools(context: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=tools)

    async def on_call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        use = partial(search.use, params.name, params.arguments or {})
        text, failed = await anyio.to_thread.run_sync(use, abandon_on_cancel=True)
        return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=failed)

    server: mcp.server.lowlevel.Server[Any] = mcp.server.lowlevel.Server(
        "pytest-glia", instructions=_INSTRUCTIONS, on_list_tools=on_list_tools, on_call_tool=on_call_tool
    )

    async def serve() -> None:
        try:
            async with stdio_server() as (incoming, outgoing):
                await server.run(incoming, outgoing, server.create_initialization_options())
        finally:
            search.leave()

    anyio.run(serve)
    return 0


class Search:
    """A pytest that searches with the designer `mcp`, started when it is first needed.

    It has a session of its own: whoever ends the client, and this process with it, leaves it to come to its
    end with the best candidate so far. One call is made at a time.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._arguments = arguments
        self._one_at_a_time = threading.Lock()
        self._end: socket.socket | None = None
        self._ready = False

    def use(self, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
        """What a tool says, and whether it failed; of the last one, with what became of the search."""
        with self._one_at_a_time:
            if self._end is None:
                self._start()
            try:
                if not self._ready:
                    self._channel.receive()
                self._ready = False
                self._channel.send(name=name, arguments=arguments)
                answer = self._channel.receive()
                self._ready = not answer["over"]
                if self._ready:
                    return answer["text"], answer["failed"]
            except ChannelClosed:
                return self._outcome(), True
            try:
                self._channel.receive()
                self._ready = True
                more = "Its specs are done; the search goes on with another candidate: read `problem` again."
            except ChannelClosed:
                more = self._outcome()
            return f"{answer['text']}\n\n{more}", answer["failed"]

    def leave(self) -> None:
        """Let the search come to its end."""
        if self._end is not None:
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)

    def _start(self) -> None:
        descriptor, name = tempfile.mkstemp(prefix="glia-mcp-", suffix=".log")
        self._log = Path(name)
        print(f"pytest-glia: what the search prints is in {name}", file=sys.stderr, flush=True)
        self._end, theirs = socket.socketpair()
        self._channel = Channel(self._end)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *self._arguments, "--glia-optimize", "--glia-designer=mcp"],
            env={**os.environ, ENVIRONMENT: str(theirs.fileno())},
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()
        os.close(descriptor)

    def _outcome(self) -> str:
        """How the search has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_PATIENCE)
        lines = visible(self._log.read_text("utf-8", "replace")).splitlines()[-_TAIL:]
        code = self._process.returncode
        return "\n".join([f"The search has ended (exit code {code}). Its last words:", "", *lines])
