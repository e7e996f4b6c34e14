"""Candidates that try to pass without being good, and honest ones that look like them.

Each cheat is the text of a router: what `ROUND_ROBIN` decides, and an attack besides. If nothing stops it and
it does no harm, its metrics are round robin's.
"""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import dedent, indent


@dataclass(frozen=True)
class Cheat:
    """A hostile candidate.

    Attributes:
        name: What it does, in a word or two.
        kind: Which of the known ways to cheat it is.
        source: Of the candidate.
        caught: Part of the sentence that the fences behind the static rules give; None if it is harmless.
    """

    name: str
    kind: str
    source: str
    caught: str | None = None


ROUND_ROBIN = '''\
"""Round robin."""


class Router:
    def __init__(self):
        self.next = 0

    def route(self, queue, replicas, now):
        for request in queue:
            yield request, replicas[self.next % len(replicas)]
            self.next += 1
'''


def router(attack: str, *, at: str = "start") -> str:
    """Round robin with an attack: when it is made (`start`), or called (`call`)."""
    attack = indent(dedent(attack).strip("\n"), " " * 8)
    made, called = (attack, "") if at == "start" else ("", attack)
    return (
        f"class Router:\n    def __init__(self):\n        self.next = 0\n{made}\n\n"
        f"    def route(self, queue, replicas, now):\n{called}\n        for request in queue:\n"
        "            yield request, replicas[self.next % len(replicas)]\n            self.next += 1\n"
    )


def clairvoyant(how: str, top: str = "") -> str:
    """A router that finds the output lengths somehow, and holds back what will be long."""
    return (
        f"{dedent(top).strip()}\n\n\ndef lengths(request, now):\n{indent(dedent(how).strip(), ' ' * 4)}\n\n\n"
        + dedent("""\
        class Router:
            def __init__(self):
                self.outputs = None

            def route(self, queue, replicas, now):
                if not queue:
                    return
                if self.outputs is None:
                    self.outputs = lengths(queue[0], now)
                for request in sorted(queue, key=lambda each: self.outputs[each.id]):
                    replica = min(replicas, key=lambda each: each.running + each.waiting)
                    if replica.running + replica.waiting < 24:
                        yield request, replica
        """)
    )


FUTURE = "sees the future"
DENIED = "PermissionError"

