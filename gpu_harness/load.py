"""An open-loop load generator: a workload's requests at its times, with its exact token counts."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from gpu_harness.forwarding import KEEP_ALIVE
from gpu_harness.prompting import Prompting
from sim.workloads import Workload

__all__ = ["Answer", "LoadError", "Target", "answers", "probe"]


class LoadError(RuntimeError):
    """A server that does not do what was asked for: wrong token counts, or no such endpoint."""


@dataclass(frozen=True)
class Target:
    """Where the load goes."""

    url: str
    model: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 600.0
    """Seconds without a byte, after which a request has failed."""


@dataclass
class Answer:
    """What came of one request; seconds since the start of the workload, NaN for what never happened."""

    name: str
    """Its X-Request-Id."""
    due: float
    sent: float = math.nan
    token_times: list[float] = field(default_factory=list)
    """One for each output token; those of one event have the same."""
    finish: float = math.nan
    prompt_tokens: int = -1
    output_tokens: int = -1
    """As the server's `usage` says; -1 if it said nothing."""
    cached_tokens: int = 0
    error: str = ""
    """Why it failed; empty if it did not."""


async def answers(
    target: Target,
    workload: Workload,
    prompts: Prompting,
    *,
    run: str = "run",
    start: float | None = None,
    horizon: float | None = None,
) -> list[Answer]:
    """Send every request when it is due, whatever became of the others, and wait for all (or the horizon).

    `start` is the workload's zero on `time.monotonic()`, now by default. Latencies count from the moment at
    which a request was due, so a late generator hides nothing. LoadError, which names the request, as soon
    as an answer has another number of tokens than the workload says.
    """
    async with _session(target) as session, asyncio.TaskGroup() as group:
        made: list[Answer] = []
        start = time.monotonic() if start is None else start
        tasks, cut = set[asyncio.Task[None]](), False
        for number in range(len(workload)):
            due = float(workload.arrival[number])
            if horizon is not None and due >= horizon:
                cut = True
                break
            body = _body(workload, number, prompts, target)
            # Waiting here rather than in each task: a million sleeping tasks would be no load generator.
            await asyncio.sleep(max(0.0, start + due - time.monotonic()))
            answer = Answer(f"glia-{run}-{number}-", due)
            made.append(answer)
            wanted = int(workload.prompt_tokens[number]), int(workload.output_tokens[number])
            tasks.add(group.create_task(_ask(session, target, body, answer, start, wanted)))
        if horizon is not None:
            left = max(0.0, start + horizon - time.monotonic())
            if cut:
                await asyncio.sleep(left)
            elif tasks:
                await asyncio.wait(tasks, timeout=left)
            for task in tasks:
                task.cancel()
    return made


async def probe(target: Target, prompt_tokens: int, output_tokens: int, salt: int) -> Answer:
    """One request alone, asked and waited for; LoadError if it fails."""
    workload = Workload.from_arrays(
        arrival=[0.0], prompt_tokens=[prompt_tokens], output_tokens=[output_tokens]
    )
    (answer,) = await answers(target, workload, Prompting(workload, salt=salt), run=f"probe{salt}")
    if answer.error:
        raise LoadError(
            f"a probe of {prompt_tokens} prompt and {output_tokens} output tokens failed: {answer.error}"
        )
    return answer


@asynccontextmanager
async def _session(target: Target) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE),
        timeout=aiohttp.ClientTimeout(total=None, sock_read=target.timeout),
        headers=dict(target.headers),
    ) as session:
        try:
            yield session
        except BaseExceptionGroup as errors:
            # The first is what the user is told; the group is this file's affair.
            raise errors.exceptions[0] from None


def _body(workload: Workload, number: int, prompts: Prompting, target: Target) -> bytes:
    body: dict[str, Any] = {
        "model": target.model,
        "prompt": prompts[number],
        "max_tokens": int(workload.output_tokens[number]),
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if workload.priority is not None and workload.priority[number]:
        body["priority"] = int(workload.priority[number])
    return json.dumps(body).encode()


async def _ask(
    session: aiohttp.ClientSession,
    target: Target,
    body: bytes,
    answer: Answer,
    start: float,
    wanted: tuple[int, int],
) -> None:
    answer.sent = time.monotonic() - start
    headers = {"Content-Type": "application/json", "X-Request-Id": answer.name}
    try:
        async with session.post(target.url + "/v1/completions", data=body, headers=headers) as response:
            if response.status != 200:
                answer.error = f"{response.status}: {(await response.text())[:300]}"
                return
            async for line in response.content:
                if line.startswith(b"data: {"):
                    _read(json.loads(line[6:]), answer, time.monotonic() - start)
                elif line.startswith(b"data: [DONE]"):
                    answer.finish = time.monotonic() - start
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
        answer.error = f"{type(error).__name__}: {error}"
        return
    if math.isnan(answer.finish):
        answer.error = "the stream ended without data: [DONE]"
        return
    _check(answer, wanted)
    # The last token is the end, as in the simulator; what follows is the end of the protocol.
    answer.finish = answer.token_times[-1]


def _read(event: dict[str, Any], answer: Answer, now: float) -> None:
    if "error" in event:
        raise ValueError(f"the server says {event['error']!r:.300}")
    for choice in event.get("choices") or ():
        ids = choice.get("token_ids")
        answer.token_times += [now] * (1 if ids is None else len(ids))
    usage = event.get("usage")
    if usage:
        answer.prompt_tokens = int(usage.get("prompt_tokens", -1))
        answer.output_tokens = int(usage.get("completion_tokens", -1))
        answer.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)


def _check(answer: Answer, wanted: tuple[int, int]) -> None:
    told = answer.prompt_tokens, answer.output_tokens
    if told != wanted:
        raise LoadError(
            f"request {answer.name}: the server's usage has {told[0]} prompt and {told[1]} output tokens; "
            f"expected {wanted[0]} and {wanted[1]} (does it know ignore_eos, and prompts of token ids?)"
        )
    streamed = len(answer.token_times)
    if streamed < wanted[1]:  # a server without token ids may put several into one event
        answer.token_times += [answer.token_times[-1]] * (wanted[1] - streamed) if streamed else []
    if len(answer.token_times) != wanted[1]:
        raise LoadError(f"request {answer.name}: {streamed} tokens have streamed; expected {wanted[1]}")
