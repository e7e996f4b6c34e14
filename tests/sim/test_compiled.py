"""The disk cache of compiled code: shared by equal sources, never stale, and not needed."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest

import sim
from sim.compiled import SourceHashLocator, source_hash

PROBE = """
from sim import Cluster, Workload, warm_up
from sim.baselines import RoundRobin
from sim.kernel import policy_events
warm_up()
run = Cluster().run(Workload.from_arrays(arrival=[0.0], prompt_tokens=[8], output_tokens=[9]), RoundRobin())
stats = policy_events.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()), run.totals["steps"])
"""


def probe(tree: Path, cache: Path) -> tuple[str, ...]:
    """Cache hits and misses of the event loop, and the steps of a run, in a fresh process on this
    tree."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(tree), "HOME": str(cache)}
    result = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return tuple(result.stdout.split())


def copy_of_sim(folder: Path) -> Path:
    """A tree with a copy of the package's sources."""
    source = Path(sim.__file__).parent
    shutil.copytree(source, folder / "sim", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.slow
def test_equal_sources_share_compiled_code_and_different_ones_do_not(tmp_path: Path) -> None:
    """Another path with other times hits the cache; an edited function in another file is compiled anew.

    The edit is in the engine; what is looked up is the event loop, in another file.
    """
    one, two = copy_of_sim(tmp_path / "one"), copy_of_sim(tmp_path / "two" / "deeper")
    for path in (two / "sim").glob("*.py"):
        os.utime(path, (1, 1))
    cache = tmp_path / "cache"
    assert probe(one, cache) == ("0", "1", "9.0")
    assert probe(two, cache) == ("1", "0", "9.0")
    engine = one / "sim" / "engine.py"
    engine.write_text(engine.read_text().replace("tally[STEPS] += 1", "tally[STEPS] += 2"))
    assert probe(one, cache) == ("0", "1", "18.0")
    assert probe(two, cache) == ("1", "0", "9.0")
    assert len(list((cache / "pytest-glia" / "sim").iterdir())) == 2
    assert not list(tmp_path.rglob("*/sim/__pycache__/*.nbc"))


@pytest.mark.slow
def test_where_nothing_is_writable_everything_works(tmp_path: Path) -> None:
    """No cache folder, no cache, the same results."""
    tree = copy_of_sim(tmp_path / "tree")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache folder should be")
    assert probe(tree, blocked) == ("0", "1", "9.0")
    assert blocked.is_file()


def outside() -> int:
    return 1


def test_other_packages_keep_their_locators() -> None:
    """A function of another package that is cached beside ours is cached where Numba would put it."""
    importlib.import_module("sim.kernel")
    foreign: Any = numba.njit(cache=True)(outside)
    assert not isinstance(foreign._cache._impl.locator, SourceHashLocator)
    assert SourceHashLocator.from_function(outside, __file__) is None


def test_the_hash_is_that_of_all_sources() -> None:
    """It is stable within a process and names a folder."""
    assert source_hash() == source_hash()
    assert len(source_hash()) == 24


def test_without_numba_the_error_says_what_to_install(tmp_path: Path) -> None:
    """`import sim` and its protocols work without Numba; running a cluster names the extra to install."""
    program = (
        "import sys; sys.modules['numba'] = None\n"
        "from sim import Cluster, Workload, policies\n"
        "from sim.baselines import RoundRobin\n"
        "Cluster().run(Workload.from_arrays(arrival=[0], prompt_tokens=[1], output_tokens=[1]), RoundRobin())"
    )
    root = Path(sim.__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert 'pip install "pytest-glia[sim]"' in result.stderr


@pytest.mark.parametrize("module", ["pytest", "pytest_glia", "pandas", "pyarrow", "numba"])
def test_importing_sim_imports_no(module: str) -> None:
    """The simulator knows nothing of the plugin, and heavy libraries come in only when they are used."""
    root = Path(sim.__file__).parents[1]
    program = f"import sys, sim, sim.baselines; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
