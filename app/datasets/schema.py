"""The answer that describes a dataset; its fields are in client.answers."""

from client.answers import DatasetAnswer
from store.datasets import DatasetRecord


def dataset_answer(record: DatasetRecord) -> DatasetAnswer:
    address = f"/datasets/{record.name}"
    plain = {name: getattr(record, name) for name in DatasetAnswer.model_fields if name != "links"}
    links = {"self": address, "preview": f"{address}/preview"}
    return DatasetAnswer.model_validate({**plain, "links": links})
