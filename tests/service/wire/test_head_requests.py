from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    "path", ["/healthz", "/v1/models", "/v1/models/two", "/v1/models/two/report?output=a%2B1", "/docs"]
)
def test_head_is_get_without_the_body(each_service, path):
    """HEAD returns the status and the headers of GET, without a body."""
    head, get = each_service.client.head(path), each_service.get(path)
    own = {"date", "x-request-id"}
    assert head.status_code == get.status_code == 200
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in get.headers.items() if name not in own
    }
    assert head.content == b""


def test_head_is_refused_as_get_is(service):
    """HEAD has the status of GET for unknown paths and unsupported methods."""
    assert service.client.head("/v1/models/none").status_code == 404
    refused = service.client.head("/v1/models/two:predict")
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
