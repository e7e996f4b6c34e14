"""What the proxy reads from bytes: prompts, streamed tokens, and vLLM's metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("aiohttp", reason='the harness needs it: pip install "pytest-glia[harness]"')

from gpu_harness.measuring import Alone, inside
from gpu_harness.prompts import Prompts
from gpu_harness.scraping import MetricsMissing, parse
from gpu_harness.token_counting import TokenCounter, usage_of

METRICS = b"""# HELP vllm:num_requests_running Number of requests
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 7.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.25
vllm:num_preemptions_total{engine="0",model_name="m"} 1.2e+01
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e+09
vllm:cache_config_info{block_size="32",engine="0",num_gpu_blocks="41"} 1.0
vllm:cache_config_info{block_size="32",engine="1",num_gpu_blocks="41"} 1.0
"""


def stream(texts: list[str], *, ids: bool, chat: bool) -> bytes:
    """An answer of one token for each text, and three for each text where there are ids."""
    events: list[dict[str, Any]] = []
    if chat:
        events.append({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    for text in texts:
        choice: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
        events.append({"choices": [choice | ({"token_ids": [1, 22, 333]} if ids else {})]})
    lines = [b"data: " + json.dumps(each, separators=(",", ":")).encode() + b"\n\n" for each in events]
    usage = {"prompt_tokens": 5, "completion_tokens": 6}
    end = {"choices": [], "usage": usage}
    lines.append(b"data: " + json.dumps(end, separators=(",", ":")).encode() + b"\n\n")
    return b"".join([*lines, b"data: [DONE]\n\n"])


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.text() | st.sampled_from(['"usage":{', "\ndata: {", '"choices":[]', "data: {"])),
    ids=st.booleans(),
    chat=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_tokens_are_counted_wherever_the_bytes_are_cut(
    texts: list[str], ids: bool, chat: bool, cuts: list[int]
) -> None:
    """Whatever the model says, and however the network cuts it."""
    content, counter, at = stream(texts, ids=ids, chat=chat), TokenCounter(), 0
    for cut in [*sorted(cuts), len(content)]:
        counter.feed(content[at:cut])
        at = max(at, min(cut, len(content)))
    assert counter.tokens == len(texts) * (3 if ids else 1)
    assert counter.usage == {"prompt_tokens": 5, "completion_tokens": 6}


def test_usage_of_what_has_none() -> None:
    """An answer that is no JSON, or says nothing of usage, is none."""
    assert [usage_of(body) for body in (b"", b"[]", b'{"usage": null}', b"{}")] == [None] * 4
    assert usage_of(b'{"usage": {"completion_tokens": 2}}') == {"completion_tokens": 2}


def test_gauges_are_summed_over_engines() -> None:
    """Requests and blocks of all engines behind a port; one block of each is vLLM's own."""
    gauges = parse(METRICS)
    assert (gauges.running, gauges.waiting, gauges.preemptions) == (5, 7, 12)
    assert (gauges.blocks_total, gauges.block_size, gauges.blocks_used) == (80, 32, 30)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "no vllm:num_requests_running; expected the metrics of vLLM"),
        (METRICS.replace(b"kv_cache_usage_perc", b"x"), "no vllm:kv_cache_usage_perc"),
        (METRICS.replace(b"cache_config_info", b"x"), "no vllm:cache_config_info"),
        (METRICS.replace(b'"41"', b'"None"'), "expected whole numbers num_gpu_blocks and block_size"),
    ],
)
def test_other_metrics_are_an_error(text: bytes, says: str) -> None:
    """What is missing is named."""
    with pytest.raises(MetricsMissing, match=says):
        parse(text)


def test_prompts_are_counted() -> None:
    """Token ids exactly; text by bytes; chats by all their text; several prompts together."""
    read = Prompts().read
    assert read({"prompt": [1, 2, 3]}).tokens == 3
    assert read({"prompt": "ä" * 8}).tokens == 4
    parts = [{"type": "text", "text": "12345678"}, {"type": "image_url"}]
    assert read({"messages": [{"content": "1234"}, {"content": parts}]}).tokens == 3
    assert read({"prompt": [[1, 2], [3]]}).tokens == 3
    assert read({"prompt": ["1234", "5"]}).tokens == 2
    none: list[dict[str, Any]] = [{}, {"prompt": [-1]}, {"prompt": {}}]
    assert [read(body).tokens for body in none] == [1, 1, 1]
    assert Prompts(lambda text: [len(text)] * 9).read({"prompt": "x"}).tokens == 9


def test_a_tokenizer_is_read_from_its_folder(tmp_path: Path) -> None:
    """With a tokenizer.json text is counted as the model counts it."""
    pytest.importorskip("tokenizers", reason="tokenizers is not installed: it comes with vLLM")
    from tests.gpu_harness.tiny_model import make_model

    read = Prompts.with_tokenizer(make_model(tmp_path)).read
    assert read({"prompt": "w3 w4 w5"}).tokens == 3


@given(shared=st.integers(0, 5), own=st.lists(st.integers(0, 9), max_size=40), size=st.sampled_from([4, 16]))
def test_hashes_are_equal_as_far_as_tokens_are(shared: int, own: list[int], size: int) -> None:
    """One hash for each full block, each over all before it; another secret gives others."""
    prompts, other = Prompts(), Prompts()
    start = [7] * (shared * size)
    one = prompts.read({"prompt": [*start, 1, *own]}).hashes(size)
    two = prompts.read({"prompt": [*start, 2, *own]}).hashes(size)
    assert len(one) == (len(start) + 1 + len(own)) // size
    assert one[:shared] == two[:shared]
    assert not set(one[shared:]) & set(two[shared:])
    assert not set(one) & set(other.read({"prompt": [*start, 1, *own]}).hashes(size))


def test_a_request_log_is_joined_by_number() -> None:
    """Lines of this run only; intervals of recomputation that overlap count once."""
    story = {"admitted": 101.0, "cached": 32, "evictions": [[102.0, 104.0], [103.0, 104.0], [105.0, None]]}
    lines = [json.dumps({**story, "request": name}) for name in ("cmpl-glia-a-7-0", "cmpl-glia-b-1-0", "x")]
    found = inside(lines, "a", 100.0, {7: 8.0})
    assert set(found) == {7}
    assert (found[7].admitted, found[7].cached_tokens, found[7].restarts) == (1.0, 32, 3)
    assert found[7].recompute_time == pytest.approx(2 + 3)


def test_alone_is_fitted_to_probes() -> None:
    """A line through the first tokens, and the mean time between tokens."""
    from gpu_harness.load import Answer

    def probed(prompt: int) -> tuple[int, Answer]:
        first = 0.01 + 0.001 * prompt
        return prompt, Answer("", 0.0, token_times=[first, first + 0.02, first + 0.04])

    alone = Alone.fitted([probed(prompt) for prompt in (10, 50, 400)])
    assert (alone.first, alone.per_prompt_token, alone.tpot) == pytest.approx((0.01, 0.001, 0.02))
