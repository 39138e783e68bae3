"""`python -m store.upkeep.verify` (`diffusion verify`): compare what is stored with its records.

Models, archives of datasets with their indexes and fingerprints, manifests, checkpoints and the
pictures of the gallery have a sha256 in their records. Pictures and zips of jobs have none; their
own checksums are looked at. Logs and metrics have neither. What is damaged is printed and marked in
its record, and a mark is taken away where all is well again. Reads the environment as the service
does, beside which it may run. Exits with 1 if something is damaged.
"""

import argparse
import io
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from PIL import Image

from host.environment import read_settings
from store.artifacts import ArtifactStore
from store.database import Database, Record, open_database
from store.datasets import DatasetRecord, DatasetVersion, Part
from store.errors import ArtifactDamaged, ArtifactNotFound
from store.integrity import mark_damage, read_manifest
from store.jobs.checkpoints import Checkpoint
from store.locations import Locations
from store.model_files import fetch_model
from store.models import ModelRecord
from store.pictures import FOLDER, Picture

Row = TypeVar("Row", bound=Record)


@dataclass
class Verifier:
    """Findings are yielded as they are made; `counts` has how many files were found well, by what
    they were compared with, and `num_unknown` those with which nothing can be compared."""

    database: Database
    artifacts: ArtifactStore
    scratch: Path
    counts: Counter[str] = field(default_factory=Counter)
    num_unknown: int = 0

    def walk(self) -> Iterator[ArtifactDamaged]:
        """Look at everything, mark what is damaged, and take away marks that are no longer true."""
        for looks in (
            self._models,
            self._datasets,
            self._checkpoints,
            self._gallery,
            self._pictures,
        ):
            for error in looks():
                mark_damage(self.database, error)
                yield error

    def _models(self) -> Iterator[ArtifactDamaged]:
        for model in self._all(ModelRecord):
            yield from self._cleared(ModelRecord, model.name, self._model(model))

    def _model(self, model: ModelRecord) -> Iterator[ArtifactDamaged]:
        if model.files is not None:
            yield from self._folder(model.artifact_prefix, model.files)
            return
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            try:
                fetch_model(self.artifacts, model.artifact_prefix, model.digest, None, Path(folder))
            except ArtifactDamaged as error:
                yield error
            except ArtifactNotFound:
                yield ArtifactDamaged(model.artifact_prefix, "it is missing")
            else:
                self.counts["the sha256 of weights alone"] += 1

    def _datasets(self) -> Iterator[ArtifactDamaged]:
        versions = self._all(DatasetVersion)
        for dataset in self._all(DatasetRecord):
            mine = [version for version in versions if version.dataset == dataset.name]
            yield from self._cleared(DatasetRecord, dataset.name, self._versions(mine))

    def _versions(self, versions: list[DatasetVersion]) -> Iterator[ArtifactDamaged]:
        parts = {part.key: part for version in versions for part in version.parts}
        for part in parts.values():
            yield from self._part(part)
        for version in versions:
            if version.manifest_key is not None:
                try:
                    read_manifest(self.artifacts, version.manifest_key, version.digest)
                except ArtifactDamaged as error:
                    yield error
                else:
                    self.counts["their sha256"] += 1

    def _part(self, part: Part) -> Iterator[ArtifactDamaged]:
        for key in sorted(part.keys):
            written = part.sha256_of(key)
            try:
                found = self.artifacts.sha256(key)
            except ArtifactNotFound:
                if key == part.key or written is not None:
                    yield ArtifactDamaged(key, "it is missing")
                continue  # there was none before 0012
            if written is None and key == part.key and found == part.digest:
                written = found  # an upload without choices of labels and reading
            if written is None:
                self.num_unknown += 1
            elif found == written:
                self.counts["their sha256"] += 1
            else:
                yield ArtifactDamaged.differs(key, found, written)

    def _checkpoints(self) -> Iterator[ArtifactDamaged]:
        for checkpoint in self._all(Checkpoint):
            if checkpoint.files is None:
                self.num_unknown += len(self.artifacts.keys(checkpoint.key))
            else:
                ident = (checkpoint.job_id, checkpoint.step)
                files = self._folder(checkpoint.key, checkpoint.files)
                yield from self._cleared(Checkpoint, ident, files)

    def _gallery(self) -> Iterator[ArtifactDamaged]:
        for picture in self._all(Picture):
            found = self._folder(FOLDER, {picture.id: picture.sha256})
            yield from self._cleared(Picture, picture.id, found)

    def _folder(self, prefix: str, files: dict[str, str]) -> Iterator[ArtifactDamaged]:
        for name, written in files.items():
            key = f"{prefix}/{name}"
            try:
                found = self.artifacts.sha256(key)
            except ArtifactNotFound:
                yield ArtifactDamaged(key, "it is missing")
                continue
            if found == written:
                self.counts["their sha256"] += 1
            else:
                yield ArtifactDamaged.differs(key, found, written)

    def _pictures(self) -> Iterator[ArtifactDamaged]:
        """Look at what jobs have beside checkpoints."""
        prefixes = tuple(f"{checkpoint.key}/" for checkpoint in self._all(Checkpoint))
        for key in self.artifacts.keys("jobs"):
            if key.startswith(prefixes):
                continue
            if not key.endswith((".png", ".zip")):
                self.num_unknown += 1
                continue
            with suppress(ArtifactNotFound):  # its job was deleted meanwhile
                if (why := self._wrong_with(key)) is None:
                    self.counts["their own checksums"] += 1
                else:
                    yield ArtifactDamaged(key, why)

    def _wrong_with(self, key: str) -> str | None:
        try:
            if key.endswith(".png"):
                Image.open(io.BytesIO(self.artifacts.get_bytes(key)), formats=["PNG"]).verify()
                return None
            with tempfile.NamedTemporaryFile(dir=self.scratch) as file:
                self.artifacts.download(key, Path(file.name))
                with zipfile.ZipFile(file.name) as archive:
                    broken = archive.testzip()
                    return f"the checksum of {broken!r} in it is wrong" if broken else None
        except (OSError, SyntaxError, ValueError, zipfile.BadZipFile) as error:
            return f"it cannot be read: {error}"

    def _cleared(
        self, kind: type[Record], ident: object, found: Iterator[ArtifactDamaged]
    ) -> Iterator[ArtifactDamaged]:
        """Pass on what is found of a record's artifacts; where that is nothing, take its mark
        away. A record that was deleted meanwhile has nothing to be found."""
        errors = list(found)
        with self.database.session() as session:
            record: Any = session.get(kind, ident)
            if record is None:
                return
            if not errors:
                record.damage = None
        yield from errors

    def _all(self, kind: type[Row]) -> list[Row]:
        with self.database.session() as session:
            return list(session.scalars(sa.select(kind)))


def main() -> None:
    argparse.ArgumentParser(
        prog="diffusion verify",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    locations = read_settings(Locations)
    locations.data_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=locations.data_dir) as scratch:
        verifier = Verifier(
            open_database(locations.database_url),
            ArtifactStore(locations.artifacts_url),
            Path(scratch),
        )
        num_damaged = 0
        for error in verifier.walk():
            num_damaged += 1
            print(f"damaged  {error.key}: {error.why}", flush=True)
    for compared, count in sorted(verifier.counts.items()):
        print(f"{count} files are well, by {compared}")
    print(f"{verifier.num_unknown} files have no digest and no checksum of their own")
    print(f"{num_damaged} files are damaged")
    sys.exit(1 if num_damaged else 0)


if __name__ == "__main__":
    main()
