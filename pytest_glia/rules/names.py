"""Builtins, attributes and special methods: what a candidate may name."""

from __future__ import annotations

import abc
import builtins
import re
import types
import typing

# Not bytearray and memoryview: they look again at memory that code of a candidate may have freed meanwhile.
_BUILTINS = """
    Ellipsis False None NotImplemented True abs all any ascii bin bool bytes callable chr
    classmethod complex delattr dict divmod enumerate filter float format frozenset getattr hasattr hash
    hex id int isinstance issubclass iter len list map max min next object oct ord pow print
    property range repr reversed round set setattr slice sorted staticmethod str sum super tuple type
    zip __debug__ __name__
"""
BUILTINS = frozenset(_BUILTINS.split())

# What the language calls on an object of the candidate's own. Not: what is called when names are looked up
# (__getattr__), classes are made (__init_subclass__, __set_name__), objects are copied by their parts
# (__reduce__) or die (__del__); nor what numpy takes for a memory address (__array_interface__).
_METHODS = """
    abs add and bool call contains copy delitem divmod enter eq exit floordiv format ge getitem
    gt hash iadd imul init invert isub iter itruediv le len lt matmul missing mod mul ne neg next or pos
    post_init pow radd repr reversed rfloordiv rmod rmul round rpow rsub rtruediv setitem str sub
    truediv  trunc floor ceil ior iand xor
"""
METHODS = frozenset(f"__{name}__" for name in _METHODS.split())
READABLE = frozenset({"__doc__", "__name__", "__qualname__"})
"""Special attributes that are only text."""
LOOKUPS = frozenset({"__contains__", "__getitem__"})
"""Special methods that serve as keys to sort by, ``key=load.__getitem__``: they do what operators do."""
DECLARATIONS = frozenset({"__all__", "__author__", "__match_args__", "__slots__", "__version__"})
"""Special names that are assigned constants."""

_EXECUTION = {
    name
    for kind in (
        types.FrameType,
        types.CodeType,
        types.TracebackType,
        types.GeneratorType,
        types.CoroutineType,
        types.AsyncGeneratorType,
    )
    for name in dir(kind)
    if re.match(r"(f|co|tb|gi|cr|ag)_", name)
}
_MEMORY = """
    base capsule cffi ctypes dump flags obj resize setflags strides tofile writeable
"""
# With the private ones, which a class of the candidate's own could define to open them.
_SEED = "bit_generator seed_seq _bit_generator _seed_seq"
_NAMEDTUPLE = frozenset({"_asdict", "_fields", "_make", "_replace"})
_OF_CLASSES = {
    name
    for each in [*vars(typing).values(), abc.ABCMeta]
    for name in dir(each)
    if re.match(r"_[^_]", name) and name not in _NAMEDTUPLE
}
_LEADS_TO = {
    **dict.fromkeys(_EXECUTION, "the code that calls it"),
    **dict.fromkeys(_MEMORY.split(), "memory that others own"),
    **dict.fromkeys(_SEED.split(), "the replication's seed"),
    "mro": "classes that others own",
    "register": "classes that others own",
    # With those that a class of the candidate's own could define to open them.
    **dict.fromkeys(_OF_CLASSES, "classes that others own"),
    "with_traceback": "the code that calls it",
}


_TOLD_BY_NAME = frozenset(
    {"classmethod", "delattr", "getattr", "hasattr", "isinstance", "issubclass", "setattr", "super", "type"}
)


def is_special(name: str) -> bool:
    """Whether it has two underscores on both sides."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")


def refused_builtin(name: str) -> bool:
    """Whether it is a builtin that no candidate may use."""
    if not hasattr(builtins, name) or name in BUILTINS:
        return False
    value = getattr(builtins, name)
    return not (isinstance(value, type) and issubclass(value, BaseException))


def refused_binding(name: str) -> bool:
    """Whether nothing may be imported under that name: the rules tell by it what a builtin does."""
    return refused_builtin(name) or name in _TOLD_BY_NAME


def refused_attribute(name: str, own: frozenset[str]) -> str | None:
    """Why an attribute of that name may not be used, and what to do; None if it may.

    Args:
        own: The private names that the candidate's classes define.
    """
    if is_special(name):
        return "special attributes lead to the interpreter: use operators, builtins, or super()"
    if name in _LEADS_TO:
        return f"it can lead to {_LEADS_TO[name]}: give an attribute of its own another name"
    if re.fullmatch(r"_[^_](.*[^_])?_", name):
        return "enums keep their members so, and make more: give an attribute of its own another name"
    if name.startswith("_") and name not in own and name not in _NAMEDTUPLE:
        return "none of its classes defines it, and what others keep private is not for a candidate"
    return None
