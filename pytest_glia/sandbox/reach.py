"""Which files a confined replication can open: Python, its libraries, the project - and no one's secrets."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/nix/store"),
    *("/etc/ld.so.cache", "/etc/localtime", "/etc/timezone", "/etc/os-release"),
    *("/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies"),
    *("/dev/random", "/dev/urandom"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm/overcommit_memory", "/proc/self/maps"),
    *("/sys/devices/system/cpu", "/sys/devices/system/node"),
)
_GPU_SYSTEM = (
    *(
        "/proc/driver/nvidia",
        "/proc/devices",
        "/proc/modules",
        "/sys/module",
        "/sys/bus/pci",
        "/sys/class/drm",
    ),
    *("/sys/devices", "/opt/rocm"),
)
_RECORDS = ".glia"
_KEYS = frozenset({"id_rsa", "id_ed25519", "id_ecdsa", "secrets", "credentials"})
_KEY_FILES = (".pem", ".key", ".p12", ".pfx")


def readable(root: Path, gpus: tuple[str, ...]) -> tuple[str, ...]:
    """What is needed to import, to compile and to read the project's data, below `root`.

    Of each folder, what is hidden - ``.git``, ``.env``, ``.ssh``, ``.glia`` - and what is named as a key is
    left out: history, keys, and what the search keeps to itself.
    """
    folders = [
        sys.prefix,
        sys.base_prefix,
        sys.exec_prefix,
        *filter(None, sys.path),
        *_packages(),
        *_caches(),
    ]
    folders += os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    places = [*_SYSTEM, *(_GPU_SYSTEM if gpus else ()), *_visible(root)]
    for folder in filter(os.path.isabs, folders):
        places += _visible(Path(folder))
    return _outermost(_clear_of(_records(root), places, set()))


def _records(root: Path) -> Path:
    """Where the search of a project keeps what no candidate may read; its composed trees are there, too."""
    real = Path(os.path.realpath(root))
    around = [folder for folder in real.parents if folder.name == _RECORDS]
    return around[0] if around else real / _RECORDS


def _clear_of(records: Path, places: Iterable[str], seen: set[str]) -> Iterator[str]:
    """The places, links resolved, without that folder, where one is around it, as /usr is around /usr/src."""
    for place in places:
        real = Path(place if place.startswith("/proc") else os.path.realpath(place))
        if str(real) in seen:
            continue
        seen.add(str(real))
        if records.is_relative_to(real):
            inside = [] if real == records else [each for each in _names(real) if not _left_out(each)]
            yield from _clear_of(records, [str(real / name) for name in inside], seen)
        elif not real.is_relative_to(records) or real.relative_to(records).parts[0].startswith("tree-"):
            yield str(real)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def libraries(without: Collection[str]) -> tuple[str, ...]:
    """The standard library and the installed packages, but for some by name; nothing of any project."""
    paths = sysconfig.get_paths()
    places = [*_SYSTEM, paths["stdlib"], paths["platstdlib"]]
    # Another environment's packages may be on the path, too.
    loaded = {os.path.dirname(os.path.dirname(file)) for file in map(_file_of, ("numpy", "pandas")) if file}
    for folder in {paths["purelib"], paths["platlib"], *loaded}:
        # Below the standard library, which is open as a whole, it would be open, too.
        places = [place for place in places if not Path(folder).is_relative_to(place)]
        places += [each for each in _visible(Path(folder)) if Path(each).name not in without]
        if Path(folder).is_relative_to(paths["stdlib"]):
            entries = Path(paths["stdlib"]).iterdir()
            places += [str(each) for each in entries if not Path(folder).is_relative_to(each)]
    return _outermost(places)


def _file_of(package: str) -> str | None:
    return getattr(sys.modules.get(package), "__file__", None)


def gpu_devices() -> tuple[str, ...]:
    """The device files of this machine's NVIDIA GPUs."""
    nodes = [*Path("/dev").glob("nvidia*"), *Path("/dev").glob("nvidia-caps/*")]
    return tuple(sorted(str(node) for node in nodes if not node.is_dir()))


def writable(gpus: tuple[str, ...]) -> tuple[str, ...]:
    """What may be written: nothing that keeps it."""
    return ("/dev/null", "/dev/full", *gpus)


def _visible(folder: Path) -> list[str]:
    """A folder, or, if it has entries that are left out, all of its others."""
    try:
        names = os.listdir(folder)
    except OSError:
        return [str(folder)]
    shown = [name for name in names if not _left_out(name)]
    return [str(folder)] if len(shown) == len(names) else [str(folder / name) for name in shown]


def _left_out(name: str) -> bool:
    file = Path(name.lower())
    is_key = file.suffix in _KEY_FILES or (file.stem in _KEYS and file.suffix != ".py")
    return is_key or name.startswith(".")


def _packages() -> set[str]:
    """Folders of the packages that are loaded: an editable install need not be on sys.path."""
    found: set[str] = set()
    for name, module in list(sys.modules.items()):
        if "." not in name:
            found.update(each for each in getattr(module, "__path__", ()) if isinstance(each, str))
    return found


def _caches() -> list[str]:
    """Where numba keeps compiled functions."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return [chosen] if chosen else [os.path.join(os.path.expanduser("~"), ".cache", "numba")]


def _outermost(places: Iterable[str]) -> tuple[str, ...]:
    """The places that exist and lie below no other one."""
    found: list[str] = []
    for place in sorted(
        {os.path.realpath(each) if not each.startswith("/proc") else each for each in places}
    ):
        below = found and (place.startswith(found[-1].rstrip("/") + "/") or place == found[-1])
        if not below and os.path.exists(place):
            found.append(place)
    return tuple(found)
