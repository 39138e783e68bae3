"""A dataset says how its files are read."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

DATASETS = sa.table("datasets", sa.column("reading", sa.JSON))


def upgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        datasets.add_column(sa.Column("reading", sa.JSON))
    reading = {"frames": "refuse", "range": "full", "levels": None}
    op.get_bind().execute(sa.update(DATASETS).values(reading=reading))
    with op.batch_alter_table("datasets") as datasets:
        datasets.alter_column("reading", existing_type=sa.JSON, nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        datasets.drop_column("reading")
