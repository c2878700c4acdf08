from __future__ import annotations

import re

import pytest
from figures import unfounded

MARKDOWN = {"Accept": "text/markdown"}
PLACES = [("nyc-weather", "dtemp_6h+1"), ("two", "a+1"), ("two", "b+2"), ("front", "y+1"), ("head", "y+1")]


def test_the_check_finds_invented_numbers():
    """Invented and wrongly rounded numbers are found; names and percentages are understood."""
    evidence = {"share": 0.1234, "edges": [65, {"r2": 0.9934}]}
    assert unfounded("`lstm:9` has 12.3 % of 65 edges, R2 0.993", evidence) == []
    assert unfounded("12.4 % of 66, 0.994, 12.3", evidence) == ["12.4 %", "66", "0.994", "12.3"]


@pytest.mark.parametrize(("name", "output"), PLACES)
def test_the_prose_has_no_number_that_the_evidence_lacks(service, name, output):
    """Markdown has the questions and answers, and each number is in the evidence of its finding."""
    query = {"output": output}
    prose = service.get(f"/v1/models/{name}/report", params=query, headers=MARKDOWN)
    assert prose.headers["content-type"] == "text/markdown; charset=utf-8"
    title, *sections = prose.text.split("\n## ")
    assert f"`{output}`" in title
    about = f", checkpoint {service.models[name].sha256[:12]}, unit K."
    assert title.split("\n")[2].endswith(about) and title.startswith("# How the model forecasts")
    findings = service.get(f"/v1/models/{name}/report", params=query).json()["findings"]
    for section, finding in zip(sections, findings, strict=True):
        assert section.strip() == f"{finding['question']}\n\n{finding['answer']}"
        assert unfounded(section, finding["evidence"]) == [], finding["id"]
        assert re.search(r"\d", finding["answer"]) or finding["id"] in ("skill", "depth")


def test_answers_the_questions_in_order(service):
    """The ids are those of the API page, and the report names its model."""
    answer = service.get("/v1/models/nyc-weather/report").json()
    assert (answer["model_name"], answer["output"]) == ("nyc-weather", "dtemp_6h+1")
    assert answer["checkpoint"] == f"sha256:{service.models['nyc-weather'].sha256}"
    ids = [finding["id"] for finding in answer["findings"]]
    assert ids[:6] == ["skill", "forecast", "accuracy", "drivers", "response", "limits"]
    assert ids[6:] == ["sparsity", "features", "independence", "opacity", "depth", "shapes", "trust"]
