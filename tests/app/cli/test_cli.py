"""`diffusion` as people run it: processes of its own against a real service."""

import base64
import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from app.cli import pictures
from app.cli.main import cli, main
from app.cli.session import duration, request_of, size
from tests.file_server import a_source

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "examples" / "digits" / "digits.zip"
TINY = (
    '--set=net={"block_out_channels":[8,8],"norm_num_groups":4,"attention_head_dim":4}',
    "--set=batch_size=16",
)
COMMAND = (sys.executable, "-m", "app.cli.main")
NOWHERE = "http://127.0.0.1:9"


@dataclass
class Done:
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def environment(service):
    return {**os.environ, "DIFFUSION_URL": str(service.base_url), "COLUMNS": "160"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("here")


@pytest.fixture(scope="module")
def diffusion(environment, folder):
    """diffusion("jobs", "list"): what it said, in this process; it must end with `code`."""

    def run(*arguments, code=0):
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["diffusion", *arguments])
            for name in ("DIFFUSION_URL", "COLUMNS"):
                patch.setenv(name, environment[name])
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == code, err.getvalue() + out.getvalue()
        return Done(out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="module")
def process(environment, folder):
    """The same as a process of its own."""

    def run(*arguments, code=0):
        done = subprocess.run(
            [*COMMAND, *arguments], capture_output=True, text=True, env=environment, cwd=folder
        )
        assert done.returncode == code, done.stderr + done.stdout
        assert "Traceback" not in done.stderr
        return done

    return run


@pytest.fixture(scope="module")
def model(diffusion):
    """The first half of the loop."""
    diffusion("dataset", "add", "digits", str(DIGITS))
    done = diffusion("train", "digits", "--steps=20", "--name=little", *TINY)
    assert "little is made" in done.stdout
    return "little"


def test_the_whole_loop(process, folder, model):
    assert "1797" in process("dataset", "list").stdout
    shown = process("dataset", "show", "digits").stdout
    assert "1797 images, 8 x 8, greyscale" in shown
    assert re.search(r"^7 +179$", shown, re.MULTILINE)
    jobs = process("jobs", "list").stdout
    assert re.search(r"succeeded +100% +little +digits", jobs)
    assert re.search(r"little +8 x 8 +10", process("models", "list").stdout)

    done = process("sample", model, "-n3", "--class=7", "--steps=3", "--seed=5", "--out=new")
    assert "new/little-5-0.png .. little-5-2.png, seed 5" in done.stdout
    files = sorted((folder / "new").iterdir())
    assert [_size_of(file) for file in files] == [(8, 8)] * 3
    assert "little-5-1-again.png, the same to the bit" in process("again", str(files[1])).stdout
    assert (folder / "little-5-1-again.png").read_bytes() == files[1].read_bytes()

    process("noise", str(files[0]), "-t0", "-t1000", "-oladder.webp", "--seed=1")
    assert _size_of(folder / "ladder.webp") == (16, 8)

    process("models", "pull", model)
    with zipfile.ZipFile(folder / "little.zip") as archive:
        assert any(name.endswith(".safetensors") for name in archive.namelist())
    process("models", "pull", model, "--format", "onnx")
    with zipfile.ZipFile(folder / "little-onnx.zip") as archive:
        assert "network.onnx" in archive.namelist()
    shown = process("models", "show", model).stdout
    assert re.search(r"license +unknown", shown)
    assert re.search(r"origin +trained on digits version 1 \(\w{12}\) by job_\w+ in", shown)
    assert re.search(r"network +[\d,]+ parameters, [\d.]+ MB in float32, [\d.]+ MFLOPs", shown)
    assert re.search(r"precisions +float32.*; auto is (float32|bfloat16)", shown)
    process("models", "push", "copy", "little.zip", "--license", "cc-by-4.0")
    assert re.search(r"origin +uploaded", shown := process("models", "show", "copy").stdout)
    assert re.search(r"license +cc-by-4.0", shown)
    assert process("models", "license", "copy", "ask [us]").stdout == "copy: ask [us]\n"
    assert process("models", "license", "copy").stdout == "copy: unknown\n"
    assert process("models", "share", "copy").stdout == "copy is shared\n"
    assert process("models", "share", "copy", "--private").stdout == "copy is private\n"
    assert process("dataset", "share", "digits").stdout == "digits is shared\n"
    process("models", "delete", "copy", "--yes")
    assert "copy" not in process("models", "list").stdout


