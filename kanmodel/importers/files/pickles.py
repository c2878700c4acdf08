"""A safe reader of pickles, which never imports, looks up or calls anything that a pickle names.

A pickle is a program for a stack machine (see Python's `pickletools`). Python's own imports what GLOBAL names and calls
it on REDUCE, NEWOBJ and BUILD. This one creates numbers, strings and containers, a `GlobalName` for every name and a
`Placeholder` for every call, except of functions that the caller implements, in time and memory proportional to the
length of the pickle. A `pickle.Unpickler` with another `find_class` bounds neither: keys with equal hashes take
quadratic time, a deeply nested tuple as a key crashes the process, its memo is allocated by index, and BUILD calls the
`__setstate__` of tensors and arrays.
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
RENAMED = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # modules by their names in Python 2
HIGHEST_PROTOCOL = 5

codecs.lookup("raw-unicode-escape")  # imports the codec of the opcode UNICODE now, so that no pickle makes Python do so


@dataclass(frozen=True, slots=True)
class GlobalName:
    """A class or function that a pickle names, such as ``torch.nn.modules.activation.GELU``; it is not looked up."""

    name: str

    @classmethod
    def of(cls, module: object, name: object) -> GlobalName:
        """That of a name in a module; raises `CheckpointError` if they are not names, or too long."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_NAME:
            raise CheckpointError("is a pickle with an invalid or too long name")
        return cls(f"{RENAMED.get(module, module)}.{name}")


@dataclass(eq=False, repr=False, slots=True)
class Placeholder:
    """An instance or the result of a call that was not created."""

    name: str  # qualified, of the class or function
    arguments: tuple[object, ...] = ()  # of the call, or of ``__new__``
    keywords: Mapping[object, object] = field(default_factory=dict)
    state: object = None  # argument of ``__setstate__``, or attributes
    items: list[object] = field(default_factory=list)  # to append or add to it
    entries: dict[Any, object] = field(default_factory=dict)  # to set in it by key

    def __repr__(self) -> str:
        return f"<{self.name}>"  # without its contents, which may contain itself


def refuse_hidden(state: object, kind: type) -> None:
    """Raises if attributes would hide methods of their object, which no training program writes."""
    hidden = [name for name in dir(kind) if name in state] if isinstance(state, dict) else []
    if hidden:
        raise CheckpointError(f"has an attribute {hidden[0]!r} that would hide that of every {kind.__name__}")


