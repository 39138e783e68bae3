"""The trash."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "trash",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("collection", sa.String(32), nullable=False),
        sa.Column("name", sa.String(96), nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.JSON, nullable=False),
        sa.Column("revision", sa.String(32), nullable=False),
        sa.Column("artifacts", sa.JSON, nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("made_by", sa.String(32)),
        sa.Column("visibility", sa.String(16), nullable=False, server_default="private"),
    )


def downgrade() -> None:
    op.drop_table("trash")
