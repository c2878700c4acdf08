"""The stack machine of pickles, without imports and calls.

Time and memory are proportional to the length of the pickle: copies count against a budget, and the number of keys
whose hashes a file can choose is limited.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kanmodel.errors import CheckpointError
from kanmodel.importers.placeholders import GlobalName, Placeholder, refuse_hidden

MAX_MEMO = 1 << 20
MAX_MARKS = 1000  # open containers at a time
MAX_CHOSEN_KEYS = 1 << 12  # dictionary keys and set elements whose hashes a file can make collide
MAX_KEY_PARTS = 16  # of a tuple as a key
HASH_MODULUS = (1 << 61) - 1  # a smaller integer is its own hash
DICT_NAMES = tuple(dir(OrderedDict))

Function = Callable[..., object]


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

    def drop(self) -> None:
        """Removes everything above the last mark."""
        del self.stack[self.marks.pop() :]

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
