"""Seeds that are known beforehand, and seeds that nobody could know."""

from __future__ import annotations

import random
from random import Random

import pytest

from pytest_glia import seeds

FIRST_OF_A_NIGHT = (3793170279, 1532966862, 2102955263)


@pytest.mark.parametrize(
    ("purpose", "first"),
    [("development", (737579222, 2922841123, 1486063627)), ("guard", (876913669, 435157841, 607437149))],
)
def test_known_seeds_never_change(purpose: seeds.Purpose, first: tuple[int, ...]) -> None:
    """The seeds of a published figure can be had again with every later version."""
    assert seeds.known(purpose, 3) == first


def test_more_seeds_begin_with_the_same_ones() -> None:
    """A first look uses the first of the seeds of the full evaluation, so its runs are not paid twice."""
    assert seeds.known("development", 50)[:3] == seeds.known("development", 3)
    assert seeds.sealed(b"s", "c", 50)[:3] == seeds.sealed(b"s", "c", 3)


def test_a_name_gives_guard_seeds_of_its_own() -> None:
    """The same text gives the same seeds in every version, another one others; `fixed` gives the known."""
    assert seeds.guard("2026-11-28", 3) == FIRST_OF_A_NIGHT
    assert seeds.guard("2026-11-28", 50)[:3] == FIRST_OF_A_NIGHT
    assert seeds.guard("fixed", 50) == seeds.known("guard", 50)
    sets = [seeds.guard(name, 500) for name in ("fixed", "Fixed", "0", "2026-11-28", "2026-11-29")]
    known = seeds.known("development", 500)
    assert len(set().union(known, *sets)) == 3000


def test_purposes_share_no_seed() -> None:
    """What a search has seen is not what a plain run or a confirmation judges on."""
    development, guard = (set(seeds.known(purpose, 1000)) for purpose in ("development", "guard"))
    sealed = set(seeds.sealed(b"secret", "content", 1000))
    assert len(development | guard | sealed) == 3000


def test_sealed_seeds_need_the_secret_and_the_candidate() -> None:
    """Another secret or another text gives other seeds; the same two give them again."""
    first = seeds.sealed(b"secret", "content", 10)
    assert first == seeds.sealed(b"secret", "content", 10)
    assert not set(first) & set(seeds.sealed(b"other", "content", 10))
    assert not set(first) & set(seeds.sealed(b"secret", "changed", 10))


def test_seeds_fit_into_32_bits() -> None:
    """Every common generator takes them."""
    everything = [*seeds.known("guard", 500), *seeds.sealed(b"s", "c", 500)]
    assert all(0 <= seed < 2**32 for seed in everything)
    assert max(everything) > 2**31


def test_wide_seeds_have_63_bits() -> None:
    """Those of a candidate that might try them all; a column of signed 64-bit integers holds them."""
    wide = seeds.sealed(b"s", "c", 500, wide=True)
    assert all(0 <= seed < 2**63 for seed in wide)
    assert max(wide) > 2**62
    assert len(set(wide)) == 500
    assert wide[:3] == seeds.sealed(b"s", "c", 3, wide=True)


def test_policy_has_its_own_stream() -> None:
    """The candidate's random numbers are reproducible, and not those that the workload draws."""

    number = Random(seeds.policy_seed(7)).random()
    assert number == Random(seeds.policy_seed(7)).random()
    assert number != random.Random(7).random()
    assert number != Random(seeds.policy_seed(8)).random()
