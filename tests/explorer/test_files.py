"""Files of usual tools are read into columns, from which the service cuts the same windows as from the table itself."""

from __future__ import annotations

import gzip
import json
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from factories import make_encoded, make_model
from playwright.sync_api import expect

from kanmodel.checkpoint import save_checkpoint
from kanmodel.tables.roles import Columns

N, AHEAD, GAP = 72, 3, 40
COLUMNS = Columns(("load",), time="time", calendar=True, known=("sky",), fill="forward", ahead=AHEAD)
rng = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "time": [datetime(2026, 3, 2) + timedelta(hours=row) for row in range(N)],
        "note": ["wet; very"] * N,
        "temp": rng.normal(10, 4, N).round(2),
        "sky": rng.choice(["calm", "windy"], N),
        "load": rng.normal(1500, 300, N).round(1),
    }
)
GAPPED = FRAME.drop(index=[GAP]).reset_index(drop=True)
MANY = pd.concat([FRAME.assign(shop="b"), FRAME.assign(shop="a", load=FRAME["load"] + 1)]).sort_values(
    "time", kind="stable"
)
WIDE = FRAME[["time"]].assign(a=FRAME["load"], b=FRAME["temp"])
OF_WIDE = Columns(("load",), time="time", series=("a", "b"), ahead=AHEAD)
OF_MANY = Columns(("load",), time="time", series="shop", known=("sky",), ahead=AHEAD)
START = """async ([given, name, model]) => {
  const module = (file) => import(new URL(file, document.querySelector("script[type=module]").src).href);
  const names = ["files.js", "history/cut.js", "model.js", "api.js"];
  const [files, cut, { Model }, { askJson }] = await Promise.all(names.map(module));
  const chosen = new Model(await askJson({ path: `models/${model}` }), model);
  const { signal } = new AbortController();
"""
READ = f"""{START}
  try {{
    const text = await files.readFile(new Blob([new Uint8Array(given)]));
    const values = await files.readGiven(text, name, chosen, signal);
    const row = /^row:/.test(values.window) ? await files.findRow(chosen, values.window.slice(4), signal) : undefined;
    return {{ values, row }};
  }} catch (error) {{
    return {{ problem: error.message }};
  }}
}}"""
ROW = f"""{START}
  return files.findRow(chosen, given, signal).then(String, (error) => error.message);
}}"""
ALL = f"""{START}
  const table = files.findTable((await files.readGiven(given, name, chosen, signal)).file);
  const {{ places, parts }} = await cut.cutTable(table, chosen, signal);
  const predictions = (await cut.forecastAll(chosen, table, signal)).map((one) => one.predictions);
  const of = (member) => places.map((one) => one[member]);
  return {{ rows: of("row"), times: of("time"), actual: of("actual"), predictions, parts: parts.length }};
}}"""


def german(frame):
    """As Excel saves a table in Germany: semicolons, decimal commas, its code page, dates with dots."""
    dated = frame.assign(time=frame["time"].dt.strftime("%d.%m.%Y %H:%M"), note="Öl; naß")
    return dated.to_csv(index=False, sep=";", decimal=",", lineterminator="\r\n").encode("cp1252")


FILES = {
    "pandas.csv": FRAME.to_csv(index=False).encode(),
    "index.csv": FRAME.to_csv().encode(),
    "excel.csv": german(FRAME),
    "packed.csv.gz": gzip.compress(FRAME.to_csv(index=False).encode()),
    "polars.csv": pl.from_pandas(FRAME).write_csv().encode(),
    "tabs.tsv": ("\ufeff" + FRAME.to_csv(index=False, sep="\t")).encode(),
    "records.json": FRAME.assign(time=FRAME["time"].astype(str)).to_json(orient="records").encode(),
    "split.json": FRAME.assign(time=FRAME["time"].astype(str)).to_json(orient="split", index=False).encode(),
    "columns.json": FRAME.assign(time=FRAME["time"].astype(str)).to_json().encode(),
}


