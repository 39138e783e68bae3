"""A model says its license, and the model that it began with."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MODELS = sa.table(
    "models",
    sa.column("name", sa.String),
    sa.column("job_id", sa.String),
    sa.column("details", sa.JSON),
)
JOBS = sa.table("jobs", sa.column("id", sa.String), sa.column("options", sa.JSON))


def upgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.add_column(sa.Column("license", sa.String(200)))
    connection = op.get_bind()
    query = sa.select(MODELS.c.name, MODELS.c.details, JOBS.c.options)
    for name, details, options in connection.execute(
        query.join_from(MODELS, JOBS, JOBS.c.id == MODELS.c.job_id)
    ).all():
        if first := options.get("fine_tune"):
            base = {"base_model": first["model"], "base_digest": first["digest"]}
            update = sa.update(MODELS).where(MODELS.c.name == name)
            connection.execute(update.values(details={**details, **base}))


def downgrade() -> None:
    with op.batch_alter_table("models") as models:
        models.drop_column("license")
