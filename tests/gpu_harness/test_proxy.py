"""The laws of the router proxy, over HTTP, against a trivial upstream."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason='the proxy needs it: pip install "pytest-glia[harness]"')


from gpu_harness.limits import Limits
from gpu_harness.recording import Recording
from sim.baselines import LeastLoadedQueue, RoundRobin
from sim.policies import ReplicaView
from sim.workloads import Workload
from tests.gpu_harness.upstream import Holding, play, scene, until

FAST = 0.02


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
@pytest.mark.parametrize("stream", [True, False])
def test_answers_pass_byte_for_byte(path: str, stream: bool) -> None:
    """What the client gets are the bytes, status and headers that the replica gave."""

    async def scenario() -> None:
        async with scene(RoundRobin(), 1) as on:
            body = {"prompt": [1, 2, 3], "max_tokens": 5, "stream": stream}
            headers = {"Authorization": "Bearer key"}
            answers = []
            for url in (on.upstreams[0].url, on.url):
                async with on.client.post(url + path, json=body, headers=headers) as answer:
                    content = await answer.read()
                    answers.append((answer.status, answer.headers["Content-Type"], content))
            assert answers[0] == answers[1]
            ours, through = on.upstreams[0].headers
            assert through["Authorization"] == "Bearer key"
            assert set(through) == set(ours)

    play(scenario)


def test_other_paths_and_errors_pass() -> None:
    """Other paths of /v1 go to any replica; an error of the replica is the client's answer, and no retry."""

    async def scenario() -> None:
        async with scene(RoundRobin(), 2) as on:
            async with on.client.get(on.url + "/v1/models") as answer:
                assert (await answer.json())["data"][0]["id"] == "tiny"
            on.upstreams[0].error = 418
            status, content = await on.complete()
            assert (status, content) == (418, b'{"error": "so"}')
            assert len(on.upstreams[1].seen) == 0

    play(scenario)


def test_views_hold_what_was_scraped_and_what_was_sent_since() -> None:
    """A router sees the servers' gauges, its own requests, exact prompts of token ids, and exact outputs."""
    holding = Holding()

    async def scenario() -> None:
        async with scene(holding, 2, limits=Limits(scrape_interval=3600)) as on:
            first, second = (replica.view for replica in on.proxy.pool.replicas)
            on.upstreams[0].hold = asyncio.Event()
            holding.open = True
            tasks = [asyncio.create_task(on.complete([5] * 40, stream=True, priority=3)) for _ in range(2)]
            await until(lambda: len(on.upstreams[0].seen) == 2)
            assert (first.waiting, first.running, first.waiting_prompt_tokens) == (2, 0, 80)
            assert (first.blocks_total, first.block_size, first.blocks_used) == (100, 16, 0)
            assert [(each.prompt_tokens, each.tokens_done, each.state) for each in first.requests] == [
                (40, 0, "waiting")
            ] * 2
            assert first.requests[0].priority == 3
            assert len(first.requests[0].prefix) == 2
            assert first.requests[0].prefix == first.requests[1].prefix
            assert (second.waiting, second.requests) == (0, ())
            with pytest.raises(AttributeError, match="a view is read-only"):
                first.index = 3
            on.upstreams[0].hold.set()
            await asyncio.gather(*tasks)
            await until(lambda: len(holding.heard) == 2)
            assert holding.heard == [4, 4]
            assert (first.waiting, first.running, first.blocks_used) == (0, 0, 0)
            assert all(line["output_tokens"] == 4 and line["staleness"] > 0 for line in on.log.of("request"))

    play(scenario)


def test_scrapes_move_requests_between_queue_and_batch() -> None:
    """After a scrape as many requests run as the server says, and its blocks are those that it says."""
    holding = Holding()

    async def scenario() -> None:
        async with scene(holding, 1) as on:
            view = on.proxy.pool.replicas[0].view
            on.upstreams[0].hold = asyncio.Event()
            on.upstreams[0].gauges.update(running=1, waiting=1, use=0.25, preemptions=9)
            holding.open = True
            tasks = [asyncio.create_task(on.complete([5] * 40)) for _ in range(2)]
            await until(lambda: view.preemptions == 9 and len(view.requests) == 2)
            await until(lambda: (view.running, view.waiting, view.waiting_prompt_tokens) == (1, 1, 40))
            assert view.blocks_used == 25
            on.upstreams[0].hold.set()
            await asyncio.gather(*tasks)

    play(scenario)


