"""Jobs that make images: they have no dataset."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        jobs.alter_column("dataset", existing_type=sa.String(63), nullable=True)
        jobs.create_index("jobs_by_kind", ["kind", "id"])


def downgrade() -> None:
    op.execute("DELETE FROM jobs WHERE dataset IS NULL")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("jobs_by_kind")
        jobs.alter_column("dataset", existing_type=sa.String(63), nullable=False)
