"""What opens the static rules: the user's setting, and the files that the marker exposes."""

from __future__ import annotations

import pytest

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
