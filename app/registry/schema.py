"""Models as callers see them; client.answers has the fields."""

from client.answers import ModelAnswer
from store.models import ModelRecord


def model_answer(record: ModelRecord) -> ModelAnswer:
    address = f"/models/{record.name}"
    plain = {name: getattr(record, name) for name in ModelAnswer.model_fields if name != "links"}
    links = {"self": address, "download": f"{address}/download"}
    return ModelAnswer.model_validate({**plain, "links": links})
