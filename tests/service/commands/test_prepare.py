"""`kanscope prepare` writes results beside checkpoints, and commands that write checkpoints do so by one option."""

import os

from factories import make_model, write_table

import kanmodel

SMALL = {"n_features": 2, "lookback": 2, "n_reference": 40}
TINY = ("--target", "y", "--features", "a,b", "--lookback", "2", "--hidden", "2", "--width", "2,1", "--epochs", "1")


def test_a_folder_is_prepared_with_all_versions(saved, tmp_path, run):
    """What is missing is written, what is current is left; hidden files and those in folders of versions included."""
    (tmp_path / "v").mkdir()
    files = [
        saved(make_model("head", seed=seed, **SMALL | {"lookback": 1}), f"{name}") for seed, name in enumerate("ab")
    ]
    files[1] = files[1].rename(tmp_path / "v" / "3.safetensors")
    (tmp_path / ".hidden.safetensors").write_bytes(b"")
    results = [file.with_suffix(".results") for file in files]
    code, out, err = run("prepare", tmp_path, "--check")
    assert (code, err, [each.exists() for each in results]) == (1, "", [False, False])
    assert out == f"{files[0]}: there is no a.results\n{files[1]}: there is no 3.results\n"
    kanmodel.prepare(files[0])
    code, out, err = run("prepare", tmp_path)
    assert (code, err) == (0, "") and out.startswith(f"{results[0]}: is current\n{results[1]} (0.0")
    assert all(kanmodel.load(file).prepared for file in files)
    assert run("prepare", files[0], tmp_path, "--check")[:2] == (
        0,
        f"{results[0]}: is current\n{results[1]}: is current\n",
    )
    results[1].write_bytes(results[0].read_bytes())
    assert run("prepare", tmp_path, "--check")[0] == 1


def test_a_bad_checkpoint_leaves_the_others(saved, tmp_path, run):
    """It is named on stderr, and the exit status is 2."""
    good, bad = saved(make_model("head", n_features=2, n_reference=20), "good"), tmp_path / "bad.safetensors"
    bad.write_bytes(b"")
    code, out, err = run("prepare", tmp_path)
    assert code == 2 and f"{bad}: bad.safetensors is not a safetensors file" in err and str(good.stem) in out
    assert err.splitlines()[-1] == "kanscope: 1 of the checkpoints cannot be prepared"
    assert kanmodel.load(good).prepared is not None
    (tmp_path / "empty").mkdir()
    assert "there are no checkpoints in" in run("prepare", tmp_path / "empty")[2]


def test_commands_that_write_checkpoints_prepare_them(tmp_path, run):
    """Train, prune, calibrate and fine-tune: the results are those of the checkpoint that was written."""
    table, first = write_table(tmp_path / "table.csv"), tmp_path / "first.safetensors"
    made = {
        "first": ("train", table, *TINY, "--time-column", "time", "--ahead", "1"),
        "tuned": ("train", table, "--from", first, "--epochs", "1", "--time-column", "time"),
        "small": ("prune", first, "--fidelity", "0.5"),
        "sure": ("calibrate", first, table),
    }
    for name, command in made.items():
        path = tmp_path / f"{name}.safetensors"
        code, out, err = run(*command, "-o", path, "--prepare")
        assert code == 0, err
        assert f"{path.with_suffix('.results')} (0.0" in out.replace("\n", "")
        assert kanmodel.load(path).prepared is not None, name
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
