"""What pytest loads: options, settings, marker and fixtures. Everything heavier is imported on use."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pytest_glia.glia import Glia


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("glia", "design by test (pytest-glia)")
    group.addoption(
        "--glia-optimize",
        action="store_true",
        help="Let a designer work on the candidates of the failing specs, in git branches, until they pass.",
    )
    group.addoption(
        "--glia-designer", metavar="NAME", help="Who designs. Default: the setting glia_designer."
    )
    group.addoption(
        "--glia-model", metavar="NAME", help="The language model to ask. Default: the setting glia_model."
    )
    group.addoption(
        "--glia-budget",
        metavar="LIST",
        help='What a search may spend, such as "100 sims, 2 min". Default: the setting glia_budget.',
    )
    group.addoption(
        "--glia-contexts",
        metavar="N",
        default="1",
        help="Of the designer glia: 1 (default), so many side by side, or seq (one after another).",
    )
    group.addoption(
        "--glia-testbed",
        metavar="NAME",
        default="sim",
        help="What the fixture testbed gives: sim (default) or gpu.",
    )
    group.addoption(
        "--glia-report",
        metavar="DIR",
        help="Write what the run has found out to DIR: report.md and glia.json.",
    )
    parser.addini("glia_replications", "Seeded runs behind each estimate.", type="int", default=10)
    parser.addini(
        "glia_guard_seeds",
        "Seeds of a plain run: fixed, or any text from which others follow.",
        type="string",
        default="fixed",
    )
    parser.addini("glia_confidence", "Confidence of the interval of a verdict.", type="float", default=0.95)
    parser.addini("glia_margin", "Change of loss that a search takes for none.", type="float", default=0.01)
    parser.addini("glia_timeout", "Seconds after which a replication is killed.", type="float", default=60.0)
    parser.addini("glia_workers", "Replications at once; 0 is one a core.", type="int", default=0)
    parser.addini("glia_executor", "Where a search runs: local or ray.", type="string", default="local")
    parser.addini(
        "glia_designer",
        "Who designs under --glia-optimize. Default: glia where a model is configured, else offline.",
        type="string",
        default="",
    )
    parser.addini(
        "glia_model", "The language model to ask, as its server knows it.", type="string", default=""
    )
    parser.addini(
        "glia_base_url", "Its OpenAI-compatible server. Default: OpenAI.", type="string", default=""
    )
    parser.addini(
        "glia_api_key_env",
        "The environment variable with its key.",
        type="string",
        default="OPENAI_API_KEY",
    )
    parser.addini("glia_price", "Dollars per million prompt and completion tokens.", type="args", default=[])
    parser.addini("glia_reasoning_effort", "Of the model, such as low.", type="string", default="")
    parser.addini("glia_model_tools", "How it calls tools: native or text.", type="string", default="native")
    parser.addini("glia_model_timeout", "Seconds that a call to it may take.", type="float", default=300.0)
    parser.addini("glia_model_context", "Tokens that it takes, reply included.", type="int", default=128_000)
    parser.addini("glia_max_output_tokens", "Tokens of one reply of it.", type="int", default=8192)
    parser.addini("glia_budget", "What a search may spend.", type="string", default="200 sims, 5 min")
    parser.addini(
        "glia_hand_over", "Contexts are told what those before have found.", type="bool", default=False
    )
    parser.addini(
        "glia_command",
        "Of the designer command: what starts the agent, for sh -c.",
        type="string",
        default="",
    )
    parser.addini("glia_command_env", "Secrets of the environment that it gets.", type="args", default=[])
    parser.addini("glia_command_timeout", "Seconds that a round may take.", type="float", default=900.0)
    parser.addini(
        "glia_testbed_file",
        "Of --glia-testbed gpu: which servers stand for the clusters that specs describe.",
        type="string",
        default="testbed.toml",
    )
    parser.addini("glia_sandbox", "Confine candidates: auto, required or off.", type="string", default="auto")
    parser.addini("glia_allow_imports", "More modules that candidates may import.", type="args", default=[])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "glia(candidate, entry, role=None, exposes=()): a spec of the class or function `entry` in the file "
        "`candidate`, relative to the root directory",
    )
    if hasattr(config, "workerinput"):
        return
    config.pluginmanager.register(_Verdicts(config), "glia-verdicts")
    if config.pluginmanager.hasplugin("pytest_glia.child"):
        return
    folder = config.getoption("glia_report")
    if folder:
        from pytest_glia.report import Report

        config.pluginmanager.register(Report(config, folder), "glia-report")
    if config.getoption("glia_optimize"):
        from pytest_glia.optimize import Optimizer

        config.pluginmanager.register(Optimizer(config), "glia-optimizer")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where there are specs, a setting that is wrong ends the run before the first of them.

    (A worker of xdist that ends so says nothing; there each spec fails with it.)
    """
    has_specs = any("glia" in getattr(item, "fixturenames", ()) for item in items)
    if has_specs and not hasattr(config, "workerinput"):
        from pytest_glia.settings import Settings

        Settings.from_config(config)