@pytest.fixture(scope="module")
def client(serve, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save_checkpoint(make_encoded(FRAME, COLUMNS), folder / "load.safetensors")
    save_checkpoint(make_encoded(MANY, OF_MANY), folder / "shops.safetensors")
    save_checkpoint(make_encoded(WIDE, OF_WIDE), folder / "wide.safetensors")
    save_checkpoint(make_model(), folder / "plain.safetensors")
    with serve(folder) as client:
        yield client


@pytest.fixture(scope="module")
def page(browser, client):
    page = browser.new_page()
    page.goto(f"{str(client.base_url).rstrip('/')}/explorer/#/model?model=plain")
    page.locator("main[aria-busy=false]").wait_for()
    yield page
    page.close()


def read(page, data, name="own.csv", model="load"):
    return page.evaluate(READ, [list(data), name, model])


def series_of(frame):
    return {
        name: frame[name].astype(str).tolist() if name == "time" else frame[name].tolist()
        for name in frame
        if name not in ("note", "load")
    } | {"load": frame["load"].tolist()}


def newest(client, frame, model="load", **more):
    body = {"series": series_of(frame), "gaps": "skip", "echo": True, **more}
    return client.post(f"/v1/models/{model}:predict", json=body).json()


@pytest.mark.parametrize("name", FILES)
def test_a_table_is_read_as_its_tool_meant_it(client, page, name):
    """The newest window has the bits of that which is forecast of the table itself, and the time as the file has it."""
    found, asked = read(page, FILES[name], name), newest(client, FRAME, last=1)
    assert found["row"]["instance"] == asked["instances"][0], found
    assert found["row"]["target"] == [FRAME["load"].iloc[-1]]
    unit, line = ("row", N - AHEAD) if name.endswith("json") else ("line", N - AHEAD + 1)
    assert found["row"]["label"] == f"{unit} {line} of {name.removesuffix('.gz')}"
    assert found["values"]["window"] == f"row:{found['values']['file']}:{line}"


def test_windows_across_a_missing_hour_are_none(client, page):
    """They are left out by the service, and an address of one says so."""
    found, asked = read(page, GAPPED.to_csv(index=False).encode()), newest(client, GAPPED)
    assert found["row"]["instance"] == asked["instances"][-1]
    name = found["values"]["file"]
    page.evaluate("(hash) => (location.hash = hash)", f"#/history?model=load&file={name}")
    expect(page.locator(".told")).to_contain_text(
        f"71 rows, {len(asked['times'])} windows; {asked['windows_omitted']} windows cross a gap"
    )
    lost = page.evaluate(ROW, [f"{name}:{GAP + 3}", "own.csv", "load"])
    assert lost.startswith("No whole window of own.csv ends there")
    page.evaluate("location.hash = '#/model?model=plain'")


def test_series_are_cut_apart(client, page):
    """Mixed rows of two shops give the windows of each."""
    found = read(page, MANY.to_csv(index=False).encode(), "shops.csv", "shops")
    asked = newest(client, MANY, "shops")
    assert found["row"]["series"] in ("a", "b")
    place = [number for number, one in enumerate(asked["series"]) if one == found["row"]["series"]][-1]
    assert found["row"]["instance"] == asked["instances"][place]
    assert found["row"]["label"].endswith(f", {found['row']['series']}")


def test_a_wide_table_has_the_windows_of_each_column(client, page):
    """A row is the newest of a window of each series, by whose name the address tells them apart."""
    found = read(page, WIDE.to_csv(index=False).encode(), "wide.csv", "wide")
    series = {"time": WIDE["time"].astype(str).tolist(), "a": WIDE["a"].tolist(), "b": WIDE["b"].tolist()}
    asked = client.post("/v1/models/wide:predict", json={"series": series, "last": 1, "echo": True}).json()
    assert found["row"]["instance"] == asked["instances"][asked["series"].index(found["row"]["series"])]
    assert found["values"]["window"].endswith(f":{N + 1}:{found['row']['series']}")


def with_cell(frame, row, name, text):
    changed = frame.astype({name: object})
    changed.loc[row, name] = text
    return changed.to_csv(index=False).encode()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (with_cell(FRAME, 15, "temp", "n/a!"), "Line 17, temp, is “n/a!”, which is no number."),
        (with_cell(FRAME, 15, "time", "noon"), "Line 17, time, "),
        (with_cell(FRAME, 15, "time", FRAME["time"][14]), "Line 17, time, must not repeat a time"),
        (
            FRAME.drop(columns="temp").to_csv(index=False).encode(),
            "own.csv has no column temp; it has time, note, sky, load.",
        ),
        (FRAME[:3].to_csv(index=False).encode(), "own.csv has no whole window: 7 rows in a row are needed."),
        (b'time,temp,sky,load\n2026-03-02,"1,calm,3\n', "Line 2 has a quote that is not closed, or text after one."),
        (b"time,temp,sky,load\n2026-03-02,1,calm,3,4\n", "Line 2 has 5 cells, but the header names 4 columns."),
        (b"time,temp,sky,load\n", "There is no row below the header."),
        (b" ", "There is nothing to read."),
        (bytes(range(256)), "own.csv is no text; tables (CSV) and JSON can be read."),
        (b"[[1, 2], [3]", "This is no JSON: "),
        (b'{"temp": 3}', "This JSON has neither windows nor columns: temp is no list."),
    ],
)
def test_what_cannot_be_read_is_one_sentence(page, data, problem):
    """It names the line and the column."""
    assert read(page, data)["problem"].startswith(problem)


