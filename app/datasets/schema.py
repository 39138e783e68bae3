"""Datasets, their versions and their images as callers see them, and the body of an edit; the
fields of the answers are in client.answers."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from app.http.body import JsonBody
from app.http.root_path import link
from client.answers import DatasetAnswer, ImageAnswer, VersionAnswer
from models.images.index import Index
from models.images.labels import MAX_CLASS_NAME, UNSORTED, LabelRule
from models.images.versions import Changes, Manifest
from store.access.owners import Visibility
from store.datasets import DatasetRecord, DatasetVersion

MAX_EDITED = 100_000  # images in one list of an edit
MAX_RENAMED = 1000  # classes

ImageId = Annotated[str, StringConstraints(max_length=32)]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_CLASS_NAME)]


class DatasetChange(JsonBody):
    """Images are removed first, then moved; then classes are renamed."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "parent": 1,
                    "remove": ["3f0c9d1be274-17"],
                    "move": {"cat": ["3f0c9d1be274-2", "3f0c9d1be274-5"]},
                    "rename": {"dgo": "dog"},
                }
            ]
        }
    )

    parent: int | None = Field(
        default=None,
        ge=1,
        description="the version that the edit is of; 409 if it is no longer the newest. Where "
        "left out the newest, whichever that is",
    )
    remove: list[ImageId] = Field(
        default=[], max_length=MAX_EDITED, description="ids of images; their files stay"
    )
    move: dict[ClassName, Annotated[list[ImageId], Field(max_length=MAX_EDITED)]] = Field(
        default={}, max_length=MAX_RENAMED, description="ids of images by the class they come to"
    )
    rename: dict[ClassName, ClassName] = Field(
        default={},
        max_length=MAX_RENAMED,
        description="new names of classes. Where there is a class of that name, both become one",
    )

    def changes(self) -> Changes:
        return Changes(self.remove, self.move, self.rename)


class VisibilityChange(JsonBody):
    visibility: Visibility = Field(
        description="`shared`: every key sees the dataset and may train on it"
    )


def dataset_answer(record: DatasetRecord, version: DatasetVersion | None = None) -> DatasetAnswer:
    """Describe a dataset, or one version of it."""
    contents: DatasetRecord | DatasetVersion = version or record
    number = version.number if version else record.version
    address = link(f"/datasets/{record.name}")
    query = f"?version={number}" if version else ""
    links = {
        "self": f"{address}{query}",
        "preview": f"{address}/preview{query}",
        "images": f"{address}/images{query}",
        "versions": f"{address}/versions",
        "report": f"{address}/report{query}",
    }
    made: dict[str, object] = {
        "name": record.name,
        "version": number,
        "labels": LabelRule(**(contents.labels or {})).choice,
        "owner": record.made_by,
        "visibility": record.visibility,
        "damage": record.damage,  # found of all versions together
        "links": links,
    }
    plain = {f: getattr(contents, f) for f in DatasetAnswer.model_fields if f not in made}
    return DatasetAnswer.model_validate({**plain, **made})


def version_answer(version: DatasetVersion) -> VersionAnswer:
    address, query = link(f"/datasets/{version.dataset}"), f"?version={version.number}"
    plain = {f: getattr(version, f) for f in VersionAnswer.model_fields if f != "links"}
    links = {"dataset": f"{address}{query}", "images": f"{address}/images{query}"}
    return VersionAnswer.model_validate({**plain, "links": links})


def image_answer(name: str, manifest: Manifest, position: int, index: Index) -> ImageAnswer:
    """Describe one image of a version; `index` is that of its part."""
    image, row = manifest.id_of(position), int(manifest.row[position])
    class_name = manifest.class_names[manifest.label[position]]
    address = link(f"/datasets/{name}/images/{image}")
    height, width, _ = index.shapes[row].tolist()
    return ImageAnswer(
        id=image,
        name=index.names[row],
        frame=index.frames[row],
        class_name=None if manifest.class_names == (UNSORTED,) else class_name,
        split=manifest.split_of(position),
        height=height,
        width=width,
        sha256=index.sha256[row],
        links={"thumbnail": f"{address}/thumbnail", "file": f"{address}/file"},
    )
