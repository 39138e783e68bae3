"""Events and checkpoints of jobs; priorities, pauses, and whom to tell."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    with op.batch_alter_table("jobs") as jobs:
        for column in (
            sa.Column("options", sa.JSON, nullable=False, server_default="{}"),
            sa.Column("priority", sa.Integer, nullable=False, server_default="5"),
            sa.Column("pause_requested", sa.Boolean, nullable=False, server_default=sa.false()),
            sa.Column("webhook_url", sa.Text),
            sa.Column("webhook_secret", sa.String(128)),
        ):
            jobs.add_column(column)
        jobs.create_index("jobs_in_line", ["kind", "status", "priority", "id"])
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.String(40), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("at", TIME, nullable=False),
    )
    op.create_table(
        "job_checkpoints",
        sa.Column("job_id", sa.String(40), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("num_bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("created_at", TIME, nullable=False),
    )


def downgrade() -> None:
    for table in ("job_checkpoints", "job_events"):
        op.drop_table(table)
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_index("jobs_in_line")
        for name in ("webhook_secret", "webhook_url", "pause_requested", "priority", "options"):
            jobs.drop_column(name)