@pytest.fixture
def glia(request: pytest.FixtureRequest) -> Glia:
    """Measures the candidate that the test's ``glia`` marker names: `measure` and `compare`."""
    from pytest_glia.candidate import Candidate
    from pytest_glia.context import CONTEXT
    from pytest_glia.glia import Glia
    from pytest_glia.misuse import Misuse
    from pytest_glia.plain import plain_context

    item = request.node
    try:
        candidates = Candidate.of(item)
        if not candidates:
            raise Misuse(
                "the fixture glia needs a candidate: mark the test or module with "
                'pytest.mark.glia(candidate="path/to/file.py", entry="ClassOrFunction")'
            )
        if CONTEXT not in request.config.stash:
            request.config.stash[CONTEXT] = plain_context(request.config)
    except (Misuse, pytest.UsageError) as error:
        pytest.fail(str(error), pytrace=False)
    return Glia(item, candidates, request.config.stash[CONTEXT])


@pytest.fixture(scope="session")
def testbed(pytestconfig: pytest.Config) -> Iterator[Any]:
    """What ``--glia-testbed`` names, from the domain that provides it; it skips where there is none."""
    from pytest_glia.domains import is_real, testbed_of
    from pytest_glia.misuse import Misuse

    try:
        testbed = testbed_of(pytestconfig)
    except Misuse as error:
        pytest.fail(str(error), pytrace=False)
    if isinstance(testbed, str):
        pytest.skip(testbed)
    yield testbed
    if is_real(testbed):
        testbed.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    if call.when != "call" or "glia" not in getattr(item, "fixturenames", ()):
        return (yield)
    from pytest_glia.glia import MEASURED

    measured = item.stash.get(MEASURED, None)
    if measured is None:
        return (yield)
    checks = measured.asked(passed=call.excinfo is None)
    item.user_properties.extend(("glia", f"{c.what()}: {c.describe()}") for c in checks)
    report = yield
    report.glia = [check.as_json() for check in checks]  # type: ignore[attr-defined]
    report.glia_recordable = sorted(measured.recordable)  # type: ignore[attr-defined]
    report.glia_tables = measured.tables  # type: ignore[attr-defined]
    report.glia_broken = measured.broken or measured.untouched()  # type: ignore[attr-defined]
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    modules = (type(left).__module__, type(right).__module__)
    if "pytest_glia.estimate" not in modules:
        return None
    from pytest_glia.estimate import explain_comparison

    return explain_comparison(op, left, right)


class _Verdicts:
    """Gathers the checks of all reports (also from xdist workers) for the summary."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and getattr(report, "glia", None):
            self.reports.append(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.reports:
            from pytest_glia.settings import Settings
            from pytest_glia.summary import write_summary

            write_summary(terminalreporter, self.reports)
            settings = Settings.from_config(self.config)
            for line in filter(None, (settings.seeds_line(), settings.sandbox_line())):
                terminalreporter.write_line(line)
