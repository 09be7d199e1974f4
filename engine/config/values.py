"""What a setting may be: numbers with limits, and the base of every section."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("a number is needed")
    return value


Count = Annotated[int, BeforeValidator(_no_bool), Field(ge=1)]
CountOrZero = Annotated[int, BeforeValidator(_no_bool), Field(ge=0)]
Positive = Annotated[float, BeforeValidator(_no_bool), Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, BeforeValidator(_no_bool), Field(ge=0, le=1)]


class Settings(BaseModel):
    """A section: unknown keys are refused, and nothing changes once it is made."""

    # protected_namespaces: a config may well have a field named `model`
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
