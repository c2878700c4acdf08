"""What the models of requests and queries have in common: nothing unknown passes."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Closed(BaseModel):
    """A request, or the query of one, whose unknown names are refused with those that exist."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, data: Any) -> Any:
        known = [field.alias or name for name, field in cls.model_fields.items()]
        for name in data if isinstance(data, dict) else ():
            if name not in known:
                names = ", ".join(known)
                raise PydanticCustomError(
                    "unknown_name", "is unknown; there are {names}", {"name": name, "names": names}
                )
        return data


VERSION = "Version of the model, such as `1`; absent, the highest that is ready answers."


class VersionQuery(Closed):
    """Which version is meant."""

    version: Annotated[str | None, Field(description=VERSION)] = None


class OutputQuery(VersionQuery):
    """Which output is meant."""

    output: Annotated[str | None, Field(description="Name of an output; may be left out where the model has one.")] = (
        None
    )
