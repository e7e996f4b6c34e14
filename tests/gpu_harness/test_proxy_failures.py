"""What the router proxy does where candidates, replicas or clients fail."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason='the proxy needs it: pip install "pytest-glia[harness]"')

import aiohttp

from gpu_harness.guarding import GuardedRouter
from gpu_harness.limits import Limits
from sim.baselines import LeastLoadedQueue, RoundRobin
from tests.gpu_harness.upstream import Holding, play, scene, until

FAST = 0.02


class Raising:
    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        raise RuntimeError("no idea")


class Stalling:
    """Loops for ever, and swallows what it is told."""

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        while queue:
            try:
                while True:
                    now += 1
            except Exception:
                pass
        return []


class Wrong:
    """Gives what are no pairs of this queue."""

    def route(self, queue: Any, replicas: Any, now: float) -> Any:
        return [(request, 7) for request in queue]


@pytest.mark.parametrize(
    ("router", "kind"), [(Raising, "raised"), (Wrong, "raised"), (Holding, "held"), (Stalling, "stalled")]
)
def test_a_broken_candidate_loses_no_request(router: type, kind: str) -> None:
    """Where the candidate raises, lies, stalls or holds for ever, LLQ serves all, counted and logged."""

    async def scenario() -> None:
        async with scene(
            router(), 2, limits=Limits(scrape_interval=FAST, router_time=0.05, router_patience=0.1)
        ) as on:
            answers = await asyncio.gather(*(on.complete() for _ in range(6)))
            assert [status for status, _ in answers] == [200] * 6
            assert on.proxy.router.fallbacks[kind] > 0
            told = on.log.of("fallback")
            assert kind == "held" or (told[0]["kind"], told[0]["times"]) == (kind, 1)
            async with on.client.get(on.url + "/metrics") as answer:
                assert f'glia_router_fallbacks_total{{kind="{kind}"}}' in await answer.text()

    play(scenario)


def test_a_full_queue_says_when_to_come_again() -> None:
    """Beyond the bound a request is answered with 503 and Retry-After, and the others are served."""
    holding = Holding()

    async def scenario() -> None:
        limits = Limits(scrape_interval=FAST, max_queued=2, retry_after=7)
        async with scene(holding, 1, limits=limits) as on:
            on.upstreams[0].gauges["running"] = 1  # somebody else's: the router may wait for it
            await until(lambda: on.proxy.pool.replicas[0].running == 1)
            tasks = [asyncio.create_task(on.complete()) for _ in range(2)]
            await until(lambda: len(on.proxy.dispatcher) == 2)
            async with on.client.post(on.url + "/v1/completions", json={"prompt": "x"}) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
                assert "2 requests are queued" in (await answer.json())["error"]["message"]
            holding.open = True
            assert [status for status, _ in await asyncio.gather(*tasks)] == [200, 200]

    play(scenario)


@pytest.mark.parametrize("queued", [True, False])
def test_a_client_that_goes_is_cancelled_upstream(queued: bool) -> None:
    """A request whose client has gone leaves the queue, or is broken off at its replica."""
    holding = Holding()

    async def scenario() -> None:
        async with scene(holding, 1) as on:
            on.upstreams[0].hold, holding.open = asyncio.Event(), not queued
            on.upstreams[0].gauges["running"] = 1
            await until(lambda: on.proxy.pool.replicas[0].running == 1)
            task = asyncio.create_task(on.complete(stream=True))
            await until(lambda: len(on.proxy.dispatcher) == 1 if queued else len(on.upstreams[0].seen) == 1)
            task.cancel()
            await until(lambda: len(on.log.of("request")) == 1)
            assert on.log.of("request")[0]["outcome"] == "cancelled"
            await until(lambda: len(on.proxy.dispatcher) == 0 and on.upstreams[0].cancelled == (not queued))

    play(scenario)


@pytest.mark.parametrize("how", ["refuses", "breaks off", "hangs"])
@pytest.mark.parametrize("stream", [True, False])
def test_a_dead_replica_loses_no_request_that_has_not_begun(how: str, stream: bool) -> None:
    """It is taken out, its requests without a byte sent are tried elsewhere once, and when it is healthy
    again it is taken in."""

    async def scenario() -> None:
        limits = Limits(scrape_interval=FAST, drain=0.1)
        async with scene(LeastLoadedQueue(), 2, limits=limits) as on:
            bad, replica = on.upstreams[0], on.proxy.pool.replicas[0]
            port = int(bad.url.rpartition(":")[2])
            bad.hold = asyncio.Event()
            if how == "refuses":
                await bad.stop()
            tasks = [asyncio.create_task(on.complete(stream=stream)) for _ in range(4)]
            if how != "refuses":
                await until(lambda: len(bad.seen) == 2)
            if how == "breaks off":
                await bad.stop()
            elif how == "hangs":
                bad.metrics = False
            assert [status for status, _ in await asyncio.gather(*tasks)] == [200] * 4
            assert len(on.upstreams[1].seen) == 4
            assert not replica.healthy
            bad.metrics, bad.hold = True, None
            if how != "hangs":
                await bad.start(port)
            await until(lambda: replica.healthy)
            before = len(bad.seen)
            await on.complete()
            assert len(bad.seen) == before + 1

    play(scenario)


def test_a_replica_that_was_lost_and_then_hangs_loses_no_request() -> None:
    """One that broke off a request is only out; when it does not answer three times what it holds is tried
    elsewhere, too."""

    async def scenario() -> None:
        async with scene(LeastLoadedQueue(), 2, limits=Limits(scrape_interval=FAST)) as on:
            bad, replica = on.upstreams[0], on.proxy.pool.replicas[0]
            bad.hold = asyncio.Event()
            tasks = [asyncio.create_task(on.complete()) for _ in range(4)]
            await until(lambda: len(bad.seen) == 2)
            bad.healthy = False
            on.proxy.pool.lost(replica, "it broke one off", dead=False)
            assert [status for status, _ in await asyncio.gather(*tasks)] == [200] * 4
            assert len(on.upstreams[1].seen) == 4
            bad.healthy, bad.hold = True, None
            await until(lambda: replica.healthy)

    play(scenario)


def test_a_name_that_is_not_known_takes_no_other_replica_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, and those that are known serve."""
    real = socket.getaddrinfo

    def known(host: Any, *arguments: Any, **settings: Any) -> Any:
        if host == "nosuch.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *arguments, **settings)

    monkeypatch.setattr(socket, "getaddrinfo", known)

    async def scenario() -> None:
        def urls(upstreams: Any) -> list[str]:
            return ["dns+http://nosuch.invalid:1", upstreams[0].url]

        async with scene(LeastLoadedQueue(), 1, urls=urls) as on:
            assert (await on.complete())[0] == 200
            assert on.log.of("dns")[0]["name"] == "nosuch.invalid"

    play(scenario)


