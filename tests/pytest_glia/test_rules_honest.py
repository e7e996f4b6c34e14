"""Static rules let honest code pass: beside each way out that they close, what one writes without it."""

from __future__ import annotations

import ast
import itertools
import time
from pathlib import Path

import pytest

from pytest_glia.candidate import Candidate, fault
from sim.mechanisms.routing import routing_mechanisms

ROOT = Path(__file__).parents[2]

HONEST_TEXT = r"""
### own generator
import random
rng = random.Random(7)
x = rng.choice([1, 2])
rng.seed(3)

### generator that it is given
import random
class R:
    def __init__(self, rng=None):
        self.rng = rng or random.Random(0)
    def route(self, q):
        return self.rng.choice(q), self.rng.random()

### heap
import heapq
from heapq import heappush as push
h = []
push(h, (1, 'a'))
heapq.heappop(h)[0]

### items of a heap
class Item:
    __slots__ = ('size', '_key')
    def __init__(self, size):
        self.size, self._key = size, -size
    def __lt__(self, other):
        return self._key < other._key
    def __eq__(self, other):
        return type(self) is type(other) and self._key == other._key
    def __hash__(self):
        return hash(self._key)
    def __repr__(self):
        return f'{type(self).__name__}({self.size!r:>5})'

### dataclass
from __future__ import annotations
from dataclasses import dataclass, field
from typing import ClassVar
@dataclass(order=True, slots=True)
class Item:
    size: int
    tags: list[str] = field(default_factory=list, compare=False)
    LIMIT: ClassVar[int] = 3
    def __post_init__(self):
        self.size += 1

### generic dataclass
from dataclasses import dataclass
from typing import Generic, TypeVar
T = TypeVar('T')
@dataclass
class Box(Generic[T]):
    item: T

### inheritance
class A:
    def __init__(self, n=1):
        super().__init__()
        self._n = n
class B(A):
    def __init__(self):
        super().__init__(2)
        self.m = self._n

### private methods
class R:
    def _score(self, r):
        return r.waiting
    def route(self, q, rs, now):
        return min(rs, key=self._score)
    @staticmethod
    def _of(x): return R._of(x)

### mangled names
class R:
    def __init__(self):
        self.__count = 0
    def up(self):
        self.__count += 1

### properties
class R:
    @property
    def load(self):
        return 1
    @load.setter
    def load(self, value): ...
    @classmethod
    def make(cls):
        return cls()

### generators
def f(xs):
    got = yield from (x for x in xs if x)
    g = (yield got)
    g.send(None), g.close()

### type checking
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from sim.policies import ReplicaView
    import os
def f(r: ReplicaView) -> ReplicaView | None: ...

### other type checking
import typing as t
if t.TYPE_CHECKING:
    from sim.policies import View
else:
    View = object

### annotations that run
from collections.abc import Iterable, Sequence
from typing import Any, Optional
from collections import Counter
Queue = Sequence[Any]
Pairs = Iterable[tuple[Counter, int | None]]
def f(q: Queue, c: Counter | None = None, *rest: Optional[int]) -> list[Counter[str]]: ...

### strings
x = 3.14159
a = f'{x:.2f} {x!r:>{10}}' + '{:.2f} {} {n:>{w}}'.format(x, x, n=1, w=5) + '%5.1f' % x
b = format(x, '.3f') + str(x).upper()

### named tuple
from collections import namedtuple
from typing import NamedTuple
Item = namedtuple('Item', 'size value')
P = namedtuple('P', ['x', 'y'], defaults=(0,))
class Q(NamedTuple):
    size: int
    name: str = ''
x = Item(1, 2)._replace(size=3)

### enum
from enum import Enum, auto
class State(Enum):
    IDLE = 'idle'
    BUSY = auto()
x = State.IDLE.value

### arrays of the spec
def pack(a):
    a.shape = (2, 3)
    return a.reshape(3, 2), a.dtype, a.shape[0], a.flat[0], a[::2, None].T, a.mean(axis=0).argmin()

### plain match
match x:
    case {'kind': 'a', **rest}: y = 1
    case [first, *others] if first: y = 2
    case int(n) | float(n): y = n
    case Point(x=0, size=s): y = s
    case _: y = 3

### attribute keys
from operator import attrgetter, itemgetter
import operator
import functools
xs.sort(key=attrgetter('prompt_tokens', 'arrival'))
y = functools.reduce(operator.add, map(itemgetter(0), xs))
z = getattr(request, 'priority', 0) if hasattr(request, 'priority') else 0

### collections
from collections import Counter, defaultdict, deque
import collections
a = defaultdict(deque)
b = Counter('abc').most_common(1)
c = defaultdict(lambda: Counter())
d = collections.deque(maxlen=3)
x = isinstance(b, (Counter, deque))

### exceptions
class Full(Exception):
    pass
try:
    raise Full('x') from None
except (Full, KeyError, ZeroDivisionError) as error:
    x = str(error), error.args
finally:
    pass

### context manager
from contextlib import contextmanager, suppress
@contextmanager
def f():
    yield 1
class C:
    def __enter__(self): return self
    def __exit__(self, *exc): return False
with suppress(KeyError), C() as c: pass

### caches
from functools import cache, lru_cache, partial, total_ordering
@lru_cache(maxsize=None)
def f(n): return n
@cache
def g(n): return f(n)
h = partial(f, 3)
@total_ordering
class C:
    def __lt__(self, other): return True

### abstract classes
from abc import ABC, abstractmethod
from typing import Protocol
class P(Protocol):
    def score(self) -> float: ...
class A(ABC):
    @abstractmethod
    def f(self): ...

### statistics
import statistics
from math import inf, sqrt
x = 1
y = statistics.fmean([1, 2]) + statistics.quantiles([1, 2, 3])[0] + sqrt(inf)

### hashes
import hashlib, zlib
x = int.from_bytes(hashlib.sha256(b'a').digest()[:4], 'big') ^ zlib.crc32(b'a')

### own container
class Q:
    def __init__(self): self.xs = []
    def __len__(self): return len(self.xs)
    def __iter__(self): return iter(self.xs)
    def __getitem__(self, i): return self.xs[i]
    def __contains__(self, x): return x in self.xs
    def __call__(self, x): return x
    __bool__ = __len__

### keys to sort by
load = [3, 1, 2]
best = min(range(3), key=load.__getitem__)
some = list(filter({1, 2}.__contains__, load))

### main
__all__ = ['entry']
__version__ = '1'
if __name__ == '__main__':
    print(entry.__name__, entry.__doc__)

### names that only look alike
f_score = {}
base = obj = data = 3
for tb_x in (): pass
class C:
    def open(self): ...
    def format(self): ...
self = C()
self.open(), self.data, self.type, self.f_score, self.co_located, self.items
def f():
    base: int = 3

### walrus and global
N = 0
def f(xs):
    global N
    if (n := len(xs)) > 1: N += n
    def g():
        nonlocal n
        n -= 1
    del xs[0]
    return lambda a, b=n: a * b

### unusual letters
größe = 1
λ = größe * 2
s = '日本語 {} \N{BULLET}'.format(λ)

### decimals
from decimal import Decimal
from fractions import Fraction
x = round(Decimal(1) / 3 + Fraction(1, 3).numerator, 5)

### regular expressions
import re
WORD = re.compile(r'(\w+)-(\d+)', re.I)
x = WORD.sub(lambda m: m.group(1), 'a-1')
"""

