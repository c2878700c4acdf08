"""What the models of requests have in common: nothing unknown passes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from service.http.errors import problem_of, unusable_values


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


class OutputQuery(Closed):
    """Which output is meant."""

    output: Annotated[str | None, Field(description="Name of an output; may be left out where the model has one.")] = (
        None
    )


Request = TypeVar("Request", bound=Closed)


def validate_request(cls: type[Request], document: Mapping[str, Any], unread: Collection[str]) -> Request:
    """The small members of a request, and a refusal of unknown ones.

    Args:
        cls: the model of the request.
        document: the parsed body.
        unread: members that are read elsewhere, at numpy's pace, and stay at their defaults here.

    Raises:
        DataError: a member is unknown, or another value than it must be.
    """
    small = {name: value for name, value in document.items() if name not in unread}
    try:
        return cls.model_validate(small)
    except ValidationError as error:
        raise unusable_values([problem_of(details) for details in error.errors()]) from None


def describe_body(cls: type[Closed], others: Mapping[str, Any] | None = None, required: bool = True) -> dict[str, Any]:
    """The OpenAPI description of a body that the handler reads itself; see `service.document.__main__`.

    Args:
        cls: the model of its JSON.
        others: descriptions of what it may be instead, by media type.
        required: whether there must be one.
    """
    schema = {"$ref": f"#/components/schemas/{cls.__name__}"}
    return {
        "requestBody": {"required": required, "content": {"application/json": {"schema": schema}, **(others or {})}}
    }
