"""The report on a dataset: what in it is likely to harm a training."""

from collections.abc import Callable

from fastapi import APIRouter

from app.datasets.parts import fingerprints_of, index_of, manifest_of
from app.datasets.route import VersionQuery, find_version
from app.datasets.schema import image_answer
from app.http import problems
from app.http.root_path import link
from app.services import ServicesDep
from client.answers import DatasetReport, DuplicateGroup, Finding, ImageAnswer
from models.images.findings import Report, find
from models.images.labels import UNSORTED

router = APIRouter(prefix="/datasets", tags=["datasets"])

MAX_IMAGES = 100  # listed of a finding
MAX_GROUPS, MAX_OF_GROUP = 50, 20


@router.get(
    "/{name}/report",
    summary="Find duplicates, images of one colour, blurred, tiny and odd ones, and small classes",
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def get_dataset_report(
    name: str, services: ServicesDep, version: VersionQuery = None
) -> DatasetReport:
    """Look at all images by their fingerprints, which were taken when they were uploaded: about a
    second for 50,000. Duplicates across splits come first, since a model is measured on what it
    learned.
    """
    found = find_version(services, name, version)
    manifest = manifest_of(services, found)
    classes = () if manifest.class_names == (UNSORTED,) else manifest.classes
    splits = [manifest.split_of(i) for i in range(len(manifest))]
    report = find(fingerprints_of(services, found), classes, splits)
    indexes = [index_of(services, part) for part in found.parts]

    def image_at(position: int) -> ImageAnswer:
        return image_answer(name, manifest, position, indexes[manifest.part[position]])

    return report_answer(found.dataset, found.number, report, image_at)


def report_answer(
    name: str, version: int, report: Report, image_at: Callable[[int], ImageAnswer]
) -> DatasetReport:
    """Describe the report on a version of a dataset; `image_at` describes the image at a position.
    Of each finding the first images and groups are listed."""
    findings = [
        Finding(
            kind=finding.kind,
            sentence=finding.sentence,
            num_images=len(finding.images),
            images=[image_at(position) for position in finding.images[:MAX_IMAGES].tolist()],
            num_groups=finding.num_groups,
            groups=[
                DuplicateGroup(
                    images=[image_at(position).id for position in group.images],
                    num_images=group.num_images,
                    across_splits=group.across_splits,
                    across_classes=group.across_classes,
                )
                for group in finding.groups(MAX_GROUPS, MAX_OF_GROUP)
            ],
        )
        for finding in report.findings
    ]
    address, query = link(f"/datasets/{name}"), f"?version={version}"
    return DatasetReport(
        dataset=name,
        version=version,
        num_images=report.num_images,
        findings=findings,
        complete=report.complete,
        links={"self": f"{address}/report{query}", "dataset": f"{address}{query}"},
    )
