"""The OpenAPI document, with the problems that every route can answer with, and with the fields of
the configs that answers hold."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import DataclassSchema

from app.access.rate_limit import HEADERS
from app.access.scopes import is_free
from app.http.idempotency import PARAMETER, is_maker
from app.http.problems import (
    ANY_PROBLEM,
    QUOTA_EXCEEDED,
    RATE_LIMITED,
    FieldError,
    Problem,
    declare,
)
from models.evaluation.config import EvaluationConfig
from models.fields import declared
from models.pipeline.card import ModelCard
from models.training.config import TrainConfig
from store.jobs.progress import TrainProgress

# Objects of answers whose fields are declared by a dataclass, which client.answers does not know.
_OBJECTS: dict[tuple[str, str], Any] = {
    ("JobAnswer", "config"): TrainConfig,
    ("TrainPlan", "config"): TrainConfig,
    ("JobAnswer", "progress"): TrainProgress,
    ("EvaluationAnswer", "config"): EvaluationConfig,
    ("ModelAnswer", "details"): ModelCard,
    ("UploadedModel", "details"): ModelCard,
}
_SCHEMAS = "#/components/schemas/{model}"
_RETRY_AFTER = {
    "description": "Seconds until waiting has helped; absent where it does not.",
    "schema": {"type": "integer", "minimum": 1},
}


def openapi_document(app: FastAPI, root_path: str) -> dict[str, Any]:
    """Return the document, generated on the first call, of the service below `root_path`.

    FastAPI knows nothing of Problem: its schema is added to the components, and it becomes the
    default response of every operation.
    """
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
            servers=[{"url": root_path}] if root_path else None,
        )
        _add_problem_schemas(document)
        _add_object_schemas(document["components"]["schemas"])
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _add_problem_responses(operation["responses"])
                if not is_free(path):
                    _add_rate_limits(operation["responses"])
                if method == "post" and is_maker(path):
                    operation.setdefault("parameters", []).append(PARAMETER)
        app.openapi_schema = document
    return app.openapi_schema


def _add_problem_schemas(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["FieldError"] = FieldError.model_json_schema(ref_template=_SCHEMAS)
    schemas["Problem"] = Problem.model_json_schema(ref_template=_SCHEMAS)
    schemas["Problem"].pop("$defs", None)  # FieldError, which is among the components
    document["components"]["headers"] = {**HEADERS, "Retry-After": _RETRY_AFTER}


def _add_object_schemas(schemas: dict[str, Any]) -> None:
    """Describe the objects by their dataclasses. A field without a default is always there: whoever
    reads a record needs it, too. Records of other versions may have further fields."""
    found, components = TypeAdapter.json_schemas(
        [(kind, "serialization", TypeAdapter(kind)) for kind in dict.fromkeys(_OBJECTS.values())],
        ref_template=_SCHEMAS,
        schema_generator=_Described,
    )
    schemas.update(components["$defs"])
    for (answer, field), kind in _OBJECTS.items():
        described = schemas[answer]["properties"][field]
        described |= found[kind, "serialization"]
        for keyword in ("type", "additionalProperties"):  # the reference has them
            described.pop(keyword, None)


class _Described(GenerateJsonSchema):
    """Schemas of dataclasses, with the sentences of their fields and without defaults, which are
    those of requests."""

    def dataclass_schema(self, schema: DataclassSchema) -> dict[str, Any]:
        described = super().dataclass_schema(schema)
        kind: type = schema["cls"]
        for field in declared(kind).values():
            found = described["properties"][field.name]
            found.pop("default", None)
            if field.sentence:
                found["description"] = field.sentence
        return described


def _add_problem_responses(responses: dict[str, Any]) -> None:
    responses["default"] = ANY_PROBLEM
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses["422"] = ANY_PROBLEM  # FastAPI's own answer, which the handlers replace


def _add_rate_limits(responses: dict[str, Any]) -> None:
    refused: dict[str, Any] = declare(RATE_LIMITED)[429]
    refused["description"] += f" Or {QUOTA_EXCEEDED.title}: {QUOTA_EXCEEDED.meaning}"
    responses["429"] = refused
    for status, response in responses.items():
        names = [*HEADERS, "Retry-After"] if status == "429" else list(HEADERS)
        if status.startswith("2") or status == "429":
            refs = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
            response["headers"] = {**response.get("headers", {}), **refs}
