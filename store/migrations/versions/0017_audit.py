"""The audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("owner", sa.String(32), index=True),
        sa.Column("key_id", sa.String(16)),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("path", sa.String(500), nullable=False),
        sa.Column("made", sa.String(255)),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("address", sa.String(64)),
        sa.Column("request_id", sa.String(64), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("audit")