def test_the_global_queue_holds_what_the_router_keeps() -> None:
    """While other requests run, held ones stay; the router is asked at completions, and then they go."""

    class OneAtATime:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            if queue and not replicas[0].requests:
                yield queue[0], replicas[0]

    async def scenario() -> None:
        async with scene(OneAtATime(), 1) as on:
            on.upstreams[0].hold = asyncio.Event()
            tasks = [asyncio.create_task(on.complete()) for _ in range(3)]
            await until(lambda: len(on.proxy.dispatcher) == 2 and len(on.upstreams[0].seen) == 1)
            on.upstreams[0].hold.set()
            assert [status for status, _ in await asyncio.gather(*tasks)] == [200] * 3
            assert sum(on.proxy.router.fallbacks.values()) == 0

    play(scenario)


def test_in_shadow_llq_serves_and_the_candidate_is_heard() -> None:
    """With `shadow` the candidate's pairs are logged and LLQ's take effect."""

    class ToTheLast:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            return [(request, replicas[-1]) for request in queue]

    async def scenario() -> None:
        async with scene(ToTheLast(), 2, shadow=True) as on:
            await on.complete()
            assert (len(on.upstreams[0].seen), len(on.upstreams[1].seen)) == (1, 0)
            assert [[0, 1]] in [line["pairs"] for line in on.log.of("shadow")]

    play(scenario)


def test_replicas_are_found_by_name() -> None:
    """Each address of a DNS name is a replica."""

    async def scenario() -> None:
        def urls(upstreams: Any) -> list[str]:
            return ["dns+http://localhost:" + upstreams[0].url.rpartition(":")[2]]

        async with scene(LeastLoadedQueue(), 1, urls=urls) as on:
            assert on.upstreams[0].url in [replica.url for replica in on.proxy.pool.taking()]
            assert (await on.complete())[0] == 200

    play(scenario)


def test_traffic_is_recorded_without_its_text(tmp_path: Path) -> None:
    """The recording is a workload with the times, exact token counts and shared prefixes of the traffic."""
    path, came = tmp_path / "live.csv", list[float]()

    async def scenario() -> None:
        async with scene(RoundRobin(), 2, recording=Recording(path)) as on:
            came.append(on.proxy.now())
            await on.complete([7] * 40, max_tokens=3, stream=True, headers={"X-Session-Id": "a"})
            await on.complete([7] * 33, max_tokens=6, headers={"X-Session-Id": "a", "X-TTFT-SLO": "0.5"})
            came.append(on.proxy.now())
            await on.complete("a secret", max_tokens=1, priority=10**30)  # more than a file could hold
            came.append(on.proxy.now())

    play(scenario)
    workload = Workload.from_csv(path)
    assert workload.arrival[0] == 0
    assert 0 < workload.arrival[1] < workload.arrival[2] < came[2] - came[0]
    assert workload.arrival[2] > came[1] - came[0] - 5  # the first may have been late on a busy machine
    assert workload.prompt_tokens.tolist() == [40, 33, 7]
    assert workload.output_tokens.tolist() == [3, 6, 1]
    assert workload.session is not None
    assert workload.session.tolist() == [0, 0, -1]
    assert workload.ttft_slo is not None
    assert workload.ttft_slo.tolist()[1] == 0.5
    assert workload.prefixes is not None
    first, second = (workload.prefixes.hashes[s : s + 2].tolist() for s in workload.prefixes.starts[:2])
    assert first == second
    assert "secret" not in path.read_text("utf-8")


def test_views_are_those_of_the_protocol() -> None:
    """Views are those of `sim.policies`: routers written for the simulator may ask `isinstance`."""

    async def scenario() -> None:
        async with scene(RoundRobin(), 1) as on:
            assert isinstance(on.proxy.pool.replicas[0].view, ReplicaView)

    play(scenario)