def test_where_the_classes_come_from_can_be_said(diffusion):
    auto = diffusion("dataset", "add", "by-folders", str(DIGITS)).stdout
    assert "classes from: folders" in auto
    none = diffusion("dataset", "add", "plain", str(DIGITS), "--labels=none").stdout
    assert "classes from: none" in none
    refused = diffusion("dataset", "add", "x", str(DIGITS), "--labels=breeds.csv", code=1)
    assert "the archive has no such file" in refused.stderr


def test_a_url_is_fetched_by_the_service(diffusion):
    with a_source(lambda asked: asked.say(DIGITS.read_bytes())) as source:
        done = diffusion("dataset", "add", "fetched", source.url("/digits.zip"), "--labels=none")
        assert "fetched: 1797 images, 8 x 8, greyscale" in done.stdout
        assert "classes from: none" in done.stdout
        taken = diffusion("dataset", "add", "fetched", source.url(), code=1)
        assert "there is a dataset 'fetched' already" in taken.stderr
    with a_source(lambda asked: asked.say(b"", 404)) as source:
        failed = diffusion("dataset", "add", "missing", source.url(), code=1)
    assert re.search(r"job_\w+ failed: 127\.0\.0\.1:\d+ answered 404", failed.stderr)


def test_json_is_the_apis_and_may_stand_anywhere(diffusion, model):
    listed = json.loads(diffusion("models", "list", "--json").stdout)
    assert [each["name"] for each in listed] == [model]
    assert json.loads(diffusion("--json", "models", "show", model).stdout) == listed[0]
    made = json.loads(diffusion("sample", model, "--steps=2", "--seed=9", "--json").stdout)
    assert made["files"] == ["little-9-0.png"]
    assert made["used"]["seed"] == 9
    job = json.loads(
        diffusion("train", "digits", "--steps=2", "--name=by-json", *TINY, "--json").stdout
    )
    assert job["status"] == "succeeded"


def test_a_job_is_left_alone_paused_resumed_watched_and_cancelled(diffusion, model):
    done = diffusion("train", "digits", "--steps=100000", "--name=long", "--detach", *TINY)
    job = done.stdout.split()[0]
    assert "paus" in diffusion("jobs", "pause", job).stdout
    watched = diffusion("jobs", "watch", job)
    assert "place" in diffusion("jobs", "queue").stdout
    assert f"`diffusion jobs resume {job}`" in watched.stdout
    assert job in diffusion("jobs", "resume", job).stdout
    assert "cancel" in diffusion("jobs", "cancel", job).stdout
    assert "cancelled" in diffusion("jobs", "watch", job, code=1).stderr
    diffusion("jobs", "log", job)
    assert job in diffusion("jobs", "list", "--status=cancelled").stdout
    noted = diffusion("jobs", "note", job, "--tag=wide", "--tag=short", "--notes=left early")
    assert "wide, short" in noted.stdout
    assert job in diffusion("jobs", "list", "--tag=short").stdout
    assert "no tags" in diffusion("jobs", "note", job, "--untag").stdout
    assert job not in diffusion("jobs", "list", "--tag=short").stdout


def test_a_distilled_model_is_asked_for_by_an_option(diffusion, model):
    diffusion("train", "--distill", model, "--steps=2", "--name=quick", "--set=batch_size=16")
    made = json.loads(diffusion("sample", "quick", "--json").stdout)
    assert made["used"]["sampler"] == "consistency"


def test_sizes_are_width_by_height(diffusion, folder, model_archive):
    (folder / "wide").mkdir()
    for i in range(3):
        Image.new("RGB", (90, 60), (i, 0, 0)).save(folder / "wide" / f"{i}.png")
    assert "3 images, 90 x 60, RGB" in diffusion("dataset", "add", "wide", "wide").stdout
    assert re.search(r"wide +3 +0 +90 x 60", diffusion("dataset", "list").stdout)
    assert diffusion("dataset", "ls", "wide").stdout.count("90 x 60") == 3
    (folder / "flat.zip").write_bytes(model_archive((8, 12)))
    assert diffusion("models", "push", "flat", "flat.zip").stdout == "flat: 12 x 8\n"
    assert re.search(r"flat +12 x 8 ", diffusion("models", "list").stdout)
    assert re.search(r"images +12 x 8 ", diffusion("models", "show", "flat").stdout)


