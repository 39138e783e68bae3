"""The audit log tells who asked for an image."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit", sa.Column("request_digest", sa.String(64)))
    op.create_index("ix_audit_request_digest", "audit", ["request_digest"])


def downgrade() -> None:
    op.drop_index("ix_audit_request_digest", "audit")
    with op.batch_alter_table("audit") as audit:
        audit.drop_column("request_digest")
