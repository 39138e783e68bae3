"""The card of a registered model, completed from its folder among the artifacts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.http.errors import InvalidInput
from app.registry.card import model_card
from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.pipeline.card import ModelCard
from models.pipeline.torch_folder import save_model
from store.artifacts import ArtifactStore
from store.models import ModelRecord

NET = UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4)


def model_of(sigma_data: float) -> DiffusionModel:
    config = ModelConfig(NET, ScheduleConfig("edm"), "edm", sigma_data, (8, 8))
    return DiffusionModel(config, UNet(NET))


@pytest.fixture
def artifacts(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "artifacts"))


@pytest.fixture
def record() -> ModelRecord:
    """Of an earlier version, without sigma_data."""
    details = ModelCard.of(model_of(0.31).config).to_dict()
    del details["sigma_data"]
    created_at = datetime.now(UTC)
    return ModelRecord(
        name="m", digest="d", artifact_prefix="models/m/d", details=details, created_at=created_at
    )


def upload(artifacts, record, model: DiffusionModel, folder: Path) -> None:
    save_model(model, folder, {})
    artifacts.upload_folder(folder, record.artifact_prefix)


def test_a_card_that_is_complete_is_taken_as_it_is(artifacts, record):
    record.details = ModelCard.of(model_of(0.4).config).to_dict()
    assert model_card(artifacts, record).sigma_data == 0.4


def test_a_card_without_sigma_data_gets_that_of_the_folder(artifacts, record, tmp_path):
    upload(artifacts, record, model_of(0.31), tmp_path / "model")
    card = model_card(artifacts, record)
    assert card.sigma_data == card.prediction.sigma_data == 0.31


def test_it_is_read_once_per_model_and_anew_for_a_model_that_took_its_place(
    artifacts, record, tmp_path
):
    upload(artifacts, record, model_of(0.31), tmp_path / "first")
    assert model_card(artifacts, record).sigma_data == 0.31
    artifacts.delete_prefix(record.artifact_prefix)
    assert model_card(artifacts, record).sigma_data == 0.31
    upload(artifacts, record, model_of(0.7), tmp_path / "second")
    record.created_at += timedelta(seconds=1)
    assert model_card(artifacts, record).sigma_data == 0.7


def test_a_folder_that_is_gone_is_said(artifacts, record):
    with pytest.raises(InvalidInput):
        model_card(artifacts, record)
