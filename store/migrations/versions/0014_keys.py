"""Keys, and the owners of datasets, models and jobs.

What is there already belongs to nobody.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

OWNED = ("datasets", "models", "jobs")
NAME, FULL_NAME = 63, 96
NAMES = {
    "datasets": ("name",),
    "dataset_versions": ("dataset",),
    "models": ("name", "dataset"),
    "jobs": ("dataset", "model_name"),
}


def upgrade() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
    )
    for table in OWNED:
        with op.batch_alter_table(table) as owned:
            owned.add_column(sa.Column("made_by", sa.String(32)))
            owned.add_column(
                sa.Column("visibility", sa.String(16), nullable=False, server_default="private")
            )
    _resize_names(FULL_NAME)


def downgrade() -> None:
    _resize_names(NAME)
    for table in OWNED:
        with op.batch_alter_table(table) as owned:
            owned.drop_column("visibility")
            owned.drop_column("made_by")
    op.drop_table("keys")


def _resize_names(length: int) -> None:
    for table, columns in NAMES.items():
        with op.batch_alter_table(table) as named:
            for column in columns:
                named.alter_column(column, type_=sa.String(length))