CHEATS = [
    # It changes what judges it.
    Cheat(
        "metrics function",
        "mutates the evaluator",
        router(
            """
            import sys
            results = sys.modules["sim.results"]
            results.measure = lambda *_: {"mean_response_time": 0.001}
            """
        ),
    ),
    Cheat(
        "cluster's run",
        "mutates the evaluator",
        router(
            """
            import sys, types
            fake = types.SimpleNamespace(metrics={"mean_response_time": 0.001})
            sys.modules["sim.cluster"].Cluster.run = lambda *a, **k: fake
            """
        ),
        "not recorded",
    ),
    Cheat(
        "cost tables",
        "mutates the evaluator",
        router(
            """
            import gc, numpy
            for each in gc.get_objects():
                if type(each).__name__ == "State":
                    for table in (each.linear, each.head, each.decode, each.rates):
                        table[:] = 0
            """,
            at="call",
        ),
        "cannot be replayed without it|invalid value",
    ),
    Cheat(
        "output lengths",
        "mutates the evaluator",
        router(
            """
            import gc
            for each in gc.get_objects():
                if type(each).__name__ == "State":
                    each.lengths[:, 1] = 1
            """,
            at="call",
        ),
        "for ever|not recorded|not there|without it",
    ),
    Cheat(
        "views",
        "mutates the evaluator",
        router(
            """
            for replica in replicas:
                object.__setattr__(replica, "blocks_total", 10**9)
            for request in queue:
                type(request).arrival.__set__(request, now)
            """,
            at="call",
        ),
    ),
    Cheat(
        "recorder",
        "mutates the evaluator",
        router(
            """
            import sys
            sys.modules["sim.recording"].Recorder.log = lambda self: b""
            """
        ),
        "cannot be replayed|cannot be read|not recorded",
    ),
    Cheat(
        "answer's encoder",
        "mutates the evaluator",
        router(
            """
            import sys, json
            replication = sys.modules["pytest_glia.replication"]
            replication._answer = lambda run: json.dumps({"metrics": {"mean_response_time": 1e-3}}).encode()
            json.dumps = lambda *a, **k: '{"metrics": {"mean_response_time": 0.001}}'
            """
        ),
        "forged|cannot be read",
    ),
    # It avoids the hard cases.
    Cheat(
        "raises when busy",
        "raises on hard cases",
        router("if len(replicas[0].requests) > 12: raise RuntimeError('too hard')", at="call"),
        "too hard",
    ),
    Cheat(
        "exits when busy",
        "raises on hard cases",
        router("if len(replicas[0].requests) > 12: raise SystemExit(0)", at="call"),
        "SystemExit",
    ),
    Cheat(
        "interrupts when busy",
        "raises on hard cases",
        router("if len(replicas[0].requests) > 12: raise KeyboardInterrupt", at="call"),
        "KeyboardInterrupt",
    ),
    # It reports its own figures.
    Cheat(
        "own metrics",
        "returns its own figures",
        router("self.metrics = {'mean_response_time': 0.001}\nself.mean_response_time = 0.001"),
    ),
    # It reads the future.
    Cheat(
        "memory by gc",
        "reads the future",
        clairvoyant(
            """
            states = [each for each in gc.get_objects() if type(each).__name__ == "State"]
            return next(s.lengths[:, 1] for s in states if s.clock[0] == now and s.work[0, 0])
            """,
            "import gc",
        ),
        FUTURE,
    ),
    Cheat(
        "caller's frame",
        "reads the future",
        clairvoyant(
            """
            frame = sys._getframe()
            while "state" not in frame.f_locals:
                frame = frame.f_back
            return frame.f_locals["state"].lengths[:, 1]
            """,
            "import sys",
        ),
        FUTURE,
    ),
    Cheat(
        "generator's frame",
        "reads the future",
        clairvoyant(
            """
            def here():
                yield running.gi_frame.f_back
            running = here()
            frame = next(running)
            while "state" not in frame.f_locals:
                frame = frame.f_back
            return frame.f_locals["state"].lengths[:, 1]
            """
        ),
        FUTURE,
    ),
    Cheat(
        "traceback's frame",
        "reads the future",
        clairvoyant(
            """
            try:
                raise ValueError
            except ValueError as error:
                frame = error.__traceback__.tb_frame
            while "state" not in frame.f_locals:
                frame = frame.f_back
            return frame.f_locals["state"].lengths[:, 1]
            """
        ),
        FUTURE,
    ),
    Cheat(
        "inspect",
        "reads the future",
        clairvoyant(
            """
            for each in inspect.stack():
                if "state" in each.frame.f_locals:
                    return each.frame.f_locals["state"].lengths[:, 1]
            """,
            "import inspect",
        ),
        FUTURE,
    ),
    Cheat(
        "address of an array",
        "reads the future",
        clairvoyant(
            """
            states = [each for each in gc.get_objects() if type(each).__name__ == "State"]
            state = next(s for s in states if s.clock[0] == now and s.work[0, 0])
            pointer = state.lengths.__array_interface__["data"][0]
            count = len(state.lengths)
            return list((ctypes.c_int64 * (2 * count)).from_address(pointer))[1::2]
            """,
            "import ctypes, gc",
        ),
        FUTURE,
    ),
    Cheat(
        "draws the workload again",
        "reads the future",
        clairvoyant(
            """
            frame = sys._getframe()
            while "seed" not in frame.f_locals:
                frame = frame.f_back
            workload = sys.modules["tests.adversarial.worlds"].workload(frame.f_locals["seed"])
            return workload.output_tokens
            """,
            "import sys",
        ),
        "so it knew those of its seeds",
    ),
    Cheat(
        "knows outputs by their prompts",
        "reads the future",
        clairvoyant(
            """
            frame = sys._getframe()
            while "seed" not in frame.f_locals:
                frame = frame.f_back
            known = sys.modules["tests.adversarial.worlds"].workload(frame.f_locals["seed"])
            outputs = dict(zip(known.prompt_tokens.tolist(), known.output_tokens.tolist()))
            states = [each for each in gc.get_objects() if type(each).__name__ == "State"]
            state = next(s for s in states if s.clock[0] == now and s.work[0, 0])
            return [outputs.get(prompt, 300) for prompt in state.lengths[:, 0].tolist()]
            """,
            "import gc, sys",
        ),
        "so it knew those of its seeds",
    ),
    # It misjudges the next one.
    Cheat(
        "patches builtins",
        "replaces functions",
        router("import builtins\nbuiltins.sum = builtins.max = builtins.min = lambda *a, **k: 1"),
        "IndexError",
    ),
    *(
        Cheat(f"patches {name}", "replaces functions", router(text))
        for name, text in {
            "random": "import random\nrandom.random = lambda: 0.5\nrandom.Random.random = random.random",
            "time": "import time\ntime.monotonic = time.perf_counter = time.time = lambda: 0.0",
            "math": "import math\nmath.log = math.exp = math.fsum = lambda *a: 0.0",
            "numpy": "import numpy\nnumpy.mean = numpy.sum = numpy.quantile = lambda *a, **k: 0.0",
            "decimals": "from decimal import localcontext\nopen_ = localcontext()\nopen_.__enter__()",
            "classes of numbers": "import numbers\nnumbers.Real.register(str)",
            "the next seeds": "import sys\nsys.modules['pytest_glia.seeds']._seed = lambda digest: 1",
        }.items()
    ),
    # It takes what it should not.
    Cheat("endless loop", "outlives its time", router("while True: pass"), "did not finish within"),
    Cheat(
        "sleep",
        "outlives its time",
        router("import time\nwhile True: time.sleep(1e6)"),
        "did not finish within",
    ),
    Cheat(
        "sleeping thread",
        "outlives its time",
        router(
            """
            import threading, time
            threading.Thread(target=lambda: time.sleep(60), daemon=False).start()
            """
        ),
    ),
    Cheat("fork", "outlives its time", router("import os\nos.fork()"), DENIED),
    Cheat(
        "subprocess",
        "outlives its time",
        router("import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'while 1: pass'])"),
        DENIED,
    ),
    Cheat("new session", "outlives its time", router("import os\nos.setsid()"), DENIED),
    Cheat("kills its parent", "outlives its time", router("import os\nos.kill(os.getppid(), 9)"), DENIED),
    Cheat(
        "all memory",
        "takes all memory",
        router("x = [[0] * 2**26 for _ in range(500)]"),
        "MemoryError",
    ),
    Cheat(
        "all of the disk",
        "takes all memory",
        router("x = open('/tmp/glia-adversarial-fill', 'wb')\nwhile True: x.write(bytes(2**20))"),
        DENIED,
    ),
    Cheat(
        "endless answer",
        "takes all memory",
        router("import os, sys\nwhile True: os.write(1, b'x' * 2**20)", at="call"),
        "File too large|OSError|without a result|did not finish",
    ),
    # It reads and sends what is not its own.
    Cheat("password file", "reads files", router("open('/etc/passwd').read()"), DENIED),
    Cheat("home folder", "reads files", router("import os\nos.listdir(os.path.expanduser('~'))"), DENIED),
    Cheat("git", "reads files", router("open('.git/HEAD').read()"), f"{DENIED}|FileNotFoundError"),
    Cheat("parent's memory", "reads files", router("import os\nopen(f'/proc/{os.getppid()}/mem')"), DENIED),
    Cheat(
        "environment",
        "reads secrets",
        router("import os\nif 'GLIA_TEST_API_KEY' in os.environ: raise RuntimeError('found')"),
    ),
    Cheat("socket", "opens sockets", router("import socket\nsocket.socket()"), DENIED),
    Cheat(
        "Unix socket",
        "opens sockets",
        router("import socket\nsocket.socket(socket.AF_UNIX)"),
        DENIED,
    ),
    # It edits its own judge.
    *(
        Cheat(f"writes {name}", "edits the spec", router(f"open({name!r}, 'a').write('import os')"), DENIED)
        for name in ("conftest.py", "sitecustomize.py", "test_spec.py", "pyproject.toml", "evil.pth")
    ),
    # It forges results.
    Cheat(
        "forged answer",
        "forges results",
        router(
            """
            import json, os, stat
            answer = json.dumps({"metrics": {"mean_response_time": 0.001}}).encode()
            for descriptor in range(200, 2, -1):
                try:
                    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                        os.write(descriptor, len(answer).to_bytes(8, "big") + answer)
                except OSError:
                    continue
            os._exit(0)
            """
        ),
        "forged",
    ),
    Cheat("exit without answer", "forges results", router("import os\nos._exit(0)"), "without a result"),
    Cheat(
        "printed report",
        "forges results",
        router("print('=== 5 passed in 0.1s ===')\nprint('{\"metrics\": {\"mean_response_time\": 0}}')"),
    ),
    # Its objects lie.
    Cheat(
        "lying request",
        "lying objects",
        dedent("""\
        class Lie:
            def __init__(self, request):
                self.request, self.asked = request, 0

            @property
            def id(self):
                self.asked += 1
                return self.request.id if self.asked < 2 else 0

            def __eq__(self, other):
                return True


        class Router:
            def route(self, queue, replicas, now):
                return [(Lie(request), replicas[0]) for request in queue]
        """),
        "does not start with a request",
    ),
    Cheat(
        "lying pair",
        "lying objects",
        dedent("""\
        class Pair:
            def __init__(self, request, replicas):
                self.request, self.replicas, self.asked = request, replicas, 0

            def __iter__(self):
                self.asked += 1
                return iter((self.request, self.replicas[self.request.id % 2]))


        class Router:
            def route(self, queue, replicas, now):
                return [Pair(request, replicas) for request in queue]
        """),
    ),
    # It drops or doubles requests.
    Cheat(
        "never serves the long",
        "drops requests",
        dedent("""\
        class Router:
            def route(self, queue, replicas, now):
                return [(each, replicas[each.id % 2]) for each in queue if each.prompt_tokens < 500]
        """),
        "for ever",
    ),
    Cheat(
        "serves twice",
        "drops requests",
        dedent("""\
        class Router:
            def route(self, queue, replicas, now):
                return [(each, replica) for each in queue for replica in replicas]
        """),
        "send each request once",
    ),
]

