"""Manifests: edits give what the same edits of a plain list give; a version has one digest."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.fields import Invalid
from models.images.dataset import select_images
from models.images.index import Index
from models.images.labels import SPLIT_NAMES, UNSORTED
from models.images.versions import Changes, Contents, Manifest, image_id

CLASSES = ["cat", "dog", "Ö", UNSORTED]
Plain = dict[str, tuple[str, str]]  # the class and the split of each image by its id


def digest_of(part: int) -> str:
    return hashlib.sha256(bytes([part])).hexdigest()


def index_of(images: list[tuple[str, str]], side: int = 8) -> Index:
    count = len(images)
    return Index(
        names=[f"{i}.png" for i in range(count)],
        frames=[0] * count,
        shapes=np.array([(side, side + i % 2, 1) for i in range(count)], np.int64),
        classes=[name for name, _ in images],
        splits=[split for _, split in images],
        sha256=["0" * 64] * count,
        places=None,
        warnings=[],
    )


pictures = st.tuples(st.sampled_from(CLASSES), st.sampled_from(["train", "train", "val", "test"]))
parts = st.lists(st.lists(pictures, min_size=2, max_size=6), min_size=1, max_size=4)


def plainly(plain: Plain, changes: Changes) -> Plain:
    left = {i: v for i, v in plain.items() if i not in changes.remove}
    to = {i: name for name, ids in changes.move.items() for i in ids}
    return {
        i: (changes.rename.get(to.get(i, name), to.get(i, name)), split)
        for i, (name, split) in left.items()
    }


def as_plain(manifest: Manifest) -> Plain:
    classes = manifest.classes
    return {manifest.id_of(i): (classes[i], manifest.split_of(i)) for i in range(len(manifest))}


def is_possible(plain: Plain) -> bool:
    return sum(split == "train" for _, split in plain.values()) >= 2


@st.composite
def edits(draw: st.DrawFn, plain: Plain) -> Changes:
    named = draw(st.lists(st.sampled_from(sorted(plain)), unique=True, max_size=4)) if plain else []
    cut = draw(st.integers(0, len(named)))
    move: dict[str, list[str]] = {}
    for image in named[cut:]:
        move.setdefault(draw(st.sampled_from([*CLASSES, "new"])), []).append(image)
    present = sorted({name for name, _ in plain.values()} | set(move))
    rename = draw(
        st.dictionaries(st.sampled_from(present), st.sampled_from([*CLASSES, "newer"]), max_size=2)
    )
    return Changes(named[:cut], move, rename)


@settings(deadline=None, max_examples=200)
@given(parts, st.data())
def test_any_edits_give_what_they_give_on_a_plain_list(parts, data):
    indexes = {digest_of(number): index_of(images) for number, images in enumerate(parts)}
    first, *others = indexes
    manifest = Manifest.of(first, indexes[first])
    plain = {image_id(first, row): image for row, image in enumerate(parts[0])}
    waiting = [*others, *others[:1]]  # one of them comes twice
    for _ in range(data.draw(st.integers(1, 6))):
        if waiting and data.draw(st.booleans()):
            digest = waiting.pop(0)
            images = zip(indexes[digest].classes, indexes[digest].splits, strict=True)
            added = {image_id(digest, row): image for row, image in enumerate(images)}
            wanted = {**added, **plain}
            work = lambda: manifest.with_part(digest, indexes[digest], indexes[digest].classes)  # noqa: E731, B023
        else:
            changes = data.draw(edits(plain))
            wanted = plainly(plain, changes)
            work = lambda: manifest.edited(changes)  # noqa: E731, B023
        if not is_possible(wanted):
            with pytest.raises(Invalid, match="at least 2 are needed"):
                work()
            continue
        manifest, plain = work(), wanted
        assert as_plain(manifest) == plain
        assert manifest.class_names == tuple(sorted({name for name, _ in plain.values()}))
        again = Manifest.from_bytes(manifest.to_bytes())
        assert again.digest == manifest.digest
        assert as_plain(again) == plain
        contents = Contents.of(manifest, [indexes[digest] for digest in manifest.parts])
        assert contents.num_images == len(plain)
        assert sum(contents.classes.values()) in (len(plain), 0)
        assert sum(size["count"] for size in contents.sizes) == len(plain)


A, B = digest_of(0), digest_of(1)
FOUR = index_of([("cat", "train"), ("dog", "train"), ("cat", "val"), ("dog", "train")])


def test_the_digest_tells_the_images_and_not_the_way_to_them():
    start = Manifest.of(A, FOUR).with_part(B, FOUR, FOUR.classes)
    ids = [start.id_of(i) for i in range(8)]
    one = start.edited(Changes([ids[6]])).edited(Changes(move={"cat": [ids[1]]}))
    other = start.edited(Changes([ids[6]], {"cat": [ids[1]]}))
    assert one.digest == other.digest != start.digest
    assert one.edited(Changes(move={"dog": [ids[1]]})).digest != one.digest
    back = one.with_part(B, FOUR, FOUR.classes).edited(Changes(move={"dog": [ids[1]]}))
    assert back.digest == start.digest
    assert one.edited(Changes()).digest == one.digest
    assert Manifest.of(B, FOUR).digest != Manifest.of(A, FOUR).digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (Changes(["0" * 12 + "-0"]), "remove is '000000000000-0'; the version has no image"),
        (Changes([f"{A[:12]}-4"]), "no image of this id"),
        (Changes([f"{A[:12]}-04"]), "no image of this id"),
        (Changes(["../x"]), "no image of this id"),
        (Changes([f"{A[:12]}-0"], {"dog": [f"{A[:12]}-0"]}), "an image is named twice"),
        (Changes([f"{A[:12]}-0"] * 2), "an image is named twice"),
        (Changes(move={"": [f"{A[:12]}-0"]}), "move is ''; the name of a class has 1..200"),
        (Changes(rename={"dog": "x" * 201}), "1..200 characters"),
        (Changes(rename={"dog": "a\0"}), "the name of a class"),
        (Changes(rename={"dog": " a"}), "without spaces at its ends"),
        (Changes(rename={"bird": "dog"}), "there is no such class; there are cat, dog"),
        (Changes([f"{A[:12]}-{i}" for i in (0, 1)]), "1 images to learn from would be left"),
    ],
)
def test_an_edit_that_cannot_be_is_refused_with_the_reason(changes, message):
    with pytest.raises(Invalid, match=message):
        Manifest.of(A, FOUR).edited(changes)


def test_parts_whose_ids_would_be_the_same_do_not_go_together():
    with pytest.raises(Invalid, match="begins as that of another"):
        Manifest.of(A, FOUR).with_part(A[:12] + "0" * 52, FOUR, FOUR.classes)


def test_classes_may_change_places_and_become_one():
    manifest = Manifest.of(A, FOUR)
    swapped = manifest.edited(Changes(rename={"cat": "dog", "dog": "cat"}))
    assert swapped.classes == ["dog", "cat", "dog", "cat"]
    merged = manifest.edited(Changes(rename={"dog": "cat"}))
    assert (merged.class_names, merged.counts) == (("cat",), {"cat": 4})
    assert manifest.edited(Changes(rename={"cat": UNSORTED, "dog": UNSORTED})).counts == {}


def test_an_edit_is_told_in_words():
    changes = Changes(["a", "b"], {"cat": ["c"]}, {"dgo": "dog"})
    assert changes.in_words() == "removed 2 images; moved 1 image to 'cat'; renamed 'dgo' to 'dog'"


def test_a_version_is_read_from_its_parts_as_one_array():
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, (4, 2, 3, 1), np.uint8) for _ in range(2)]
    start = Manifest.of(A, FOUR).with_part(B, FOUR, FOUR.classes)
    manifest = start.edited(Changes([start.id_of(1), start.id_of(4)]))
    dataset = select_images(arrays, manifest)
    whole = np.concatenate([arrays[0][[0, 2, 3]], arrays[1][1:]])
    images = dataset.images
    assert (images.shape, len(images), images.nbytes) == (whole.shape, 6, whole.nbytes)
    np.testing.assert_array_equal(np.array(images), whole)
    for which in (slice(1, None, 2), np.array([5, 0, 0, 3]), np.array([[1, 4], [2, 2]])):
        np.testing.assert_array_equal(images[which], whole[which])
    assert dataset.class_names == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 1, 1, 0, 1]
    assert dataset.set_apart.tolist() == [1, 4]
    assert select_images(arrays[:1], Manifest.of(A, FOUR)).images is arrays[0]
    with pytest.raises(Invalid, match="has only 3 images"):
        select_images([arrays[0][:3]], Manifest.of(A, FOUR))


def test_the_order_of_splits_is_part_of_stored_manifests():
    assert SPLIT_NAMES == ("train", "val", "test")
