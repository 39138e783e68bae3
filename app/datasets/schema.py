"""The answer that describes a dataset; its fields are in client.answers."""

from client.answers import DatasetAnswer
from models.images.labels import LabelRule
from store.datasets import DatasetRecord


def dataset_answer(record: DatasetRecord) -> DatasetAnswer:
    address = f"/datasets/{record.name}"
    made = ("labels", "links")
    plain = {name: getattr(record, name) for name in DatasetAnswer.model_fields if name not in made}
    labels = LabelRule(**(record.labels or {})).choice
    links = {"self": address, "preview": f"{address}/preview"}
    return DatasetAnswer.model_validate({**plain, "labels": labels, "links": links})
