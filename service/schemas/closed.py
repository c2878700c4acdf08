"""Base classes of requests and queries, which refuse unknown names."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Closed(BaseModel):
    """A request or query that refuses unknown names and lists the known ones."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in data if isinstance(data, dict) else ():
            if name not in known:
                names = ", ".join(known)
                raise PydanticCustomError(
                    "unknown_name", "is unknown; expected one of {names}", {"name": name, "names": names}
                )
        return data


VERSION = "Version of the model, such as `1`; absent: the highest that is ready."


class VersionQuery(Closed):
    """Selects a version."""

    version: Annotated[str | None, Field(description=VERSION)] = None


class OutputQuery(VersionQuery):
    """Selects an output."""

    output: Annotated[str | None, Field(description="Name of an output; optional if the model has one.")] = None
