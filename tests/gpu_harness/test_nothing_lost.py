"""Two real vLLM servers, one of them killed and started again: every request finishes or is told failed."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason='the harness needs it: pip install "pytest-glia[harness]"')

from tests.gpu_harness.losing import lose, small

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

COUNT = 600


@pytest.mark.parametrize("router", ["rr", "llq", "lor", "hra", "candidates/router.py"])
def test_every_request_has_one_end(router: str, tmp_path: Path) -> None:
    """Of 600 requests each has finished with its exact tokens or is told failed; none was finished twice by
    servers; few failed, those that were streaming when the server died; the proxy has none left; the server
    serves again when it is back."""
    lost = lose(small(tmp_path), tmp_path, router, COUNT)
    assert lost.finished + lost.failed.total() == COUNT
    assert lost.twice == 0
    assert lost.served_before > 0
    assert lost.served_after > 0
    assert 0 < lost.failed.total() + lost.retried.total() <= 40
    assert lost.open_at_end == 0
