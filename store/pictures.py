"""The gallery: pictures that were sampled and kept, each with the recipe that makes it again.

Ids begin with the time at which a picture was kept, so that they are in the order of the list. The
file of a picture is the artifact pictures/{id}.
"""

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, foreign, mapped_column, relationship, undefer
from sqlalchemy.orm.attributes import set_committed_value

from store.access.owners import Owned, caller_of, check_may_change
from store.access.quotas import check_space
from store.artifacts import ArtifactStore
from store.database import Database, JsonObject, Record, UtcTime, now
from store.errors import (
    ArtifactDamaged,
    ArtifactNotFound,
    GalleryFull,
    InvalidName,
    PictureNotFound,
)
from store.upkeep.trash import TrashEntry, throw_away

FOLDER = "pictures"  # of the artifacts, and the collection in the trash
MAX_TAGS = 20  # of a picture
_TIME_DIGITS = 13  # hexadecimal, of microseconds since 1970


class PictureTag(Record):
    __tablename__ = "picture_tags"

    picture_id: Mapped[str] = mapped_column(primary_key=True)
    tag: Mapped[str] = mapped_column(primary_key=True)


class Picture(Owned, Record):
    """`recipe` is loaded by get_picture alone: a list of pictures needs no recipes."""

    __tablename__ = "pictures"

    id: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]  # of its file
    media_type: Mapped[str]
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    model: Mapped[str]
    model_digest: Mapped[str]
    class_name: Mapped[str | None]  # None where it has no class, several, or the model is gone
    seed: Mapped[int] = mapped_column(sa.BigInteger)
    sampler: Mapped[str]
    recipe: Mapped[JsonObject] = mapped_column(deferred=True)
    starred: Mapped[bool] = mapped_column(default=False)
    notes: Mapped[str] = mapped_column(default="")
    damage: Mapped[str | None]  # of its file, as it was found last
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    tag_rows: Mapped[list[PictureTag]] = relationship(
        primaryjoin=lambda: Picture.id == foreign(PictureTag.picture_id),
        order_by=PictureTag.tag,
        viewonly=True,
        lazy="selectin",
    )

    @property
    def key(self) -> str:
        return key_of(self.id)

    @property
    def tags(self) -> list[str]:
        return [row.tag for row in self.tag_rows]


@dataclass(frozen=True)
class NewPicture:
    """A file to keep. `values` are the columns of Picture that its recipe tells."""

    content: bytes
    sha256: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Kept:
    """What became of files: a record for each, in their order. `num_new` were not there before, and
    `num_removed` others were removed for them."""

    pictures: list[Picture]
    num_new: int
    num_removed: int


@dataclass(frozen=True)
class Filters:
    """Which pictures are wanted; None is any. `text` is looked for in notes, `until` excluded."""

    model: str | None = None
    class_name: str | None = None
    tag: str | None = None
    starred: bool | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str | None = None

    def conditions(self) -> Iterable[sa.ColumnElement[bool]]:
        if self.model is not None:
            yield Picture.model == self.model
        if self.class_name is not None:
            yield Picture.class_name == self.class_name
        if self.tag is not None:
            tagged = sa.select(PictureTag.picture_id).where(PictureTag.tag == self.tag)
            yield Picture.id.in_(tagged)
        if self.starred is not None:
            yield Picture.starred == self.starred
        if self.since is not None:
            yield Picture.id >= _beginning(self.since)
        if self.until is not None:
            yield Picture.id < _beginning(self.until)
        if self.text is not None:
            yield Picture.notes.icontains(self.text, autoescape=True)


@dataclass(frozen=True)
class Facets:
    """The values by which pictures can be searched, each with the number of pictures that have it,
    the most frequent first."""

    num_pictures: int
    num_starred: int
    models: dict[str, int]
    classes: dict[str, int]
    tags: dict[str, int]


def key_of(picture_id: str) -> str:
    """Return the key of a picture's file among the artifacts."""
    return f"{FOLDER}/{picture_id}"


# Keeping ------------------------------------------------------------------------------------------


