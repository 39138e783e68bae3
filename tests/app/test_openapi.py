"""The service does what its OpenAPI description says, whatever is sent to it."""

from dataclasses import fields
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from app.settings import Settings
from models.pipeline.card import ModelCard
from models.training.config import TrainConfig
from store.jobs.progress import TrainProgress

SCHEMA = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_every_answer_is_one_that_was_described(operation: APIOperation, base_url: str) -> None:
    @settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def answers_as_described(case: Case) -> None:
        answer = case.call(base_url=base_url, timeout=30)
        case.validate_response(
            answer,
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_schema_conformance,
            ],
        )

    answers_as_described()


def operations(client: httpx.Client) -> dict[str, dict[str, Any]]:
    paths = client.get("/openapi.json").json()["paths"]
    return {
        f"{method} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


def test_operation_ids_are_short_and_each_is_there_once(client: httpx.Client) -> None:
    ids = [operation["operationId"] for operation in operations(client).values()]
    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) <= 30
    assert {"sample", "create_train_job", "download_model", "get_train_job_events"} <= set(ids)


def test_every_answer_has_a_schema_and_json_is_the_first(client: httpx.Client) -> None:
    for name, operation in operations(client).items():
        for status, answer in operation["responses"].items():
            content = answer.get("content", {})
            for media_type, described in content.items():
                assert described.get("schema"), (name, status, media_type)
                if media_type.startswith("image/p") or media_type == "application/zip":
                    assert described["schema"] == {"type": "string", "format": "binary"}
            if "application/json" in content:
                assert next(iter(content)) == "application/json", name


def test_configs_and_facts_in_answers_have_their_fields(client: httpx.Client) -> None:
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    for answer, field, kind in (
        ("JobAnswer", "config", TrainConfig),
        ("TrainPlan", "config", TrainConfig),
        ("JobAnswer", "progress", TrainProgress),
        ("ModelAnswer", "details", ModelCard),
    ):
        reference = schemas[answer]["properties"][field]["$ref"]
        described = schemas[reference.rsplit("/", 1)[1]]
        assert list(described["properties"]) == [each.name for each in fields(kind)]
    assert schemas["TrainConfig"]["properties"]["channels"]["description"] == (
        "1 for greyscale, 3 for RGB"
    )
    assert "clip" in schemas["SamplingConfig"]["properties"]


def test_every_operation_has_a_summary_a_tag_and_its_problems(client: httpx.Client) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["tags"], (method, path)
            default = operation["responses"]["default"]["content"]
            assert "application/problem+json" in default, (method, path)
