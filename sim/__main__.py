"""The command line: `python -m sim COMMAND`; `--help` lists them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from sim import combining, comparing, showing
from sim.complaints import explain, wrapped
from sim.layers import LAYERS
from sim.outputs import check_folder, check_output
from sim.policies import PolicyError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong, and not all options there are."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, "\n".join(wrapped(f"{self.prog}: {message}; see {self.prog} --help")) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report asked for; 1 with a sentence if it cannot be made."""
    options = _parser().parse_args(arguments)
    try:
        for line in _lines(options):
            print(line, flush=True)
    except PolicyError as error:
        print("\n".join(explain(error)), file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of the lines wants no more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (OSError, ImportError, ValueError) as error:
        print("\n".join(wrapped(f"python -m sim {options.command}: {error}")), file=sys.stderr)
        return 1
    return 0


def _lines(options: argparse.Namespace) -> Iterator[str]:
    check_output("--html", getattr(options, "html", None), ".html")
    check_output("--svg", getattr(options, "svg", None), ".svg")
    check_folder("--out", getattr(options, "out", None))
    if options.command == "run":
        return showing.report(options)
    if options.command == "compare":
        return comparing.report(options)
    if options.command == "combine":
        return combining.report(options)
    if options.command == "describe":
        return showing.description(options)
    if options.command == "bench":
        from sim import bench, fresh, stages

        if options.large is not None or options.start or options.stages:
            if options.azure is None:
                raise ValueError("--large, --start and --stages run workload W; expected --azure TRACE, too")
            if options.stages:
                return stages.stages(options.azure, options.repeats)
            if options.start:
                return fresh.start(options.azure, options.repeats)
            return fresh.large(options.azure, tuple(options.large) or fresh.LARGE)
        return bench.report(
            options.rate,
            options.duration,
            options.repeats,
            trace=options.azure,
            scheduler=options.scheduler,
        )
    if options.command == "paper":
        from sim import paper

        return paper.report(options.data, options.resamplings)
    if options.command == "transfer":
        from sim import transfer

        return transfer.report(options)
    if options.command == "fit":
        from sim import fit

        recipes = fit.chosen(
            options.source,
            options.gpu,
            options.model,
            options.tensor_parallel,
            options.folder,
            options.eager,
        )
        return fit.report(recipes, options.data, options.out)
    if options.command == "profiles":
        from sim import fit

        return fit.profiles()
    if options.command == "validate":
        from sim import validate

        return validate.report(options.data, options.engine, options.ablate)
    from sim import curve

    return curve.report(options.seeds, options.duration, not options.unconditioned)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m sim", description="A simulator of LLM-serving clusters.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="policies on one workload: metrics, and a page")
    showing.add_policy_arguments(run)
    showing.add_workload_arguments(run)
    run.add_argument("--seed", type=_seed, help="of the workload (0 without; a trace: as recorded)")
    run.add_argument("--html", metavar="OUT", help="draw the run in this file")
    showing.add_cluster_arguments(run)
    compare = commands.add_parser("compare", help="policies of a layer side by side on the same workloads")
    compare.add_argument(
        "policies", nargs="+", metavar="POLICY", help="the first is what others compare with"
    )
    compare.add_argument(
        "--layer", choices=tuple(LAYERS), default="router", help="what is compared (default %(default)s)"
    )
    showing.add_policy_arguments(compare)
    showing.add_workload_arguments(compare)
    compare.add_argument("--seeds", type=_positive, default=12, help="paired seeds (default %(default)s)")
    compare.add_argument("--seed", type=_seed, default=0, help="the first of them (default %(default)s)")
    compare.add_argument("--metric", action="append", help="instead of the usual ones; may be repeated")
    compare.add_argument("--html", metavar="OUT", help="draw the runs of the first seed in this file")
    showing.add_cluster_arguments(compare)
    combine = commands.add_parser("combine", help="all combinations of policies of the layers, as bars")
    showing.add_policy_arguments(combine, nargs="+")
    showing.add_workload_arguments(combine)
    combine.add_argument("--seeds", type=_positive, default=12, help="paired seeds (default %(default)s)")
    combine.add_argument("--seed", type=_seed, default=0, help="the first of them (default %(default)s)")
    combine.add_argument(
        "--metric", action="append", help="bars (default gpu_hours or mean_response_time); then columns"
    )
    showing.add_cluster_arguments(combine)
    transfer = commands.add_parser(
        "transfer", help="a policy on other systems and traces, as a Markdown table"
    )
    transfer.add_argument("layer", choices=tuple(LAYERS), help="whose policy it is")
    transfer.add_argument("candidate", metavar="FILE[:CLASS]", help="or a name, as for compare")
    transfer.add_argument(
        "--data",
        type=Path,
        help="folder that holds traces/ (docs/layers.md says whose); without, recorded traces are left out",
    )
    transfer.add_argument("--seeds", type=_positive, default=10, help="paired seeds (default %(default)s)")
    describe = commands.add_parser("describe", help="what a workload or a trace is like")
    showing.add_workload_arguments(describe)
    describe.add_argument("--seed", type=_seed, help="of the workload (0 without; a trace: as recorded)")
    describe.add_argument("--svg", metavar="OUT", help="draw it in this file")
    bench = commands.add_parser("bench", help="simulated requests per second on this machine")
    bench.add_argument("--rate", type=float, default=8.5, help="requests/s (default %(default)s)")
    bench.add_argument(
        "--duration", type=float, default=1000.0, help="seconds simulated (default %(default)s)"
    )
    bench.add_argument(
        "--repeats", type=_positive, default=9, help="runs to take the median of (default %(default)s)"
    )
    bench.add_argument("--azure", type=Path, help="Azure's 2023 trace (CSV): workload W on vLLM's engine")
    kind = bench.add_mutually_exclusive_group()
    kind.add_argument("--scheduler", action="store_true", help="with a batch scheduler in Python")
    kind.add_argument(
        "--large",
        nargs="*",
        type=_positive,
        metavar="REQUESTS",
        help="so many requests on 64 replicas, each run in a fresh process (10^4, 10^5 and 10^6 without)",
    )
    kind.add_argument("--stages", action="store_true", help="where the time of a request goes")
    kind.add_argument("--start", action="store_true", help="how soon a process is ready, and its memory")
    paper = commands.add_parser("paper", help="the Glia paper's trace: calibration, six routers, sensitivity")
    paper.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder that holds traces/sharegpt_inflated_12qps_300s.csv (docs/simulator.md says whose)",
    )
    paper.add_argument(
        "--resamplings", type=_positive, default=20, help="of the lengths not public (default 20)"
    )
    curve = commands.add_parser("curve", help="head-room admission against LLQ over the arrival rate")
    curve.add_argument(
        "--seeds", type=_positive, default=12, help="paired seeds per rate (default %(default)s)"
    )
    curve.add_argument(
        "--duration", type=float, default=1000.0, help="seconds simulated (default %(default)s)"
    )
    curve.add_argument(
        "--unconditioned", action="store_true", help="let the realised rate vary with the seed"
    )
    _add_costs(commands)
    return parser


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 0")
    return number