def keep_pictures(
    database: Database, artifacts: ArtifactStore, given: Sequence[NewPicture], limit: int
) -> Kept:
    """Keep files, each once for each owner, who has at most `limit`: beyond that the oldest without
    a star are removed for good. The first file becomes the newest picture.

    Raises GalleryFull where too few of them are without a star, and QuotaExceeded.
    """
    unique = {new.sha256: new for new in given}
    with database.session() as session:
        there = _known(session, unique)
        missing = [new for sha256, new in unique.items() if sha256 not in there]
        _surplus(session, len(missing), limit, there)
    if missing:
        check_space(database, sum(len(new.content) for new in missing))
    records = _new_records(missing)
    needless = {record.key for record in records}
    try:
        for record, new in zip(records, missing, strict=True):
            artifacts.put_bytes(record.key, new.content)
        with database.session(names=True) as session:
            there = _known(session, unique)
            added = [record for record in records if record.sha256 not in there]
            found = there | {record.sha256: record for record in added}
            if gone := unique.keys() - found.keys():  # deleted since the first look
                raise PictureNotFound(gone.pop())
            removed = _surplus(session, len(added), limit, there)
            _forget(session, removed)
            for record in added:
                set_committed_value(record, "tag_rows", [])
            session.add_all(added)
        needless -= {record.key for record in added}
        needless |= {key_of(picture_id) for picture_id in removed}
    finally:  # of what was not kept, or is not any more
        for key in needless:
            artifacts.delete(key)
    return Kept([found[new.sha256] for new in given], len(added), len(removed))


def _new_records(given: Sequence[NewPicture]) -> list[Picture]:
    at, last = now(), len(given) - 1
    return [
        Picture(
            id=f"{_microseconds(at) + last - place:0{_TIME_DIGITS}x}{secrets.token_hex(2)}",
            sha256=new.sha256,
            num_bytes=len(new.content),
            created_at=at,
            **new.values,
        )
        for place, new in enumerate(given)
    ]


def _mine(session: Session) -> sa.ColumnElement[bool]:
    """Return the condition on pictures of the caller alone, also where that sees all."""
    caller = caller_of(session)
    return Picture.made_by.is_(None) if caller is None else Picture.made_by == caller.owner


def _known(session: Session, sha256s: Collection[str]) -> dict[str, Picture]:
    query = sa.select(Picture).where(_mine(session), Picture.sha256.in_(sha256s))
    return {record.sha256: record for record in session.scalars(query)}


def _surplus(session: Session, num_new: int, limit: int, asked: Mapping[str, Picture]) -> list[str]:
    """Return the ids of the pictures that make room for so many new ones, but none of those that
    were `asked` to be kept, by their sha256. Raises GalleryFull."""
    count = sa.select(sa.func.count()).select_from(Picture).where(_mine(session))
    too_many = int(session.scalar(count) or 0) + num_new - limit
    if too_many <= 0 or not num_new:
        return []
    oldest = (
        sa.select(Picture.id)
        .where(_mine(session), Picture.starred.is_(False), Picture.sha256.not_in(asked))
        .order_by(Picture.id)
        .limit(too_many)
    )
    found = list(session.scalars(oldest))
    if num_new > limit or len(found) < too_many:
        room = max(0, min(limit, num_new - too_many + len(found)))
        raise GalleryFull(limit, num_new, room)
    return found


def _forget(session: Session, ids: Sequence[str]) -> None:
    session.execute(sa.delete(PictureTag).where(PictureTag.picture_id.in_(ids)))
    session.execute(sa.delete(Picture).where(Picture.id.in_(ids)))


# Looking ------------------------------------------------------------------------------------------


def list_pictures(
    database: Database, filters: Filters, *, limit: int, after: str | None = None
) -> tuple[list[Picture], bool]:
    """Return pictures, newest first, that follow `after`, and whether there are more. The picture
    `after` may be gone by now: its id tells its place."""
    query = sa.select(Picture).where(*filters.conditions()).order_by(Picture.id.desc())
    if after is not None:
        query = query.where(Picture.id < after)
    with database.session() as session:
        found = list(session.scalars(query.limit(limit + 1)))
    return found[:limit], len(found) > limit


def facets(database: Database, model: str | None = None) -> Facets:
    """Return what pictures can be searched by; the classes are those of `model`, where given."""
    of_model = () if model is None else (Picture.model == model,)
    tagged = sa.select(PictureTag.tag, sa.func.count(Picture.id)).join_from(
        Picture, PictureTag, Picture.id == PictureTag.picture_id
    )
    classes = sa.select(Picture.class_name, sa.func.count(Picture.id)).where(
        Picture.class_name.is_not(None), *of_model
    )
    models = sa.select(Picture.model, sa.func.count(Picture.id))
    stars = sa.select(sa.func.count(Picture.id)).where(Picture.starred)
    with database.session() as session:
        by_model = _counted(session, models.group_by(Picture.model))
        return Facets(
            sum(by_model.values()),
            int(session.scalar(stars) or 0),
            by_model,
            _counted(session, classes.group_by(Picture.class_name)),
            _counted(session, tagged.group_by(PictureTag.tag)),
        )


