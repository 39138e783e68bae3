"""/trash: what was deleted, restored or removed for good."""

from datetime import timedelta

from fastapi import APIRouter
from starlette.responses import Response

from app.http import problems
from app.http.paging import After, Limit, Page
from app.services import Services, ServicesDep
from client.answers import TrashAnswer
from store.upkeep import trash
from store.upkeep.trash import TrashEntry

router = APIRouter(prefix="/trash", tags=["trash"])


@router.get("", summary="List what was deleted, the last first")
def list_trash(services: ServicesDep, limit: Limit = 20, after: After = None) -> Page[TrashAnswer]:
    found, has_more = trash.list_trash(services.database, limit=limit, after=after)
    return Page(items=[_answer(services, entry) for entry in found], has_more=has_more)


@router.post(
    "/{collection}/{entry_id}/restore",
    summary="Bring back what was deleted",
    responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
)
def restore_from_trash(
    collection: str, entry_id: str, response: Response, services: ServicesDep
) -> TrashAnswer:
    """Bring it back under its name, as it was; its address is the `Location`. 409 where something
    else has the name by now."""
    entry = trash.restore(services.database, collection, entry_id)
    response.headers["Location"] = f"/{collection}/{entry.name}"
    return _answer(services, entry)


@router.delete(
    "/{collection}/{entry_id}",
    summary="Remove what was deleted for good",
    status_code=204,
    responses=problems.declare(problems.NOT_FOUND),
)
def remove_from_trash(collection: str, entry_id: str, services: ServicesDep) -> None:
    """Free its space at once."""
    trash.remove(services.database, services.artifacts, collection, entry_id)


def discard(services: Services, entry: TrashEntry) -> None:
    """Remove for good what was just deleted, where nothing is kept in the trash."""
    if not services.settings.keeping.keep_trash:
        trash.remove(services.database, services.artifacts, entry.collection, entry.id)


def _answer(services: Services, entry: TrashEntry) -> TrashAnswer:
    address = f"/trash/{entry.collection}/{entry.id}"
    return TrashAnswer(
        id=entry.id,
        collection=entry.collection,
        name=entry.name,
        num_records=sum(table == entry.rows[0][0] for table, _ in entry.rows),
        num_bytes=entry.num_bytes,
        deleted_at=entry.deleted_at,
        removed_at=entry.deleted_at + timedelta(days=services.settings.keeping.keep_trash),
        links={"restore": f"{address}/restore", "remove": address},
    )
