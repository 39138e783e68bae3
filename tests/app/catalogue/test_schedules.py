import math
from dataclasses import asdict

import numpy as np
import pytest

from models.diffusion.schedule import SCHEDULE_NAMES, NoiseSchedule, ScheduleConfig


def test_the_list_names_every_schedule_and_where_it_is(client):
    listed = client.get("/schedules").json()["schedules"]
    assert [item["name"] for item in listed] == list(SCHEDULE_NAMES)
    for item in listed:
        assert client.get(item["url"]).json()["name"] == item["name"]


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_the_tables_agree_with_each_other(client, name):
    tables = client.get(f"/schedules/{name}", params={"num_train_timesteps": 50}).json()
    alphas, sigmas = np.array(tables["alphas"]), np.array(tables["sigmas"])
    assert len(alphas) == len(sigmas) == len(tables["snr"]) == 51
    assert len(tables["betas"]) == 50
    assert tables["snr"][0] is None
    assert np.allclose(tables["snr"][1:], (alphas[1:] / sigmas[1:]) ** 2)
    assert np.allclose(tables["alphas_cumprod"][1:], np.cumprod(1 - np.array(tables["betas"])))
    assert np.allclose(alphas**2 + sigmas**2, 1) == tables["is_variance_preserving"]


def test_the_classic_schedule_is_the_default(client):
    tables = client.get("/schedules/linear").json()
    assert tables["num_train_timesteps"] == 1000
    assert math.isclose(tables["betas"][0], 1e-4)
    assert math.isclose(tables["betas"][-1], 0.02)


def test_rescaling_leaves_no_signal_at_the_end(client):
    tables = client.get("/schedules/linear", params={"rescale_zero_terminal_snr": True}).json()
    assert tables["snr"][-1] == 0
    assert tables["betas"][-1] == 1


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_a_schedule_can_be_seen(client, name):
    drawing = client.get(f"/schedules/{name}", headers={"Accept": "image/svg+xml"})
    assert drawing.headers["content-type"] == "image/svg+xml"
    assert f"{name}, T = 1000" in drawing.text
    assert drawing.text.rstrip().endswith("</svg>")
    painting = client.get(f"/schedules/{name}", headers={"Accept": "image/png"})
    assert painting.headers["content-type"] == "image/png"
    assert painting.content.startswith(b"\x89PNG")


def test_a_copy_that_is_current_is_not_sent_again(client):
    first = client.get("/schedules/cosine")
    tag = first.headers["etag"]
    again = client.get("/schedules/cosine", headers={"If-None-Match": f'"other", W/{tag}'})
    assert again.status_code == 304
    assert again.content == b""
    assert again.headers["etag"] == tag
    drawing = client.get(
        "/schedules/cosine", headers={"If-None-Match": tag, "Accept": "image/svg+xml"}
    )
    assert drawing.status_code == 200


@pytest.mark.parametrize("steps", ["0", "10001", "1.5", "x", "nan"])
def test_a_number_of_steps_outside_its_bound_is_refused(client, steps):
    answer = client.get("/schedules/linear", params={"num_train_timesteps": steps})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["parameter"] == "num_train_timesteps"
    assert error["in"] == "query"


def test_an_option_that_the_schedule_lacks_is_refused(client):
    answer = client.get("/schedules/flow", params={"rescale_zero_terminal_snr": True})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "rescale_zero_terminal_snr"


def test_the_schedule_of_a_model_is_given_by_its_config(client):
    config = ScheduleConfig("edm", 40, sigma_min=0.01, sigma_max=12.0, rho=3.0)
    asked = {key: value for key, value in asdict(config).items() if key != "name"}
    found = client.get("/schedules/edm", params=asked).json()
    expected = NoiseSchedule.from_config(config)
    assert found["sigmas"] == expected.sigma.tolist()
    assert found["sigmas"][-1] == pytest.approx(12.0)
    linear = client.get("/schedules/linear", params={"beta_start": 0.01, "beta_end": 0.05}).json()
    assert linear["betas"][0] == pytest.approx(0.01)
    assert linear["betas"][-1] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        ("linear", "beta_start", 0.5),  # above beta_end
        ("linear", "beta_end", 1.0),
        ("edm", "sigma_min", 90),  # above sigma_max
        ("edm", "sigma_max", "nan"),
        ("edm", "rho", 0.1),
    ],
)
def test_a_number_that_a_schedule_cannot_have_is_refused(client, name, parameter, value):
    answer = client.get(f"/schedules/{name}", params={parameter: value})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == parameter
    assert answer.json()["errors"][0]["in"] == "query"


def test_a_schedule_that_does_not_exist_is_not_found(client):
    answer = client.get("/schedules/quadratic")
    assert answer.status_code == 404
    assert "'cosine'" in answer.json()["detail"]