def _counted(session: Session, query: sa.Executable) -> dict[str, int]:
    counts = {value: int(count) for value, count in session.execute(query)}
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def get_picture(database: Database, picture_id: str) -> Picture:
    """Return a picture with its recipe. Raises PictureNotFound."""
    with database.session() as session:
        record: Picture | None = session.get(Picture, picture_id, options=[undefer(Picture.recipe)])
    if record is None:
        raise PictureNotFound(picture_id)
    return record


def read_picture(artifacts: ArtifactStore, record: Picture) -> bytes:
    """Return the file of a picture. Raises ArtifactDamaged, also where it is missing."""
    try:
        return artifacts.get_bytes(record.key, record.sha256)
    except ArtifactNotFound:
        raise ArtifactDamaged(record.key, "it is missing") from None


# Changing -----------------------------------------------------------------------------------------


def change_picture(
    database: Database,
    picture_id: str,
    *,
    starred: bool | None = None,
    notes: str | None = None,
    tags: Collection[str] | None = None,
) -> Picture:
    """Change a picture, where None leaves something as it is; return it with its recipe. Raises
    PictureNotFound and NotYours."""
    with database.session() as session:
        (record,) = _to_change(session, [picture_id])
        if starred is not None:
            record.starred = starred
        if notes is not None:
            record.notes = notes
        if tags is not None:
            _set_tags(session, record, set(tags))
    return get_picture(database, picture_id)


def change_pictures(
    database: Database,
    ids: Sequence[str],
    *,
    starred: bool | None = None,
    add_tags: Collection[str] = (),
    remove_tags: Collection[str] = (),
) -> list[Picture]:
    """Change several pictures, or none of them; return them in the order of `ids`.

    Raises PictureNotFound and NotYours, and InvalidName where one would have too many tags.
    """
    with database.session() as session:
        records = _to_change(session, ids)
        for record in records:
            if starred is not None:
                record.starred = starred
            if add_tags or remove_tags:
                tags = {*record.tags, *add_tags}.difference(remove_tags)
                if len(tags) > MAX_TAGS:
                    raise InvalidName(
                        "add_tags",
                        f"picture {record.id} would have {len(tags)} tags; at most {MAX_TAGS} are "
                        "allowed",
                    )
                _set_tags(session, record, tags)
    return records


def delete_pictures(database: Database, ids: Sequence[str]) -> list[TrashEntry]:
    """Move several pictures to the trash, or none of them: one entry for each of their owners.
    Raises PictureNotFound and NotYours."""
    entries = []
    with database.session() as session:
        records = _to_change(session, ids)
        for owner in dict.fromkeys(record.made_by for record in records):
            theirs = [record for record in records if record.made_by == owner]
            names = [record.id for record in theirs]
            rows: dict[type[Record], sa.ColumnElement[bool]] = {
                Picture: Picture.id.in_(names),
                PictureTag: PictureTag.picture_id.in_(names),
            }
            keys = [record.key for record in theirs]
            num_bytes = sum(record.num_bytes for record in theirs)
            for record in theirs:
                session.expunge(record)  # its row is deleted past the session
            entries.append(throw_away(session, FOLDER, names[0], theirs[0], rows, keys, num_bytes))
    return entries


def _to_change(session: Session, ids: Sequence[str]) -> list[Picture]:
    query = sa.select(Picture).where(Picture.id.in_(ids)).with_for_update()
    found = {record.id: record for record in session.scalars(query)}
    for picture_id in ids:
        if picture_id not in found:
            raise PictureNotFound(picture_id)
        check_may_change(session, found[picture_id], f"picture {picture_id}")
    return [found[picture_id] for picture_id in dict.fromkeys(ids)]


def _set_tags(session: Session, record: Picture, tags: set[str]) -> None:
    gone, new = set(record.tags) - tags, tags - set(record.tags)
    session.execute(
        sa.delete(PictureTag).where(PictureTag.picture_id == record.id, PictureTag.tag.in_(gone))
    )
    session.add_all(PictureTag(picture_id=record.id, tag=tag) for tag in sorted(new))
    session.flush()
    session.refresh(record, ["tag_rows"])


def _microseconds(at: datetime) -> int:
    return int(at.timestamp() * 1e6)


def _beginning(at: datetime) -> str:
    """Return the id that a picture kept at this time would begin with."""
    last = 16**_TIME_DIGITS - 1
    return f"{min(max(_microseconds(at), 0), last):0{_TIME_DIGITS}x}"
