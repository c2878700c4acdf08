"""All commands: their threads, the names they print, and errors in one sentence."""

import ast
import os
import subprocess
import sys
from dataclasses import replace

import polars as pl
import pytest
from factories import make_model, make_windows

from kanmodel.checkpoint import save_checkpoint


def test_a_command_computes_on_one_thread(saved):
    """The libraries that multiply matrices for torch and numpy have one thread each; tables load no FastAPI."""
    script = f"""
import sys
from service.cli import main
try:
    main(["inspect", {str(saved(make_model("lstm")))!r}])
except SystemExit:
    pass
assert not {{"fastapi", "polars"}} & sys.modules.keys()
from threadpoolctl import threadpool_info
print([pool["num_threads"] for pool in threadpool_info()])
"""
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=free)
    threads = ast.literal_eval(done.stdout.splitlines()[-1])
    assert len(threads) >= 2 and set(threads) == {1}


def test_brackets_in_names_are_printed(run, tmp_path, monkeypatch):
    """Every command prints names as they are: Rich's markup, also a closing tag alone, and its emoji codes are text."""
    monkeypatch.setenv("COLUMNS", "400")
    model = make_model(targets=("[red]t[/red]",), n_features=4)
    names = ("wind [m/s]", "wind [/s]", "[bold]", "a:smile:")
    features = tuple(
        replace(old, name=name, unit="[/K]") for old, name in zip(model.config.features, names, strict=True)
    )
    model = model.with_config(replace(model.config, features=features, groups={"[b]": names[:2]}))
    (tmp_path / "[").mkdir()
    file, pruned = tmp_path / "[bold].safetensors", tmp_path / "[/p].safetensors"  # in the folder
    save_checkpoint(model, file)
    table = pl.DataFrame({name: make_windows(model, 1)[0, :, i] for i, name in enumerate(names)})
    table.write_csv(tmp_path / "table.csv")
    commands = {
        ("inspect", file): [*names, "[/K]", "[red]t[/red]+1", file.name],
        ("explain", file): [*names, "[/K]", "[red]t[/red]+1", "[b]: wind [m/s], wind [/s] together"],
        ("prune", file, "-o", pruned): ["[red]t[/red]+1", str(pruned)],
        ("explain", file, tmp_path / "table.csv", "-o", tmp_path / "[/o]"): [str(tmp_path / "[/o]")],
        ("compare", file, file): ["[red]t[/red]+1", "wind [/s]"],
        ("report", file): ["wind [/s]"],
    }
    for command, printed in commands.items():
        code, out, err = run(*command)
        assert code == 0, err
        for text in printed:
            assert text in out, (command, text, out)
    for word in ("--[/z]", "[bold]z"):
        code, _, err = run("inspect", *(word.startswith("-") * [file]), word)
        assert code == 2 and word in err, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "t.csv", "--targt", "y"], "--target"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--lookback", "0"], "--lookback"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--width", "a"], "is not a width such as 12,5,1"),
        (["train", "t.csv", "--target", "y", "-o", "m.safetensors", "--unit", "a"], "'a' is not NAME=VALUE"),
        (["serve", "--port", "70000"], "--port"),
        (["prune", "m.safetensors", "-o", "n.safetensors", "--fidelity", "1.1"], "--fidelity"),
        (["prune", "m.safetensors", "-o", "n.safetensors", "--metric", "size"], "--metric"),
        (["prune", "m.safetensors"], "--output"),
        (["formula"], "file"),
        (["trian"], "train"),
    ],
)
def test_an_option_that_does_not_exist_or_fit_is_named(run, arguments, message):
    """Exit code 2, and the error shows the options that exist or what is expected."""
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    assert message in err and "Traceback" not in err


def test_a_file_that_is_not_a_checkpoint_is_refused(tmp_path, run):
    """A missing or foreign file, or an unknown output, gives one sentence and exit code 2."""
    (tmp_path / "foreign.safetensors").write_bytes(b"not a checkpoint")
    save_checkpoint(make_model(), tmp_path / "m.safetensors")
    for arguments, message in (
        ([tmp_path / "none.safetensors"], "cannot read none.safetensors: No such file or directory"),
        ([tmp_path / "foreign.safetensors"], "foreign.safetensors is not a safetensors file"),
        ([tmp_path / "m.safetensors", "--output-name", "q"], "there is no output 'q'; the outputs are y+1"),
    ):
        code, out, err = run("inspect", *arguments)
        assert (code, out, err) == (2, "", f"kanscope: {message}\n")


def test_invalid_questions_give_one_sentence(tmp_path, run, saved):
    """The error is one sentence, with exit code 2."""
    file = saved(make_model("lstm"))
    out_file = tmp_path / "n.safetensors"
    for arguments, message in (
        (["explain", file, "--window", "160"], "there is no reference window 160; the windows are 0 to 159"),
        (["explain", file, "--faithfulness", "--window", "1"], "--faithfulness averages over many windows"),
        (["explain", file, "--output-name", "q"], "there is no output 'q'; the outputs are y+1"),
        (
            ["prune", file, "-o", out_file, "--fidelity", "0.9", "--node-threshold", "1"],
            "--fidelity and --node-threshold",
        ),
        (["prune", file, "-o", out_file, "--output-name", "q"], "there is no output 'q'; the outputs are y+1"),
        (["prune", file, "-o", tmp_path / "n.pt"], f"{tmp_path / 'n.pt'} must end in .safetensors"),
        (["export", file, "-o", out_file], f"{out_file} must end in .onnx"),
        (["export", file, "-o", "/nowhere/m.onnx"], "cannot write /nowhere/m.onnx: there is no folder /nowhere"),
        (["train", "t.csv", "-o", out_file], "--target is missing"),
    ):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and err.startswith(f"kanscope: {message}") and err.count("\n") == 1
    assert not out_file.exists()
