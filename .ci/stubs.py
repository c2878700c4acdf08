"""Writes the stubs of the names that `kanmodel` has and the methods that `kanmodel.questions` makes; --check compares.

python .ci/stubs.py [--check]
"""

import ast
import subprocess
import sys
from collections import defaultdict
from inspect import Parameter, Signature
from pathlib import Path

import kanmodel.questions
from kanmodel.question import document, signature_of

ROOT = Path(__file__).parents[1]


def find_homes(module: str) -> dict[str, str]:
    """The module that each name in a module comes from."""
    tree = ast.parse(Path(sys.modules[module].__file__).read_text(encoding="utf-8"))
    homes = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            homes |= {alias.name: node.module for alias in node.names}
        elif isinstance(node, ast.ClassDef):
            homes[node.name] = module
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            homes[node.targets[0].id] = module
    return homes


def write_parameter(parameter: Parameter) -> str:
    """``name: type = ...``."""
    star = "*" if parameter.kind is Parameter.VAR_POSITIONAL else ""
    default = "" if parameter.default is Parameter.empty else " = ..."
    return f"{star}{parameter.name}: {parameter.annotation}{default}"


def write_method(name: str, signature: Signature, answer: str, given: str = "", doc: str = "") -> str:
    """A method; with the parameter `given` required, which comes before those that are given by name."""
    parts, is_keyword = ["self"], False
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    positional = [each for each in parameters if each.kind is not Parameter.KEYWORD_ONLY]
    for each in parameters:
        if each.kind is Parameter.KEYWORD_ONLY and not is_keyword:
            is_keyword = True
            if all(of.kind is not Parameter.VAR_POSITIONAL for of in positional):
                parts.append("*")
        written = write_parameter(each)
        if given and not is_keyword and parameters.index(each) < [of.name for of in parameters].index(given):
            written = written.removesuffix(" = ...")  # what comes before it is required too
        if each.name == given:
            written = f"{each.name}: {each.annotation.removesuffix(' | None')}"
        parts.append(written)
    body = f'\n        """{doc}"""' if doc else ""
    return f"    def {name}({', '.join(parts)}) -> {answer}:{body or ' ...'}\n"


def write_names() -> str:
    """The names of the package, each from its module."""
    homes = sorted((home, name) for name, home in kanmodel._HOMES.items())
    return "".join(f"from kanmodel.{home} import {name} as {name}\n" for home, name in homes)


def write_questions() -> str:
    """The methods."""
    names, methods = defaultdict(set), []
    for name, question in kanmodel.questions.QUESTIONS.items():
        signature, homes = signature_of(question), {}
        for kind in reversed(question.__mro__):
            if kind.__module__.startswith("kanmodel"):
                homes |= find_homes(kind.__module__)
        answer = signature.return_annotation
        words = [answer, *(str(of.annotation) for of in signature.parameters.values() if of.name != "self")]
        for word in words:
            for node in ast.walk(ast.parse(word, mode="eval")):
                if isinstance(node, ast.Name) and node.id in homes:
                    names[homes[node.id]].add(node.id)
        names["kanmodel.computing"].add("Progress")
        if question.with_answer is None:
            methods.append(write_method(name, signature, answer, doc=document(question)))
            continue
        given, special = question.with_answer
        other = " | ".join(one for one in answer.split(" | ") if one != special.__name__)
        names["typing"].add("overload")
        parameters = signature.parameters
        kept = [each.replace(annotation="None") if each.name == given else each for each in parameters.values()]
        methods.append("    @overload\n" + write_method(name, signature.replace(parameters=kept), other))
        methods.append("    @overload\n" + write_method(name, signature, special.__name__, given, document(question)))
    imports = "".join(f"from {home} import {', '.join(sorted(each))}\n" for home, each in sorted(names.items()))
    table = "from kanmodel.question import Question\n\nQUESTIONS: dict[str, type[Question[Any]]]\n\n"
    return f"from typing import Any\n{imports}{table}class Questions:\n" + "".join(methods)


def main() -> int:
    """Writes or compares."""
    ruff, status = [str(Path(sys.executable).parent / "ruff")], 0
    for name, text in (("kanmodel/__init__.pyi", write_names()), ("kanmodel/questions.pyi", write_questions())):
        file = ROOT / name
        for step in (["check", "--select", "I,F401", "--fix", "--quiet"], ["format", "--quiet"]):
            run = [*ruff, *step, "--stdin-filename", str(file), "-"]
            text = subprocess.run(run, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        if "--check" not in sys.argv:
            file.write_text(text, encoding="utf-8")
        elif file.read_text(encoding="utf-8") != text:
            print(f"{name} is out of date: python .ci/stubs.py")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
