"""A model behind any server with OpenAI's chat completions: OpenAI, vLLM, Ollama, and many others."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytest_glia.misuse import Misuse
from pytest_glia.models import ModelFailed, Reply, Request
from pytest_glia.models.assembly import Assembly
from pytest_glia.models.settings import ModelSettings
from pytest_glia.models.wire import chat_messages, chat_tools, request_json
from pytest_glia.visible import visible

if TYPE_CHECKING:
    import openai

# Characters of a server's own words that are passed on.
_WORDS = 300


class OpenAIModel:
    """Asks once, by a stream; who wants it asked again puts a `PatientModel` before it.

    Args:
        settings: Which model, where, and how.
        key: For the server; empty for one that asks for none. No error of this class shows it.
        seconds_left: Until the search ends; a call gets no more than that.

    Raises:
        Misuse: the library ``openai`` is not installed.
    """

    def __init__(
        self, settings: ModelSettings, key: str = "", seconds_left: Callable[[], float] = lambda: math.inf
    ) -> None:
        try:
            import openai
        except ImportError:
            raise Misuse(
                f"the model {settings.name!r} is asked by the library openai, which is not installed: "
                'pip install "pytest-glia[llm]"'
            ) from None
        self._settings = settings
        self._key = key
        self._seconds_left = seconds_left
        # OpenAI's reasoning models refuse max_tokens; Ollama does not heed the other; vLLM knows both.
        self._limit = "max_tokens"
        self._client = openai.OpenAI(
            base_url=settings.base_url, api_key=key or "none", max_retries=0, timeout=settings.timeout
        )

    @property
    def name(self) -> str:
        """As the server knows it."""
        return self._settings.name

    def complete(self, request: Request) -> Reply:
        """The reply to a request. Raises `ModelFailed`, which says whether to ask again may help."""
        from openai import BadRequestError

        limit = self._limit
        try:
            return self._within(request, limit)
        except BadRequestError as error:
            if limit != "max_tokens" or limit not in str(error):
                raise self._failed(error) from None
            self._limit = "max_completion_tokens"
        except Exception as error:
            raise self._failed(error) from None
        return self.complete(request)

    def _within(self, request: Request, limit: str) -> Reply:
        """The reply, within the time of a call.

        The library bounds the time from byte to byte only, so that a server which drips is asked in a thread
        that can be left alone.
        """
        assembly = Assembly(len(request_json(request)), request.max_tokens)
        raised: list[BaseException] = []

        def ask() -> None:
            try:
                self._ask(request, limit, assembly)
            except BaseException as error:
                raised.append(error)

        seconds = max(0.0, min(self._settings.timeout, self._seconds_left()))
        asking = threading.Thread(target=ask, name="glia-model", daemon=True)
        asking.start()
        asking.join(seconds)
        if asking.is_alive():
            whose = "glia_model_timeout" if seconds == self._settings.timeout else "the search's end"
            raise _BrokenOff(f"no whole reply in {seconds:.3g} s ({whose})", assembly)
        if raised:
            raise raised[0]
        return assembly.reply()

    def _ask(self, request: Request, limit: str, assembly: Assembly) -> None:
        from openai import APIError

        options: dict[str, Any] = {
            "model": self.name,
            "messages": chat_messages(request.messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            limit: request.max_tokens,
        }
        if request.tools:
            options["tools"] = chat_tools(request.tools)
        if self._settings.reasoning_effort:
            options["reasoning_effort"] = self._settings.reasoning_effort
        stream: openai.Stream[Any] = self._client.chat.completions.create(**options)
        with stream:
            try:
                for chunk in stream:
                    assembly.add(chunk)
                    if assembly.full:
                        return
            except APIError as error:
                raise _BrokenOff(f"an error in mid-reply: {error.message}", assembly) from None
            except Exception as error:  # no JSON, other JSON than a chunk's, or what the HTTP library raises
                raise _BrokenOff(f"a reply that broke off ({type(error).__name__})", assembly) from None
        if not assembly.complete:
            raise _BrokenOff("a reply that broke off", assembly)

    def _failed(self, error: Exception) -> ModelFailed:
        """The sentence, without the key."""
        import openai

        again, after, spent = True, 0.0, Reply("")
        if isinstance(error, _BrokenOff):
            what, spent = str(error), error.assembly.reply()
        elif isinstance(error, openai.APIStatusError):
            status = error.status_code
            again = status in (408, 409, 429) or status >= 500
            after = _seconds(error.response.headers.get("retry-after"))
            what = f"HTTP {status}: {_said(error)}"
        elif isinstance(error, openai.APITimeoutError):
            what = f"no answer in {self._settings.timeout:.3g} s (glia_model_timeout)"
        elif isinstance(error, openai.APIConnectionError):
            what = f"no connection ({error.__cause__ or error})"
        else:
            what = f"an answer that is none of its API ({type(error).__name__})"
        if self._key:
            what = what.replace(self._key, "...")
        what = visible(what[:_WORDS], line=True)
        return ModelFailed(
            f"the server {self._settings.host} gave no reply of the model {self.name!r}: {what}"
            f"{self._advice(error)}",
            again=again,
            after=after,
            prompt_tokens=spent.prompt_tokens,
            completion_tokens=spent.completion_tokens,
        )

    def _advice(self, error: Exception) -> str:
        status = getattr(error, "status_code", 0)
        if status == 400:
            return "; see glia_model_tools, glia_model_context and glia_max_output_tokens"
        if status in (401, 403):
            return f"; set the environment variable {self._settings.key_env} to a key of that server"
        if status == 404:
            return "; correct glia_model or glia_base_url"
        return "; see whether it runs, and glia_base_url" if not status else ""


class _BrokenOff(Exception):
    """A reply that began, or was waited for, and never was whole."""

    def __init__(self, what: str, assembly: Assembly) -> None:
        super().__init__(what)
        self.assembly = assembly


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error.message)


def _seconds(header: str | None) -> float:
    """Of a Retry-After, or 0 if it is none (a date is not what such servers send)."""
    try:
        seconds = float(header or 0)
    except ValueError:
        return 0.0
    return seconds if 0 <= seconds < math.inf else 0.0
