"""Models as callers see them; client.answers has the fields."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.http.body import JsonBody
from app.http.root_path import link
from client.answers import ModelAnswer, ModelOrigin, NetworkSize
from models.evaluation.int8 import int8_refusal
from models.fields import Invalid
from models.nets.precision import Precision
from models.pipeline.card import ModelCard
from models.pipeline.readme import MAX_LICENSE, checked_license
from store.access.owners import Visibility
from store.models import ModelRecord

FLOAT32_BYTES = 4


def _checked(text: str) -> str:
    try:
        return checked_license(text)
    except Invalid as error:
        raise PydanticCustomError("license", error.rule) from None


License = Annotated[
    str,
    AfterValidator(_checked),
    WithJsonSchema(
        {"type": "string", "minLength": 1, "maxLength": MAX_LICENSE, "examples": ["Apache-2.0"]}
    ),
]


class ModelChange(JsonBody):
    """What is left out stays."""

    license: License | None = Field(
        default=None, description="of the weights, an SPDX id or other text; null for unknown"
    )
    visibility: Visibility = Field(
        default="private", description="`shared`: every key sees the model and may use it"
    )


def model_answer(
    record: ModelRecord, precisions: Mapping[str, Precision] | None = None
) -> ModelAnswer:
    """Describe a model; `precisions` are those of the service's device."""
    address, card = link(f"/models/{record.name}"), ModelCard.from_dict(record.details)
    count = card.num_parameters
    found, refusal = None if precisions is None else dict(precisions), None
    if found is not None and "int8" in found:
        refusal = int8_refusal(record.details.get("scores", {}))
        if refusal is not None:
            del found["int8"]
    return ModelAnswer(
        name=record.name,
        digest=record.digest,
        num_bytes=record.num_bytes,
        license=record.license,
        owner=record.made_by,
        visibility=record.visibility,
        origin=ModelOrigin(
            kind=_kind(record, card), base_model=card.base_model, base_digest=card.base_digest
        ),
        network=NetworkSize(
            num_parameters=count,
            float32_bytes=None if count is None else FLOAT32_BYTES * count,
            flops=card.flops,
        ),
        precisions=found,
        int8_refusal=refusal,
        details=record.details,
        dataset=record.dataset,
        dataset_version=record.dataset_version,
        dataset_digest=record.dataset_digest,
        job_id=record.job_id,
        damage=record.damage,
        created_at=record.created_at,
        links={"self": address, "download": f"{address}/download"},
    )


def _kind(
    record: ModelRecord, card: ModelCard
) -> Literal["trained", "fine_tuned", "distilled", "uploaded"]:
    if record.job_id is None:
        return "uploaded"
    if card.consistency:
        return "distilled"
    return "fine_tuned" if card.base_model else "trained"