def test_errors_are_a_line_and_a_code(diffusion, process, model):
    refused = process("sample", "nobody", code=1)
    assert refused.stderr.startswith("diffusion: ")
    assert "nobody" in refused.stderr
    assert refused.stdout == ""
    assert "num_images" in diffusion("sample", model, "-n0", code=1).stderr
    diffusion("sample", model, "--set", "nonsense", code=2)
    diffusion("dataset", "add", "digits", "no-such-file.zip", code=2)
    diffusion("noise", str(DIGITS), "-o", "out.gif", code=2)
    diffusion("noise", str(DIGITS), code=1)  # no image
    diffusion("nonsense", code=2)
    away = process("--url", NOWHERE, "jobs", "list", code=3)
    assert "diffusion up" in away.stderr


def test_errors_are_json_where_results_are(diffusion, process, model):
    def error(*arguments, code, run=diffusion):
        done = run(*arguments, "--json", code=code)
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        return json.loads(line)

    refused = error("sample", model, "-n0", code=1, run=process)
    assert refused["type"] == "/problems/invalid-input"
    assert (refused["title"], refused["status"]) == ("Invalid input", 422)
    assert [each["pointer"] for each in refused["errors"]] == ["/num_images"]
    assert "num_images" in refused["detail"]
    assert refused["request_id"]
    assert error("models", "show", "nobody", code=1)["status"] == 404
    away = error("--url", NOWHERE, "jobs", "list", code=3)
    assert away["title"] == "Unreachable"
    assert NOWHERE in away["detail"]
    usage = error("sample", model, "--set", "nonsense", code=2, run=process)
    assert usage["title"] == "Wrong usage"
    assert "FIELD=VALUE" in usage["detail"]
    assert "nonsense" in error("nonsense", code=2)["detail"]
    assert error("sample", code=2)["title"] == "Wrong usage"
    assert error("dataset", "add", "x", str(ROOT / "LICENSE"), code=1)["status"] == 422


def test_a_failed_job_is_json_and_so_is_why(diffusion, model):
    started = ("train", "digits", "--steps=100000", "--name=lost", "--detach", *TINY, "--json")
    job = json.loads(diffusion(*started).stdout)["id"]
    diffusion("jobs", "cancel", job)
    done = diffusion("jobs", "watch", job, "--json", code=1)
    assert json.loads(done.stdout)["status"] == "cancelled"
    assert json.loads(done.stderr) == {"title": "Failed", "detail": f"{job} cancelled"}


def test_the_doctor_looks_at_every_part(diffusion):
    found = diffusion("doctor").stdout
    for part in ("Python", "torch", "device", "data folder", "service", "database", "workers"):
        assert part in found
    findings = json.loads(diffusion("doctor", "--json", "--url", NOWHERE, code=1).stdout)
    (away,) = [finding for finding in findings if not finding["ok"]]
    assert away["what"] == "service"
    assert "diffusion up" in away["advice"]


@pytest.mark.parametrize(
    "command",
    ["", "up", "api", "worker", "verify", "noise", "train", "sample", "again", "doctor"]
    + [f"dataset {name}" for name in ("add", "list", "show", "share", "delete")]
    + [f"keys {name}" for name in ("create", "ls", "revoke", "limit", "usage")]
    + [f"jobs {name}" for name in ("list", "watch", "pause", "resume", "cancel", "log")]
    + [f"models {name}" for name in ("list", "show", "pull", "push", "license", "share", "delete")],
)
def test_every_command_explains_itself(command):
    done = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert done.exit_code == 0
    assert "Usage: " in done.output


