"""The forge's REST API (GitHub's), as far as a pull request needs it: one for a branch, opened or updated."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from pytest_glia.visible import visible

LONGEST_BODY = 65_536
"""What the forge takes as the body of a pull request, in characters; `pytest_glia` counts bytes."""

_ATTEMPTS = 5
_LONGEST_WAIT = 60.0
_TIMEOUT = 30.0
_LARGEST_ANSWER = 5_000_000

_ADVICE = {
    401: "it does not accept the token: give one that is valid and not expired",
    403: "the token may not do that: it needs contents: write and pull-requests: write, and the repository's "
    "settings must allow Actions to create pull requests",
    404: "there is no such repository, or the token cannot see it: check --repository and --forge-url",
    422: "it refuses the pull request: check that --base is a branch of the repository",
}


class ForgeError(Exception):
    """The forge did not do what was asked; the message is a sentence without the token."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: the token is for the address that was given."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


@dataclass(frozen=True)
class Forge:
    """A repository on a forge.

    Attributes:
        url: Of the API, such as ``https://api.github.com``.
        repository: ``owner/name``.
        token: With which requests are made; shown nowhere.
        wait: Called with seconds before a request is repeated.
    """

    url: str
    repository: str
    token: str = field(repr=False)
    wait: Callable[[float], None] = time.sleep

    def propose(self, branch: str, base: str, title: str, body: str) -> str:
        """Open the pull request of a branch, or give the one that is open a new body; returns its address.

        Raises:
            ForgeError: the forge refuses, or cannot be reached.
        """
        found = self._open(branch, base)
        if found is None:
            try:
                new = {"title": title, "head": branch, "base": base, "body": body}
                return _address(self._asked("POST", f"/repos/{self.repository}/pulls", new))
            except _Answered as error:
                # One whose answer was lost, or that somebody else has just opened.
                found = self._open(branch, base) if error.status == 422 else None
                if found is None:
                    raise
        return _address(self._asked("PATCH", f"/repos/{self.repository}/pulls/{found}", {"body": body}))

    def _open(self, branch: str, base: str) -> int | None:
        """The number of the open pull request of a branch of this repository."""
        owner = self.repository.partition("/")[0]
        query = urllib.parse.urlencode({"state": "open", "head": f"{owner}:{branch}", "base": base})
        listed = self._asked("GET", f"/repos/{self.repository}/pulls?{query}", None)
        try:
            numbers = [int(each["number"]) for each in listed if each["head"]["ref"] == branch]
        except (KeyError, TypeError, ValueError):
            raise ForgeError(
                f"the forge at {self.url} lists pull requests in a form that is not known"
            ) from None
        return numbers[0] if numbers else None

    def _asked(self, method: str, path: str, content: Mapping[str, str] | None) -> Any:
        """The answer to a request; it is repeated where the forge is at fault or asks to wait."""
        request = urllib.request.Request(
            self.url.rstrip("/") + path,
            data=None if content is None else json.dumps(content).encode(),
            method=method,
            headers={
                "Accept": "application/vnd.github+json",
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "User-Agent": "pytest-glia",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )
        opener = urllib.request.build_opener(_Stay)
        for attempt in range(1, _ATTEMPTS + 1):
            pause = float(2**attempt)
            try:
                with opener.open(request, timeout=_TIMEOUT) as answer:
                    return json.loads(answer.read(_LARGEST_ANSWER))
            except urllib.error.HTTPError as error:
                asked_to_wait = error.headers.get("Retry-After")
                passing = error.code >= 500 or error.code == 429 or (error.code == 403 and asked_to_wait)
                with error:
                    problem: ForgeError = _Answered(self, error.code, _said(error))
                if not passing:
                    raise problem from None
                if asked_to_wait and asked_to_wait.isdecimal():
                    pause = float(asked_to_wait)
            except ValueError:
                raise ForgeError(
                    f"the forge at {self.url} does not answer in JSON: check --forge-url"
                ) from None
            except (OSError, HTTPException) as error:
                reason = getattr(error, "reason", error)
                problem = ForgeError(f"the forge at {self.url} cannot be reached: {reason}")
            if attempt < _ATTEMPTS:
                self.wait(min(pause, _LONGEST_WAIT))
        raise problem


class _Answered(ForgeError):
    """It answered with an error."""

    def __init__(self, forge: Forge, status: int, said: str) -> None:
        moved = "it has moved: give its present name or address" if 300 <= status < 400 else None
        advice = _ADVICE.get(status) or moved or "try again later"
        words = f" ({said})" if said else ""
        where = f"the forge at {forge.url} answers {status} for {forge.repository}"
        super().__init__(f"{where}: {advice}{words}".replace(forge.token, "***"))
        self.status = status


def _said(error: urllib.error.HTTPError) -> str:
    """The forge's own words."""
    try:
        answer = json.loads(error.read(_LARGEST_ANSWER))
        words = [answer["message"], *(each.get("message") or "" for each in answer.get("errors", ()))]
    except (ValueError, OSError, KeyError, TypeError, AttributeError, HTTPException):
        return ""
    return visible("; ".join(str(each) for each in words if each), line=True)[:300]


def _address(answer: Any) -> str:
    try:
        return visible(str(answer["html_url"]), line=True)
    except (KeyError, TypeError):
        raise ForgeError("the forge's answer names no pull request: check --forge-url") from None
