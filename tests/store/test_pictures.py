"""The gallery of pictures: kept once, found by what they are, and bounded in number."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from store.access.owners import Caller, Quotas
from store.access.quotas import usage_of
from store.database import now
from store.errors import (
    ArtifactDamaged,
    GalleryFull,
    InvalidName,
    NotYours,
    PictureNotFound,
    QuotaExceeded,
)
from store.pictures import (
    MAX_TAGS,
    Filters,
    Picture,
    PictureTag,
    change_picture,
    change_pictures,
    delete_pictures,
    facets,
    get_picture,
    keep_pictures,
    list_pictures,
    read_picture,
)
from store.upkeep.trash import list_trash, remove, restore
from tests.store.records import a_picture

LIMIT = 50


@pytest.fixture
def keep(database, artifacts):
    """keep("a", "b", limit=..., **values): the ids of pictures with this content."""

    def call(*contents, limit=LIMIT, seen_by=database, **values):
        given = [a_picture(content, **values) for content in contents]
        return [each.id for each in keep_pictures(seen_by, artifacts, given, limit).pictures]

    return call


@pytest.fixture
def alice(database):
    return database.for_caller(Caller("alice", quotas=Quotas(quota_bytes=100)))


@pytest.fixture
def bob(database):
    return database.for_caller(Caller("bob"))


def found(database, limit=LIMIT, after=None, **filters):
    pictures, _ = list_pictures(database, Filters(**filters), limit=limit, after=after)
    return [picture.id for picture in pictures]


def test_a_batch_is_listed_in_its_order_before_what_was_kept_earlier(database, artifacts, keep):
    first = keep("a", "b", "c")
    second = keep("d", "e")
    assert found(database) == second + first
    page, has_more = list_pictures(database, Filters(), limit=3)
    assert ([each.id for each in page], has_more) == ([*second, first[0]], True)
    delete_pictures(database, [first[0]])  # the place of the next page stays
    assert found(database, after=first[0]) == first[1:]
    picture = get_picture(database, first[1])
    assert read_picture(artifacts, picture) == b"b"
    assert (picture.recipe, picture.seed) == ({"request": {"model": "faces"}}, 2**63 - 1)
    assert (picture.starred, picture.notes, picture.tags) == (False, "", [])
    with pytest.raises(PictureNotFound):
        get_picture(database, first[0])


def test_the_same_file_is_kept_once_for_each_owner(database, artifacts, keep, alice):
    given = [a_picture(content) for content in ("a", "b", "a")]
    kept = keep_pictures(database, artifacts, given, LIMIT)
    assert (kept.num_new, kept.num_removed) == (2, 0)
    assert kept.pictures[0].id == kept.pictures[2].id
    again = keep_pictures(database, artifacts, given, LIMIT)
    assert (again.num_new, [p.id for p in again.pictures]) == (0, [p.id for p in kept.pictures])
    mine = keep("a", seen_by=alice)
    assert found(alice) == mine
    assert len(artifacts.keys("pictures")) == 3


def test_of_two_who_keep_the_same_at_once_one_does(database, artifacts):
    given = [a_picture(f"{number}") for number in range(5)]
    with ThreadPoolExecutor(2) as pool:
        tries = [pool.submit(keep_pictures, database, artifacts, given, LIMIT) for _ in range(2)]
        kept = [each.result() for each in tries]
    assert sum(each.num_new for each in kept) == 5
    assert [p.id for p in kept[0].pictures] == [p.id for p in kept[1].pictures]
    assert len(artifacts.keys("pictures")) == len(found(database)) == 5


def test_pictures_are_found_by_what_they_are(database, keep):
    cat, other = keep("1", class_name="cat"), keep("2", model="digits", class_name="7")
    plain = keep("3")
    change_pictures(database, [*cat, *plain], add_tags=["nice", "print"])
    change_picture(database, plain[0], notes="50% as Good", starred=True)
    for filters, expected in (
        ({"model": "faces"}, plain + cat),
        ({"class_name": "7"}, other),
        ({"tag": "nice"}, plain + cat),
        ({"tag": "nice", "class_name": "cat"}, cat),
        ({"starred": True}, plain),
        ({"starred": False}, other + cat),
        ({"text": "% as good"}, plain),
        ({"text": "5_%"}, []),
        ({"since": now() - timedelta(minutes=1)}, plain + other + cat),
        ({"until": now() - timedelta(minutes=1)}, []),
        ({"since": now() + timedelta(days=10**6)}, []),
    ):
        assert found(database, **filters) == expected, filters
    every = facets(database)
    assert (every.num_pictures, every.num_starred) == (3, 1)
    assert every.models == {"faces": 2, "digits": 1}
    assert every.classes == {"7": 1, "cat": 1}
    assert every.tags == {"nice": 2, "print": 2}
    assert facets(database, "digits").classes == {"7": 1}


def test_a_time_divides_pictures(database, keep):
    (first,) = keep("a")
    between = now()
    (second,) = keep("b")
    assert found(database, since=between) == [second]
    assert found(database, until=between) == [first]


def test_the_oldest_without_a_star_make_room(database, artifacts, keep):
    ids = keep("a", "b", "c")  # c is the oldest
    change_picture(database, ids[2], starred=True, tags=["old"])
    change_picture(database, ids[1], tags=["gone"])
    kept = keep_pictures(database, artifacts, [a_picture("d")], 3)
    assert (kept.num_new, kept.num_removed) == (1, 1)
    assert found(database) == [kept.pictures[0].id, ids[0], ids[2]]
    assert facets(database).tags == {"old": 1}
    assert len(artifacts.keys("pictures")) == 3
    again = keep_pictures(database, artifacts, [a_picture("a"), a_picture("e")], 3)
    assert again.pictures[0].id == ids[0], "what is asked to be kept is not removed"
    assert found(database) == [again.pictures[1].id, ids[0], ids[2]]


def test_a_gallery_full_of_stars_takes_no_more(database, artifacts, keep):
    ids = keep("a", "b")
    change_pictures(database, ids, starred=True)
    with pytest.raises(GalleryFull, match="the gallery keeps 2, and there is room for 0"):
        keep("c", limit=2)
    change_picture(database, ids[0], starred=False)
    with pytest.raises(GalleryFull, match=r"2 pictures more are too many.*room for 1"):
        keep("c", "d", limit=2)
    with pytest.raises(GalleryFull, match="keeps 0"):
        keep("c", limit=0)
    assert keep("a", limit=0) == [ids[0]], "it is there already"
    assert found(database) == ids
    assert len(artifacts.keys("pictures")) == 2


def test_owners_have_a_gallery_each(database, artifacts, keep, alice, bob):
    (hers,), (his,) = keep("a", seen_by=alice), keep("b", seen_by=bob)
    change_pictures(alice, [hers], add_tags=["mine"])
    root = database.for_caller(Caller("root", sees_all=True))
    assert (found(alice), found(bob), found(root)) == ([hers], [his], [his, hers])
    assert (facets(alice).tags, facets(bob).tags) == ({"mine": 1}, {})
    assert facets(bob).num_pictures == 1
    for act in (
        lambda: get_picture(bob, hers),
        lambda: change_picture(bob, hers, starred=True),
        lambda: change_pictures(bob, [his, hers], starred=True),
        lambda: delete_pictures(bob, [his, hers]),
    ):
        with pytest.raises(PictureNotFound):
            act()
    assert not get_picture(bob, his).starred
    keep("c", seen_by=bob, limit=1)  # alice's does not make room for it
    assert found(alice) == [hers]
    keep("d", seen_by=root, limit=1)
    assert found(alice) == [hers]
    with database.session() as session:
        session.execute(sa.update(Picture).values(visibility="shared"))
    with pytest.raises(NotYours):
        change_picture(bob, hers, starred=True)


def test_pictures_count_for_the_quota_of_space(artifacts, keep, alice):
    keep("a" * 60, seen_by=alice)
    keep("a" * 60, seen_by=alice)
    assert usage_of(alice)["bytes"]["used"] == 60
    with pytest.raises(QuotaExceeded, match="100 bytes of datasets, models and pictures"):
        keep("b" * 60, seen_by=alice)
    assert len(artifacts.keys("pictures")) == 1


def test_several_are_changed_or_none(database, keep):
    ids = keep("a", "b")
    changed = change_pictures(database, ids[::-1], starred=True, add_tags=["x", "y"])
    assert [(each.id, each.starred, each.tags) for each in changed] == [
        (each, True, ["x", "y"]) for each in ids[::-1]
    ]
    change_pictures(database, ids, remove_tags=["x"], add_tags=["z"])
    change_picture(database, ids[0], tags=[f"{n:02}" for n in range(MAX_TAGS)])
    with pytest.raises(InvalidName, match="would have 21 tags; at most 20"):
        change_pictures(database, ids[::-1], add_tags=["more"], starred=False)
    with pytest.raises(PictureNotFound):
        change_pictures(database, [ids[1], "none"], starred=False)
    assert get_picture(database, ids[1]).tags == ["y", "z"]
    assert get_picture(database, ids[1]).starred


def test_several_go_to_the_trash_as_one_and_come_back(database, artifacts, keep):
    ids = keep("a", "b", "c")
    change_pictures(database, ids, add_tags=["x"])
    (entry,) = delete_pictures(database, ids[:2])
    assert found(database) == ids[2:]
    assert facets(database).tags == {"x": 1}
    assert [each.id for each in list_trash(database, limit=5)[0]] == [entry.id]
    assert (entry.name, entry.num_bytes) == (ids[0], 2)
    restore(database, "pictures", entry.id)
    assert found(database) == ids
    assert get_picture(database, ids[0]).tags == ["x"]
    (entry,) = delete_pictures(database, ids[:2])
    remove(database, artifacts, "pictures", entry.id)
    assert artifacts.keys("pictures") == [f"pictures/{ids[2]}"]
    with database.session() as session:
        assert len(session.scalars(sa.select(PictureTag)).all()) == 1
    with pytest.raises(PictureNotFound):
        delete_pictures(database, ids)
    assert found(database) == ids[2:]


def test_what_an_administrator_deletes_is_in_the_trash_of_its_owners(database, keep, alice, bob):
    (hers,), (his,) = keep("a", seen_by=alice), keep("b", seen_by=bob)
    root = database.for_caller(Caller("root", sees_all=True))
    assert len(delete_pictures(root, [hers, his])) == 2
    for who, theirs in ((alice, hers), (bob, his)):
        (entry,) = list_trash(who, limit=5)[0]
        restore(who, "pictures", entry.id)
        assert found(who) == [theirs]


def test_a_file_that_is_gone_or_another_is_damage(database, artifacts, keep):
    picture = get_picture(database, keep("a")[0])
    artifacts.put_bytes(picture.key, b"b")
    with pytest.raises(ArtifactDamaged, match="its sha256 is"):
        read_picture(artifacts, picture)
    artifacts.delete(picture.key)
    with pytest.raises(ArtifactDamaged, match="it is missing"):
        read_picture(artifacts, picture)
