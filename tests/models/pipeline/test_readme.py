"""README.md of a model: what it says is read, what it has is kept, and it can do no harm."""

import pytest
import yaml

from models.diffusion.config import ModelConfig
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.pipeline.card import ModelCard
from models.pipeline.readme import MAX_README, checked_license, read_license, write_readme

TEXT = "# faces\n\nThey are new.\n"


def card_of(*class_names):
    classes = len(class_names) + 1 if class_names else None
    net = UNetConfig(
        1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=classes
    )
    return ModelCard.of(ModelConfig(net, ScheduleConfig(), "v", 0.5, (8, 8), class_names))


def parts(folder):
    """The front matter, by yaml's own loader, and the text."""
    _, header, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), text


@pytest.mark.parametrize(
    ("license_", "fields"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        (
            "our own: 'ask', # please",
            {"license": "other", "license_name": "our own: 'ask', # please"},
        ),
        ("MIT OR Apache-2.0", {"license": "other", "license_name": "MIT OR Apache-2.0"}),
        (None, {}),
    ],
)
def test_a_license_is_written_as_on_the_hub_and_read_again(tmp_path, license_, fields):
    write_readme(tmp_path, card_of(), license_, TEXT)
    front_matter, text = parts(tmp_path)
    assert {k: v for k, v in front_matter.items() if k.startswith("license")} == fields
    assert text.strip() == TEXT.strip()
    found = read_license(tmp_path)
    assert (found and found.lower()) == (license_ and license_.lower())


def test_it_says_what_kind_of_model_it_is(tmp_path):
    write_readme(tmp_path, card_of(), None, TEXT)
    assert parts(tmp_path)[0] == {
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["unconditional-image-generation"],
    }
    (tmp_path / "README.md").unlink()
    write_readme(tmp_path, card_of("cat", "dog"), None, TEXT)
    assert parts(tmp_path)[0]["tags"] == ["class-conditional-image-generation"]
    assert "pipeline_tag" not in parts(tmp_path)[0]


THEIRS = """---
license: other
license_name: ours
license_link: https://example.org/license
tags: [faces, 2024]
extra: 2024-02-29
---

# Theirs

---
kept
"""


def test_a_readme_that_is_there_keeps_its_text_and_its_fields(tmp_path):
    (tmp_path / "README.md").write_text(THEIRS)
    assert read_license(tmp_path) == "ours"
    write_readme(tmp_path, card_of(), "ours", TEXT)
    front_matter, text = parts(tmp_path)
    theirs = yaml.safe_load(THEIRS.split("---\n")[1])
    assert front_matter == {
        **theirs,
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
    }
    assert text.strip() == "# Theirs\n\n---\nkept"
    write_readme(tmp_path, card_of(), "MIT", TEXT)  # it was changed here
    front_matter, text = parts(tmp_path)
    assert {k: v for k, v in front_matter.items() if k.startswith("license")} == {"license": "mit"}
    assert front_matter["tags"] == ["faces", 2024]
    assert text.strip().endswith("kept")
    write_readme(tmp_path, card_of(), None, TEXT)
    assert "license" not in parts(tmp_path)[0]


@pytest.mark.parametrize(
    ("content", "license_"),
    [
        ("---\nlicense: cc-by-4.0\n---\n", "cc-by-4.0"),
        ("---\r\nlicense: cc-by-4.0\r\n---\r\ntext", "cc-by-4.0"),
        ("---\nlicense: [mit, apache-2.0]\n---\n", "mit, apache-2.0"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense: unknown\n---\n", None),
        ("---\nlicense: {a: b}\n---\n", None),
        ("---\n---\n", None),
        ("---\n- license\n---\n", None),
        ("---\nlicense: mit\n", None),  # without an end it is text
        ("license: mit\n", None),
        ("", None),
    ],
)
def test_the_license_is_found_where_it_is_said(tmp_path, content, license_):
    (tmp_path / "README.md").write_bytes(content.encode())
    assert read_license(tmp_path) == license_


def test_without_a_readme_the_license_is_unknown(tmp_path):
    assert read_license(tmp_path) is None


MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 40)
)


@pytest.mark.parametrize(
    "header",
    [
        "license: [",
        "license: !!python/object/apply:os.getcwd []",
        "license: 2024-99-99",
        "license: " + "[" * 5000,
        MERGED,
        "a: " + "x" * 70_000,
    ],
    ids=["not YAML", "an object", "no date", "deep", "merge keys", "long"],
)
def test_front_matter_that_cannot_be_read_says_nothing_and_stays(tmp_path, header):
    content = f"---\n{header}\n---\ntext"
    (tmp_path / "README.md").write_text(content)
    assert read_license(tmp_path) is None
    write_readme(tmp_path, card_of(), "MIT", TEXT)
    assert (tmp_path / "README.md").read_text() == content


def test_a_readme_of_other_bytes_than_utf_8_keeps_them(tmp_path):
    (tmp_path / "README.md").write_bytes(b"caf\xe9\n")
    write_readme(tmp_path, card_of(), "MIT", TEXT)
    assert (tmp_path / "README.md").read_bytes().endswith(b"---\n\ncaf\xe9\n")
    large = b"---\nlicense: mit\n---\n" + b"x" * MAX_README
    (tmp_path / "README.md").write_bytes(large)
    assert read_license(tmp_path) is None
    write_readme(tmp_path, card_of(), "MIT", TEXT)
    assert (tmp_path / "README.md").read_bytes() == large


@pytest.mark.parametrize("text", ["", "  ", "x" * 201, "two\nlines", "nul\0", "\ud800"])
def test_a_license_out_of_bounds_is_refused(tmp_path, text):
    with pytest.raises(Invalid, match=r"^license is .*; it must have 1\.\.200 printable"):
        checked_license(text)


def test_a_license_is_refused_in_a_readme_too(tmp_path):
    (tmp_path / "README.md").write_text(f"---\nlicense: {'x' * 201}\n---\n")
    with pytest.raises(Invalid, match="license is"):
        read_license(tmp_path)
    assert checked_license(" MIT ") == "MIT"
