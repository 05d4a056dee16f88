"""Read the pickles that torch writes without running them.

A pickle is a program, and Python's own reader calls whatever it names. This reader knows the two
dozen instructions that a dict of tensors needs, and builds descriptions of tensors: nothing that a
file names is imported or called.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import IO, Any


class ForbiddenPickleError(Exception):
    """A pickle contains something other than tensors; the message names it."""


class InvalidPickleError(Exception):
    """A file is damaged, or not a file of tensors; the message is the reason."""


def escape_name(text: str) -> str:
    """A name from a file, shortened and without characters that control a terminal."""
    return ascii(text[:80])[1:-1]


@dataclass(frozen=True)
class Storage:
    """A block of numbers: its entry in the archive, its dtype, and the count of numbers."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class StridedView:
    """A tensor: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _AllowedName:
    """A name on the allow-list, in place of the object that Python would import."""

    name: str


class _Mapping(dict[str, Any]):
    """A dict or OrderedDict in the file."""


_MARK = object()
_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_ALLOWED = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "torch.Size",
    *(f"torch.{name}" for name in _STORAGES),
}
_SCALARS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"}
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_pickle(file: IO[bytes]) -> Any:
    """Read one pickle: dicts, lists, strings, numbers and `StridedView`s.

    Raises ForbiddenPickleError or InvalidPickleError.
    """
    try:
        with warnings.catch_warnings():
            # Python only warns about an invalid escape in a string; here it is damage
            warnings.simplefilter("error", DeprecationWarning)
            return _run(file)
    except (ValueError, LookupError, TypeError, OverflowError, DeprecationWarning) as error:
        raise InvalidPickleError("its pickle is damaged") from error


def _run(file: IO[bytes]) -> Any:
    import pickletools

    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "STOP":
            return machine.pop()
        machine.step(opcode.name, argument)
    raise InvalidPickleError("its pickle has no end")


class _Machine:
    """The stack and the memo of a pickle being read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self.stack.pop()

    def _pop_mark(self) -> list[Any]:
        for index in range(len(self.stack) - 1, -1, -1):
            if self.stack[index] is _MARK:
                items = self.stack[index + 1 :]
                del self.stack[index:]
                return items
        raise ValueError("no mark")

    def step(self, name: str, argument: Any) -> None:
        if name in _SCALARS or name in _TEXTS:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in ("BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name not in ("PROTO", "FRAME"):
            self._build(name, argument)

    def _build(self, name: str, argument: Any) -> None:
        if name == "MARK":
            self.stack.append(_MARK)
        elif name in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in ("EMPTY_TUPLE", "TUPLE"):
            self.stack.append(tuple(self._pop_mark()) if name == "TUPLE" else ())
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = self._pop_mark() if name == "APPENDS" else [self.pop()]
            _expect(self.stack[-1], list).extend(items)
        elif name == "EMPTY_DICT":
            self.stack.append(_Mapping())
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop_mark() if name == "SETITEMS" else [self.pop(), self.pop()][::-1]
            target = _expect(self.stack[-1], _Mapping)
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_expect(key, str)] = value
        else:
            self._name(name, argument)

    def _name(self, name: str, argument: Any) -> None:
        if name == "GLOBAL":
            self.stack.append(_allowed(str(argument).replace(" ", ".", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = _expect(self.pop(), str), _expect(self.pop(), str)
            self.stack.append(_allowed(f"{module}.{attribute}"))
        elif name == "REDUCE":
            arguments, function = _expect(self.pop(), tuple), self.pop()
            self.stack.append(_call(function, arguments))
        elif name == "BINPERSID":
            self.stack.append(_storage(self.pop()))
        elif name == "BUILD":
            # a state dict has the versions of its modules as an attribute, which is ignored
            state, target = self.pop(), self.stack[-1]
            if not isinstance(target, _Mapping) or not isinstance(state, _Mapping):
                raise ForbiddenPickleError("an object with a state")
        else:
            raise ForbiddenPickleError(f"the pickle instruction {name}")


def _expect(value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} expected")
    return value


def _allowed(name: str) -> _AllowedName:
    if name not in _ALLOWED:
        raise ForbiddenPickleError(escape_name(name))
    return _AllowedName(name)


def _storage(identity: Any) -> Storage:
    """The storage with a persistent id: ("storage", class, key, device, count, …)."""
    if not isinstance(identity, tuple) or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ForbiddenPickleError("a persistent object that is not a storage")
    kind, key, count = identity[1], identity[2], identity[4]
    dtype = (
        _STORAGES.get(kind.name.removeprefix("torch.")) if isinstance(kind, _AllowedName) else None
    )
    if dtype is None:
        raise ForbiddenPickleError("a storage of an unknown kind")
    if len(identity) == 6 and identity[5] is not None:
        raise ForbiddenPickleError("a view of a storage")
    if not isinstance(key, str) or not _is_size(count):
        raise TypeError("no storage")
    return Storage(key, dtype, count)


def _call(function: Any, arguments: tuple[Any, ...]) -> Any:
    name = function.name if isinstance(function, _AllowedName) else ""
    if name == "collections.OrderedDict" and not arguments:
        return _Mapping()
    if name == "torch.Size":
        return _sizes(arguments[0])
    if name == "torch._utils._rebuild_parameter":
        return _expect(arguments[0], StridedView)
    if name == "torch._utils._rebuild_tensor_v2":
        storage, offset, shape, strides = arguments[:4]
        if not isinstance(storage, Storage) or not _is_size(offset):
            raise TypeError("no tensor")
        return StridedView(storage, offset, _sizes(shape), _sizes(strides))
    raise ForbiddenPickleError("a call of something else")


def _sizes(value: Any) -> tuple[int, ...]:
    if len(_expect(value, tuple)) > 8 or not all(map(_is_size, value)):
        raise TypeError("no sizes")
    return tuple(value)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48
