"""A safe reader of pickles, which never imports, looks up or calls anything that a pickle names.

A pickle is a program for a stack machine (the opcodes are documented in Python's `pickletools`). Python's own machine
imports what GLOBAL names and calls it on REDUCE, NEWOBJ and BUILD. This one creates numbers, strings and containers, a
`GlobalName` for every name and a `Placeholder` for every call, except for a few functions that the caller implements,
such as those that make tensors. Time and memory are proportional to the length of the pickle: copies count against a
budget, and the number of keys whose hashes a file can choose is limited. A `pickle.Unpickler` with another `find_class`
gives neither: it hashes the keys of plain dictionaries without asking, so that keys with equal hashes take quadratic
time and a deeply nested tuple as a key crashes the process, and BUILD calls the `__setstate__` of tensors and arrays.
"""

from __future__ import annotations

import codecs
import io
import pickletools  # nosec B403 # it splits a pickle into its instructions, and runs none of them
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kanmodel.errors import CheckpointError

MAX_OPCODES = 1 << 20
MAX_OBJECTS = 1 << 18  # containers and calls
MAX_MEMO = 1 << 20
MAX_MARKS = 1000  # open containers at a time
MAX_CHOSEN_KEYS = 1 << 12  # dictionary keys and set elements whose hashes a file can make collide
MAX_KEY_PARTS = 16  # of a tuple as a key
MAX_NAME = 300  # characters of a module's, class's or function's name
HASH_MODULUS = (1 << 61) - 1  # a smaller integer is its own hash
DICT_NAMES = tuple(dir(OrderedDict))
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules by their names in Python 2
HIGHEST_PROTOCOL = 5

Function = Callable[..., object]

