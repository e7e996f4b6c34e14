"""Files that a command draws in: checked before it works, so that no run is lost and no file overwritten."""

from __future__ import annotations

from pathlib import Path

__all__ = ["check_folder", "check_output"]


def check_output(option: str, given: str | None, suffix: str) -> None:
    """ValueError unless the file, if one is given, has this suffix and lies in a folder that is there."""
    if given is None:
        return
    path = Path(given)
    if path.is_dir():
        raise ValueError(f"{option} {given} is a folder; expected a file NAME{suffix}")
    if path.suffix.lower() != suffix:
        raise ValueError(f"{option} {given} does not end in {suffix}; expected a file NAME{suffix}")
    if not path.parent.is_dir():
        raise ValueError(
            f"{option} {given} lies in a folder that is not there; make {str(path.parent)!r} first"
        )


def check_folder(option: str, given: Path | None) -> None:
    """ValueError if what is given as a folder to make or to write to is a file, or lies in one."""
    for path in () if given is None else (given, *given.parents):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{option} {given}: {str(path)!r} is a file; expected a folder")
