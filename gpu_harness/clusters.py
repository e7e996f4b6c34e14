"""The servers of `calibrate` and `validate` as the command line gives them: to be started, or running."""

from __future__ import annotations

import argparse
import shlex

from gpu_harness.launching import NAME, Launch
from gpu_harness.testbed import Testbed

__all__ = ["add_arguments", "launch_of", "testbed_of"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What both need to know of the servers."""
    parser.add_argument("--model", help="a model's folder or name: start servers with it")
    parser.add_argument("--replicas", type=int, default=2, help="servers to start (2)")
    parser.add_argument(
        "--url", action="append", default=[], metavar="URL", help="instead: a server that runs, one each"
    )
    parser.add_argument("--name", default=NAME, help="the model's name at running servers")
    parser.add_argument("--tensor-parallel", type=int, default=1, help="GPUs of each server (1)")
    parser.add_argument("--kv-blocks", type=int, help="KV blocks of each, of those to start")
    parser.add_argument("--block-size", type=int, help="tokens of a KV block, of those to start")
    parser.add_argument("--max-num-seqs", type=int, required=True, help="requests in a batch at most")
    parser.add_argument("--max-num-batched-tokens", type=int, required=True, help="tokens of a step at most")
    parser.add_argument("--max-model-len", type=int, required=True, help="tokens of a request at most")
    parser.add_argument(
        "--options",
        default="",
        metavar="TEXT",
        help="more of vLLM's, as '--dtype float32', for those to start",
    )
    parser.add_argument(
        "--start-timeout", type=float, default=600.0, help="seconds for servers to start (600)"
    )


def launch_of(args: argparse.Namespace, *, step_log: bool) -> Launch | None:
    """How to start the servers; None if they run. ValueError unless one of --model and --url is given."""
    if (args.model is None) == (not args.url):
        raise ValueError(
            f"--model {args.model} and --url {' '.join(args.url) or None}; expected one of the two: a model "
            "to start servers with, or servers that run"
        )
    if args.url:
        return None
    return Launch(
        model=args.model,
        replicas=args.replicas,
        tensor_parallel=args.tensor_parallel,
        kv_blocks=args.kv_blocks,
        block_size=args.block_size,
        max_num_seqs=args.max_num_seqs,
        max_num_batched_tokens=args.max_num_batched_tokens,
        max_model_len=args.max_model_len,
        options=tuple(shlex.split(args.options)),
        step_log=step_log,
    )


def testbed_of(args: argparse.Namespace) -> Testbed:
    """The testbed of those servers, which logs what their steps took if it starts them."""
    launch = launch_of(args, step_log=True)
    if launch is None:
        return Testbed(urls=args.url, model=args.name)
    return Testbed(launch, start_timeout=args.start_timeout)
