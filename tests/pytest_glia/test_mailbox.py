"""The mailbox: a model whose replies are files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from pytest_glia.models import Call, Message, ModelFailed, Reply, Request, Tool
from pytest_glia.models.mailbox import Mailbox
from pytest_glia.models.openai_client import OpenAIModel
from pytest_glia.models.settings import ModelSettings

LOOK = Tool("look", "Looks at a file.", {"type": "object"})
CALL = Call("call_1", "look", '{"at": "a"}')
ASKED = Request(
    (
        Message("system", "Be brief."),
        Message("user", "Why?\x1b[31m"),
        Message("assistant", "Let me look.", (CALL,)),
        Message("tool", "empty", (), "call_1"),
    ),
    (LOOK,),
    70,
)


class Post:
    """A mailbox, what it says, and somebody who asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: Queue[str] = Queue()
        self.mailbox = Mailbox(folder, 0, self.said.put)
        self.asking = ThreadPoolExecutor(4)

    def ask(self, request: Request = ASKED, timeout: float = 60.0) -> Future[Reply]:
        """Ask for a reply; the request's file is there once `next` has told of it."""
        model = OpenAIModel(ModelSettings("hand", self.mailbox.url, timeout=timeout))
        return self.asking.submit(model.complete, request)

    def next(self) -> str:
        return self.said.get(timeout=60)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")

    def read(self, name: str) -> str:
        return (self.folder / name).read_text("utf-8")


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    post = Post(tmp_path / "mail")
    with post.mailbox:
        yield post
    post.asking.shutdown()


def test_request_can_be_read_and_answered(post: Post) -> None:
    """All that the model is told is in a file; a text, with blocks that ask for tools, is the answer."""
    answer = post.ask()
    assert "0001.request.md: write 0001.reply.md" in post.next()
    text = post.read("0001.request.md")
    for part in ("# Request 1 to hand, at most 70 tokens", "## Tool look\n\nLooks at a file.", "Be brief."):
        assert part in text
    assert "## user\n\nWhy?\\x1b[31m\n\n## assistant\n\nLet me look.\n\n```tool\n" in text
    assert "## tool (call_1)\n\nempty" in text
    assert json.loads(post.read("0001.request.json"))["messages"][1]["content"] == "Why?\x1b[31m"
    post.write("0001.reply.md", 'And there?\n```tool\n{"name": "look", "arguments": {"at": "b"}}\n```\n')
    reply = answer.result(timeout=60)
    assert (reply.text, reply.calls) == ("And there?", (Call("call_2", "look", '{"at": "b"}'),))
    assert reply.prompt_tokens > 0 < reply.completion_tokens


def test_reply_may_be_json(post: Post) -> None:
    """An object of text and calls; one that is none is complained of until it is corrected."""
    answer = post.ask()
    post.next()
    for wrong in ("{oh", "[1]", '{"calls": [{"name": "look"}]}'):
        post.write("0001.reply.json", wrong)
        assert "0001.reply.json is no reply" in post.next()
    post.write("0001.reply.json", '{"text": "So.", "calls": [{"name": "look", "arguments": {"at": 1}}]}')
    assert answer.result(timeout=60).calls == (Call("call_2", "look", '{"at": 1}'),)


def test_several_may_ask_at_once(post: Post) -> None:
    """Equal requests of several askers are numbered apart, and each gets its own answer."""
    answers = [post.ask() for _ in range(3)]
    for _ in answers:
        post.next()
    for number in (3, 1, 2):
        post.write(f"{number:04}.reply.md", f"answer {number}")
    assert {answer.result(timeout=60).text for answer in answers} == {"answer 1", "answer 2", "answer 3"}


def test_who_asks_again_gets_the_answer_that_was_late(post: Post) -> None:
    """A request whose asker has gone is not written twice: the same asked again waits for the same file."""
    with pytest.raises(ModelFailed, match=r"in 0\.3 s \(glia_model_timeout\)"):
        post.ask(timeout=0.3).result(timeout=60)
    assert "0001.request.md" in post.next()
    assert "0001: whoever asked has gone" in post.next()
    post.write("0001.reply.md", "late")
    assert post.ask().result(timeout=60).text == "late"
    assert not (post.folder / "0002.request.md").exists()


def plainly(url: str, body: Any) -> dict[str, Any]:
    """What a request that is not streamed is answered."""
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        result: dict[str, Any] = json.load(answer)
    return result


def test_reply_need_not_be_streamed(post: Post) -> None:
    """Clients that do not stream get the same in one piece."""
    post.folder.joinpath("0001.reply.md").write_text("Because.", "utf-8")
    whole = plainly(post.mailbox.url, {"model": "hand", "messages": [{"role": "user", "content": "Why?"}]})
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Because."}
    assert whole["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("body", [{}, [], {"messages": ["Why?"]}, {"messages": 3}])
def test_what_is_no_request_is_refused(body: object, post: Post) -> None:
    """Something else than a chat completion is a bad request, and no file."""
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        plainly(post.mailbox.url, body)
    caught.value.close()
    assert list(post.folder.iterdir()) == []


def test_command_serves_until_it_is_stopped(tmp_path: Path) -> None:
    """python -m pytest_glia mailbox tells its URL, answers, and ends well when it is interrupted."""
    (tmp_path / "0001.reply.md").write_text("Because.", "utf-8")
    command = [sys.executable, "-m", "pytest_glia", "mailbox", str(tmp_path), "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().partition("glia_base_url = ")[2].partition(";")[0]
        body = {"model": "hand", "messages": [{"role": "user", "content": "Why?"}]}
        assert plainly(url, body)["choices"][0]["message"]["content"] == "Because."
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0


def test_folder_that_cannot_be_is_misuse(tmp_path: Path) -> None:
    """A file in place of the folder, or a port that is none, is one sentence and exit code 4."""
    (tmp_path / "file").write_text("")
    for arguments in ([str(tmp_path / "file"), "--port=0"], [str(tmp_path), "--port=99999"]):
        command = [sys.executable, "-m", "pytest_glia", "mailbox", *arguments]
        ran = subprocess.run(command, capture_output=True, text=True)
        assert (ran.returncode, ran.stderr.count("\n")) == (4, 1)
        assert "give another folder or --port" in ran.stderr


def test_numbers_go_on(tmp_path: Path) -> None:
    """A mailbox opened again does not write over what is there."""
    (tmp_path / "0007.request.md").write_text("before")
    (tmp_path / "0008.reply.md").write_text("ready", "utf-8")
    with Mailbox(tmp_path, 0, print) as mailbox:
        whole = plainly(mailbox.url, {"messages": []})
    assert whole["choices"][0]["message"]["content"] == "ready"
    assert (tmp_path / "0007.request.md").read_text() == "before"
