"""``kanscope record verify``, on what real processes have recorded."""

from __future__ import annotations

import json
import re
from itertools import count

import pytest
from factories import make_windows
from processes import run_process
from waiting import poll

from kanmodel.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def windows(folder):
    return make_windows(load_checkpoint(folder / "two.safetensors"), 1)


def forecast(client, windows, n):
    for _ in range(n):
        assert client.post("/v1/models/two:predict", json={"instances": windows.tolist()}).status_code == 200


def count_lines(record):
    return sum(path.read_bytes().count(b"\n") for path in record.iterdir())


@pytest.mark.thorough("starts three servers, and waits for periods")
def test_a_killed_process_loses_at_most_one_period(launch, folder, tmp_path, windows, run):
    """What is older is recorded; its record verifies, and the next process states it, once, in a file of its own."""
    record = tmp_path / "record"
    settings = {"KANSCOPE_RECORD": str(record), "KANSCOPE_RECORD_SECONDS": "0.1"}
    for number in range(3):
        with launch(folder / "two.safetensors", **settings) as process:
            forecast(process.client, windows, 20)
            poll(lambda number=number: count_lines(record) >= (number + 1) * (1 + 20))  # and its opening line
            forecast(process.client, windows, 1)
            process.popen.kill()
            process.popen.wait()
    code, out, _ = run("record", "verify", record, "--json")
    found = json.loads(out)
    assert code == 0 and found["problems"] == []
    assert 3 * 20 <= found["events"] <= 3 * 21
    paths = sorted(record.iterdir())
    assert found["unfinished"] == [path.name for path in paths]
    openings = [json.loads(path.read_text().splitlines()[0])["data"]["ends"] for path in paths]
    ends = [[(end["file"], end["ended"]) for end in opening] for opening in openings]
    assert ends == [[], [(paths[0].name, True)], [(paths[1].name, True)]]
    paths[0].unlink()
    code, out, _ = run("record", "verify", record)
    assert code == 1 and f"problem: {paths[0].name} is missing: {paths[1].name} says that it had" in out


def test_the_command_says_what_it_finds(launch, folder, tmp_path, windows, run):
    """Hashes to note, and a verdict; with a problem, its place and exit code 1."""
    record = tmp_path / "record"
    with launch(folder / "two.safetensors", KANSCOPE_RECORD=str(record)) as process:
        forecast(process.client, windows, 3)
        process.popen.send_signal(15)
        process.popen.wait(60)
    code, out, _ = run("record", "verify", record)
    (path,) = record.iterdir()
    named, verdict = out.splitlines()
    (head,) = re.fullmatch(rf"{path.name}: 5 lines, hash ([0-9a-f]{{64}})", named).groups()
    assert code == 0 and verdict == "3 events in 1 file: unchanged"
    assert run("record", "verify", record, "--head", head)[0] == 0
    code, out, _ = run("record", "verify", record, "--head", "f" * 64)
    assert code == 1 and f"problem: no line has the hash {'f' * 64}" in out
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\n", 0, -1) - 100])
    code, out, _ = run("record", "verify", record)
    assert code == 0 and "bytes of an unfinished line" in out and "no closing line" in out
    assert run("record", "verify", record, "--head", head)[0] == 1
    path.write_bytes(data.replace(b'"FP64"', b'"FP32"', 1))
    code, out, _ = run("record", "verify", record)
    assert code == 1 and f"problem: {path.name}, line 2, does not have its hash" in out
    assert out.splitlines()[-1] == "3 events in 1 file: 1 problem"


def test_what_is_no_record(run, tmp_path):
    """A folder without a file of a record is not unchanged, and one that does not exist is an error."""
    assert run("record", "verify", tmp_path)[0] == 1
    code, _, err = run("record", "verify", tmp_path / "none")
    assert code == 2 and err == f"kanscope: cannot read {tmp_path / 'none'}: No such file or directory\n"


@pytest.mark.thorough("starts a server with two processes")
def test_each_process_has_files_of_its_own(folder, tmp_path, windows, run):
    """Two workers record every answer once between them, and one that is killed leaves a record that verifies."""
    record = tmp_path / "record"
    settings = {"KANSCOPE_RECORD": str(record), "KANSCOPE_RECORD_SECONDS": "0.1", "KANSCOPE_CACHED_RESULTS": "4"}
    with run_process(tmp_path / "log", folder / "two.safetensors", "--workers", 2, **settings) as process:
        ids = count(1)

        def have_both_answered():  # of which the second may start later
            asked = {"json": {"instances": windows.tolist()}, "headers": {"X-Request-Id": str(next(ids))}}
            with type(process.client)(base_url=process.client.base_url, timeout=300) as other:
                assert other.post("/v1/models/two:predict", **asked).status_code == 200
            return len(list(record.glob("*.jsonl"))) == 2

        poll(have_both_answered)
        process.popen.send_signal(15)
        process.popen.wait(60)
    found = json.loads(run("record", "verify", record, "--json")[1])
    assert (
        found["problems"] == found["unfinished"] == [] and found["events"] == next(ids) - 1 and len(found["ends"]) == 2
    )
