"""Records have the sha256 of the files that they stand for, and say what was found damaged.

Parts of datasets have theirs inside `parts`. Those of records from before are unknown, but for the
weights of a model, whose digest they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

COLUMNS = (
    ("models", "files", sa.JSON()),
    ("models", "damage", sa.Text()),
    ("job_checkpoints", "files", sa.JSON()),
    ("job_checkpoints", "damage", sa.Text()),
    ("datasets", "damage", sa.Text()),
)


def upgrade() -> None:
    for table, name, kind in COLUMNS:
        with op.batch_alter_table(table) as batch:
            batch.add_column(sa.Column(name, kind))


def downgrade() -> None:
    for table, name, _ in COLUMNS:
        with op.batch_alter_table(table) as batch:
            batch.drop_column(name)
