"""The service does not listen beyond its machine without a key, and `diffusion keys` makes one."""

import json
import os
import subprocess
import sys

import pytest

from app.access.exposure import Exposed, check_exposure
from app.settings import Settings
from store.access.keys import create_key
from store.access.owners import Quotas
from store.access.quotas import charge_images, set_quotas
from store.database import open_database
from store.locations import Locations


@pytest.fixture
def environment(tmp_path):
    return {**os.environ, "DIFFUSION_DATA_DIR": str(tmp_path), "DIFFUSION_HOST": "0.0.0.0"}


def run(environment, *arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("module", ["app.up", "app.server"])
def test_it_refuses_to_start(module, environment):
    refused = run({**environment, "DIFFUSION_PORT": "0"}, module)
    assert refused.returncode == 1
    for words in ("everybody who can reach 0.0.0.0", "diffusion keys create", "DIFFUSION_OPEN=1"):
        assert words in refused.stderr


def test_one_key_is_enough(tmp_path, environment):
    settings = Settings(host="0.0.0.0", locations=Locations(tmp_path))
    with pytest.raises(Exposed):
        check_exposure(settings)
    made = run(environment, "app.cli.main", "--json", "keys", "create", "root", "--scopes=admin")
    assert made.returncode == 0, made.stderr
    key = json.loads(made.stdout)
    assert key["key"].startswith(f"dk_{key['id']}_")
    check_exposure(settings)
    revoked = run(environment, "app.cli.main", "keys", "revoke", "root")
    assert key["id"] in revoked.stdout
    check_exposure(settings)  # it answers nobody now, rather than everybody
    listed = json.loads(run(environment, "app.cli.main", "--json", "keys", "ls").stdout)
    assert [(k["owner"], k["scopes"]) for k in listed] == [("root", ["admin"])]
    assert listed[0]["revoked_at"]
    assert key["key"] not in json.dumps(listed)


def test_a_proxy_makes_loopback_no_guard(tmp_path, environment):
    refused = run({**environment, "DIFFUSION_HOST": "", "DIFFUSION_PROXIES": "::1"}, "app.up")
    assert refused.returncode == 1
    assert "everybody who can reach the proxy of DIFFUSION_PROXIES" in refused.stderr
    check_exposure(Settings(open=True, proxies=("::1",), locations=Locations(tmp_path)))


def test_an_operator_may_say_that_it_is_guarded_or_on_loopback(tmp_path):
    check_exposure(Settings(host="0.0.0.0", open=True, locations=Locations(tmp_path)))
    for host in ("127.0.0.1", "::1", "localhost"):
        check_exposure(Settings(host=host, locations=Locations(tmp_path)))
    assert list(tmp_path.iterdir()) == [], "nothing was looked up"


def test_what_each_owner_uses_is_listed(tmp_path, environment):
    database = open_database(Locations(tmp_path).database_url)
    for owner in ("alice", "bob"):
        create_key(database, owner, ["sample"])
    set_quotas(database, "alice", {"images": 50})
    charge_images(database.for_owner("alice", Quotas()), 7)
    database.close()
    limited = {**environment, "DIFFUSION_QUOTA_IMAGES": "20"}
    listed = json.loads(run(limited, "app.cli.main", "--json", "keys", "usage").stdout)
    assert [(each["owner"], each["images"]) for each in listed] == [
        ("alice", {"used": 7, "quota": 50}),
        ("bob", {"used": 0, "quota": 20}),
    ]
    assert set(listed[0]) == {"owner", "bytes", "jobs", "train_minutes", "images"}
    assert "7 of 50" in run(limited, "app.cli.main", "keys", "usage").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("create", "Big Name"), "it must have 1..32 characters"),
        (("create", "a", "--scopes", "all"), "is none of read, sample, train, datasets, admin"),
        (("revoke", "nothing"), "there is no key 'nothing'"),
    ],
)
def test_what_cannot_be_is_refused(arguments, words, environment):
    refused = run({**environment, "COLUMNS": "200"}, "app.cli.main", "keys", *arguments)
    assert refused.returncode == 2
    assert words in refused.stderr
