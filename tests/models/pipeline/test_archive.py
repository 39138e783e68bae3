"""Archives of models: what is packed comes back, and nothing else is unpacked."""

import os
import stat
import zipfile
from pathlib import Path

import pytest

from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.archive import extract_model_archive, write_model_archive
from models.pipeline.torch_folder import load_model, save_model

NET = UNetConfig(1, 1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    config = ModelConfig(NET, ScheduleConfig(), "epsilon", 0.3, (8, 8))
    save_model(DiffusionModel(config, UNet(NET)), tmp_path / "model", {})
    return tmp_path / "model"


def a_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_model_survives_its_archive(tmp_path: Path, saved: Path) -> None:
    write_model_archive(saved, tmp_path / "model.zip")
    extract_model_archive(tmp_path / "model.zip", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(saved)
    assert load_model(tmp_path / "copy").config == load_model(saved).config


def test_the_same_files_give_the_same_archive(tmp_path: Path, saved: Path) -> None:
    write_model_archive(saved, tmp_path / "one.zip")
    for path in saved.rglob("*"):
        os.utime(path, times=(1e9, 1e9))
        path.chmod(0o700)
    write_model_archive(saved, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_one_folder_around_everything_is_dropped(tmp_path: Path, saved: Path) -> None:
    files = {f"my model/{name}": data for name, data in contents(saved).items()}
    extract_model_archive(a_zip(tmp_path / "model.zip", files), tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(saved)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../config.json", "leaves the archive"),
        ("unet/../../config.json", "leaves the archive"),
        ("..\\config.json", "leaves the archive"),
        ("/etc/config.json", "leaves the archive"),
        ("a" * 300 + ".json", "longer than 200 characters"),
    ],
)
def test_a_file_that_has_no_place_in_a_model_is_refused(
    tmp_path: Path, name: str, message: str
) -> None:
    archive = a_zip(tmp_path / "model.zip", {"config.json": b"{}", name: b"x"})
    (tmp_path / "inside").mkdir()
    with pytest.raises(Invalid, match=message):
        extract_model_archive(archive, tmp_path / "inside" / "copy")
    assert contents(tmp_path / "inside") == {}
    assert not (tmp_path / "config.json").exists()


# An upload as people pack it, around a folder of diffusers: what is skipped, and a part of why.
CLUTTER = {
    "__MACOSX/my model/._config.json": "system",
    "__MACOSX/._my model": "system",
    "my model/.DS_Store": "system",
    "my model/.gitattributes": "system",
    "my model/.git/config": "system",
    "my model/unet/.ipynb_checkpoints/config.json": "system",
    "my model/samples/0001.png": "no part of a model",
    "my model/logs/train/events.out.tfevents.1": "no part of a model",
    "my model/unet/diffusion_pytorch_model.bin": "pickle",
    "my model/optimizer.pt": "pickle",
    "my model/random_states_0.pkl": "pickle",
    "my model/unet/diffusion_pytorch_model.fp16.safetensors": "is read instead",
    "my model/unet_ema/diffusion_pytorch_model.safetensors": "no part of a model",
    "my model/unet_ema/config.json": "no part of a model",
    "my model/checkpoint-500/unet/config.json": "no part of a model",
    "my model/checkpoint-500/unet/diffusion_pytorch_model.safetensors": "no part of a model",
    "notes.txt": "outside of the model's folder, 'my model'",
    "train.py": "no part of a model",
    "link-to-nothing.sh": "no part of a model",
}


def test_what_lies_around_a_model_is_skipped_and_listed(tmp_path: Path, saved: Path) -> None:
    own = {f"my model/{name}": data for name, data in contents(saved).items()}
    own["my model/LICENSE"] = b"free"
    archive = tmp_path / "model.zip"
    a_zip(archive, {**dict.fromkeys(CLUTTER, b"\x80\x04not for reading"), **own})
    damaged = archive.read_bytes()
    with zipfile.ZipFile(archive) as file:  # whoever opened one of these would fail
        for info in file.infolist():
            if info.filename in CLUTTER:
                at = info.header_offset
                damaged = damaged[:at] + b"gone" + damaged[at + 4 :]
    archive.write_bytes(damaged)
    skipped = extract_model_archive(archive, tmp_path / "copy")
    assert contents(tmp_path / "copy") == {**contents(saved), "LICENSE": b"free"}
    assert {each.name for each in skipped} == set(CLUTTER)
    assert all(CLUTTER[each.name] in each.reason for each in skipped)


def test_a_model_deep_inside_folders_is_found(tmp_path: Path, saved: Path) -> None:
    files = {f"a/b/{name}": data for name, data in contents(saved).items()}
    assert extract_model_archive(a_zip(tmp_path / "model.zip", files), tmp_path / "copy") == []
    assert contents(tmp_path / "copy") == contents(saved)


def test_of_several_models_none_is_guessed(tmp_path: Path, saved: Path) -> None:
    files = {f"checkpoint-{n}/{k}": v for n in (5, 10) for k, v in contents(saved).items()}
    with pytest.raises(Invalid, match="several models, in 'checkpoint-10' and 'checkpoint-5'"):
        extract_model_archive(a_zip(tmp_path / "model.zip", files), tmp_path / "copy")


def test_weights_as_a_pickle_alone_are_refused_by_name(tmp_path: Path) -> None:
    files = {"unet/config.json": b"{}", "unet/diffusion_pytorch_model.bin": b"x"}
    with pytest.raises(Invalid, match=r"safetensors only; there is 'unet/diffusion.*\.bin'"):
        extract_model_archive(a_zip(tmp_path / "model.zip", files), tmp_path / "copy")


def test_a_link_or_a_name_that_leaves_the_archive_is_harmless_where_it_is_skipped(
    tmp_path: Path,
) -> None:
    link = zipfile.ZipInfo("picture.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("config.json", "{}")
        file.writestr(link, "/etc/passwd")
        file.writestr("../outside.png", "x")
    (tmp_path / "inside").mkdir()
    skipped = extract_model_archive(tmp_path / "model.zip", tmp_path / "inside" / "copy")
    assert [each.name for each in skipped] == ["picture.png", "../outside.png"]
    assert contents(tmp_path / "inside") == {"copy/config.json": b"{}"}
    assert not (tmp_path / "outside.png").exists()


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "nameless.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.json", "{}")
    path.write_bytes(path.read_bytes().replace(b"a.json", b"\0.json"))
    with pytest.raises(Invalid, match="no file of the archive is part of a model"):
        extract_model_archive(path, tmp_path / "model")


def test_an_archive_that_lost_its_beginning_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "headless.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}" * 200)
    path.write_bytes(path.read_bytes()[100:])
    with pytest.raises(Invalid, match="not a zip archive, or it is damaged"):
        extract_model_archive(path, tmp_path / "model")


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("config.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(Invalid, match=r"'config\.json' is a symbolic link"):
        extract_model_archive(tmp_path / "model.zip", tmp_path / "copy")


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    archive = a_zip(tmp_path / "model.zip", {f"{i}.txt": b"" for i in range(65)})
    with pytest.raises(
        Invalid, match=r"65 files .* at most 64 may be; a model is a diffusers folder"
    ):
        extract_model_archive(archive, tmp_path / "copy")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    files = {"a.txt": bytes(600), "b.txt": bytes(600)}
    archive = a_zip(tmp_path / "model.zip", files, zipfile.ZIP_DEFLATED)
    extract_model_archive(archive, tmp_path / "fits", max_bytes=1200)
    with pytest.raises(Invalid, match="more than 1199 bytes"):
        extract_model_archive(archive, tmp_path / "copy", max_bytes=1199)


def test_an_archive_that_understates_its_size_is_refused(tmp_path: Path) -> None:
    archive = a_zip(tmp_path / "model.zip", {"a.txt": bytes(100_000)}, zipfile.ZIP_DEFLATED)
    true, false = (100_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    assert true in archive.read_bytes()
    archive.write_bytes(archive.read_bytes().replace(true, false))
    with pytest.raises(Invalid, match=r"damaged|more than"):
        extract_model_archive(archive, tmp_path / "copy", max_bytes=1000)
    assert sum(len(data) for data in contents(tmp_path / "copy").values()) <= 1000


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile's, on writing the case
def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as file:
        file.writestr("config.json", "{}")
        file.writestr("config.json", "[]")
    with pytest.raises(Invalid, match="damaged"):
        extract_model_archive(tmp_path / "model.zip", tmp_path / "copy")


def test_a_file_that_is_also_a_folder_is_read_as_one_of_them(tmp_path: Path) -> None:
    archive = a_zip(tmp_path / "model.zip", {"a.json": b"[]", "a.json/config.json": b"{}"})
    assert [each.name for each in extract_model_archive(archive, tmp_path / "copy")] == ["a.json"]
    assert contents(tmp_path / "copy") == {"config.json": b"{}"}


@pytest.mark.parametrize("data", [b"", b"\x80\x04pickle", b"PK\x03\x04 and then nothing"])
def test_what_is_not_a_zip_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.zip").write_bytes(data)
    with pytest.raises(Invalid, match="not a zip archive"):
        extract_model_archive(tmp_path / "model.zip", tmp_path / "copy")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_refused(tmp_path: Path, compression: int) -> None:
    text = b"".join(b"%d " % i for i in range(2000))
    archive = a_zip(tmp_path / "model.zip", {"a.txt": text}, compression)
    data = bytearray(archive.read_bytes())
    data[100:200] = b"\xff" * 100
    archive.write_bytes(data)
    with pytest.raises(Invalid, match="damaged"):
        extract_model_archive(archive, tmp_path / "copy")


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="empty"):
        extract_model_archive(a_zip(tmp_path / "model.zip", {}), tmp_path / "copy")
