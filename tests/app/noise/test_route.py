import base64
import io
import struct
import zipfile
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image

from models.diffusion.forward import closed_form, step_by_step
from models.diffusion.schedule import SCHEDULE_NAMES, NoiseSchedule, ScheduleConfig
from tests.models.images.test_reading import CAMERA, RED, gif, mpo, png16


def noise(
    client: httpx.Client, image: bytes, accept: str = "image/png", **fields: Any
) -> httpx.Response:
    return client.post(
        "/noise",
        files={"image": ("image.png", image)},
        data=fields,
        headers={"Accept": accept},
    )


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def assert_refused(answer: httpx.Response, field: str, *said: str) -> None:
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "/problems/invalid-input"
    assert problem["request_id"] == answer.headers["x-request-id"]
    (error,) = problem["errors"]
    assert error["parameter"] == field
    assert error["in"] == "form"
    for text in said:
        assert text in error["detail"]


def test_t_0_is_the_image_itself(client, picture):
    image = picture()
    answer = noise(client, image, t=0)
    assert answer.status_code == 200
    assert np.array_equal(pixels(answer.content), pixels(image))


@pytest.mark.parametrize("method", ["closed_form", "step_by_step"])
def test_the_pixels_are_those_of_the_forward_process(client, picture, method):
    image = picture()
    answer = noise(client, image, t=40, num_train_timesteps=100, seed=7, method=method)
    process = closed_form if method == "closed_form" else step_by_step
    x0 = torch.from_numpy(pixels(image).transpose(2, 0, 1)[None].copy()).float() / 127.5 - 1
    schedule = NoiseSchedule.from_config(ScheduleConfig(num_train_timesteps=100))
    x_t = process(schedule, x0, 40, 7)[0].numpy().transpose(1, 2, 0)
    expected = np.clip(np.round((x_t + 1) * 127.5), 0, 255)
    assert np.abs(pixels(answer.content) - expected).max() <= 1  # two ways to round a half


def test_a_walk_that_passes_several_t_is_the_walk_to_each(client, picture):
    fields = {"num_train_timesteps": 50, "seed": 3, "method": "step_by_step"}
    ladder = pixels(noise(client, picture(), t=[30, 10, 0], **fields).content)
    for place, t in enumerate((30, 10, 0)):
        alone = pixels(noise(client, picture(), t=t, **fields).content)
        assert np.array_equal(ladder[:, 24 * place : 24 * (place + 1)], alone)


def test_several_t_make_a_strip_in_the_order_asked_for(client, picture):
    answer = noise(client, picture(), t=[0, 1000, 500], seed=1)
    assert pixels(answer.content).shape == (16, 72, 3)
    assert answer.headers["diffusion-t"] == "0, 1000, 500"
    alphas = [float(alpha) for alpha in answer.headers["diffusion-alpha"].split(", ")]
    assert alphas[0] == 1.0
    assert alphas[1] < alphas[2] < 1.0


def test_the_same_seed_gives_the_same_bytes_and_no_seed_is_reported(client, picture):
    first = noise(client, picture(), t=300)
    again = noise(client, picture(), t=300, seed=first.headers["diffusion-seed"])
    other = noise(client, picture(), t=300)
    assert first.content == again.content
    assert first.content != other.content


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
def test_every_schedule_ends_in_something_to_look_at(client, picture, schedule):
    answer = noise(client, picture(64, 64), t=1000, schedule=schedule, seed=5)
    assert answer.headers["diffusion-schedule"] == schedule
    extreme = np.isin(pixels(answer.content), (0, 255)).mean()
    assert extreme < 0.4  # a clipped normal has 0.32; unscaled edm noise would have 0.99


@pytest.mark.parametrize("accept", ["image/png", "image/webp", "image/jpeg"])
def test_accept_decides_the_format(client, picture, accept):
    answer = noise(client, picture(), accept=f"{accept}, */*;q=0.1", t=100)
    assert answer.headers["content-type"] == accept
    assert answer.headers["vary"] == "Accept"
    assert Image.open(io.BytesIO(answer.content)).get_format_mimetype() == accept