HONEST = {
    **{each.partition("\n")[0]: each.partition("\n")[2] for each in HONEST_TEXT.split("### ")[1:]},
    "long docstring": f'"""{"A candidate explains itself. " * 500}"""\n# {"and comments " * 500}',
    "long tables": f"X = {list(range(3000))}\nY = { {str(n): n for n in range(500)} }",
    "long choice": "def f(x):\n    if x == 0: return 0\n"
    + "".join(f"    elif x == {n}: return {n}\n" for n in range(1, 90)),
}


def told(
    text: str,
    path: str = "c.py",
    entry: str = "entry",
    exposes: tuple[str, ...] = (),
    allowed: tuple[str, ...] = (),
) -> str | None:
    return fault(Candidate(path, entry, None, exposes), text.encode(), allowed)


@pytest.mark.parametrize("name", HONEST)
def test_ordinary_code_has_no_fault(name: str) -> None:
    """What an algorithm needs is open to it."""
    ast.parse(HONEST[name])
    assert told(HONEST[name] + "\n\n\ndef entry(): ...\n") is None


OF_THE_SIMULATOR = ("policies", "scheduling", "scaling", "settings", "workloads", "baselines")


@pytest.mark.parametrize(
    "path",
    [
        *(str(file.relative_to(ROOT)) for file in (ROOT / "candidates").glob("*.py")),
        "specs/quickstart/router.py",
        *(f"sim/{name}.py" for name in ("baselines", "balancing", "schedulers", "autoscalers")),
    ],
)
def test_code_of_this_repository_has_no_fault(path: str) -> None:
    """Routers, schedulers and autoscalers that were written before there were rules keep them."""
    text = (ROOT / path).read_text("utf-8")
    entry = next(node.name for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    assert (
        told(
            text,
            path,
            entry,
            tuple(f"sim/{name}.py" for name in OF_THE_SIMULATOR),
            ("numpy", "collections.OrderedDict"),
        )
        is None
    )


def test_designs_of_the_offline_designer_have_no_fault() -> None:
    """Whatever two or three of its ideas make of a router may be tried."""
    start = (ROOT / "specs/quickstart/router.py").read_text("utf-8")
    seen = set()
    for ideas in itertools.permutations(routing_mechanisms("Router"), 3):
        text = start
        for idea in ideas:
            text = idea.apply(text, idea.defaults) or text
            seen.add(text)
    assert len(seen) > 30
    assert {told(text, "router.py", "Router") for text in seen} == {None}


def test_check_takes_no_time() -> None:
    """The largest texts that are allowed, ordinary or deeply nested, are judged within seconds."""
    line = "def f{}(queue, replicas):\n    return min(replicas, key=lambda r: (r.waiting, len(queue)))\n"
    ordinary = "".join(line.format(n) for n in range(1050))
    nested = ("x = " + "lambda: " * 150 + "1\n") * 80
    level = "{0}class A{1}(Enum):\n{0}\ta = 1\n"
    levels = "".join(level.format("\t" * n, n) for n in range(90))
    enums = f"from enum import Enum\n{levels}" + "\t" * 90 + "0;" * 39_000 + "0\n"
    for text in (ordinary, nested, enums):
        began = time.process_time()
        assert told(text + "def entry(): ...\n") is None
        assert time.process_time() - began < 5
