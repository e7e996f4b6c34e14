"""Static rules: every way out of a candidate that its text can show is told, with its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_glia.candidate import Candidate, fault

FRAME = "it can lead to the code that calls it"
MEMORY = "it can lead to memory that others own"
SPECIAL = "special attributes lead to the interpreter"
BY_NAME = "other than in a call with constant names"
FORMAT = "names the attribute format"

# Each: the line of the violation, what must be said of it, the text. An entry is added at the end.
HOSTILE = {
    # imports
    "os": (1, "imports os, which a candidate may not: list os in glia_allow_imports", "import os"),
    "dotted": (1, "imports os.path, which", "import os.path"),
    "from": (1, "imports sys.modules, which a candidate may not: list sys in", "from sys import modules"),
    "second name": (1, "imports gc, which", "import math, gc"),
    "inside a function": (2, "imports inspect", "def f():\n    import inspect"),
    "in dead code": (2, "imports os", "if False:\n    import os"),
    "star": (1, "imports * from math: name what it takes", "from math import *"),
    "relative": (1, "imports .a.thing".replace(" .", " "), "from .a import thing"),
    "main": (1, "imports __main__", "import __main__"),
    "importlib": (1, "imports importlib", "import importlib"),
    "builtins": (1, "imports builtins", "import builtins as b"),
    "time": (1, "imports time, which", "import time"),
    "global random": (
        1,
        "imports random.choice, which a candidate may not: draw",
        "from random import choice",
    ),
    "numpy": (
        1,
        "imports numpy, which a candidate may not: compute with lists; numpy in",
        "import numpy as np",
    ),
    "of numpy": (1, "imports numpy.zeros, which a candidate may not: compute", "from numpy import zeros"),
    "state of random": (2, "takes random.getstate", "import random\nstate = random.getstate()"),
    "hidden global random": (1, "statistics.NormalDist", "from statistics import NormalDist"),
    "private of a module": (2, "takes random._os", "import random\nrandom._os.system('x')"),
    "module of a module": (2, "takes statistics.sys", "import statistics\nstatistics.sys.modules"),
    "from a module its module": (1, "imports fractions.sys", "from fractions import sys"),
    "renamed builtins": (2, "takes enum.bltns", "import enum\nenum.bltns.eval"),
    "submodule": (1, "imports collections._collections", "from collections import _collections"),
    "submodule by attribute": (2, "takes re._compiler", "import re\nre._compiler.compile('')"),
    "submodule by import": (1, "imports re._compiler", "import re._compiler as s"),
    "context of the spec's decimals": (1, "imports decimal.localcontext", "from decimal import localcontext"),
    "a class for all": (2, "names the attribute register", "import numbers\nnumbers.Real.register(str)"),
    "a class for all by its own": (
        3,
        "names the attribute register: it can lead to classes that others own",
        "from numbers import Real\nclass Own(Real): ...\nOwn.register(str)",
    ),
    "what an abstract class keeps": (
        3,
        "names the attribute _abc_registry_clear",
        "import numbers\nclass Own: _abc_registry_clear = None\nnumbers.Real._abc_registry_clear()",
    ),
    "what a generic keeps": (
        4,
        "names the attribute _name",
        "import copy\nfrom typing import Literal\nclass Own: _name = None\nLiteral['x']._name = 'eval'",
    ),
    "what evaluates a generic": (
        2,
        "names the attribute _evaluate",
        "class C: _evaluate = None\nx._evaluate()",
    ),
    "a generic of classes": (2, "hands on typing.Mapping", "import typing\nHELD = typing.Mapping"),
    "classes that generics compare": (
        3,
        "hands on random.Random",
        "from random import Random\nfrom typing import List\nx = List[Random] == List[y]",
    ),
    "a builtin's name for what is imported": (
        2,
        "binds eval, which is Python's own",
        "def never():\n    from math import floor as eval\nx = eval('1')",
    ),
    "another's name for getattr": (1, "binds getattr", "from operator import eq as getattr"),
    "module as an attribute": (
        2,
        "imports statistics into a class, whose attribute it would be: import it above",
        "class Own:\n    import statistics\nx = Own.statistics.sys",
    ),
    "mangled global": (
        3,
        "names __T, which in a class is",
        "class In:\n    x = 1\n    global __T\n    __T = True",
    ),
    "mangled import": (1, "names __r, which in a class is another name", "import random as __r"),
    "copies that set attributes": (1, "imports copy.deepcopy", "from copy import deepcopy"),
    "what is asked to copy": (2, "names __deepcopy__", "class Own:\n    def __deepcopy__(self, memo): ..."),
    # what looks again at memory that a candidate's own code may have freed meanwhile
    "bytes that change": (1, "uses bytearray", "x = bytearray(8)"),
    "view of memory": (1, "uses memoryview", "x = memoryview(b'')"),
    "array": (1, "imports array", "import array"),
    "ordered by links": (
        1,
        "imports collections.OrderedDict",
        "from collections import OrderedDict",
    ),
    "ordered by typing": (1, "imports typing.OrderedDict", "from typing import OrderedDict"),
    "until a sentinel": (1, "uses iter other than as iter(x)", "for each in iter(f, 3): ..."),
    "group of errors": (1, "uses except*: write except", "try:\n    pass\nexcept* ValueError:\n    pass"),
    "slice with a step": (1, "assigns to a slice with a step", "x[0:14:13] = f()"),
    "two as one": (2, "imports two things as f", "from math import floor as f\nfrom math import ceil as f"),
    "under false type checking": (
        3,
        "imports os",
        "TYPE_CHECKING = True\nif TYPE_CHECKING:\n    import os",
    ),
    "type checking bound in its own body": (
        1,
        "changes typing.TYPE_CHECKING",
        "TYPE_CHECKING = True\nif TYPE_CHECKING:\n    import os; from typing import TYPE_CHECKING",
    ),
    "type checking set": (
        2,
        "changes typing.TYPE_CHECKING",
        "import typing\ntyping.TYPE_CHECKING = True\nif typing.TYPE_CHECKING:\n    import os",
    ),
    "type checking else": (
        5,
        "imports os",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import os\nelse:\n    import os",
    ),
    # modules and what they hold are neither changed nor handed on
    "patched module": (2, "changes random.Random", "import random\nrandom.Random = None"),
    "patched class": (2, "changes random.Random.random", "import random\nrandom.Random.random = min"),
    "deleted": (2, "changes math.floor", "import math\ndel math.floor"),
    "module as value": (2, "uses the module math as a value", "import math\nm = math"),
    "module as argument": (
        2,
        "uses the module collections.abc as a value",
        "import collections.abc as c\nf(c)",
    ),
    "rebound": (2, "changes operator.abs", "from operator import abs\nabs = 3"),
    "bound again": (2, "binds abs again, which it imports", "from operator import abs\ndef f(abs): ..."),
    "rebound base": (2, "binds ABC again", "from abc import ABC\nclass ABC: ..."),
    "class handed on": (2, "hands on random.Random", "from random import Random\nR = Random"),
    "class in a list": (
        2,
        "hands on collections.Counter",
        "from collections import Counter\nx = [Counter]",
    ),
    "class to an own subscript": (2, "hands on", "from random import Random\nx = grab[Random]"),
    "class to an own operator": (2, "hands on", "from random import Random\nx = grab | Random"),
    "class to an own comparison": (2, "hands on", "from random import Random\nx = grab == Random"),
    "class out of a tuple": (2, "hands on", "from random import Random\nx = (Random, 1)[0]"),
    "class by an own isinstance": (1, "binds isinstance, which is", "def isinstance(x, y): return y"),
    "class by another isinstance": (
        1,
        "binds isinstance, which",
        "from functools import partial as isinstance",
    ),
    "others by an own super": (1, "binds super, which is Python's own", "super = lambda: request"),
    # builtins
    "eval": (1, "uses eval, which a candidate may not", "x = eval('1')"),
    "wide eval": (1, "uses eval, which", "x = \uff45\uff56\uff41\uff4c('1')"),
    "alias of exec": (1, "uses exec", "run = exec"),
    "open": (1, "uses open, which", "x = open('/etc/passwd')"),
    "__import__": (1, "uses __import__", "__import__('os')"),
    "__builtins__": (1, "names __builtins__", "__builtins__['eval']"),
    "globals": (2, "uses globals", "def f():\n    return globals()"),
    "locals by map": (1, "uses locals", "x = map(locals)"),
    "vars": (1, "uses vars", "x = vars(f)"),
    "breakpoint": (1, "uses breakpoint", "breakpoint()"),
    "compile in a default": (1, "uses compile", "f = lambda c=compile: c"),
    "decorator": (1, "uses eval", "@eval\ndef f(): ..."),
    "help": (1, "uses help", "help()"),
    "three types": (1, "uses type other than as type(x) is", "X = type('X', (), {})"),
    "type handed on": (1, "uses type other than", "t = type"),
    "type of a type": (1, "uses type other than", "x = type(type(1))"),
    "type compared with equals": (1, "uses type other than", "x = type(f) == grab"),
    "generic of type": (1, "uses type other than", "x: type[int] = 1"),
    "super of others": (1, "uses super other than", "super(A, b).x"),
    "aliased getattr": (1, f"uses getattr {BY_NAME}", "g = getattr"),
    "mapped getattr": (1, f"uses getattr {BY_NAME}", "x = map(getattr, a, b)"),
    "computed getattr": (1, f"uses getattr {BY_NAME}", "getattr(x, 'gi_' + 'frame')"),
    "starred getattr": (1, f"uses getattr {BY_NAME}", "getattr(*x)"),
    "getattr of a frame": (1, f"names the attribute gi_frame: {FRAME}", "getattr(x, 'gi_frame')"),
    "setattr of a special name": (1, SPECIAL, "setattr(x, '__class__', y)"),
    # attributes
    "generator's frame": (1, FRAME, "x = (i for i in y).gi_frame"),
    "frame's caller": (1, FRAME, "x = f.f_back"),
    "traceback of an exit": (
        3,
        FRAME,
        "class C:\n    def __exit__(self, kind, error, tb):\n        tb.tb_frame",
    ),
    "coroutine": (1, FRAME, "x = c.cr_frame"),
    "async generator": (1, FRAME, "x = c.ag_frame"),
    "code": (1, FRAME, "x = c.co_consts"),
    "traceback of an error": (3, SPECIAL, "try: f()\nexcept Exception as e:\n    e.__traceback__"),
    "globals of a function": (1, SPECIAL, "x = f.__globals__"),
    "subclasses": (1, SPECIAL, "x = object.__subclasses__()"),
    "class": (1, SPECIAL, "x = f.__class__"),
    "changed class": (1, SPECIAL, "x.__class__ = C"),
    "dict": (1, SPECIAL, "x.__dict__['y'] = 1"),
    "views written past their guard": (1, SPECIAL, "object.__setattr__(x, 'y', 1)"),
    "constructor of another's": (1, SPECIAL, "request.__init__(0, 0)"),
    "classes of a class": (1, "classes that others own", "x = C.mro()"),
    "object of an error": (3, MEMORY, "try: f()\nexcept AttributeError as e:\n    e.obj"),
    "array below a view": (1, MEMORY, "x = y.base"),
    "array made writable": (1, MEMORY, "x.setflags(write=True)"),
    "flag of an array": (1, MEMORY, "x.flags.writeable = True"),
    "array made writable by its item": (1, MEMORY, "x.flags['WRITEABLE'] = True"),
    "steps beyond a buffer": (1, MEMORY, "x.strides = (16,)"),
    "steps by name": (1, MEMORY, "setattr(x, 'strides', (16,))"),
    "seed by a slot of its own": (
        3,
        "the replication's seed",
        "class C:\n    def _bit_generator(self): ...\nx = rng._bit_generator",
    ),
    "seed by its own sequence": (3, "the replication's seed", "class C:\n    _seed_seq = 1\nx = y._seed_seq"),
    "addresses": (1, MEMORY, "x = y.ctypes.data"),
    "seed of a generator": (1, "the replication's seed", "x = rng.bit_generator"),
    "memory that was freed": (1, MEMORY, "x.resize(9, refcheck=False)"),
    "private of another": (1, "names the attribute _tokens_done: none of its classes", "x = r._tokens_done"),
    "match by keyword": (2, FRAME, "match x:\n    case object(gi_frame=f): ..."),
    "match of a format": (2, FORMAT, "match x:\n    case str(format=f): ..."),
    "match by position": (2, FRAME, "class C:\n    __match_args__ = ('gi_frame',)"),
    "computed match by position": (2, "sets __match_args__", "class C:\n    __match_args__ = (a + b,)"),
    "match by a dataclass": (3, MEMORY, "from abc import ABC\nclass C(ABC):\n    obj: int"),
    "match by a hidden field": (3, MEMORY, "class C:\n    if True:\n        obj: int"),
    "match by a named tuple": (
        2,
        FRAME,
        "from collections import namedtuple\nC = namedtuple('C', 'gi_frame')",
    ),
    "computed named tuple": (2, BY_NAME, "from collections import namedtuple\nC = namedtuple('C', names)"),
    "module of a named tuple": (
        2,
        BY_NAME,
        "from collections import namedtuple\nC = namedtuple('C', 'a', module='x')",
    ),
    # strings that read attributes
    "format of a variable": (1, FORMAT, "x = text.format(y)"),
    "format of a frame": (1, FORMAT, "x = '{0.gi_frame.f_back.f_locals}'.format(y)"),
    "format of an item": (1, FORMAT, "x = '{0[0]}'.format(y)"),
    "format in a format": (1, FORMAT, "x = '{0:{1.gi_frame}}'.format(y, z)"),
    "format handed on": (1, FORMAT, "x = map('{0}'.format, y)"),
    "format of str": (1, FORMAT, "x = str.format('{0.a}', y)"),
    "format_map": (1, "names the attribute format_map", "x = '{a.b}'.format_map(y)"),
    "format by getattr": (1, FORMAT, "x = getattr('{0.a}', 'format')"),
    "Formatter": (1, "string.Formatter", "from string import Formatter"),
    "attrgetter": (2, FRAME, "import operator\nx = operator.attrgetter('gi_frame.f_back')"),
    "computed attrgetter": (2, BY_NAME, "from operator import attrgetter as a\nx = a(name)"),
    "attrgetter handed on": (2, BY_NAME, "import operator\nx = map(operator.attrgetter, y)"),
    "methodcaller of format": (2, FORMAT, "from operator import methodcaller\nmethodcaller('format', x)"),
    "type hints": (1, "typing.get_type_hints", "from typing import get_type_hints"),
    "typing's type": (1, "typing.Type,", "from typing import Type"),
    "single dispatch": (1, "functools.singledispatch", "from functools import singledispatch"),
    "update_wrapper": (1, "functools.update_wrapper", "from functools import update_wrapper"),
    "cached_property": (
        2,
        "takes functools.cached_property",
        "import functools\nfunctools.cached_property(f)",
    ),
    "make_dataclass": (1, "dataclasses.make_dataclass", "from dataclasses import make_dataclass"),
    "fields": (1, "dataclasses.fields", "from dataclasses import fields"),
    "dataclass called": (
        2,
        "uses dataclass other than as a decorator",
        "from dataclasses import dataclass\ndataclass(C)",
    ),
    "fields that are code": (
        5,
        "makes a dataclass that inherits from a class of its own",
        "from dataclasses import dataclass, field\nclass A: ...\nx = 1\n@dataclass\nclass B(A): ...",
    ),
    # classes
    "metaclass": (1, "makes a class with metaclass=", "class C(metaclass=M): ..."),
    "hidden metaclass": (1, "makes a class with **=", "class C(**{'metaclass': M}): ..."),
    "enum called": (
        2,
        "uses enum.Enum other than as the base",
        "from enum import Enum\nE = Enum('E', names)",
    ),
    "enum to be called": (2, "makes an enum without a member", "from enum import Enum\nclass E(Enum): ..."),
    "enum that ignores its members": (
        2,
        "makes an enum without a member",
        "from enum import Enum\nclass E(Enum):\n    _ignore_ = 'A'\n    A = 1",
    ),
    "flag of no bit": (2, "makes a Flag that", "from enum import Flag\nclass E(Flag): NONE = 0"),
    "flag of two bits": (2, "makes a Flag that", "from enum import IntFlag\nclass E(IntFlag): A = 3"),
    "flag after what equals it": (
        2,
        "makes a Flag that",
        "from enum import Flag\nclass E(Flag):\n    X = Own()\n    A = 1",
    ),
    "flag of another's values": (2, "makes a Flag", "from enum import Flag\nclass E(Own, Flag): A = 1"),
    "enum with the module's members": (
        2,
        "makes an enum without a member",
        "from enum import Enum\nclass E(Enum):\n    global A\n    A = 1",
    ),
    "enum that imports what it ignores": (
        2,
        "makes an enum without a member",
        "from enum import Enum\nclass E(Enum):\n    from string import digits as _ignore_\n    A = 1",
    ),
    "own enum called": (
        3,
        "calls the enum E with more than a value",
        "from enum import Enum\nclass E(Enum): A = 1\nE('M', [('B', 0)])",
    ),
    "own enum called with what is unpacked": (
        3,
        "calls the enum E with more",
        "from enum import Enum\nclass E(Enum): A = 1\nE(*names)",
    ),
    "enum's own maker": (1, "names the attribute _create_: enums", "x = E._create_('M', names)"),
    "members of an enum, opened by a method": (
        3,
        "names the attribute _member_names_: enums",
        "class C:\n    def _member_names_(self): ...\nE._member_names_.clear()",
    ),
    "fields that a decorator made": (
        4,
        "decorates with dataclass what another decorator made",
        "from dataclasses import dataclass\n@dataclass(init=False)\n@(lambda ignored: made)\nclass C: ...",
    ),
    "fields of a decorator's argument": (
        3,
        "uses dataclass other than as a decorator: call it with keywords",
        "from dataclasses import dataclass\n@dataclass(made)\nclass C: ...",
    ),
    "named tuple called": (
        2,
        "uses typing.NamedTuple other",
        "from typing import NamedTuple\nN = NamedTuple('N', [])",
    ),
    "finalizer": (2, "names __del__", "class C:\n    def __del__(self): ..."),
    "copied by parts": (2, "names __reduce_ex__", "class C:\n    def __reduce_ex__(self, n): ..."),
    "looked-up names": (2, "names __getattr__", "class C:\n    def __getattr__(self, name): ..."),
    "subclass hook": (2, "names __init_subclass__", "class C:\n    def __init_subclass__(cls): ..."),
    "annotations as code": (2, "names __annotations__", "class C:\n    __annotations__ = {'x=1': int}"),
    "any memory": (
        2,
        "names __array_interface__",
        "class C:\n    __array_interface__ = {'data': (1, False)}",
    ),
    "any memory in a loop": (
        2,
        "names __array_interface__",
        "class C:\n    for __array_interface__ in x: ...",
    ),
    "any memory by a slot": (2, SPECIAL, "class C:\n    __slots__ = ('__array_struct__',)"),
    "another module's name": (1, "names __name__", "__name__ = 'sim.policies'"),
    "special argument": (1, "names __class__", "def f(__class__): ..."),
    "special keyword": (1, "names __wrapped__", "f(__wrapped__=g)"),
    "special import": (1, "binds __spec__", "import math as __spec__"),
    "special match": (2, "names __loader__", "match x:\n    case [*__loader__]: ..."),
    "annotation that runs": (1, "uses eval", "x: eval('1') = 2"),
    "late future": (
        3,
        "uses eval",
        "x = 1\ndef f():\n    x: eval('1')\n    from __future__ import annotations",
    ),
    # texts
    "no encoding": (0, "c.py is encoded as 'utf-7'", "# coding: utf-7\n+AGUAeA-"),
    "byte-order mark": (0, "c.py is encoded as 'utf-8-sig'", "\ufeffx = 1"),
    "right to left": (2, "has the character U+202E, by which a reader is shown", "x = 1\n# \u202e2 = x"),
    "isolates": (1, "has the character U+2066", "x = '\u2066'"),
    "a terminal's command": (1, "has the character U+001B", "x = '\x1b[2K'"),
    "null": (1, "has the character U+0000", "x = '\0'"),
    "long": (0, "c.py has 100", "x = '" + "a" * 100_000 + "'"),
    "brackets": (0, "c.py:1 is not valid Python: too many nested parentheses", "(" * 50_000),
    "signs": (0, "nests its expressions or statements too deep", "x = " + "-" * 50_000 + "1"),
    "sums": (0, "nests its expressions or statements too deep", "x = 1" + "+1" * 40_000),
    "chain": (0, "nests its expressions or statements too deep", "x = y" + ".z" * 40_000),
    "long module": (
        0,
        "has a name of 79999 characters, and the most are 1000",
        "import " + "a." * 39_999 + "a",
    ),
    "module of a name": (0, "has a name of 79999 characters", "from " + "a." * 39_999 + "a import x"),
    "long name": (0, "has a name of 50000 characters", "x" * 50_000 + " = 1"),
    "formats in formats": (1, FORMAT, "x = '" + "{:" * 15_000 + "}" * 15_000 + "'.format(y)"),
    "lambdas": (0, "nests its expressions or statements too deep", "x = " + "lambda:" * 210 + "1"),
    "digits": (0, "is not valid Python: Exceeds the limit", "x = " + "9" * 90_000),
}


def told(text: str, *allowed: str, exposes: tuple[str, ...] = (), path: str = "c.py") -> str | None:
    """The fault of a candidate with this text and an entry."""
    end = "\n\n\ndef entry(): ...\n"
    return fault(Candidate(path, "entry", None, exposes), (text + end).encode(), allowed)


def test_a_line_that_a_terminal_overwrites_is_told() -> None:
    """To Python it is two lines; the ends of lines of Windows are as good as others."""
    found = told("y = 1\n# harmless\rx = 1")
    assert found is not None
    assert found.startswith("c.py:2 has the character U+000D, by which a reader is shown another text")
    assert told("x = 1\r\ny = 2\r\n") is None


@pytest.mark.parametrize("name", HOSTILE)
def test_way_out_is_told_with_its_line(name: str) -> None:
    """The sentence has file and line, what was found, and what to do."""
    line, says, text = HOSTILE[name]
    found = told(text)
    assert found is not None
    assert says in found
    assert found.startswith(f"c.py:{line} " if line else "c.py")


def test_first_violation_of_the_text_is_told() -> None:
    """Of several the one that stands first, wherever the walk meets it."""
    assert str(told("def f():\n    eval('')\n\nimport os")).startswith("c.py:2 uses eval")


def test_message_of_a_violation_is_a_sentence_for_the_user() -> None:
    """The whole of it, once."""
    assert told("\n\nimport os", path="candidates/router.py") == (
        "candidates/router.py:3 imports os, which a candidate may not: list os in glia_allow_imports if the "
        "algorithm needs it"
    )


@given(st.binary(max_size=200))
def test_any_bytes_have_a_fault_or_none(source: bytes) -> None:
    """Whatever a designer hands in, the answer is a sentence: the search never ends by it."""
    found = fault(Candidate("c.py", "entry"), source)
    assert found is None or found.startswith(("c.py", "the candidate c.py"))


WORDS = [text for _, _, text in HOSTILE.values() if len(text) < 300]


@given(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
    st.integers(0, 200),
    st.integers(0, 20),
    st.text(),
)
def test_mutated_programs_have_a_fault_or_none(parts: list[str], at: int, cut: int, put: str) -> None:
    """Texts that are nearly programs do not break the rules' own machinery either."""
    text = "\n".join(parts)
    mutated = text[:at] + put + text[at + cut :]
    found = fault(Candidate("c.py", "entry"), mutated.encode("utf-8", "replace"))
    assert found is None or found.startswith(("c.py", "the candidate c.py"))


@given(
    st.sampled_from(sorted(name for name in HOSTILE if HOSTILE[name][0])), st.sampled_from(["def", "class"])
)
def test_hostile_line_is_found_wherever_it_stands(name: str, holder: str) -> None:
    """A function or class around it hides nothing."""
    text = HOSTILE[name][2]
    if "__future__" in text:
        return
    inner = "\n".join("    " + line for line in text.splitlines())
    head = "def f(self):" if holder == "def" else "class Outer:"
    assert told(f"{head}\n{inner}") is not None