def test_in_shadow_a_candidate_that_stalls_rests() -> None:
    """It would hold up what streams with every request; it is asked again after the same rest as ever."""

    class Slow:
        def route(self, queue: Any, replicas: Any, now: float) -> Any:
            time.sleep(0.02)
            return []

    router = GuardedRouter(Slow(), time_limit=0.01, shadow=True)
    for _ in range(5):
        router.route([], [], 0.0, lambda pair: None)
    assert router.calls == 1
    assert router.fallbacks == {"stalled": 1, "resting": 4}


def test_an_answer_that_broke_off_is_not_made_to_look_whole() -> None:
    """Where bytes were sent already the client sees its stream break, and nothing is sent twice."""

    async def scenario() -> None:
        async with scene(LeastLoadedQueue(), 2) as on:
            on.upstreams[0].die_after = 2
            with pytest.raises(aiohttp.ClientError):
                await on.complete(stream=True)
            assert len(on.upstreams[1].seen) == 0
            await until(lambda: len(on.log.of("request")) == 1)
            assert on.log.of("request")[0]["outcome"] == "broken"

    play(scenario)


def test_twice_broken_is_an_error() -> None:
    """A request that breaks two replicas is not given a third; the answer says what happened."""

    async def scenario() -> None:
        async with scene(LeastLoadedQueue(), 3) as on:
            for upstream in on.upstreams:
                upstream.die_after = 0
            status, content = await on.complete(stream=True)
            assert status == 502
            assert b"replicas broke off twice" in content
            assert sum(len(upstream.seen) for upstream in on.upstreams) == 2

    play(scenario)


def test_a_server_that_closes_idle_connections_is_well() -> None:
    """A request that comes after a pause is not sent on a connection that the server may just be closing: it
    would break off, and a healthy replica be taken out for it."""

    async def scenario() -> None:
        async with scene(RoundRobin(), 1, limits=Limits(scrape_interval=60.0)) as on:
            on.upstreams[0].closes = 2.2
            for pause in (0.1, 2.4):
                assert (await on.complete(stream=True))[0] == 200
                await asyncio.sleep(pause)
            assert (await on.complete(stream=True))[0] == 200
            assert [each["attempts"] for each in on.log.of("request")] == [1, 1, 1]
            assert len(on.log.of("replica")) == 1  # it came, and never went

    play(scenario)


def test_draining_ends_what_is_open_and_takes_no_more() -> None:
    """From then on new requests get a 503, /health says so, and open ones are finished."""

    async def scenario() -> None:
        async with scene(LeastLoadedQueue(), 1) as on:
            on.upstreams[0].hold = asyncio.Event()
            task = asyncio.create_task(on.complete())
            await until(lambda: len(on.upstreams[0].seen) == 1)
            drained = asyncio.create_task(on.proxy.drain())
            await until(lambda: bool(on.log.of("draining")))
            assert (await on.complete())[0] == 503
            async with on.client.get(on.url + "/health") as answer:
                assert (answer.status, (await answer.json())["status"]) == (503, "draining")
            assert not drained.done()
            on.upstreams[0].hold.set()
            assert (await task)[0] == 200
            await drained

    play(scenario)


def test_a_server_that_is_not_vllm_takes_no_requests() -> None:
    """Without vLLM's metrics a replica stays out, and /health says what is missing."""

    async def scenario() -> None:
        async with scene(RoundRobin(), 1) as on:
            on.upstreams[0].metrics = False
            await until(lambda: not on.proxy.pool.taking())
            async with on.client.get(on.url + "/health") as answer:
                why = (await answer.json())["replicas"][0]["why"]
                assert answer.status == 503
            assert "/metrics has no vllm:num_requests_running; expected the metrics of vLLM" in why

    play(scenario)
