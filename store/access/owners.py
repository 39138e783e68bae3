"""Whose records a caller sees: those of its own key, and those that are shared.

A session of `Database.for_caller` adds the condition to every query of records that have an owner,
so that no function has to remember it, and notes the owner of what is added. Without a caller, as
in workers and where a service has no keys, a session sees everything.

A key's owner has names of its own: where alice makes a dataset "digits", it is "alice:digits".
She may leave out the prefix. Names without one belong to nobody: they are from before there were
keys.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, get_args

import sqlalchemy as sa
from annotated_types import Ge
from sqlalchemy.orm import Mapped, ORMExecuteState, Session, mapped_column, with_loader_criteria
from typing_extensions import Doc

from store.errors import InvalidName, NotYours
from store.names import OWNER_SEPARATOR, check_name

Visibility = Literal["private", "shared"]
VISIBILITIES: tuple[Visibility, ...] = get_args(Visibility)


@dataclass(frozen=True)
class Quotas:
    """What each owner of a key may use, where 0 is no limit. Read by host.environment; quotas are
    checked in store.access.quotas, rates in app.access.rate_limit."""

    quota_bytes: Annotated[
        int,
        Ge(0),
        Doc("bytes of datasets, models and pictures that an owner of a key may store; 0: any"),
    ] = 0
    quota_jobs: Annotated[int, Ge(0), Doc("jobs of an owner that are not done; 0: any")] = 0
    quota_train_minutes: Annotated[
        int, Ge(0), Doc("minutes of training of an owner in 24 hours; 0: any")
    ] = 0
    quota_images: Annotated[
        int, Ge(0), Doc("images that an owner may order in 24 hours; 0: any")
    ] = 0
    rate_requests: Annotated[
        int,
        Ge(0),
        Doc("requests in a minute of each owner, without keys of each address; 0: any"),
    ] = 0
    rate_compute: Annotated[
        int,
        Ge(0),
        Doc("the same for `POST /noise`, `/sample` and `/sample/again`, counted apart; 0: any"),
    ] = 0


@dataclass(frozen=True)
class Caller:
    """Who asks: the owner of a key, who sees everything if that is an administrator's. `quotas` are
    those of every owner, or as they were for this one a moment ago; `key_id` is for the audit
    log."""

    owner: str
    sees_all: bool = False
    quotas: Quotas = field(default_factory=Quotas)
    key_id: str | None = None


class Owned:
    """A mixin for records that belong to somebody."""

    has_name: ClassVar[bool] = False  # as its key
    # The owner of the key; None where there was none.
    made_by: Mapped[str | None] = mapped_column(sa.String(32))
    visibility: Mapped[Visibility] = mapped_column(sa.String(16), default="private")


def caller_of(session: Session) -> Caller | None:
    found: Caller | None = session.info.get("caller")
    return found


def names_of(session: Session, name: str) -> list[str]:
    """Return the names in full that a caller may mean by `name`: one of its own, then nobody's."""
    caller = caller_of(session)
    if caller is None or OWNER_SEPARATOR in name:
        return [name]
    return [f"{caller.owner}{OWNER_SEPARATOR}{name}", name]


def new_name(caller: Caller | None, field: str, name: str) -> str:
    """Return the name in full of something that the caller makes.

    Raises InvalidName, also where it has the prefix of somebody else.
    """
    check_name(field, name)
    if caller is None:
        return name
    owner, _, rest = name.rpartition(OWNER_SEPARATOR)
    if owner not in ("", caller.owner):
        raise InvalidName(
            field, f"{field} is {name!r}; you can only make names of your own, {caller.owner}:..."
        )
    return f"{caller.owner}{OWNER_SEPARATOR}{rest}"


def check_may_change(session: Session, record: Owned, what: str) -> None:
    """Raise NotYours where the record is shared with the caller, but not theirs."""
    caller = caller_of(session)
    if caller is not None and not caller.sees_all and record.made_by != caller.owner:
        raise NotYours(what)


class CallersSession(Session):
    """A session that knows its caller, in `info`."""

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        """Find a record by any name that the caller may mean. Nothing is found for a key with a
        NUL in it, which no record has: PostgreSQL would refuse to look for it."""
        if isinstance(ident, str) and "\0" in ident:
            return None
        if getattr(entity, "has_name", False):
            first, *others = names_of(self, ident)
            found = super().get(entity, first, **options)
            if found is not None or not others:
                return found
            (ident,) = others
        return super().get(entity, ident, **options)


@sa.event.listens_for(CallersSession, "do_orm_execute")
def _limit_to_caller(state: ORMExecuteState) -> None:
    caller = caller_of(state.session)
    if caller is None or caller.sees_all or state.is_column_load or state.is_relationship_load:
        return
    owner = caller.owner
    state.statement = state.statement.options(
        with_loader_criteria(
            Owned,
            lambda kind: sa.or_(kind.made_by == owner, kind.visibility == "shared"),
            include_aliases=True,
        )
    )


@sa.event.listens_for(CallersSession, "before_flush")
def _note_owner(session: Session, *_: Any) -> None:
    caller = caller_of(session)
    if caller is not None:
        for record in session.new:
            if isinstance(record, Owned) and record.made_by is None:
                record.made_by = caller.owner
