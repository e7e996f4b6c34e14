"""``propose``: designs that a search without rights has found become pull requests, if they hold here."""

from __future__ import annotations

import argparse
import base64
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_glia.misuse import Misuse
from pytest_glia.proposing import Refused
from pytest_glia.proposing.bundle import Handed, handed, own_ref
from pytest_glia.proposing.forge import LONGEST_BODY, Forge, ForgeError
from pytest_glia.proposing.request import body, reported
from pytest_glia.proposing.verification import Verification, Verified
from pytest_glia.repository import MAIL, GitFailed, Repository
from pytest_glia.trials import measured_table

# pytest warns that it cannot rewrite the asserts of a plugin that is imported already: this one.
_OPTIONS = ("-o", "glia_sandbox=required", "-W", "ignore::pytest.PytestAssertRewriteWarning")
_HERE = ("localhost", "127.0.0.1", "::1")


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Define the command and its arguments."""
    parser = subparsers.add_parser(
        "propose", help="open or update the pull request of a design", description=__doc__
    )
    parser.add_argument("specs", nargs="*", help="the specs, as pytest is given them (default: its own)")
    parser.add_argument("--bundle", type=Path, required=True, help="git bundle with the best branches")
    parser.add_argument("--report", type=Path, required=True, help="the folder of --glia-report")
    parser.add_argument("--base", required=True, help="the branch that is checked out, and proposed to")
    parser.add_argument("--remote", default="origin", help="where the branch is pushed (default: origin)")
    parser.add_argument("--forge-url", default="https://api.github.com", help="the forge's API")
    parser.add_argument(
        "--repository", required=True, metavar="OWNER/NAME", help="the repository on the forge"
    )
    parser.add_argument(
        "--token-variable", default="GITHUB_TOKEN", metavar="NAME", help="what holds the token"
    )
    parser.add_argument("--dry-run", action="store_true", help="verify, and only say what would be done")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 if every design that met its specs is proposed, 1 if one is refused, 4 for misuse."""
    # Before the project's own code runs.
    token = os.environ.pop(args.token_variable, "")
    _refuse_arguments(args, token)
    told = reported(args.report)
    repository = Repository(Path.cwd())
    base = _base(repository, args.base)
    try:
        designs = [each for each in handed(repository, args.bundle.resolve(), base) if _has_met(each, told)]
        if not designs:
            print("No design has met its specs: nothing to propose.")
            return 0
        verification = Verification(designs, base)
        code = pytest.main([*_OPTIONS, *args.specs], plugins=[verification])
        if len(verification.verified) + len(verification.refused) < len(designs):
            raise Misuse(f"the specs could not be run: pytest ended with exit code {int(code)}")
        for verified in verification.verified:
            _propose(args, token, base, verified, told[verified.design.branch])
        for reason in verification.refused:
            print(f"refused: {reason}", file=sys.stderr)
        return 1 if verification.refused else 0
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    except (ForgeError, GitFailed) as error:
        raise Misuse(_without(str(error), token)) from None
    finally:
        for ref in repository.run("for-each-ref", "--format=%(refname)", "refs/glia/proposed").split():
            repository.run("update-ref", "-d", ref)


def _refuse_arguments(args: argparse.Namespace, token: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+", args.repository):
        raise Misuse(f"--repository is {args.repository!r}: give owner/name")
    if not _is_private(args.forge_url):
        raise Misuse(f"--forge-url is {args.forge_url!r}: give an address that begins with https://")
    if not token and not args.dry_run:
        raise Misuse(
            f"the environment variable {args.token_variable} holds no token: set it, or give --dry-run"
        )
    if not re.fullmatch(r"[\x21-\x7e]*", token):
        raise Misuse(f"the environment variable {args.token_variable} holds no token: it has blanks in it")


def _is_private(url: str) -> bool:
    """Whether nobody else reads a token that is sent there."""
    parts = urllib.parse.urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _HERE)
    )


