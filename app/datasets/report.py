"""A dataset's report as callers see it: the first images of each finding, by their ids."""

from collections.abc import Callable

from client.answers import DatasetReport, DuplicateGroup, Finding
from models.images.findings import Report

MAX_IMAGES = 100  # listed of a finding
MAX_GROUPS, MAX_OF_GROUP = 50, 20


def report_answer(
    name: str, version: int, report: Report, id_of: Callable[[int], str]
) -> DatasetReport:
    """Describe the report on a version of a dataset; `id_of` names the image at a position."""
    findings = [
        Finding(
            kind=finding.kind,
            sentence=finding.sentence,
            num_images=len(finding.images),
            images=[id_of(position) for position in finding.images[:MAX_IMAGES].tolist()],
            num_groups=finding.num_groups,
            groups=[
                DuplicateGroup(
                    images=[id_of(position) for position in group.images],
                    num_images=group.num_images,
                    across_splits=group.across_splits,
                    across_classes=group.across_classes,
                )
                for group in finding.groups(MAX_GROUPS, MAX_OF_GROUP)
            ],
        )
        for finding in report.findings
    ]
    address, query = f"/datasets/{name}", f"?version={version}"
    return DatasetReport(
        dataset=name,
        version=version,
        num_images=report.num_images,
        findings=findings,
        complete=report.complete,
        links={"self": f"{address}/report{query}", "dataset": f"{address}{query}"},
    )