@dataclass(eq=False)
class _Machine:
    """The state of the machine: the stack, the positions of its open marks, and the memo; see `read_pickle`."""

    functions: Mapping[str, Callable[..., object]]
    builders: Mapping[str, Callable[[Placeholder], object]]
    load: Callable[[object], object] | None
    budget: int  # of values that calls copy
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    unfinished: dict[Placeholder, int] = field(default_factory=dict)  # memo indices of those that builders may replace
    chosen_keys: int = 0

    def execute(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Executes one instruction: its operation gets the operands from the stack, those above a mark as one list."""
        if opcode.name == "PROTO" and argument > HIGHEST_PROTOCOL:
            raise CheckpointError(f"is a pickle of protocol {argument}, newer than {HIGHEST_PROTOCOL}")
        if opcode.name in ("NEXT_BUFFER", "READONLY_BUFFER"):
            raise CheckpointError("is a pickle whose buffers are in another file")
        if opcode.name in ("PERSID", "BINPERSID") and self.load is None:
            raise CheckpointError("is damaged: a pickle of plain values has a storage")
        if opcode.name == "MARK":
            if len(self.marks) == MAX_MARKS:
                raise CheckpointError(f"is a pickle nested deeper than {MAX_MARKS} levels")
            self.marks.append(len(self.stack))
        elif opcode.name == "POP" and self.marks and self.marks[-1] == len(self.stack):
            self.marks.pop()
        else:
            n_operands, marked = OPERANDS[opcode.name]
            operands = []
            if marked:
                start = self.marks.pop()
                operands = [self.stack[start:]]
                del self.stack[start:]
            for _ in range(n_operands):
                operands.insert(0, self.pop())
            result = OPERATIONS[opcode.name](self, argument, *operands)
            if opcode.stack_after:
                self.stack.append(result)

    def pop(self) -> Any:
        """Pops the top of the stack, but nothing below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("it pops from an empty stack")
        return self.stack.pop()

    def memoize(self, index: int, value: Any) -> Any:
        if not 0 <= index < MAX_MEMO:
            raise CheckpointError(f"is a pickle with a memo of more than {MAX_MEMO} entries")
        self.memo[index] = value
        if isinstance(value, Placeholder) and value.name in self.builders:
            self.unfinished[value] = index
        return value

    def check_key(self, key: object) -> object:
        """A key of a dictionary or an element of a set, if hashing and comparing it is cheap."""
        if key is None or isinstance(key, (str, bytes, bool, GlobalName, Placeholder)):
            return key
        if isinstance(key, int) and abs(key) < HASH_MODULUS:
            return key
        parts = key if isinstance(key, tuple) else (key,)
        plain = (type(None), str, bytes, int, float, complex, GlobalName)
        if len(parts) > MAX_KEY_PARTS or not all(isinstance(part, plain) for part in parts):
            raise CheckpointError(f"has a {type(key).__name__} as a key, which is no number, text or short tuple")
        self.chosen_keys += 1
        if self.chosen_keys > MAX_CHOSEN_KEYS:
            raise CheckpointError(f"has more than {MAX_CHOSEN_KEYS} keys that are tuples or fractional numbers")
        return key

    def to_dict(self, values: list[Any]) -> dict[Any, object]:
        """A dictionary of alternating keys and values."""
        return {self.check_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)}

    def call(self, function: object, arguments: object, keywords: object = None) -> object:
        """The result of a known function, or a placeholder for that of any other.

        Values that a function may copy count against a budget, below which a pickle without repetitions stays by far.
        """
        if not isinstance(function, (GlobalName, Placeholder)) or not isinstance(arguments, tuple):
            raise ValueError(f"it calls a {type(function).__name__} with a {type(arguments).__name__}")
        known = self.functions.get(function.name)
        if known is None or keywords or isinstance(function, Placeholder):
            return Placeholder(function.name, arguments, keywords if isinstance(keywords, dict) else {})
        copied = (value for value in arguments if isinstance(value, (str, bytes, list, tuple, dict, set)))
        self.budget -= sum(map(len, copied))
        if self.budget < 0:
            raise CheckpointError("is a pickle that repeats itself to become larger than it is")
        return known(*arguments)

    def build(self, target: object, state: object) -> object:
        if isinstance(target, dict):  # an OrderedDict with attributes, such as the _metadata of a state_dict
            refuse_hidden(state, OrderedDict)
            return target
        if not isinstance(target, Placeholder) or target.state is not None:
            raise ValueError(f"it sets the state of a {type(target).__name__}")
        target.state = state
        if (build := self.builders.get(target.name)) is None:
            return target
        built = build(target)
        if (index := self.unfinished.pop(target, None)) is not None:
            self.memo[index] = built
        return built

    def extend(self, target: Any, values: list[Any], kind: type) -> object:
        """The list, set or dictionary with further values; those of a dictionary are alternating keys and values."""
        is_placeholder = isinstance(target, Placeholder)
        if not is_placeholder and not isinstance(target, kind):
            raise ValueError(f"it adds to a {type(target).__name__}")
        if kind is dict:
            (target.entries if is_placeholder else target).update(self.to_dict(values))
        elif isinstance(target, set):
            target.update(map(self.check_key, values))
        else:
            (target.items if is_placeholder else target).extend(values)
        return target


