"""The gallery of pictures."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pictures",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("media_type", sa.String(32), nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("model", sa.String(96), nullable=False),
        sa.Column("model_digest", sa.String(64), nullable=False),
        sa.Column("class_name", sa.Text),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("sampler", sa.String(32), nullable=False),
        sa.Column("recipe", sa.JSON, nullable=False),
        sa.Column("starred", sa.Boolean, nullable=False),
        sa.Column("notes", sa.Text, nullable=False),
        sa.Column("damage", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("made_by", sa.String(32)),
        sa.Column("visibility", sa.String(16), nullable=False, server_default="private"),
    )
    op.create_index("ix_pictures_made_by", "pictures", ["made_by", "id"])
    op.create_index("ix_pictures_sha256", "pictures", ["sha256"])
    op.create_table(
        "picture_tags",
        sa.Column("picture_id", sa.String(32), primary_key=True),
        sa.Column("tag", sa.String(64), primary_key=True),
    )
    op.create_index("ix_picture_tags_tag", "picture_tags", ["tag"])


def downgrade() -> None:
    op.drop_table("picture_tags")
    op.drop_table("pictures")