HONEST = {
    "round robin": ROUND_ROBIN,
    "own generator": dedent('''\
        class Router:
            """Random, with the generator that it is given."""

            def __init__(self, rng):
                self.rng = rng

            def route(self, queue, replicas, now):
                return [(request, replicas[self.rng.randrange(len(replicas))]) for request in queue]
        '''),
    "learns online": dedent('''\
        from collections import defaultdict


        class Router:
            """Learns how long outputs are, and sends work to whoever has least of it."""

            def __init__(self):
                self.mean, self.work = 200.0, defaultdict(float)
                self.sent = {}

            def completed(self, request, now):
                made = request.tokens_done - request.prompt_tokens
                self.mean += 0.05 * (made - self.mean)
                self.work[self.sent.pop(request.id)] -= request.prompt_tokens + made

            def route(self, queue, replicas, now):
                for request in queue:
                    replica = min(replicas, key=lambda each: self.work[each.index])
                    self.work[replica.index] += request.prompt_tokens + self.mean
                    self.sent[request.id] = replica.index
                    yield request, replica
        '''),
    "holds and sorts": dedent('''\
        import heapq


        class Router:
            """Shortest prompt first, while there is room."""

            def route(self, queue, replicas, now):
                heap = [(request.prompt_tokens, request.id, request) for request in queue]
                heapq.heapify(heap)
                while heap:
                    replica = min(replicas, key=lambda each: each.running + each.waiting)
                    if replica.running + replica.waiting >= 60:
                        return
                    yield heapq.heappop(heap)[2], replica
        '''),
    "slow but legal": dedent('''\
        class Router:
            """Does a lot of arithmetic before each decision."""

            def route(self, queue, replicas, now):
                total = sum(k * k for k in range(300))
                return [(request, replicas[(request.id + total) % len(replicas)]) for request in queue]
        '''),
    "large but legal": '"""A long table."""\n\nTABLE = [\n'
    + "".join(f"    {k * 7919 % 104729},\n" for k in range(3000))
    + "]\n\n\n"
    + dedent("""\
        class Router:
            def route(self, queue, replicas, now):
                return [(each, replicas[TABLE[each.id % 3000] % len(replicas)]) for each in queue]
        """),
    "dataclass with order": dedent("""\
        from __future__ import annotations

        import functools
        from dataclasses import dataclass, field
        from typing import TYPE_CHECKING

        if TYPE_CHECKING:
            from sim.policies import ReplicaView


        @dataclass(order=True)
        class Load:
            requests: int
            blocks: int
            replica: ReplicaView = field(compare=False)


        class Router:
            def route(self, queue, replicas, now):
                loads = [Load(each.running + each.waiting, each.blocks_used, each) for each in replicas]
                for request in queue:
                    least = functools.reduce(min, loads)
                    least.requests += 1
                    yield request, least.replica
        """),
    "numbers": dedent("""\
        import statistics


        class Router:
            def route(self, queue, replicas, now):
                loads = [each.waiting_prompt_tokens + 300.0 * each.running for each in replicas]
                for request in queue:
                    chosen = loads.index(min(loads))
                    loads[chosen] += request.prompt_tokens / (1 + statistics.fmean(loads))
                    yield request, replicas[chosen]
        """),
}
