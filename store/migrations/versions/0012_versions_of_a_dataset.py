"""A dataset has versions, and jobs and models name the one that they read.

Each dataset from before is its own first version. Its index is made when it is first needed. Jobs
and models from before read the dataset of its name, unless a job says that it was another one.
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_CONTENTS = (
    *("digest", "num_bytes", "num_images", "channels", "classes", "splits", "labels"),
    *("warnings", "sizes", "rejected", "num_rejected", "reading"),
)
_JSON = {"classes", "splits", "labels", "warnings", "sizes", "rejected", "reading"}


def _columns(*names: str) -> list[sa.ColumnClause[object]]:
    json = {*_JSON, "parts", "options"}
    return [sa.column(name, sa.JSON if name in json else None) for name in names]


DATASETS = sa.table("datasets", *_columns("name", "artifact_key", "created_at", *_CONTENTS))
VERSIONS = sa.table(
    "dataset_versions",
    *_columns("dataset", "number", "change", "parts", "created_at", *_CONTENTS),
)
_NAMED = ("dataset", "dataset_version", "dataset_digest")
JOBS = sa.table("jobs", *_columns("id", "kind", "options", "created_at", *_NAMED))
MODELS = sa.table("models", *_columns("name", "job_id", "created_at", *_NAMED))


def upgrade() -> None:
    op.create_table(
        "dataset_versions",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("parts", sa.JSON, nullable=False),
        sa.Column("manifest_key", sa.String),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("num_images", sa.Integer, nullable=False),
        sa.Column("channels", sa.Integer, nullable=False),
        sa.Column("num_rejected", sa.Integer, nullable=False),
        *(sa.Column(name, sa.JSON, nullable=name == "labels") for name in sorted(_JSON)),
    )
    with op.batch_alter_table("datasets") as datasets:
        datasets.add_column(sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    with op.batch_alter_table("datasets") as datasets:
        datasets.alter_column("version", server_default=None)
    for table in ("jobs", "models"):
        with op.batch_alter_table(table) as named:
            named.add_column(sa.Column("dataset_version", sa.Integer))
            named.add_column(sa.Column("dataset_digest", sa.String(64)))
    connection = op.get_bind()
    known = {row["name"]: row for row in connection.execute(sa.select(DATASETS)).mappings()}
    for row in known.values():
        connection.execute(sa.insert(VERSIONS).values(**_first_version(row)))
    read = {}
    for job in connection.execute(sa.select(JOBS)).mappings():
        dataset = known.get(job["dataset"])
        digest = (job["options"] or {}).get("dataset_digest")
        digest = read[job["id"]] = digest or (dataset["digest"] if dataset else None)
        _name_version(connection, JOBS, JOBS.c.id == job["id"], digest, dataset)
    for model in connection.execute(sa.select(MODELS)).mappings():
        dataset = known.get(model["dataset"])
        digest = read.get(model["job_id"]) or (dataset["digest"] if dataset else None)
        _name_version(connection, MODELS, MODELS.c.name == model["name"], digest, dataset)


def _first_version(row: sa.RowMapping) -> dict[str, object]:
    part = {
        "digest": row["digest"],
        "key": row["artifact_key"],
        "num_bytes": row["num_bytes"],
        "num_images": None,
        "max_pixels": None,
        "labels": row["labels"],
        "reading": row["reading"],
    }
    return {
        "dataset": row["name"],
        "number": 1,
        "change": "uploaded",
        "parts": [part],
        "created_at": row["created_at"],
        **{name: row[name] for name in _CONTENTS},
    }


def _name_version(
    connection: sa.Connection,
    table: sa.TableClause,
    where: sa.ColumnElement[bool],
    digest: str | None,
    dataset: sa.RowMapping | None,
) -> None:
    if digest is not None:
        number = 1 if dataset and dataset["digest"] == digest else None
        values = {"dataset_digest": digest, "dataset_version": number}
        connection.execute(sa.update(table).where(where).values(**values))


def downgrade() -> None:
    for table in ("jobs", "models"):
        with op.batch_alter_table(table) as named:
            named.drop_column("dataset_digest")
            named.drop_column("dataset_version")
    with op.batch_alter_table("datasets") as datasets:
        datasets.drop_column("version")
    op.drop_table("dataset_versions")
