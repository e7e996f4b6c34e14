"""The files that deploy the proxy say what the proxy understands."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("aiohttp", reason='the proxy needs it: pip install "pytest-glia[harness]"')

from gpu_harness import serve
from gpu_harness.pool import addresses

ROOT = Path(__file__).parents[2]


def test_the_arguments_in_the_manifest_are_the_commands() -> None:
    """The container's entry point and the pod's arguments together are a command that parses; the pod waits
    longer than the proxy drains; the name asked of DNS is the headless service's."""
    documents: list[Any] = list(yaml.safe_load_all((ROOT / "gpu_harness/kubernetes.yaml").read_text()))
    replicas, deployment, service = documents
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    lines = (ROOT / "gpu_harness/Containerfile").read_text().splitlines()
    (entry,) = (json.loads(line.removeprefix("ENTRYPOINT ")) for line in lines if line.startswith("ENTRY"))
    assert entry[:4] == ["python", "-m", "gpu_harness", "serve"]
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    args = parser.parse_args([*entry[4:], *container["args"]])
    assert pod["terminationGracePeriodSeconds"] > args.drain
    (address,) = addresses(args.replica)
    port = replicas["spec"]["ports"][0]["port"]
    assert (address.dns, address.url) == (True, f"http://{replicas['metadata']['name']}:{port}")
    assert replicas["spec"]["clusterIP"] == "None"
    assert container["ports"][0]["containerPort"] == args.port
    assert (ROOT / args.router).is_file()
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_what_the_image_copies_is_there() -> None:
    """Every path that the Containerfile copies is in the repository."""
    lines = (ROOT / "gpu_harness/Containerfile").read_text().splitlines()
    copied = [path for line in lines if line.startswith("COPY ") for path in line.split()[1:-1]]
    assert copied
    assert all((ROOT / path).exists() for path in copied)
