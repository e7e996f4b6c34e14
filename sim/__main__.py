"""The command line: `python -m sim bench | paper | curve`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report asked for; 1 with a sentence if it cannot be made."""
    options = _parser().parse_args(arguments)
    try:
        for line in _lines(options):
            print(line, flush=True)
    except (FileNotFoundError, ImportError) as error:
        print(f"python -m sim {options.command}: {error}", file=sys.stderr)
        return 1
    return 0


def _lines(options: argparse.Namespace) -> Iterator[str]:
    if options.command == "bench":
        from sim import bench

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
    from sim import curve

    return curve.report(options.seeds, options.duration, not options.unconditioned)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim", description="A simulator of LLM-serving clusters.")
    commands = parser.add_subparsers(dest="command", required=True)
    bench = commands.add_parser("bench", help="simulated requests per second on this machine")
    bench.add_argument("--rate", type=float, default=8.5, help="requests/s (default %(default)s)")
    bench.add_argument(
        "--duration", type=float, default=1000.0, help="seconds simulated (default %(default)s)"
    )
    bench.add_argument(
        "--repeats", type=_positive, default=9, help="runs to take the median of (default %(default)s)"
    )
    bench.add_argument("--azure", type=Path, help="Azure's 2023 trace (CSV): workload W on vLLM's engine")
    bench.add_argument("--scheduler", action="store_true", help="with a batch scheduler in Python")
    paper = commands.add_parser("paper", help="the Glia paper's trace: calibration, six routers, sensitivity")
    paper.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data"),
        help="folder that holds traces/sharegpt_inflated_12qps_300s.csv (default %(default)s)",
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
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
