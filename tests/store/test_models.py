"""Models by name."""

import pytest

from store.errors import InvalidName, ModelConflict, ModelNotFound
from store.models import (
    ModelRecord,
    change_model,
    create_model,
    delete_model,
    get_model,
    list_models,
)


def a_model(name: str = "faces", digest: str = "d1") -> ModelRecord:
    return ModelRecord(
        name=name,
        digest=digest,
        details={"image_size": [8, 9], "class_names": ["cat"]},
        artifact_prefix=f"models/{digest}",
        num_bytes=2**40,
    )


def test_a_model_is_kept_with_its_details(database):
    create_model(database, a_model())
    kept = get_model(database, "faces")
    assert kept.details == {"image_size": [8, 9], "class_names": ["cat"]}
    assert (kept.num_bytes, kept.job_id, kept.dataset) == (2**40, None, None)
    assert kept.license is None


def test_a_license_can_be_changed_and_forgotten(database):
    create_model(database, a_model())
    for said in ("Apache-2.0", "MIT", None):
        assert change_model(database, "faces", license=said).license == said
        assert get_model(database, "faces").license == said


def test_a_taken_name_is_refused(database):
    create_model(database, a_model(digest="d1"))
    with pytest.raises(ModelConflict, match="'faces' already"):
        create_model(database, a_model(digest="d2"))
    assert get_model(database, "faces").digest == "d1"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a..b", "A", "a" * 300])
def test_a_name_that_is_no_name_is_refused(database, name):
    with pytest.raises(InvalidName, match=r"model is .*1..63 characters"):
        create_model(database, a_model(name))
    assert list_models(database, limit=10) == ([], False)


def test_an_unknown_model_is_not_found(database):
    with pytest.raises(ModelNotFound, match="'faces'"):
        get_model(database, "faces")
    with pytest.raises(ModelNotFound, match="'faces'"):
        delete_model(database, "faces")
    with pytest.raises(ModelNotFound, match="'faces'"):
        change_model(database, "faces", license="MIT")


def test_models_come_in_pages_newest_first(database):
    names = ["c", "a", "e", "b", "d"]
    for name in names:
        create_model(database, a_model(name))
    seen, after, more = [], None, True
    while more:
        page, more = list_models(database, limit=2, after=after)
        seen += [record.name for record in page]
        after = seen[-1]
    assert seen == names[::-1]


def test_a_deleted_model_is_gone_and_its_name_free(database):
    create_model(database, a_model(digest="d1"))
    assert delete_model(database, "faces").artifacts == ["models/d1"]
    create_model(database, a_model(digest="d2"))
    assert get_model(database, "faces").digest == "d2"