def test_shells_can_complete(environment):
    environment = {**environment, "_DIFFUSION_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": "diffusion jo", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["jobs"]


@pytest.mark.parametrize(("answer", "status"), [("l", "running"), ("c", "cancelled")])
def test_ctrl_c_asks_whether_the_job_is_to_go_on(environment, service, model, answer, status):
    name = f"asked-{answer}"
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell in the background has it ignored
        arguments = ["train", "digits", "--steps=100000", f"--name={name}", *TINY]
        os.execve(COMMAND[0], [*COMMAND, *arguments], {**environment, "TERM": "xterm"})
    said = _until(terminal, b"images/s")
    os.write(terminal, b"\x03")
    said += _until(terminal, b"[l/c]")
    os.write(terminal, answer.encode() + b"\n")
    _until(terminal, None)
    _, code = os.waitpid(pid, 0)
    jobs = service.get("/train-jobs").json()["items"]
    job = next(job for job in jobs if job["model_name"] == name)
    if answer == "l":
        assert os.waitstatus_to_exitcode(code) == 130
        service.post(job["links"]["cancel"])
    else:
        assert os.waitstatus_to_exitcode(code) == 1
    assert job["status"] == status


def test_up_runs_the_service_until_it_is_told_to_stop(tmp_path):
    command = [*COMMAND, "up", "--port=0", f"--data-dir={tmp_path / 'data'}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout
        deadline = time.monotonic() + 60
        while not (tmp_path / "data" / "diffusion.sqlite3").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


# Parts --------------------------------------------------------------------------------------------


def test_any_field_of_a_request_can_be_set():
    request = request_of(["a=1", "b=text", "net.dropout=0.2", "net.x=[1, 2]", "c=true"], steps=3)
    assert request == {
        "steps": 3,
        "a": 1,
        "b": "text",
        "net": {"dropout": 0.2, "x": [1, 2]},
        "c": True,
    }
    assert request_of(None, steps=None) == {}


def test_sizes_and_durations_read_well():
    assert [size(n) for n in (999, 1000, 123_456_789, 5 * 10**9)] == [
        "999 B",
        "1 KB",
        "123 MB",
        "5.0 GB",
    ]
    assert [duration(s) for s in (4.4, 61, 3725)] == ["0:04", "1:01", "1:02:05"]


@pytest.mark.parametrize(
    ("environment", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"KITTY_WINDOW_ID": "1", "COLORTERM": "truecolor"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm"),
        ({"COLORTERM": "truecolor", "TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "dumb"}, None),
    ],
)
def test_a_terminal_is_known_by_what_it_says_of_itself(environment, way):
    assert pictures.protocol_of(environment) == way


def test_blocks_are_two_pixels_each():
    image = Image.new("RGB", (2, 3))
    image.putpixel((1, 1), (255, 0, 16))
    text = pictures.blocks(image)
    assert text.plain == "▀▀\n▀▀\n"
    assert str(text.spans[1].style) == "#000000 on #ff0010"
    assert str(text.spans[2].style) == "#000000"


def test_a_sheet_is_no_wider_than_the_terminal():
    images = [Image.new("RGB", (8, 8))] * 10
    assert pictures.sheet(images, 40).size == (4 * 9 - 1, 3 * 9 - 1)
    assert pictures.sheet([Image.new("RGB", (200, 100))], 50).size == (50, 25)


def test_kittys_parts_are_the_file():
    png = bytes(range(256)) * 40
    said = pictures.kitty(png)
    parts = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", said)
    assert [control for control, _ in parts] == ["a=T,f=100,m=1", "m=1", "m=1", "m=0"]

    assert base64.b64decode("".join(part for _, part in parts)) == png
    assert pictures.iterm(png).endswith(base64.b64encode(png).decode() + "\x07")


def test_nothing_is_shown_where_nobody_looks(monkeypatch):
    monkeypatch.setenv("COLORTERM", "truecolor")
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    for is_terminal in (False, True):
        out = io.StringIO()
        console = Console(file=out, force_terminal=is_terminal, color_system="truecolor")
        pictures.show_pictures(console, [buffer.getvalue()])
        assert ("▀" in out.getvalue()) == is_terminal


def _size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _until(terminal: int, sign: bytes | None, seconds: float = 60.0) -> bytes:
    """What is said until the sign, or the end."""
    said, deadline = b"", time.monotonic() + seconds
    while sign is None or sign not in said:
        assert time.monotonic() < deadline, said.decode(errors="replace")
        if not select.select([terminal], [], [], 1.0)[0]:
            continue
        try:
            part = os.read(terminal, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            part = b""
        if not part:
            assert sign is None, said.decode(errors="replace")
            return said
        said += part
    return said
