"""One HTTP exchange with a replica, passed on to the client byte for byte."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

__all__ = ["KEEP_ALIVE", "REFUSED", "ClientGone", "ReplicaLost", "client_session", "forward", "onward"]

# RFC 9110, 7.6.1: of one connection, not of the message; the client library sets length and host itself.
_OF_THE_CONNECTION = frozenset(
    [
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "content-length",
        "expect",
    ]
)
_NOT_OURS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
KEEP_ALIVE = 2.0
"""Seconds for which an idle connection is used again. vLLM's servers close theirs after five
(VLLM_HTTP_TIMEOUT_KEEP_ALIVE), and a request sent at that moment breaks off although nothing is wrong."""
REFUSED = (aiohttp.ClientConnectorError, ConnectionRefusedError)


class ReplicaLost(Exception):
    """The exchange broke; `begun` if the client has already got some of the answer."""

    def __init__(self, why: str, *, begun: bool, refused: bool = False) -> None:
        super().__init__(why)
        self.begun, self.refused = begun, refused


def client_session(read_timeout: float) -> aiohttp.ClientSession:
    """Connections to replicas, as many as needed, that wait so many seconds for the next byte."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=10, keepalive_timeout=KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=read_timeout),
        auto_decompress=False,
        skip_auto_headers=_NOT_OURS,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


def onward(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers that are passed on: all, authorization included, but those of the connection."""
    return CIMultiDict(
        (name, value) for name, value in headers.items() if name.lower() not in _OF_THE_CONNECTION
    )


async def forward(
    session: aiohttp.ClientSession,
    request: web.Request,
    url: str,
    body: bytes,
    *,
    extra: Mapping[str, str],
    seen: Callable[[int, bytes, bool], None],
    begin: Callable[[], None],
) -> web.StreamResponse:
    """The replica's answer to this request, sent to the client as it comes.

    `seen(status, bytes, streams)` is called with each piece before it is sent, `begin()` before the first.
    Nothing is sent before the first piece of a stream, or before the whole of any other answer, so that until
    then another replica may be asked. ReplicaLost if the replica breaks off; ClientGone if the client
    does.
    """
    response: web.StreamResponse | None = None
    try:
        async with session.request(
            request.method, url, data=body or None, headers=onward(request.headers), allow_redirects=False
        ) as answer:
            headers = onward(answer.headers)
            headers.update(extra)
            streams = answer.content_type == "text/event-stream"
            if not streams:
                whole = await answer.read()
                begin()
                seen(answer.status, whole, False)
                return web.Response(status=answer.status, reason=answer.reason, headers=headers, body=whole)
            async for piece in answer.content.iter_any():
                seen(answer.status, piece, True)
                if response is None:
                    begin()
                    response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
                    await _to_client(response.prepare(request))
                await _to_client(response.write(piece))
            if response is None:
                raise ReplicaLost("the stream ended before its first byte", begun=False)
            await _to_client(response.write_eof())
            return response
    except (TimeoutError, aiohttp.ClientError, OSError) as error:
        if isinstance(error, ClientGone):
            raise
        why = str(error) or type(error).__name__
        raise ReplicaLost(why, begun=response is not None, refused=isinstance(error, REFUSED)) from error


class ClientGone(ConnectionError):
    """The client, not the replica, broke off."""


async def _to_client(sending: Awaitable[object]) -> None:
    try:
        await sending
    except OSError as error:
        raise ClientGone(str(error)) from error
