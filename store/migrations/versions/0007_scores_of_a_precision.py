"""Scores of a model are kept by the precision that its images were made in."""

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MODELS = sa.table("models", sa.column("name", sa.String), sa.column("details", sa.JSON))


def upgrade() -> None:
    # The images of all evaluations were made in float32 until then.
    _change_scores(lambda scores: {"float32": scores})


def downgrade() -> None:
    _change_scores(lambda scores: scores.get("float32"))


def _change_scores(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    connection = op.get_bind()
    for name, details in connection.execute(sa.select(MODELS)).all():
        if scores := details.pop("scores", None):
            if new := change(scores):
                details["scores"] = new
            update = sa.update(MODELS).where(MODELS.c.name == name).values(details=details)
            connection.execute(update)
