"""Clients in Java and Kotlin, generated as in openapi/README.md, against a live server."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from expected import WINDOW, expect

from service.document.__main__ import DOCUMENT

HERE = Path(__file__).parent
TOOLS = Path(sys.prefix) / "clients"  # `make test` sets it up
DEBIAN = Path("/usr/share/java")  # libgoogle-gson-java and libgeronimo-annotation-1.3-spec-java
JAVA = ("java", "-XX:TieredStopAtLevel=1")  # a compiler that runs once is not worth compiling well


def run(folder, *command):
    """What a command prints."""
    done = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def jar(folder, pattern):
    """The jar of that name under a folder."""
    found = sorted(folder.glob(pattern))
    if not found:
        pytest.skip(f"{pattern} is missing: .ci/run and make test install it")
    return found[0]


def generate(folder, language):
    """Runs the command in openapi/README.md, which must not warn of the document."""
    if not shutil.which("javac"):
        pytest.skip("a JDK is missing: .ci/run installs it")
    text = DOCUMENT.with_name("README.md").read_text().replace("\\\n", "")
    (command,) = re.findall(rf"^openapi-generator-cli (generate -g {language} .*)$", text, re.MULTILINE)
    options = [word.replace("openapi/", f"{DOCUMENT.parent}{os.sep}") for word in shlex.split(command)]
    generator = jar(TOOLS, "lib/python*/site-packages/openapi_generator_cli/openapi-generator.jar")
    printed = run(folder, *JAVA, "-jar", generator, *options)
    assert not re.findall(r".* (?:WARN|ERROR) .*", printed)
    return generator


def check_answers(server, folder, program, classes):
    """Checks that a program prints what plain HTTP gives."""
    classes = os.pathsep.join(map(str, ("built", *classes)))
    printed = run(folder, *JAVA, "-cp", classes, program, str(server.base_url).rstrip("/"), WINDOW)
    assert json.loads(printed) == expect(server)


@pytest.mark.thorough("generates a client and compiles it")
def test_the_java_client(server, tmp_path):
    """The generated Java client and a program with it compile and run; Jackson's jars are those in the generator's."""
    jackson = generate(tmp_path, "java")
    classes = (jackson, jar(DEBIAN, "geronimo-annotation-1.3-spec.jar"))
    sources = (tmp_path / "kanscope-java" / "src" / "main").rglob("*.java")
    options = ("-proc:none", "-d", "built", "-cp", os.pathsep.join(map(str, classes)))
    run(tmp_path, "javac", *options, *sources, HERE / "java" / "Program.java")
    check_answers(server, tmp_path, "Program", classes)


@pytest.mark.thorough("generates a client and compiles it for half a minute")
def test_the_kotlin_client(server, tmp_path):
    """The generated Kotlin client and a program with it compile and run."""
    generate(tmp_path, "kotlin")
    kernel = TOOLS / "lib"
    compiler = jar(kernel, "python*/site-packages/run_kotlin_kernel/jars/kotlin-jupyter-kernel-*-all.jar")
    plugin = TOOLS / "node_modules" / "allure-commandline" / "dist" / "plugins" / "jira-plugin" / "lib"
    classes = (
        jar(compiler.parent, "kotlin-stdlib-*.jar"),
        *(jar(plugin, f"{name}-jvm-*.jar") for name in ("okhttp", "okio")),
        jar(DEBIAN, "gson.jar"),
    )
    options = ("-nowarn", "-no-stdlib", "-no-reflect", "-d", "built", "-cp", os.pathsep.join(map(str, classes)))
    kotlinc = (*JAVA, "-cp", compiler, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler")
    sources = (tmp_path / "kanscope-kotlin" / "src" / "main" / "kotlin", HERE / "kotlin" / "Program.kt")
    run(tmp_path, *kotlinc, *options, *sources)
    check_answers(server, tmp_path, "ProgramKt", classes)