def _base(repository: Repository, branch: str) -> str:
    """The commit of the base, which must be checked out as it is: what is run comes from it."""
    base = repository.tip(branch)
    if base is None:
        raise Misuse(f"--base is {branch!r}: give a branch of this repository that is checked out")
    if base != repository.head():
        raise Misuse(f"--base is {branch!r}, and another commit is checked out: git checkout {branch}")
    changed = repository.changed()
    if changed:
        raise Misuse(
            f"the checkout has changed or untracked files (such as {changed[0]!r}): propose from a clean "
            "one, with the bundle and the report elsewhere"
        )
    return base


def _has_met(design: Handed, told: Mapping[str, Mapping[str, Any]]) -> bool:
    if design.branch not in told:
        raise Refused(f"the report does not tell of {design.branch}")
    outcome = told[design.branch].get("outcome")
    if outcome != "met":
        print(f"{design.name}: {str(outcome)[:40]!r} says the report, so it is not proposed")
    return outcome == "met"


def _propose(
    args: argparse.Namespace,
    token: str,
    base: str,
    verified: Verified,
    told: Mapping[str, Any],
) -> None:
    """Push a commit made here of the verified texts, and open or update its pull request."""
    repository, name = verified.repository, verified.design.name
    title = f"{name}: a design that meets its specs"
    table = "\n".join(measured_table(verified.evaluation.checks))
    seeds = f"On {len(verified.evaluation.seeds)} seeds drawn after the design was handed over:"
    run = verified.design.branch.split("/")[2]
    message = f"{title}\n\n{seeds}\n\n{table}\n\nGlia-Run: {run}\n"
    commit = repository.commit(base, base, verified.files, message, own_ref(name), time.time())
    diff = repository.diff(base, commit, [path for path in verified.files if path.endswith(".py")])
    text = body(verified, told, diff, base, LONGEST_BODY)
    branch = f"glia/{name}/proposed"
    if args.dry_run:
        print(
            f"{name}: verified. Would push {commit[:9]} to {args.remote} as {branch}, and propose:\n\n{text}"
        )
        return
    _push(repository, args.remote, commit, branch, token)
    address = Forge(args.forge_url, args.repository, token).propose(branch, args.base, title, text)
    print(f"{name}: verified, and proposed: {address}")


def _push(repository: Repository, remote: str, commit: str, branch: str, token: str) -> None:
    """Put a branch there, in place of an earlier proposal, but of nobody's own work."""
    environment = {"GIT_TERMINAL_PROMPT": "0", **_credentials(repository, remote, token)}
    ref = f"refs/heads/{branch}"
    there = repository.run("ls-remote", "--", remote, ref, **environment).partition("\t")[0]
    if there:
        other = own_ref("there")
        repository.run(
            "fetch", "--quiet", "--no-tags", "--force", "--", remote, f"{ref}:{other}", **environment
        )
        who = repository.run("log", "-1", "--format=%ce", other)
        if who != MAIL:
            raise Misuse(
                f"the branch {branch} on {remote} ends with a commit of {who!r}: merge it or give it another "
                "name; nothing was pushed"
            )
    lease = f"--force-with-lease={ref}:{there}"
    repository.run("push", "--quiet", "--no-verify", lease, "--", remote, f"{commit}:{ref}", **environment)


def _credentials(repository: Repository, remote: str, token: str) -> dict[str, str]:
    """The token for git, in no argument and no file; none for a remote that is not reached by HTTPS."""
    try:
        url = repository.run("remote", "get-url", "--push", remote)
    except GitFailed:
        url = remote
    if not _is_private(url):
        return {}
    parts = urllib.parse.urlsplit(url)
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraheader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {basic}",
    }


def _without(text: str, token: str) -> str:
    """The text with the token, also as git is given it, taken out."""
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    return text.replace(basic, "***").replace(token, "***") if token else text
