"""Reports on sets of pictures that are made here, and on the digits."""

import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from client.answers import FindingKind
from models.images.dataset import index_archive
from models.images.findings import KINDS, Finding, Group, Report, find
from models.images.fingerprints import FINGERPRINT, Fingerprints, fingerprint
from models.images.reading import Picture

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits.zip"


def photo(seed: int, height: int = 96, width: int = 128) -> Image.Image:
    """A texture with the spectrum of photographs, amplitude 1 / f, in colour."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)) * max(
        height, width
    )
    frequency[0, 0] = np.inf
    white = rng.standard_normal((4, height, width))
    pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
    pink /= pink.std(axis=(1, 2), keepdims=True)
    pixels = 128 + 40 * pink[:1] + 15 * pink[1:]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))


def rows_of(images: Iterable[Image.Image]) -> Fingerprints:
    rows = []
    for image in images:
        pixels = np.asarray(image)
        rows.append(fingerprint(Picture(pixels if pixels.ndim == 3 else pixels[:, :, None])))
    return np.concatenate(list(rows))


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert(image.mode)


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = image.size
    left, top = round(width * share), round(height * share)
    return image.crop((left, top, width - left, height - top))


def kinds(report: Report) -> list[str]:
    return [finding.kind for finding in report.findings]


def only(report: Report, kind: str) -> Finding:
    (finding,) = (finding for finding in report.findings if finding.kind == kind)
    return finding


def groups(finding: Finding) -> list[Group]:
    return list(finding.groups(1000, 1000))


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [photo(seed) for seed in range(60)]


@pytest.fixture(scope="module")
def usual(photos) -> Fingerprints:
    return rows_of(photos)


# Ordinary sets ------------------------------------------------------------------------------------


def test_a_set_of_different_photographs_has_no_findings(usual):
    report = find(usual)
    assert report == Report(60, (), complete=True)


def test_portraits_among_landscapes_and_other_sizes_are_no_findings():
    shapes = [(96, 144), (144, 96), (128, 128), (180, 240), (300, 200)]
    assert find(rows_of(photo(i, *shapes[i % 5]) for i in range(30))).findings == ()


def test_digits_have_no_findings():
    """1,797 scans of 8 pixels: much alike, and none is the copy of another."""
    _, index = index_archive(DIGITS)
    assert index.fingerprints is not None
    assert find(index.fingerprints, index.classes) == Report(1797, (), complete=True)


def test_nothing_is_found_in_nothing():
    assert find(np.zeros(0, FINGERPRINT)) == Report(0, (), complete=True)


def test_labels_of_other_images_are_refused(usual):
    with pytest.raises(ValueError, match="classes has 2 entries; there are 60 images"):
        find(usual, ["a", "b"])
    with pytest.raises(ValueError, match="splits has 1 entries"):
        find(usual, (), ["train"])


# Duplicates ---------------------------------------------------------------------------------------


def test_copies_are_grouped_by_their_pixels(usual):
    rows = np.concatenate([usual, usual[[3, 5, 3]]])
    finding = only(find(rows), "exact-duplicate")
    assert [group.images for group in groups(finding)] == [(3, 60, 62), (5, 61)]
    assert finding.sentence == "3 images have the same pixels as another (2 groups)"
    assert kinds(find(rows)) == ["exact-duplicate"]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 75": lambda image: as_jpeg(image, 75),
    "JPEG of quality 40": lambda image: as_jpeg(image, 40),
    "half the size": lambda image: image.resize((64, 48)),
    "twice the size": lambda image: image.resize((256, 192)),
    "another shape": lambda image: image.resize((96, 96)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.7),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "1% cropped at each edge": lambda image: cropped(image, 0.01),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_picture_is_nearly_the_same(photos, usual, change):
    changed = rows_of(change(image) for image in photos)
    report = find(np.concatenate([usual, changed]))
    pairs = [set(group.images) for group in groups(only(report, "near-duplicate"))]
    assert all(pair in [{i, 60 + i} for i in range(60)] for pair in pairs)
    assert len(pairs) >= 54


@pytest.mark.parametrize("side", [8, 16, 32])
def test_small_pictures_that_differ_in_a_stroke_are_not_the_same(side):
    pictures = []
    for stroke in range(6):
        pixels = np.zeros((side, side), np.uint8)
        pixels[side // 8 : -side // 8, side // 4 : side // 2] = 250
        pixels[(1 + stroke) * side // 8 :, side // 2 : -side // 8][: side // 8] = 250
        pictures.append(Image.fromarray(pixels))
    assert find(rows_of(pictures)).findings == ()


def test_the_same_drawing_in_another_colour_is_another_picture():
    hearts = []
    for colour in ((230, 30, 60), (30, 120, 60), (40, 40, 255)):
        pixels = np.full((64, 64, 3), 255, np.uint8)
        pixels[16:48, 10:40] = colour
        hearts.append(Image.fromarray(pixels))
    assert find(rows_of(hearts)).findings == ()


def test_groups_across_splits_come_first_and_then_those_across_classes(photos, usual):
    rows = np.concatenate([usual, usual[[10, 20, 30, 10]]])
    classes = ["cat"] * 30 + ["dog"] * 30 + ["cat", "dog", "dog", "cat"]
    splits = ["train"] * 60 + ["train", "train", "val", "train"]
    finding = only(find(rows, classes, splits), "exact-duplicate")
    assert groups(finding) == [
        Group((62, 30), 2, across_splits=True, across_classes=False),
        Group((20, 61), 2, across_splits=False, across_classes=True),
        Group((10, 60, 63), 3, across_splits=False, across_classes=False),
    ]
    assert finding.sentence == (
        "4 images have the same pixels as another (3 groups); 1 group with images both to learn "
        "from and to measure with; 1 group with images of more than one class"
    )


def test_the_same_image_in_validation_and_test_is_not_learned(usual):
    splits = ["train"] * 59 + ["val", "test"]
    finding = only(find(usual[[*range(60), 59]], (), splits), "exact-duplicate")
    assert groups(finding) == [Group((60, 59), 2, across_splits=False, across_classes=False)]


def test_the_first_of_a_group_is_for_tests_or_else_the_largest(photos):
    small = [image.resize((64, 48)) for image in photos[:2]]
    rows = rows_of([*small, *photos[:2]])
    splits = ["train", "test", "train", "train"]
    finding = only(find(rows, (), splits), "near-duplicate")
    assert [group.images for group in groups(finding)] == [(1, 3), (2, 0)]


def test_near_duplicates_have_one_of_each_group_of_copies(photos):
    rows = rows_of([photos[0], as_jpeg(photos[0], 60), photos[0], as_jpeg(photos[0], 60)])
    report = find(rows)
    assert [group.images for group in groups(only(report, "exact-duplicate"))] == [(0, 2), (1, 3)]
    near = only(report, "near-duplicate")
    assert [group.images for group in groups(near)] == [(0, 1)]
    assert near.sentence == "1 image looks nearly the same as another (1 group)"


def test_groups_are_bounded_and_their_size_is_told(usual):
    rows = np.concatenate([usual[:3], np.repeat(usual[:2], 5, axis=0)])
    finding = only(find(rows), "exact-duplicate")
    assert finding.num_groups == 2
    (group,) = finding.groups(1, 4)
    assert group == Group((0, 3, 4, 5), 6, across_splits=False, across_classes=False)


def test_very_many_images_of_one_kind_do_not_make_all_their_pairs(usual):
    """30,000 scans of one sheet, each with a noise of its own, and as many black images."""
    rng = np.random.default_rng(0)
    scans, black = np.repeat(usual[:1], 30_000), np.zeros(30_000, FINGERPRINT)
    scans["sha256"] = rng.integers(0, 256, (30_000, 32), np.uint8)
    scans["luma"] = scans["luma"] // 2 + rng.integers(0, 2, (30_000, 16, 16), np.uint8)
    black["height"] = black["width"] = 96
    report = find(np.concatenate([scans, black]))
    assert not report.complete
    for kind, images in (
        ("near-duplicate", range(30_000)),
        ("exact-duplicate", range(30_000, 60_000)),
    ):
        (group,) = only(report, kind).groups(2, 1)
        assert group.num_images == 30_000
        assert set(only(report, kind).images.tolist()) == set(images)


# Single images ------------------------------------------------------------------------------------


def test_one_colour_is_found_with_a_scanners_noise(photos, usual):
    noise = np.random.default_rng(0).normal(128, 1.5, (96, 128, 3)).round().astype(np.uint8)
    plain = [Image.new("RGB", (128, 96), "red"), Image.fromarray(noise)]
    report = find(np.concatenate([usual, rows_of(plain)]))
    assert kinds(report) == ["one-colour"]
    assert only(report, "one-colour").images.tolist() == [60, 61]
    assert only(report, "one-colour").sentence == "2 images of one colour"


def test_blurred_images_are_found_the_worst_first(photos, usual):
    blurred = [
        photos[0].filter(ImageFilter.GaussianBlur(2)),
        photos[1].filter(ImageFilter.GaussianBlur(3)),
        photos[2].resize((25, 19)).resize((128, 96), Image.Resampling.BICUBIC),
    ]
    report = find(np.concatenate([usual[3:], rows_of(blurred)]))
    assert kinds(report) == ["blurred"]
    assert only(report, "blurred").images[0] == 58
    assert set(only(report, "blurred").images) == {57, 58, 59}


@pytest.mark.parametrize("side", [8, 16, 31])
def test_small_images_are_not_called_blurred(side):
    pictures = [photo(i).resize((side, side)).filter(ImageFilter.GaussianBlur(3)) for i in range(9)]
    assert "blurred" not in kinds(find(rows_of(pictures)))


def test_a_sharp_thing_before_a_blurred_background_is_sharp(photos):
    pictures = []
    for seed in range(10):
        background = photo(seed).filter(ImageFilter.GaussianBlur(6))
        background.paste(photo(seed + 100, 24, 32), (48, 36))
        pictures.append(background)
    assert "blurred" not in kinds(find(rows_of(pictures)))


def sized(*sizes: tuple[int, int]) -> Fingerprints:
    """Rows of a hundred images of 96 x 128 pixels, and of one of each other size."""
    rows = np.zeros(100 + len(sizes), FINGERPRINT)
    rng = np.random.default_rng(0)
    rows["sha256"] = rng.integers(0, 256, (len(rows), 32), np.uint8)
    rows["luma"] = rng.integers(0, 256, (len(rows), 16, 16), np.uint8)
    rows["deviation"], rows["sharpness"] = 50, 2
    rows["height"], rows["width"] = zip(*[(96, 128)] * 100, *sizes, strict=True)
    return rows


def test_images_that_would_be_enlarged_much_are_tiny():
    report = find(sized((48, 64), (47, 64), (20, 30)))
    assert kinds(report) == ["tiny"]
    assert only(report, "tiny").images.tolist() == [102, 101]
    assert only(report, "tiny").sentence == (
        "2 images would be enlarged more than 2 times to have 96 pixels on the shorter side"
    )


def test_no_image_of_128_pixels_is_tiny():
    rows = sized(*[(128, 128)] * 3)
    rows["height"][:100], rows["width"][:100] = 900, 1200
    assert kinds(find(rows)) == ["odd-size"]
    rows["height"][100:] = 127
    assert kinds(find(rows)) == ["tiny"]


def test_images_of_sixteen_times_the_usual_pixels_are_of_odd_size():
    report = find(sized((96 * 4, 128 * 4 - 8), (96 * 4, 128 * 4 + 8), (960, 1280)))
    assert kinds(report) == ["odd-size"]
    assert only(report, "odd-size").images.tolist() == [102, 101]
    assert "16 times the usual 12,288 pixels" in only(report, "odd-size").sentence


def test_strips_are_of_odd_shape_and_portraits_are_not():
    report = find(sized((128, 96), (100, 265), (268, 100), (100, 500)))
    assert kinds(report) == ["odd-shape"]
    assert only(report, "odd-shape").images.tolist() == [103, 102]


def test_a_set_of_all_shapes_has_none_that_is_odd():
    shapes = [(100, 100 * k // 10) for k in range(10, 60)]
    rows = sized()[:50]
    rows["height"], rows["width"] = zip(*shapes, strict=True)
    assert find(rows).findings == ()


# Classes ------------------------------------------------------------------------------------------


def test_classes_with_few_different_images_to_learn_from_are_small(usual):
    rows = np.concatenate([usual, usual[[40, 41]]])
    classes = ["many"] * 31 + ["few"] * 9 + ["copies"] * 9 + ["held out"] * 11 + ["copies"] * 2
    splits = ["train"] * 49 + ["test"] * 11 + ["train"] * 2
    finding = only(find(rows, classes, splits), "small-class")
    assert finding.sentence == (
        "3 classes of 4 with fewer than 10 different images to learn from: held out (0), "
        "copies (9), few (9)"
    )
    assert finding.images.tolist() == [*range(49, 60), *range(31, 40), *range(40, 49), 60, 61]


def test_without_classes_none_is_small(usual):
    assert find(usual[:5]).findings == ()
    assert find(usual[:5], ["unsorted"] * 5).findings == ()
    assert find(usual[:5], ["cat"] * 5).findings == ()


def test_the_client_knows_the_kinds():
    assert get_args(FindingKind) == KINDS


def test_findings_come_in_the_order_of_kinds(usual):
    rows = np.concatenate([usual, usual[:1], sized((5, 5), (900, 20))])
    found = kinds(find(rows, ["a"] * 60 + ["b"] * 103))
    assert found == [kind for kind in KINDS if kind in found]
    assert {"exact-duplicate", "tiny", "odd-shape"} <= set(found)
