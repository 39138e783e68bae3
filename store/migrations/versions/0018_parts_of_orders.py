"""Orders of images that several workers make side by side."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "image_orders",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("config", sa.JSON, nullable=False),
        sa.Column("device", sa.String(32), nullable=False),
        sa.Column("computed_by", sa.String(255), nullable=False),
    )
    op.create_table(
        "image_parts",
        sa.Column("job_id", sa.String, primary_key=True),
        sa.Column("first", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("made", sa.Integer, nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True)),
        sa.Column("by_helper", sa.Boolean, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("image_parts")
    op.drop_table("image_orders")