codecs.lookup("raw-unicode-escape")  # imports the codec of the opcode UNICODE now, so that no pickle makes Python do so


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A class or function that a pickle names; it has not been looked up.

    Attributes:
        name: qualified, such as ``torch.nn.modules.activation.GELU``.
    """

    name: str


@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """An instance or the result of a call that was not created.

    Attributes:
        name: qualified name of the class or function.
        arguments: of the call, or of ``__new__``.
        keywords: likewise.
        state: argument of ``__setstate__``, or attributes; None without one.
        items: items to append or add to it.
        entries: items to set in it by key.
    """

    name: str
    arguments: tuple[object, ...] = ()
    keywords: Mapping[object, object] = field(default_factory=dict)
    state: object = None
    items: list[object] = field(default_factory=list)
    entries: dict[Any, object] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.name}>"  # without its contents, which may contain itself


def name_reference(module: object, name: object) -> GlobalName:
    """The reference to a name in a module.

    Raises:
        CheckpointError: they are not names, or too long.
    """
    if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_NAME:
        raise CheckpointError("is a pickle with an invalid or too long name")
    return GlobalName(f"{RENAMED.get(module, module)}.{name}")


def refuse_hidden(state: object, names: tuple[str, ...], what: str) -> None:
    """Raises if attributes would hide methods of their object, which no training program writes."""
    if isinstance(state, dict):
        for name in names:
            if name in state:
                raise CheckpointError(f"has an attribute {name!r} that would hide that of every {what}")


@dataclass(frozen=True)
class Known:
    """Functions that the machine may call.

    Attributes:
        functions: implementations of functions and classes, by the name that a pickle calls. Their time is at most
            proportional to the lengths of their arguments.
        builders: functions that replace a placeholder when its state is set, by its name.
        load: resolves a persistent id.
    """

    functions: Mapping[str, Function]
    builders: Mapping[str, Callable[[Placeholder], object]]
    load: Callable[[object], object]


class Machine:
    """The state of the machine: the stack, the positions of its open marks, and the memo."""

    def __init__(self, known: Known, n_bytes: int) -> None:
        self.known = known
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.unfinished: dict[Placeholder, int] = {}  # memo indices of placeholders that a builder may replace
        self.budget = 4 * n_bytes
        self.chosen_keys = 0

    def push(self, value: object) -> None:
        """Pushes a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Pops the top of the stack, but nothing below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it pops from an empty stack")
        return self.stack.pop()

    def top(self) -> Any:
        """The top of the stack, not popped."""
        self.stack.append(value := self.pop())
        return value

    def mark(self) -> None:
        """Starts a container."""
        if len(self.marks) == MAX_MARKS:
            raise CheckpointError(f"is a pickle nested deeper than {MAX_MARKS} levels")
        self.marks.append(len(self.stack))

    def pop_mark(self) -> list[Any]:
        """Pops everything above the last mark."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def memoize(self, index: int) -> None:
        """Stores the top of the stack in the memo."""
        if not 0 <= index < MAX_MEMO:
            raise CheckpointError(f"is a pickle with a memo of more than {MAX_MEMO} entries")
        self.memo[index] = value = self.top()
        if isinstance(value, Placeholder) and value.name in self.known.builders:
            self.unfinished[value] = index

    def spend(self, values: tuple[object, ...]) -> None:
        """Counts values that a function may copy; a pickle without repetitions stays far below the budget."""
        self.budget -= sum(len(value) for value in values if isinstance(value, (str, bytes, list, tuple, dict, set)))
        if self.budget < 0:
            raise CheckpointError("is a pickle that repeats itself to become larger than it is")

    def check_key(self, key: object) -> object:
        """A key of a dictionary or an element of a set, if hashing and comparing it is cheap."""
        if key is None or isinstance(key, (str, bytes, bool, GlobalName, Placeholder)):
            return key
        if isinstance(key, int) and abs(key) < HASH_MODULUS:
            return key
        parts = key if isinstance(key, tuple) else (key,)
        if len(parts) > MAX_KEY_PARTS or not all(
            part is None or isinstance(part, (str, bytes, int, float, complex, GlobalName)) for part in parts
        ):
            raise CheckpointError(f"has a {type(key).__name__} as a key, which is no number, text or short tuple")
        self.chosen_keys += 1
        if self.chosen_keys > MAX_CHOSEN_KEYS:
            raise CheckpointError(f"has more than {MAX_CHOSEN_KEYS} keys that are tuples or fractional numbers")
        return key

    def to_dict(self, values: list[Any]) -> dict[Any, object]:
        """A dictionary of alternating keys and values."""
        return {self.check_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}

    def call(self, function: object, arguments: object, keywords: object = None) -> None:
        """Pushes the result of a known function, or a placeholder for that of any other."""
        if not isinstance(function, (GlobalName, Placeholder)) or not isinstance(arguments, tuple):
            raise ValueError(f"it calls a {type(function).__name__} with a {type(arguments).__name__}")
        known = self.known.functions.get(function.name)
        if known is None or keywords or isinstance(function, Placeholder):
            self.push(Placeholder(function.name, arguments, keywords if isinstance(keywords, dict) else {}))
        else:
            self.spend(arguments)
            self.push(known(*arguments))

    def build(self) -> None:
        """Sets the state of the object on the stack."""
        state, target = self.pop(), self.top()
        if isinstance(target, dict):  # an OrderedDict with attributes, such as the _metadata of a state_dict
            refuse_hidden(state, DICT_NAMES, "dictionary")
        elif isinstance(target, Placeholder) and target.state is None:
            target.state = state
            if (build := self.known.builders.get(target.name)) is not None:
                self.stack[-1] = built = build(target)
                if (index := self.unfinished.pop(target, None)) is not None:
                    self.memo[index] = built
        else:
            raise ValueError(f"it sets the state of a {type(target).__name__}")

    def append(self, values: list[Any]) -> None:
        """Appends values to the list on the stack."""
        target = self.top()
        (target.items if isinstance(target, Placeholder) else _expect(target, list)).extend(values)

    def add(self, values: list[Any]) -> None:
        """Adds values to the set on the stack."""
        target = self.top()
        if isinstance(target, Placeholder):
            target.items.extend(values)
        else:
            _expect(target, set).update(map(self.check_key, values))

    def set_items(self, values: list[Any]) -> None:
        """Sets alternating keys and values in the dictionary on the stack."""
        target = self.top()
        entries = self.to_dict(values)
        (target.entries if isinstance(target, Placeholder) else _expect(target, dict)).update(entries)

    def pop_several(self, count: int) -> list[Any]:
        """Pops several values, in the order in which they were pushed."""
        return [self.pop() for _ in range(count)][::-1]


def _expect(target: object, kind: type) -> Any:
    if not isinstance(target, kind):
        raise ValueError(f"it adds to a {type(target).__name__}")
    return target


def read_pickle(stream: io.BytesIO, known: Known) -> object:
    """Reads one pickle, and leaves the stream after it.

    Raises:
        CheckpointError: the pickle is damaged or exceeds a limit; the message starts with a verb.
    """
    start, n_objects = stream.tell(), 0
    machine = Machine(known, stream.seek(0, io.SEEK_END) - start)
    stream.seek(start)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count == MAX_OPCODES:
                raise CheckpointError(f"is a pickle of more than {MAX_OPCODES} instructions")
            n_objects += opcode.name in MAKERS
            if n_objects > MAX_OBJECTS:
                raise CheckpointError(f"is a pickle of more than {MAX_OBJECTS} objects")
            if opcode.name == "STOP":
                return machine.pop()
            OPERATIONS[opcode.name](machine, argument)
    except CheckpointError:
        raise
    except Exception as error:  # pickletools raises whatever the bytes lead to, and values may have any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        raise CheckpointError(
            f"is damaged: its pickle cannot be read at byte {stream.tell() - start} ({reason})"
        ) from error
    raise CheckpointError("is damaged: its pickle has no end")


def _check_protocol(machine: Machine, protocol: int) -> None:
    if protocol > HIGHEST_PROTOCOL:
        raise CheckpointError(f"is a pickle of protocol {protocol}, newer than {HIGHEST_PROTOCOL}")


def _pop_value_or_mark(machine: Machine, _: None) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _call_by_name(machine: Machine, argument: str) -> None:
    """INST: module and class in the opcode, arguments since the mark."""
    arguments = machine.pop_mark()
    machine.call(name_reference(*argument.split(" ", 1)), tuple(arguments))


def _call_object(machine: Machine, _: None) -> None:
    """OBJ: class and arguments since the mark."""
    function, *arguments = machine.pop_mark()
    machine.call(function, tuple(arguments))


def _refuse_buffer(machine: Machine, _: None) -> None:
    raise CheckpointError("is a pickle whose buffers are in another file")


def _push_extension(machine: Machine, code: int) -> None:
    """EXT1, EXT2, EXT4: an object by its code in the extension registry of the process that wrote the file."""
    machine.push(GlobalName(f"copyreg.extension_{code}"))


MAKERS = frozenset(
    (
        "EMPTY_LIST",
        "EMPTY_DICT",
        "EMPTY_SET",
        "LIST",
        "DICT",
        "FROZENSET",
        "REDUCE",
        "NEWOBJ",
        "NEWOBJ_EX",
        "INST",
        "OBJ",
    )
)
Operation = Callable[[Machine, Any], object]
PUSHED_ARGUMENTS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
)
OPERATIONS: Mapping[str, Operation] = {
    **dict.fromkeys(PUSHED_ARGUMENTS, Machine.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.memoize),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])),
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _push_extension),
    **dict.fromkeys(("NEXT_BUFFER", "READONLY_BUFFER"), _refuse_buffer),
    "PROTO": _check_protocol,
    "FRAME": lambda machine, size: None,
    "MARK": lambda machine, _: machine.mark(),
    "POP": _pop_value_or_mark,
    "POP_MARK": lambda machine, _: machine.pop_mark(),
    "DUP": lambda machine, _: machine.push(machine.top()),
    "MEMOIZE": lambda machine, _: machine.memoize(len(machine.memo)),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "BYTEARRAY8": lambda machine, data: machine.push(bytes(data)),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(set()),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "LIST": lambda machine, _: machine.push(machine.pop_mark()),
    "DICT": lambda machine, _: machine.push(machine.to_dict(machine.pop_mark())),
    "FROZENSET": lambda machine, _: machine.push(frozenset(map(machine.check_key, machine.pop_mark()))),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_mark())),
    "TUPLE1": lambda machine, _: machine.push((machine.pop(),)),
    "TUPLE2": lambda machine, _: machine.push(tuple(machine.pop_several(2))),
    "TUPLE3": lambda machine, _: machine.push(tuple(machine.pop_several(3))),
    "APPEND": lambda machine, _: machine.append(machine.pop_several(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.add(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_several(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "GLOBAL": lambda machine, argument: machine.push(name_reference(*argument.split(" ", 1))),
    "STACK_GLOBAL": lambda machine, _: machine.push(name_reference(*machine.pop_several(2))),
    "REDUCE": lambda machine, _: machine.call(*machine.pop_several(2)),
    "NEWOBJ": lambda machine, _: machine.call(*machine.pop_several(2)),
    "NEWOBJ_EX": lambda machine, _: machine.call(*machine.pop_several(3)),
    "INST": _call_by_name,
    "OBJ": _call_object,
    "BUILD": lambda machine, _: machine.build(),
    "PERSID": lambda machine, key: machine.push(machine.known.load(key)),
    "BINPERSID": lambda machine, _: machine.push(machine.known.load(machine.pop())),
}
