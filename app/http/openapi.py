"""The OpenAPI document, with the problems that every route can answer with."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.http.idempotency import PARAMETER, is_maker
from app.http.problems import ANY_PROBLEM, FieldError, Problem


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
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _add_problem_responses(operation["responses"])
                if method == "post" and is_maker(path):
                    operation.setdefault("parameters", []).append(PARAMETER)
        app.openapi_schema = document
    return app.openapi_schema


def _add_problem_schemas(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    template = "#/components/schemas/{model}"
    schemas["FieldError"] = FieldError.model_json_schema(ref_template=template)
    schemas["Problem"] = Problem.model_json_schema(ref_template=template)
    schemas["Problem"].pop("$defs", None)  # FieldError, which is among the components


def _add_problem_responses(responses: dict[str, Any]) -> None:
    responses["default"] = ANY_PROBLEM
    if "application/json" in responses.get("422", {}).get("content", {}):
        responses["422"] = ANY_PROBLEM  # FastAPI's own answer, which the handlers replace
