"""A dataset says where its classes come from, which images are for tests, and what looks odd.

Datasets from before keep their classes: the folders, whatever their names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        datasets.add_column(sa.Column("labels", sa.JSON))
        datasets.add_column(sa.Column("splits", sa.JSON, nullable=False, server_default="{}"))
        datasets.add_column(sa.Column("warnings", sa.JSON, nullable=False, server_default="[]"))
    with op.batch_alter_table("datasets") as datasets:
        datasets.alter_column("splits", server_default=None)
        datasets.alter_column("warnings", server_default=None)


def downgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        for name in ("labels", "splits", "warnings"):
            datasets.drop_column(name)