def test_a_zip_has_one_file_for_each_t(client, picture):
    answer = noise(client, picture(), accept="application/zip", t=[0, 250, 250], seed=1)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.namelist() == ["000-t00000.png", "001-t00250.png", "002-t00250.png"]
        assert np.array_equal(pixels(archive.read("000-t00000.png")), pixels(picture()))


def test_an_animation_has_one_frame_for_each_t(client, picture):
    times = [0, 400, 800]
    answer = noise(client, picture(), accept="image/apng", t=times, seed=1)
    assert answer.headers["content-type"] == "image/apng"
    with Image.open(io.BytesIO(answer.content)) as animation:
        assert animation.n_frames == 3
        for i, t in enumerate(times):
            animation.seek(i)
            alone = noise(client, picture(), t=t, seed=1)
            assert np.array_equal(np.asarray(animation.convert("RGB")), pixels(alone.content))


def test_json_says_what_was_used(client, picture):
    answer = noise(
        client, picture(), accept="application/json", t=[0, 600], seed=9, schedule="cosine"
    ).json()
    clean, noised = answer["images"]
    schedule = NoiseSchedule.from_config(ScheduleConfig("cosine"))
    assert answer["seed"] == 9
    assert answer["image_size"] == [16, 24]
    assert clean["snr"] is None
    assert noised["alpha"] == schedule.alpha[600]
    assert noised["sigma"] == schedule.sigma[600]
    assert noised["snr"] == pytest.approx(schedule.snr[600])
    same = noise(client, picture(), t=600, seed=9, schedule="cosine")
    assert base64.b64decode(noised["data"]) == same.content


def test_what_cannot_be_produced_is_not_acceptable(client, picture):
    answer = noise(client, picture(), accept="text/html, image/png;q=0", t=1)
    assert answer.status_code == 406
    assert "image/webp" in answer.json()["detail"]


@pytest.mark.parametrize(("size", "shape"), [("8", (8, 8, 3)), ("8x12", (8, 12, 3))])
def test_image_size_is_height_times_width(client, picture, size, shape):
    assert pixels(noise(client, picture(), t=10, image_size=size).content).shape == shape


def test_greyscale_stays_greyscale(client, picture):
    image = Image.open(io.BytesIO(noise(client, picture(mode="L"), t=10).content))
    assert image.mode == "L"


@pytest.mark.parametrize("t", ["-1", "1001", "1.5", "x", "", "1e3", "99999999999999999999"])
def test_a_t_outside_its_range_is_refused_with_the_bound(client, picture, t):
    assert_refused(noise(client, picture(), t=t), "t", "0..")


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("schedule", "quadratic", "'cosine'"),
        ("num_train_timesteps", "0", "1"),
        ("num_train_timesteps", "1000000000", "10000"),
        ("method", "jump", "'closed_form'"),
        ("seed", "-1", "0"),
        ("seed", "9223372036854775808", "9223372036854775807"),
        ("image_size", "0", "1"),
        ("image_size", "8x", "48x64"),
        ("image_size", "nan", "48x64"),
        ("rescale_zero_terminal_snr", "perhaps", "boolean"),
        ("colour", "red", "not permitted"),
    ],
)
def test_a_field_outside_its_bound_is_named(client, picture, field, value, bound):
    assert_refused(noise(client, picture(), t=1, **{field: value}), field, bound)


def test_an_option_that_the_schedule_lacks_is_refused(client, picture):
    answer = noise(client, picture(), t=1, schedule="edm", rescale_zero_terminal_snr=True)
    assert_refused(answer, "rescale_zero_terminal_snr", "edm")


def test_image_and_t_are_required(client, picture):
    assert_refused(noise(client, picture()), "t", "required")
    without_image = client.post("/noise", files={"t": (None, "1")})
    assert_refused(without_image, "image", "required")


def test_one_field_given_twice_is_refused(client, picture):
    assert_refused(noise(client, picture(), t=1, seed=[1, 2]), "seed", "2 times")


