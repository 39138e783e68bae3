"""Webhooks: an outbox of deliveries."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("job_id", sa.String(40), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("receiver", sa.String(2048), nullable=False),
        sa.Column("secret", sa.String(100), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("payload", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", TIME),
        sa.Column("owner", sa.String(128)),
        sa.Column("lease_expires_at", TIME),
        sa.Column("delivered_at", TIME),
        sa.Column("failed_at", TIME),
        sa.Column("last_error", sa.Text),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("webhook_deliveries_by_due", "webhook_deliveries", ["due_at", "id"])
    op.create_index("webhook_deliveries_by_job", "webhook_deliveries", ["job_id", "id"])


def downgrade() -> None:
    op.drop_table("webhook_deliveries")
