"""What camboxes label does by default: refinement by affinity, competing labels, the component at the peak."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from camboxes.models import MapSpec, ModelSpec
from camboxes.pipeline import cli
from camboxes.transforms import BoxRule, PlannedRun
from camboxes.transforms.boxes.from_map import WorkingMap
from camboxes.transforms.boxes.stored_maps import StoredMap


@pytest.fixture(scope="module")
def refined(photographs, tmp_path_factory):
    """A run over the photographs, the cat's also labelled with something that is not there."""
    output = tmp_path_factory.mktemp("refined") / "boxes"
    manifest = output.parent / "labels.csv"
    lines = [f"{path.relative_to(photographs)},{path.parent.name}" for path in sorted(photographs.glob("*/*.*"))]
    cat = next(line.split(",")[0] for line in lines if "Egyptian cat" in line)
    manifest.write_text("\n".join(["path,label", *lines, f"{cat},espresso"]))
    assert _label(photographs, output, "--keep-plain") == 0
    return output


def _label(photographs, output, *options):
    call = ["label", "--input", str(output.parent / "labels.csv"), "--root", str(photographs), "--output", str(output)]
    return cli.main([*call, "--method", "cam", "--scales", "224,320", "--aspect", "squash", "--shards", "2", *options])


def test_maps_have_the_features_resolution_and_say_how_they_were_made(refined, rows):
    found = [(stored["height"], stored["width"], stored["method"]) for row in rows(refined) for stored in row["maps"]]
    assert found == [(20, 20, "affinity(cam)")] * 6


def _otsu(stored, row):
    """A stored map's own level, as a box's threshold is written."""
    return round(WorkingMap(StoredMap.of(stored), row["width"], row["height"]).otsu, 6)


def test_the_default_threshold_adapts_to_each_map(refined, rows):
    settings = json.loads((refined / "summary.json").read_text())["settings"]
    assert settings["rule"]["threshold"] == "1*otsu"
    assert (settings["refine"], settings["compete"], settings["rule"]["boxes"]) == ("affinity", True, "peak")
    levels = {(row["path"], box["category_id"]): box["threshold"] for row in rows(refined) for box in row["boxes"]}
    assert levels == {
        (row["path"], stored["category_id"]): _otsu(stored, row) for row in rows(refined) for stored in row["maps"]
    }
    assert len(levels) == 6
    assert len(set(levels.values())) > 4, "two maps may have one level by chance: it is one of 256"


@pytest.fixture(scope="module")
def lite1(tmp_path_factory):
    """Options that name an EfficientNet-Lite1, untrained."""
    import timm

    torch.manual_seed(0)
    weights = tmp_path_factory.mktemp("lite1") / "weights.pth"
    torch.save(timm.create_model("tf_efficientnet_lite1").state_dict(), weights)
    return "--model", "efficientnet_lite1", "--weights", str(weights)


@pytest.mark.parametrize(
    ("options", "maps", "threshold"),
    [
        (["--size", "64"], {}, "1*otsu"),
        (["--size", "64", "--method", "cam"], {"method": "cam"}, "1*otsu"),
        (["--scales", "64"], {"scales": [64], "fine_scales": False}, "1*otsu"),
        (["--size", "64", "--no-fine-scales", "--no-compete"], {"fine_scales": False, "compete": False}, "1*otsu"),
        (["--scales", "64,96", "--refine", "none"], {"scales": [64, 96], "refine": "none"}, 0.15),
        (["--size", "64", "--threshold", "0.3"], {}, 0.3),
    ],
)
def test_what_is_not_given_is_the_network_s_default(options, maps, threshold, lite1, photographs, tmp_path):
    """As the plan records it."""
    call = ["label", "--input", str(photographs), "--output", str(tmp_path / "boxes"), *lite1]
    assert cli.main([*call, *options]) == 0
    recorded = PlannedRun.load(str(tmp_path / "boxes")).settings
    classifier = SimpleNamespace(spec=ModelSpec("timm:tf_efficientnet_lite1", size=64))
    default = dataclasses.asdict(MapSpec.default_for(classifier)) | {"scales": [64, 128]} | maps
    assert {name: recorded[name] for name in default} == default
    assert recorded["rule"] == dataclasses.asdict(BoxRule(threshold, boxes="peak"))


def test_rebox_draws_the_same(refined, tmp_path, results):
    assert cli.main(["rebox", "--run", str(refined), "--output", str(tmp_path / "again")]) == 0
    assert results(tmp_path / "again") == results(refined)


def test_plain_maps_that_were_kept_are_those_of_a_run_without_refinement(refined, photographs, rows, results, capsys):
    assert [len(row["plain_maps"]) for row in rows(refined)] == [len(row["maps"]) for row in rows(refined)]
    plain, again = refined.parent / "plain", refined.parent / "rebox_plain"
    assert _label(photographs, plain, "--refine", "none", "--threshold", "1*otsu") == 0
    assert cli.main(["rebox", "--run", str(refined), "--output", str(again), "--plain"]) == 0
    assert results(again) == results(plain)
    capsys.readouterr()
    assert cli.main(["rebox", "--run", str(again), "--output", str(refined.parent / "none"), "--plain"]) == 2
    assert "keeps no plain maps; expected a run of camboxes label --keep-plain" in capsys.readouterr().err
    assert _label(photographs, refined.parent / "none", "--keep-plain", "--refine", "none") == 2
    assert "keep_plain is asked for where refine is none" in capsys.readouterr().err
