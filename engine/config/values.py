"""What a setting may be: numbers with limits, and the base of every section."""

from typing import Annotated, Any, Literal

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


def aliases(**names: str) -> BeforeValidator:
    """Other names of values, by the names without hyphens."""
    return BeforeValidator(lambda value: names.get(str(value).replace("-", "_"), value))


Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    aliases(fp32="float32", bf16="bfloat16", fp16="float16"),
]
KvDtype = Annotated[
    Literal["auto", "fp32", "bf16", "fp16", "int8", "fp8"],
    aliases(float32="fp32", bfloat16="bf16", float16="fp16"),
]
