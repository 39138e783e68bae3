"""What a failed job tells its owner."""

import errno

import pytest

from models.fields import Invalid, check_number
from store.errors import ModelConflict
from worker.job_process import classify


def test_a_refusal_is_shown_with_its_text() -> None:
    with pytest.raises(Invalid) as refusal:
        check_number("learning_rate", 2.0, 1e-7, 1.0)
    assert classify(refusal.value) == (
        "invalid",
        "learning_rate is 2.0; it must lie in 1e-07..1",
    )


def test_an_error_inside_the_service_is_never_told_as_the_caller_s_fault() -> None:
    with pytest.raises(ValueError, match="invalid literal") as fault:
        int("secret")
    code, message = classify(fault.value)
    assert code == "internal"
    assert "secret" not in message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ModelConflict("there is a model 'm' already"), "model_exists"),
        (MemoryError(), "out_of_memory"),
        (OSError(errno.ENOSPC, "no space"), "disk_full"),
        (RuntimeError("shape mismatch"), "internal"),
    ],
)
def test_each_failure_has_a_code(error: Exception, code: str) -> None:
    assert classify(error)[0] == code
