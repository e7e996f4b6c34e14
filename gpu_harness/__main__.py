"""The command line: `python -m gpu_harness serve | load | bench | calibrate | validate`."""

from __future__ import annotations

import argparse
import sys

from sim.complaints import explain
from sim.policies import PolicyError

INSTALL = 'pip install "pytest-glia[harness]"'


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code, 2 for what the user gave wrong."""
    try:
        from gpu_harness import bench, calibrating, loading, serve, validating
        from gpu_harness.load import LoadError
        from gpu_harness.servers import ServerError
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "uvloop"):
            raise
        print(f"{error.name} is not installed: {INSTALL}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="python -m gpu_harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = {"serve": serve.serve, "load": loading.main, "bench": bench.bench}
    run |= {"calibrate": calibrating.calibrate, "validate": validating.validate}
    serve.add_arguments(commands.add_parser("serve", help="a router proxy in front of vLLM servers"))
    loading.add_arguments(commands.add_parser("load", help="send a workload to an endpoint, and measure"))
    bench.add_arguments(commands.add_parser("bench", help="what the proxy costs"))
    calibrating.add_arguments(
        commands.add_parser("calibrate", help="measure servers' steps, and write a cost profile of them")
    )
    validating.add_arguments(
        commands.add_parser("validate", help="one workload on servers and in the simulator, compared")
    )
    args = parser.parse_args(arguments)
    try:
        return run[args.command](args)
    except PolicyError as error:
        print(*explain(error), sep="\n", file=sys.stderr)
    except (ValueError, OSError, ImportError, LoadError, ServerError) as error:
        print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