def _add_costs(commands: argparse._SubParsersAction[_Parser]) -> None:
    fit = commands.add_parser("fit", help="fit cost profiles to measured operator times")
    fit.add_argument(
        "--source",
        choices=("shipped", "aiconfigurator", "llmservingsim", "roofline", "steps", "vidur"),
        default="shipped",
        help="the tool that took the measurements; shipped: as the profiles of this package (default)",
    )
    fit.add_argument("--gpu", help="as the profile shall be called; shipped: fit only this one's")
    fit.add_argument("--model", help="as --gpu")
    fit.add_argument("--tensor-parallel", type=_positive, default=1, help="GPUs per replica (default 1)")
    fit.add_argument("--folder", help="of the measurements, below --data; steps: the file")
    fit.add_argument("--eager", action="store_true", help="steps: measured without CUDA graphs")
    fit.add_argument(
        "--data", type=Path, default=Path(), help="folder that holds profiles/ (default: this one)"
    )
    fit.add_argument("--out", type=Path, help="folder to write the profiles to; none: show the errors only")
    commands.add_parser("profiles", help="what cost profiles there are, and what of them is not measured")
    validate = commands.add_parser("validate", help="the simulator against measured vLLM runs")
    validate.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder that holds ground_truth/ and traces/ (docs/cost-models.md says whose)",
    )
    validate.add_argument(
        "--engine",
        choices=("steps", "cluster"),
        default="steps",
        help="the plain Python engine, or the compiled core (default %(default)s)",
    )
    validate.add_argument("--ablate", action="store_true", help="also without each piece of the model")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
