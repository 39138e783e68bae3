"""What a job makes belongs to whoever ordered it, and its time counts against their quota."""

import time

from store.access.owners import Caller
from store.access.quotas import usage_of
from store.datasets import set_visibility
from store.models import get_model


def test_a_training_gives_its_model_to_its_owner_and_counts_its_time(place):
    everybody = place.database
    set_visibility(everybody, "tones", "shared")
    place.database = everybody.for_caller(Caller("alice"))
    job = place.accept(steps=20)
    assert (job.made_by, job.dataset) == ("alice", "tones")
    place.start_worker()
    place.finish(job)
    model = get_model(everybody, job.model_name)
    assert (model.name, model.made_by, model.visibility) == (job.model_name, "alice", "private")
    assert model.name.startswith("alice:")
    deadline = time.monotonic() + 30  # it is counted once the process has ended
    while not (minutes := usage_of(place.database)["train_minutes"]["used"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert minutes < 5
    assert usage_of(everybody.for_caller(Caller("bob")))["train_minutes"]["used"] == 0