def read_pickle(
    stream: io.BytesIO,
    functions: Mapping[str, Callable[..., object]] | None = None,
    builders: Mapping[str, Callable[[Placeholder], object]] | None = None,
    load: Callable[[object], object] | None = None,
) -> object:
    """Reads one pickle, and leaves the stream after it.

    The `functions` implement functions and classes by the name that a pickle calls, in time at most proportional to the
    lengths of their arguments; `builders` replace a placeholder of that name when its state is set; `load` resolves a
    persistent id, such as that of a storage. Raises `CheckpointError`, starting with a verb, if the pickle is damaged
    or exceeds a limit.
    """
    start, n_objects = stream.tell(), 0
    machine = _Machine(functions or {}, builders or {}, load, budget=4 * (stream.seek(0, io.SEEK_END) - start))
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
            machine.execute(opcode, argument)
    except CheckpointError:
        raise
    except Exception as error:  # pickletools raises whatever the bytes lead to, and values may have any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        where = f"at byte {stream.tell() - start} ({reason})"
        raise CheckpointError(f"is damaged: its pickle cannot be read {where}") from error
    raise CheckpointError("is damaged: its pickle has no end")


MARK = pickletools.markobject
OPERANDS = {  # how many there are below the mark, or in all, and whether there is a mark
    opcode.name: ([*opcode.stack_before, MARK].index(MARK), MARK in opcode.stack_before)
    for opcode in pickletools.opcodes
}
MAKERS = {  # opcodes that make a container, or call something
    *("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET", "LIST", "DICT", "FROZENSET"),
    *("REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ"),
}
LITERALS = [  # opcodes that push their argument
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg and opcode.stack_after and opcode.stack_after[0] is not pickletools.anyobject
]
OPERATIONS: Mapping[str, Callable[..., object]] = {
    **dict.fromkeys(LITERALS, lambda machine, value: value),
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"),
        lambda machine, index: machine.stack.append(machine.memoize(index, machine.pop())),
    ),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, index: machine.memo[index]),
    # an object by its code in the extension registry of the process that wrote the file
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), lambda machine, code: GlobalName(f"copyreg.extension_{code}")),
    **dict.fromkeys(("EMPTY_LIST", "LIST"), lambda machine, _, values=(): [*values]),
    **dict.fromkeys(("EMPTY_DICT", "DICT"), lambda machine, _, values=(): machine.to_dict(values)),
    **dict.fromkeys(("EMPTY_TUPLE", "TUPLE"), lambda machine, _, values=(): tuple(values)),
    **dict.fromkeys(("TUPLE1", "TUPLE2", "TUPLE3"), lambda machine, _, *values: values),
    **dict.fromkeys(("POP", "POP_MARK", "FRAME", "PROTO"), lambda machine, *_: None),
    **dict.fromkeys(("REDUCE", "NEWOBJ", "NEWOBJ_EX"), lambda machine, _, *operands: machine.call(*operands)),
    "DUP": lambda machine, _, value: machine.stack.append(value) or value,
    "MEMOIZE": lambda machine, _, value: machine.memoize(len(machine.memo), value),
    "NONE": lambda machine, _: None,
    "NEWTRUE": lambda machine, _: True,
    "NEWFALSE": lambda machine, _: False,
    "BYTEARRAY8": lambda machine, data: bytes(data),
    "EMPTY_SET": lambda machine, _: set(),
    "FROZENSET": lambda machine, _, values: frozenset(map(machine.check_key, values)),
    "APPEND": lambda machine, _, target, value: machine.extend(target, [value], list),
    "APPENDS": lambda machine, _, target, values: machine.extend(target, values, list),
    "ADDITEMS": lambda machine, _, target, values: machine.extend(target, values, set),
    "SETITEM": lambda machine, _, target, key, value: machine.extend(target, [key, value], dict),
    "SETITEMS": lambda machine, _, target, values: machine.extend(target, values, dict),
    "GLOBAL": lambda machine, argument: GlobalName.of(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _, module, name: GlobalName.of(module, name),
    "INST": lambda machine, argument, values: machine.call(GlobalName.of(*argument.split(" ", 1)), tuple(values)),
    "OBJ": lambda machine, _, values: machine.call(values[0], tuple(values[1:])),
    "BUILD": lambda machine, _, target, state: machine.build(target, state),
    "PERSID": lambda machine, key: machine.load(key),
    "BINPERSID": lambda machine, _, key: machine.load(key),
}