@pytest.mark.parametrize("data", [b"", b"these are words", b"\x89PNG\r\n\x1a\n", b"GIF89a" * 99])
def test_a_file_that_is_no_image_is_refused(client, data):
    assert_refused(noise(client, data, t=1), "image")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_a_truncated_image_is_refused(client, picture, kept):
    for file_format in ("PNG", "JPEG"):
        image = picture(200, 200, file_format=file_format)
        assert_refused(noise(client, image[: int(kept * len(image))], t=1), "image")


def test_a_decompression_bomb_is_refused_before_it_is_opened(client):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1_000_000)
    chunks = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    assert_refused(noise(client, bomb, t=1), "image", "1000000")


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("I;16", "PNG"), ("1", "PNG"), ("CMYK", "JPEG")],
)
def test_images_of_other_kinds_are_converted(client, picture, mode, file_format):
    answer = noise(client, picture(mode=mode, file_format=file_format), t=0)
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).mode in ("RGB", "L")


def test_an_image_of_a_kind_that_is_not_read_is_refused(client):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.float32)).save(buffer, "TIFF")
    assert_refused(noise(client, buffer.getvalue(), t=1), "image", "floating point")


def test_an_animation_is_refused(client):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert_refused(noise(client, buffer.getvalue(), t=1), "image", "frames")


def test_work_beyond_the_bounds_is_refused(client, picture):
    image = picture(400, 400)
    assert_refused(noise(client, image, t=[1] * 7), "t", "1000000")
    assert_refused(noise(client, picture(), t=[1] * 9), "t", "at most 8")
    assert_refused(noise(client, picture(), t=1, image_size=1001), "image_size", "1000000")
    assert_refused(noise(client, image, t=100, method="step_by_step"), "t", "4000000")


def test_a_body_that_is_too_large_is_refused(client):
    answer = noise(client, b"0" * 2_000_001, t=1)
    assert answer.status_code == 413
    assert answer.json()["type"] == "/problems/too-large"
    assert "2000000" in answer.json()["detail"]


def test_a_body_without_a_length_is_cut_off_at_the_limit(client):
    answer = client.post(
        "/noise",
        content=(b"0" * 100_000 for _ in range(30)),
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("", b"", 415),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n1\r\n--x--", 400),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="t"',
            400,
        ),
        ("multipart/form-data; boundary=x", b"--x--\r\n", 422),
    ],
)
def test_a_body_that_is_no_form_is_refused(client, content_type, body, status):
    answer = client.post("/noise", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


# What is in the file ------------------------------------------------------------------------------


def test_of_a_cameras_jpeg_the_first_picture_is_noised(client):
    answer = noise(client, mpo(), t=0)
    assert answer.status_code == 200, answer.text
    assert pixels(answer.content).shape == (32, 48, 3)


def test_a_dark_image_is_warned_of_and_a_range_brightens_it(client):
    dark = noise(client, png16(CAMERA), t=0)
    assert dark.headers["diffusion-warning"].startswith("image: 1 of 1 images")
    assert pixels(dark.content).max() == round(4000 / 257)
    bright = noise(client, png16(CAMERA), t=0, range="data")
    assert "diffusion-warning" not in bright.headers
    assert (pixels(bright.content).min(), pixels(bright.content).max()) == (0, 255)


def test_an_animation_is_refused_unless_its_first_frame_is_asked_for(client):
    frames = gif([RED, "blue"])
    assert_refused(noise(client, frames, t=0), "image", "2 frames", "frames=first")
    first = noise(client, frames, t=0, frames="first")
    assert pixels(first.content)[0, 0].tolist() == [255, 0, 0]
    assert_refused(noise(client, frames, t=0, frames="all"), "frames")


def test_fit_says_how_an_image_comes_to_its_size(client, picture):
    corners = {
        fit: pixels(noise(client, picture(), t=0, image_size=32, fit=fit).content)[0, 0].tolist()
        for fit in ("crop", "pad", "stretch")
    }
    assert corners["pad"] == [255, 255, 255]  # it is 16 x 24
    assert corners["crop"] != corners["pad"] != corners["stretch"]
