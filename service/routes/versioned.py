"""A router whose operations on a model can also name one of its versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends

from service.document.operations import OF_VERSION
from service.routes.dependencies import OF_A_MODEL, describe_version


class VersionedRouter(APIRouter):
    """Has each operation on a model twice: on the highest version, and on the version that the path names."""

    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        """Adds an operation; one on a model a second time, with `OF_VERSION` at the end of its id."""
        super().add_api_route(path, endpoint, **options)
        root, of_a_model, operation = path.partition(OF_A_MODEL)
        if of_a_model:
            options["operation_id"] += OF_VERSION
            options["name"] = options["operation_id"]
            options["dependencies"] = [Depends(describe_version), *(options.get("dependencies") or ())]
            super().add_api_route(root + OF_A_MODEL + "/versions/{version:name}" + operation, endpoint, **options)
