"""Booleans are no numbers, in any JSON body."""

from collections.abc import Iterator

import pytest

from app.main import create_app
from app.sample.schema import SampleBody
from app.settings import Settings

DOCUMENT = create_app(Settings()).openapi()
JSON = "application/json"


def bodies() -> Iterator[tuple[str, str, dict]]:
    """Yield the method, the path and the schema of each JSON body of the document."""
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            if schema := operation.get("requestBody", {}).get("content", {}).get(JSON):
                ids = {"name": "any", "picture_id": "any", "job_id": "any"}
                yield method, path.format(**ids), schema["schema"]


def with_true_for_a_number(schema: dict) -> Iterator[object]:
    """Yield a value for each number of the schema, with true in its place."""
    if reference := schema.get("$ref"):
        schema = DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[1]]
    if schema.get("type") in ("integer", "number"):
        yield True
    for branch in schema.get("anyOf", []):
        yield from with_true_for_a_number(branch)
    for name, property_ in schema.get("properties", {}).items():
        yield from ({name: value} for value in with_true_for_a_number(property_))
    items = schema.get("prefixItems", [schema["items"]] if "items" in schema else [])
    for i, item in enumerate(items):
        yield from ([1] * i + [value] for value in with_true_for_a_number(item))


def pointer(value: object) -> str:
    if not isinstance(value, dict):
        return ""
    ((name, inner),) = value.items()
    return f"/{name}{pointer(inner)}"


CASES = [
    (method, path, value)
    for method, path, schema in bodies()
    for value in with_true_for_a_number(schema)
]


def test_the_cases_have_numbers_of_every_depth():
    values = [value for _, _, value in CASES]
    for expected in (
        {"seed": True},
        {"class_label": True},
        {"class_label": [True]},
        {"guidance_interval": [1, True]},
        {"disturb": {"strength": True}},
        {"net": {"block_out_channels": [True]}},
    ):
        assert expected in values
    assert {path for _, path, _ in CASES} == {
        "/audit/search",
        "/datasets/any/versions",
        "/evaluations",
        "/sample",
        "/sample/again",
        "/sample/grid",
        "/train-jobs",
        "/train-jobs/plan",
    }


@pytest.mark.parametrize(("method", "path", "value"), CASES, ids=str)
def test_true_is_refused_for_a_number_by_the_name_of_its_field(client, method, path, value):
    answer = client.request(method, path, json=value)
    assert answer.status_code == 422
    found = {error["pointer"]: error["detail"] for error in answer.json()["errors"]}
    assert found[pointer(value)].endswith("; it must not be true or false")


def test_a_boolean_may_be_true():
    assert SampleBody(model="any", invert=True, seed=1).invert
