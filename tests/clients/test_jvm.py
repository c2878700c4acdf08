"""Clients in Java and Kotlin, generated as on the page, against a live server."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from generating import MODULES, TOOLS, check_answers, check_program, generate, run, write_program

HERE = Path(__file__).parent
COMMAND = "openapi-generator-cli generate -g"
DEBIAN = Path("/usr/share/java")  # libgoogle-gson-java and libgeronimo-annotation-1.3-spec-java
JAVA = ("java", "-XX:TieredStopAtLevel=1")  # a compiler that runs once is not worth compiling well
SITE = "lib/python*/site-packages"


def jar(folder, pattern):
    """The jar of that name under a folder."""
    found = sorted(folder.glob(pattern))
    if not found:
        pytest.skip(f"{pattern} is missing: .ci/run and make test install it")
    return found[0]


@pytest.mark.thorough("generates a client and compiles it")
def test_the_java_client(server, tmp_path):
    """The generated Java client and a program with it compile and run; Jackson's jars are those in the generator's."""
    if not shutil.which("javac"):
        pytest.skip("a JDK is missing: .ci/run installs it")
    generate(tmp_path, f"{COMMAND} java ")
    jackson = jar(TOOLS, f"{SITE}/openapi_generator_cli/openapi-generator.jar")
    classes = (jackson, jar(DEBIAN, "geronimo-annotation-1.3-spec.jar"))
    sources = (tmp_path / "kanscope-java" / "src" / "main").rglob("*.java")
    options = ("-proc:none", "-d", "built", "-cp", os.pathsep.join(map(str, classes)))
    write_program(server, "java", tmp_path / "Main.java")
    run(tmp_path, "javac", *options, *sources, HERE / "java" / "Program.java", "Main.java")
    java = (*JAVA, "-cp", os.pathsep.join(map(str, ("built", *classes))))
    check_answers(server, tmp_path, *java, "Program")
    check_program(server, tmp_path, *java, "Main")


@pytest.mark.thorough("generates a client and compiles it for half a minute")
def test_the_kotlin_client(server, tmp_path):
    """The generated Kotlin client and a program with it compile and run."""
    generate(tmp_path, f"{COMMAND} kotlin ")
    compiler = jar(TOOLS, f"{SITE}/run_kotlin_kernel/jars/kotlin-jupyter-kernel-*-all.jar")
    plugin = MODULES / "allure-commandline" / "dist" / "plugins" / "jira-plugin" / "lib"
    classes = (
        jar(compiler.parent, "kotlin-stdlib-*.jar"),
        *(jar(plugin, f"{name}-jvm-*.jar") for name in ("okhttp", "okio")),
        jar(DEBIAN, "gson.jar"),
    )
    options = ("-nowarn", "-no-stdlib", "-no-reflect", "-d", "built", "-cp", os.pathsep.join(map(str, classes)))
    kotlinc = (*JAVA, "-cp", compiler, "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler")
    write_program(server, "kotlin", tmp_path / "page" / "Main.kt")
    sources = (tmp_path / "kanscope-kotlin" / "src" / "main" / "kotlin", HERE / "kotlin" / "Program.kt", "page/Main.kt")
    run(tmp_path, *kotlinc, *options, *sources)
    java = (*JAVA, "-cp", os.pathsep.join(map(str, ("built", *classes))))
    check_answers(server, tmp_path, *java, "ProgramKt")
    check_program(server, tmp_path, *java, "MainKt")
