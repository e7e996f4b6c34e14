"""Compilation: the one place that knows Numba, and where its compiled code is kept on disk.

Numba's own disk cache looks at one file's content and path: an edited function in another file would run
stale code, and another checkout would compile anew. Here the cache folder is named by a hash over every
source file of `sim` and the versions that matter, so equal sources share compiled code wherever they lie and
different sources never do. Where nothing is writable there is no cache, and everything still works.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

try:
    import numba  # type: ignore[import-not-found,import-untyped,unused-ignore]
except ImportError as error:
    raise ImportError(
        'the simulator\'s core is compiled by numba, which is not installed: pip install "pytest-glia[sim]"'
    ) from error

__all__ = ["cache_folder", "njit"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_PACKAGE = Path(__file__).resolve().parent


@cache
def source_hash() -> str:
    """Hash of all source files of `sim` (names relative to the package, contents) and of the versions
    compiled with."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(f"{platform.python_version()} {np.__version__} {numba.__version__}".encode())
    return digest.hexdigest()[:24]


@cache
def cache_folder() -> Path | None:
    """The folder of the compiled code, made if need be; None where it cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        home = Path(base) if base else Path.home() / ".cache"
        folder = home / "pytest-glia" / "sim" / source_hash()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError: no home directory
        return None
    return folder


_OPTIONS: dict[str, Any] = {"_nrt": False}


class SourceHashLocator:
    """Tells Numba where the compiled form of one of our functions lies (Numba's cache-locator protocol)."""

    def __init__(self, folder: Path, line: int) -> None:
        self._folder = folder
        self._line = line

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> SourceHashLocator | None:
        """The locator of a function of this package, None for any other (Numba then asks its own
        locators)."""
        folder = cache_folder()
        if folder is None or not Path(py_file).resolve().is_relative_to(_PACKAGE):
            return None
        return cls(folder, py_func.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_hash()

    def get_disambiguator(self) -> str:
        return str(self._line)


def njit(function: _Function, **options: Any) -> _Function:
    """Compile `function` at its first call, through the disk cache described above.

    Without Numba's reference counts, which would cost a run half its speed: nothing compiled here allocates,
    and the caller holds every array for as long as it runs.
    """
    options = _OPTIONS | options
    config = numba.config
    if cache_folder() is None or not hasattr(config, "CACHE_LOCATOR_CLASSES"):
        return _decorated(numba.njit(**options), function)
    # Numba reads this setting when the decorator runs: set it for our function only, so that functions of
    # other packages keep the locators that they would have without us.
    before = config.CACHE_LOCATOR_CLASSES
    config.CACHE_LOCATOR_CLASSES = f"{__name__}.{SourceHashLocator.__name__}"
    try:
        return _decorated(numba.njit(cache=True, **options), function)
    finally:
        config.CACHE_LOCATOR_CLASSES = before


def inlined(function: _Function) -> _Function:
    """As `njit`, and copied into whatever compiled code calls it.

    A call hands over each array of the state, hundreds of words, which takes longer than a short step does.
    """
    return njit(function, forceinline=True)


def loopable(generator: _Function) -> _Function:
    """A compiled generator again, for a loop in compiled code, where one from the disk cache cannot be looped
    over: it is compiled into the function that loops, and cached with it."""
    source: _Function = cast(Any, generator).py_func
    return _decorated(numba.njit(**_OPTIONS), source)


def _decorated(decorator: Any, function: _Function) -> _Function:
    compiled: _Function = decorator(function)
    return compiled
