"""The forge's API: one pull request a branch, and sentences where it refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_glia.proposing.forge import Forge, ForgeError
from tests.forge import StandIn, forge

TOKEN = "ghs_0123456789abcdefghijklmnop"
BRANCH = "glia/packer/proposed"


@pytest.fixture
def standin() -> Iterator[StandIn]:
    with forge(TOKEN) as here:
        yield here


def client(standin: StandIn, waited: list[float] | None = None, token: str = TOKEN) -> Forge:
    """A client that waits for nothing, but writes down how long it would."""
    return Forge(standin.url, "ada/packing", token, ([] if waited is None else waited).append)


def test_one_pull_request_a_branch(standin: StandIn) -> None:
    """The first time it is opened, then it gets a new body; its title is left to people."""
    first = client(standin).propose(BRANCH, "main", "a title", "one")
    standin.pulls[0]["title"] = "a better title"
    assert client(standin).propose(BRANCH, "main", "a title", "two") == first
    assert client(standin).propose("glia/other/proposed", "main", "a title", "three") != first
    assert [(each["title"], each["body"]) for each in standin.pulls] == [
        ("a better title", "two"),
        ("a title", "three"),
    ]


def test_a_closed_one_is_not_reopened(standin: StandIn) -> None:
    """Who closed it has decided about that design; the next one is another pull request."""
    client(standin).propose(BRANCH, "main", "a title", "one")
    standin.pulls[0]["state"] = "closed"
    client(standin).propose(BRANCH, "main", "a title", "two")
    assert [each["body"] for each in standin.pulls] == ["one", "two"]


def test_passing_trouble_is_waited_out(standin: StandIn) -> None:
    """5xx and 429 are asked again, later each time, or when the forge says, within a minute."""
    standin.failures += [(500, {}, ""), (502, {}, ""), (429, {"Retry-After": "7"}, "")]
    standin.failures += [(403, {"Retry-After": "3600"}, "")]
    waited: list[float] = []
    client(standin, waited).propose(BRANCH, "main", "a title", "one")
    assert waited == [2.0, 4.0, 7.0, 60.0]
    assert len(standin.pulls) == 1


def test_trouble_that_does_not_pass(standin: StandIn) -> None:
    """After five times it is an error."""
    standin.failures += [(503, {}, "down")] * 9
    with pytest.raises(ForgeError, match=r"answers 503 for ada/packing: try again later \(down\)"):
        client(standin).propose(BRANCH, "main", "a title", "one")
    assert len(standin.requests) == 5


def test_an_answer_that_was_lost_makes_no_second_one(standin: StandIn) -> None:
    """If opening fails because it is open already, that one is updated."""
    client(standin).propose(BRANCH, "main", "a title", "one")
    standin.late = True
    client(standin).propose(BRANCH, "main", "a title", "two")
    assert [each["body"] for each in standin.pulls] == ["two"]


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (301, "it has moved: give its present name or address"),
        (401, "does not accept the token"),
        (403, "contents: write and pull-requests: write"),
        (404, "check --repository and --forge-url"),
        (422, "check that --base is a branch"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, advice: str, standin: StandIn) -> None:
    """Each with the forge's own words, and without the token, even where the forge repeats it."""
    standin.failures.append((status, {"Location": "http://127.0.0.1:9/"}, f"because of {TOKEN} \x1b[2J"))
    with pytest.raises(ForgeError) as raised:
        client(standin).propose(BRANCH, "main", "a title", "one")
    assert advice in str(raised.value)
    assert "because of *** \\x1b[2J" in str(raised.value)
    assert len(standin.requests) == 1


def test_what_is_no_forge(standin: StandIn) -> None:
    """Nobody there, another kind of answer, another kind of list: a sentence each."""
    nobody = Forge("http://127.0.0.1:9", "ada/packing", TOKEN, lambda seconds: None)
    with pytest.raises(ForgeError, match=r"127\.0\.0\.1:9 cannot be reached: "):
        nobody.propose(BRANCH, "main", "a title", "one")
    standin.failures.append((200, {}, "no list"))
    with pytest.raises(ForgeError, match="lists pull requests in a form that is not known"):
        client(standin).propose(BRANCH, "main", "a title", "one")


def test_the_token_is_not_in_what_is_shown(standin: StandIn) -> None:
    """Not where the object is printed either."""
    assert TOKEN not in repr(client(standin))
