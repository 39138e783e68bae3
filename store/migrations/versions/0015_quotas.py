"""Quotas of owners of keys, and what they used."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "quotas",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("values", sa.JSON, nullable=False),
    )
    op.create_table(
        "usage",
        sa.Column("owner", sa.String(32), primary_key=True),
        sa.Column("used", sa.String(16), primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("amount", sa.Float, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("usage")
    op.drop_table("quotas")
