"""What opens the static rules: the user's setting, and the files that the marker exposes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_glia.candidate import Candidate, exposed_below, fault, load
from pytest_glia.rules.declarations import defined_in
from tests.confined import ROOT
from tests.pytest_glia.test_rules import told


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("import scipy.special\nx = scipy.special.erf(1)", "scipy"),
        ("from scipy import special as s\nx = s.erf(1)", "scipy.special"),
        ("import os\nx = os.environ", "os"),
        ("import numpy as np\nx = np.lib.stride_tricks.as_strided(a)", "numpy.lib.stride_tricks"),
        ("from functools import wraps\n@wraps(f)\ndef g(): ...", "functools.wraps"),
        ("import random\nx = random.random()", "random"),
        ("from enum import Enum\nE = Enum('E', 'a b')", "enum"),
        ("from collections import Counter\nx = [Counter]", "collections"),
        ("from dataclasses import make_dataclass\nC = make_dataclass('C', 'a b')", "dataclasses"),
    ],
)
def test_setting_opens_what_it_names(text: str, allowed: str) -> None:
    """A module, or one thing in it, may be used without conditions once the user lists it; not before."""
    assert told(text) is not None
    assert told(text, allowed) is None
    assert told(text, "other") is not None


def test_setting_opens_nothing_else() -> None:
    """A name that only begins alike stays closed, and so does what lies beside what is allowed."""
    assert "imports scipyx" in str(told("import scipyx", "scipy"))
    assert "imports numpy.lib.npyio" in str(told("import numpy.lib.npyio", "numpy.lib.stride_tricks"))
    assert "takes scipy.stats" in str(told("import scipy.special\nscipy.stats", "scipy.special"))
    assert "takes os.environ" in str(told("import os.path\nos.environ", "os.path"))


EXPOSED = ("sim/policies.py", "src/wares/base.py")


@pytest.mark.parametrize(
    "text",
    [
        "from sim.policies import RequestView\nx = isinstance(y, RequestView)",
        "import sim.policies\nx = sim.policies.PolicyError()",
        "import sim.policies as p\nclass C(p.Router): ...",
        "from sim import policies\ntry: f()\nexcept policies.PolicyError: ...",
        "from wares.base import OPTIMUM\nx = OPTIMUM / 2",
        "from .base import OPTIMUM\nx = OPTIMUM / 2",
        "from . import base\nx = base.OPTIMUM",
        "from ..wares.base import cost\nx = cost(y)",
    ],
)
def test_exposed_file_is_open(text: str) -> None:
    """What the marker lets a designer read, a candidate may import, absolutely or relatively."""
    assert told(text, exposes=EXPOSED, path="src/wares/policy.py") is None
    assert told(text, path="src/wares/policy.py") is not None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import sim.cluster", "imports sim.cluster"),
        ("import project.base", "if it is a file of the project, add that to exposes=[...]"),
        ("import sim.policies\nsim.cluster.Cluster", "takes sim.cluster.Cluster"),
        ("from sim.policies import _set_id", "imports sim.policies._set_id"),
        ("from sim.policies import sys", "take what is defined there"),
        ("from sim.policies import RequestView\nRequestView.id = 3", "changes sim.policies.RequestView.id"),
        ("from sim.policies import RequestView\nf(RequestView)", "hands on sim.policies.RequestView"),
        ("from .base import np\nnp.lib", "takes src.wares.base.np.lib"),
        ("from .base import np\nf(np)", "hands on src.wares.base.np"),
        ("from .base import os", "take what is defined there"),
        ("from sim.policies import Router\nx = Router[int]", "hands on sim.policies.Router"),
        ("import sim.policies\nf(sim)", "uses the module sim as a value"),
        ("from .secret import x", "add the file that defines it to exposes"),
        ("from . import wares", "add the file that defines it to exposes"),
    ],
)
def test_exposed_file_opens_no_more_than_itself(text: str, says: str) -> None:
    """Neither its neighbours, nor its private names, nor what it imports, nor changes of it."""
    assert says in str(told(text, exposes=EXPOSED, path="src/wares/policy.py"))


# A dataclass writes the names of fields into code, and a field's name can be changed before it is inherited.
INJECTION = """\
from dataclasses import field

from sim.scaling import dataclass

code = field(init=False, repr=False, compare=False)


@dataclass
class First:
    x: int = code


code.name = "x=print('executed', __import__('sys').platform),*"


@dataclass
class Router(First): ...
"""
HONEST = """\
import sim.policies
from sim.scaling import Autoscaling, ClusterView


class Router:
    def target(self, cluster, now):
        assert isinstance(cluster, ClusterView)
        return Autoscaling().max_replicas + isinstance(cluster.replicas[0], sim.policies.ReplicaView)
"""
SPECS = Candidate("candidates/c.py", "Router", None, ("sim/policies.py", "sim/scaling.py"))


def test_what_an_exposed_file_imports_is_not_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """By another name than its own, what has rules of its own would have none: here it executes a text."""
    assert fault(SPECS, INJECTION.encode(), (), exposed_below(ROOT)) == (
        "candidates/c.py:3 imports sim.scaling.dataclass, which a candidate may not: take what is defined "
        "there, and is no list, set or dict"
    )
    with pytest.raises(Exception, match="does not import"):
        load(SPECS, INJECTION.encode(), ROOT)
    assert "executed" in capsys.readouterr().out


def test_what_an_exposed_file_defines_is_open() -> None:
    """Its classes, by name or by its module."""
    assert fault(SPECS, HONEST.encode(), (), exposed_below(ROOT)) is None


def test_an_exposed_file_that_is_not_there_defines_nothing(tmp_path: Path) -> None:
    """Whoever imports from it is told so before it fails."""
    assert "take what is defined there" in str(fault(SPECS, HONEST.encode(), (), exposed_below(tmp_path)))


def test_names_that_a_file_defines() -> None:
    """Those of its top level, whatever they are nested in; neither imports, nor other names for them, nor
    what could be changed."""
    text = """\
import os, numpy as np
from enum import *
from dataclasses import dataclass, field as f
try:
    from a import b
except ImportError:
    b = None
LIMIT: int = 3
A = B = 1
(C, D), *E = x
shortcut = second = np.lib.stride
third = second
if (found := LIMIT) and (other := os):
    def inner(): local = 1
    class Inner: attribute = 1
with open() as handle: pass
for each in E: pass
made = f(1)
LIMITS: dict[str, int] = {"level": 1}
LEVELS = list(A)
SAME = {each for each in B}
"""
    names = "LIMIT A B C D E found inner Inner handle each made"
    assert defined_in(text.encode()) == set(names.split())
    assert defined_in(b"def (") == frozenset()
