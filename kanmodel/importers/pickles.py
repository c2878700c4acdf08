"""A safe reader of pickles, which never imports, looks up or calls anything that a pickle names.

A pickle is a program for a stack machine (the opcodes are documented in Python's `pickletools`). Python's own machine
imports what GLOBAL names and calls it on REDUCE, NEWOBJ and BUILD. This one creates numbers, strings and containers, a
`GlobalName` for every name and a `Placeholder` for every call, except for a few functions that the caller implements,
such as those that make tensors.
"""

from __future__ import annotations

import codecs
import io
import pickletools  # nosec B403 # it splits a pickle into its instructions, and runs none of them
from collections.abc import Callable, Mapping
from typing import Any

from kanmodel.errors import CheckpointError
from kanmodel.importers.machine import Known, Machine
from kanmodel.importers.placeholders import GlobalName, name_reference

MAX_OPCODES = 1 << 20
MAX_OBJECTS = 1 << 18  # containers and calls
HIGHEST_PROTOCOL = 5

codecs.lookup("raw-unicode-escape")  # imports the codec of the opcode UNICODE now, so that no pickle makes Python do so


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
Operation = Callable[[Machine, Any], None]
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
    "POP_MARK": lambda machine, _: machine.drop(),
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