def test_windows_come_as_json_or_as_rows(client, page):
    """One is packed into the address, several are a file of windows; a table of lookback rows is one."""
    rng = np.random.default_rng(2)
    windows = rng.normal(size=(3, 6, 4)).round(3).tolist()
    names = [f"f{number}" for number in range(4)]
    frame = pd.DataFrame(windows[0], columns=names)
    one = [
        read(page, data.encode(), model="plain")["values"]["window"]
        for data in (
            json.dumps(windows[0]),
            json.dumps({"instances": windows[:1]}),
            json.dumps({"columns": {name: [[row[place] for row in windows[0]]] for place, name in enumerate(names)}}),
            frame.to_csv(index=False, sep=";", decimal=","),
            frame.to_json(orient="records"),
        )
    ]
    assert one[0].startswith("z:") and len(set(one)) == 1
    several = read(page, json.dumps(windows).encode(), "own.json", "plain")
    assert several["row"]["instance"] == windows[2] and several["row"]["label"] == "window 3 of own.json"
    windows[1][3][2] = "x"
    assert (
        read(page, json.dumps(windows).encode(), model="plain")["problem"]
        == "Window 2, row 4, f2, is “x”, which is no number."
    )
    assert (
        read(page, json.dumps(windows[0][:5]).encode(), model="plain")["problem"]
        == "A window has 6 rows, oldest first, but here are 5."
    )


def test_a_long_file_is_cut_in_parts(client, page):
    """As the whole table: the same windows, to the bit the same forecasts, and what came."""
    n = 3900
    rng = np.random.default_rng(3)
    long = pd.DataFrame(
        {
            "time": [datetime(2026, 1, 1) + timedelta(hours=row) for row in range(n)],
            "temp": rng.normal(10, 4, n).round(2),
            "sky": rng.choice(["calm", "windy"], n),
            "load": rng.normal(1500, 300, n).round(1),
        }
    ).drop(index=[1495, 2990])
    long = long.reset_index(drop=True)
    found = page.evaluate(ALL, [long.to_csv(index=False), "long.csv", "load"])
    asked, cut = (
        newest(client, long),
        client.post("/v1/models/load:windows", json={"series": series_of(long), "gaps": "skip", "echo": False}).json(),
    )
    assert found["parts"] > 2 and found["rows"] == cut["ends"]
    assert found["times"] == asked["times"] and found["actual"] == cut["actual"]
    np.testing.assert_allclose(found["predictions"], asked["predictions"], rtol=1e-12)
