"""A real MCP client, over stdio, of a search in a project."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
from mcp import Client, StdioServerParameters, stdio_client
from mcp.types import TextContent

from tests.project import Project

T = TypeVar("T")


@dataclass
class Session:
    """What a client has been told, by what it has asked for."""

    client: Client
    heard: list[str] = field(default_factory=list)

    async def use(self, tool: str, **arguments: Any) -> str:
        """What a tool says; an error begins with a word that says so."""
        result = await self.client.call_tool(tool, arguments)
        [content] = result.content
        assert isinstance(content, TextContent)
        self.heard.append(f"{'error: ' if result.is_error else ''}{content.text}")
        return self.heard[-1]


def played(project: Project, play: Callable[[Session], Awaitable[T]], *arguments: str) -> T:
    """What a client comes to that an editor might be, with the command as its server."""
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "pytest_glia", "mcp", "--", "-p", "no:xdist", "-o", "glia_replications=4", *arguments],
        cwd=project.folder,
        env={**project.bytecode, "TMPDIR": str(project.folder.parent)},
    )

    async def session() -> T:
        with anyio.fail_after(200):
            async with Client(stdio_client(server)) as client:
                return await play(Session(client))

    return anyio.run(session)


async def evaluated(session: Session, name: str = "measured setting") -> str:
    """Have what is written tried."""
    return await session.use(
        "evaluate",
        name=name,
        hypothesis="The pressure of the sweep, and the valve that leaks least.",
        reason="the sweep, and the analysis",
        predicts={"waste": -50},
        refuted_by="more waste than before",
    )


async def improve(session: Session, name: str) -> None:
    """Try a somewhat better candidate."""
    for pressure in (49, 51):
        text = (
            f"class Pump:\n    def pressure(self):\n        return {pressure}\n\n"
            "    def valve(self):\n        return 0\n"
        )
        await session.use("write_file", path=f"candidates/{name}.py", text=text)
        if "It is the best so far" in await evaluated(session, name=f"pressure {pressure}"):
            return
