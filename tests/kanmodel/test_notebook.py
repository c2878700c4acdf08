"""The notebooks in tests/examples run, and are complete when saved, exported or not trusted."""

from __future__ import annotations

import os
import re
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from browsers import CHROMIUM, MISSING
from PIL import Image
from playwright.sync_api import sync_playwright
from thorough import few_of

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "tests/examples"
DISPLAYS = {
    "why": (11, 4),
    "year": (7, 6),
    "shops": (7, 6),
}  # of the library's results in each, and how many have a picture
KERNEL = "runs the notebooks, which train models in kernels of their own"


@pytest.fixture(scope="module", params=DISPLAYS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def committed(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def executed(name, tmp_path_factory):
    """A notebook, executed in its folder; files that it writes go elsewhere."""
    from nbclient import NotebookClient  # imported here, as other workers do not need it

    folder = tmp_path_factory.mktemp("kernel")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        patch.setenv("IPYTHONDIR", str(folder))
        notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXAMPLES)}})
        return client.execute()


def outputs_of(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def pieces_of(notebook):
    """The HTML of the library's own displays."""
    found = [output["data"]["text/html"] for output in outputs_of(notebook) if "text/html" in output.get("data", {})]
    return [html for html in found if "kanscope-result" in html]


def forms_of(notebook):
    """The kinds of output of each cell."""
    return [
        [sorted(output.get("data", {"stream": ""})) for output in cell.get("outputs", ())] for cell in notebook.cells
    ]


@pytest.mark.thorough(KERNEL)
@pytest.mark.parametrize("name", ["year"], indirect=True)
def test_the_service_forecasts_the_week_of_the_notebook(executed):
    """The notebook of a year runs, and a series over HTTP has the forecasts that were explained in it."""
    assert all(output.output_type != "error" for output in outputs_of(executed))
    *_, said = (output["data"]["text/plain"] for output in outputs_of(executed) if "data" in output)
    served, explained = re.findall(r"\[(.*?)\]", said, re.DOTALL)
    numbers = [[float(number) for number in re.findall(r"\d+\.\d+", text)] for text in (served, explained)]
    assert len(numbers[0]) == 3 and numbers[0] == pytest.approx(numbers[1], rel=1e-6)


@pytest.mark.thorough(KERNEL)
@pytest.mark.parametrize("name", ["why"], indirect=True)
def test_the_notebook_runs(executed):
    """Every cell runs; the forecaster beats persistence, and the service's explanation equals the notebook's."""
    outputs = outputs_of(executed)
    assert all(output.output_type != "error" for output in outputs)
    text = {number: cell.outputs[-1] for number, cell in enumerate(executed.cells) if cell.get("outputs")}
    (r2,) = re.findall(r"R2 on the test weeks: (\S+)", "".join(output.get("text", "") for output in outputs))
    assert float(r2) > 0.6
    *_, explained, served = (output["data"]["text/plain"] for output in text.values() if "data" in output)
    (said,) = re.findall(r"prediction +(\S+)", explained)
    assert float(re.match(r"\((\S+),", served)[1]) == pytest.approx(float(said), rel=1e-3)
    of_service = {name: float(value) for name, value in re.findall(r"\('(\w+)', (\S+?)\)", served)}
    (hour,) = re.findall(r"^hour +(\S+)$", explained, re.MULTILINE)  # a sine and a cosine
    assert of_service["hour_sin"] + of_service["hour_cos"] == pytest.approx(float(hour), rel=1e-2)


@pytest.mark.thorough(KERNEL)
def test_the_committed_notebook_is_current(name, executed, committed):
    """The committed notebook has the outputs of a run, and is small."""
    path = EXAMPLES / f"{name}.ipynb"
    assert [cell.source for cell in executed.cells] == [cell.source for cell in committed.cells]
    assert forms_of(executed) == forms_of(committed)
    assert path.stat().st_size < 1e6 and not re.search("/home/|/root/|/tmp/|/work/", path.read_text())


@pytest.mark.parametrize("notebook", few_of(["committed", "executed"], ["committed"], KERNEL))
def test_displays_run_nothing_and_load_nothing(notebook, name, request):
    """No display has a script, an event handler or a URL, and each question has a display with its result."""
    pieces = pieces_of(request.getfixturevalue(notebook))
    assert (len(pieces), sum("<img" in piece for piece in pieces)) == DISPLAYS[name]
    for piece in pieces:
        bare = re.sub(r'src="data:image/svg\+xml;base64,[^"]+"', "", piece)
        assert not re.search(r"<script|<link|<iframe|<svg|\son\w+=|url\(|@import|href|src=", bare)


@pytest.mark.thorough("exports the notebook and draws it twice")
@pytest.mark.skipif(not CHROMIUM.exists(), reason=MISSING)
@pytest.mark.parametrize("name", ["why"], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_export_shows_all_without_scripts(committed, tmp_path, scheme):
    """Exported by nbconvert and opened without JavaScript and network, it has all pictures and results."""
    from nbconvert import HTMLExporter  # imported here, as other workers do not need it

    exporter = HTMLExporter(theme=scheme)
    exporter.exclude_input_prompt = True
    (tmp_path / "why.html").write_text(exporter.from_notebook_node(committed)[0], encoding="utf-8")
    asked: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_context(java_script_enabled=False, color_scheme=scheme).new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.route(re.compile("^https?:"), lambda route: route.abort())
        page.goto((tmp_path / "why.html").as_uri())
        images = page.locator(".kanscope-figure > img")
        assert images.count() == 4
        for image in images.all():
            box = image.bounding_box()
            assert box["width"] > 500 and box["height"] > 300
            with Image.open(BytesIO(image.screenshot())) as drawn:
                assert len(drawn.convert("RGB").getcolors(1 << 20)) > 50, "blank"
        text = page.inner_text("body")
        browser.close()
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    for said in ("Has the network pruned itself?", "Of the", "converged", "What does a lighter edge mean?"):
        assert said in text
