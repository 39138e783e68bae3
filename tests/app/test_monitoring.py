"""The table of metrics, the alert rules and the dashboard know the metrics that are there, all of
them and no others."""

import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import Metrics, exposition

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy" / "monitoring" / "dashboard.json"
ALERTS = ROOT / "deploy" / "monitoring" / "alerts.yml"
PAGE = (ROOT / "docs" / "monitoring.md").read_text()
OTHERS = {"up"}  # Prometheus' own


@pytest.fixture(scope="module")
def families(client, model_archive):
    """Every metric of a service that has answered a request, made an image, and has a job."""
    client.put("/models/watched", content=model_archive()).raise_for_status()
    order = {"model": "watched", "num_inference_steps": 2}
    client.post("/sample", json=order).raise_for_status()
    client.post("/sample", json=order, headers={"Prefer": "respond-async"}).raise_for_status()
    text = client.get("/metrics").raise_for_status().text
    return {family.name: family for family in text_string_to_metric_families(text)}


def exposed(family) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


def test_the_table_has_each_metric_with_its_labels_and_its_text(families):
    wanted = {}
    for family in families.values():
        if family.name.endswith("_created"):  # the client library's own
            continue
        labels = set(family.samples[0].labels) - {"le"}
        wanted[exposed(family)] = (family.type, labels, family.documentation)
    rows = re.findall(r"^\| `(diffusion_\w+)` \| (\w+) \| ([\w, ]*?) ?\| (.+) \|$", PAGE, re.M)
    found = {name: (kind, set(re.findall(r"\w+", ls)), text) for name, kind, ls, text in rows}
    assert found == wanted


def names_in(expression: str) -> set[str]:
    """The metrics of an expression, without what Prometheus makes of a histogram."""
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|by \([^)]*\)|\"[^\"]*\"", "", expression)
    found = set(re.findall(r"\b(?:diffusion_\w+|up)\b", bare))
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_the_dashboard_and_the_alerts_ask_for_metrics_that_exist(families):
    known = OTHERS | set(map(exposed, families.values()))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    asked += [rule["expr"] for rule in rules]
    for expression in asked:
        assert names_in(expression), expression
        assert names_in(expression) <= known, expression
        assert expression.count("(") == expression.count(")")
    shown = set().union(*map(names_in, asked))
    assert known - OTHERS - shown <= {n for n in known if n.endswith("_created")}, "on no panel"


def test_each_alert_is_explained(families):
    rules = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
    assert re.findall(r"^\| `(Diffusion\w+)` \|", PAGE, re.M) == [rule["alert"] for rule in rules]
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "description"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_places_on_the_dashboard_do_not_overlap():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_an_engine_that_is_away_is_a_metric_of_its_own():
    text = exposition(Metrics(), None, {}).decode()
    families = {f.name: f for f in text_string_to_metric_families(text)}
    assert families["diffusion_engine_up"].samples[0].value == 0
