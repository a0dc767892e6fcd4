import contextlib
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from camboxes.pipeline.cli import main
from camboxes.transforms import infer

TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
# Those of the fixture `plain_run`.
PLAIN = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none", "--boxes", "largest"]


def _label(source, output, *options):
    return main(["label", "--input", str(source), "--output", str(output), *options])


def _iou(ours, theirs):
    (x, y, w, h), (tx, ty, tw, th) = ours, theirs
    common = max(0, min(x + w, tx + tw) - max(x, tx)) * max(0, min(y + h, ty + th) - max(y, ty))
    return common / (w * h + tw * th - common)


def _boxes(written):
    names = {image["id"]: image["file_name"].rpartition("/")[2] for image in written["images"]}
    return {names[annotation["image_id"]]: annotation["bbox"] for annotation in written["annotations"]}


def test_the_boxes_sit_on_the_objects(annotations, run, photographs, tmp_path):
    """Ground truth drawn by hand on the five photographs, and how well each box fits it; and boxes of any precision.

    Two fit badly: affinity spreads the tripod over the man behind it, and of the uniform only the middle lights up. The
    cat fills its picture, and is cut short at the border.
    """
    least = {
        "chelsea.png": 0.75, "coffee.png": 0.7, "motorcycle_left.png": 0.8,
        "grace_hopper.jpg": 0.45, "camera.png": 0.55,
    }  # fmt: skip
    truth = {
        "chelsea.png": (55, 0, 380, 300),
        "coffee.png": (93, 12, 317, 350),
        "camera.png": (205, 140, 200, 372),
        "motorcycle_left.png": (90, 90, 585, 310),
        "grace_hopper.jpg": (28, 20, 464, 580),
    }
    assert _label(photographs, tmp_path / "exact", "--precision", "fp32") == 0
    exact, fastest = _boxes(annotations(tmp_path / "exact")), _boxes(annotations(run))
    assert exact.keys() == fastest.keys() == truth.keys()
    for name, box in exact.items():
        assert _iou(box, truth[name]) >= least[name], name
        assert _iou(box, fastest[name]) >= 0.95, name


def test_a_job_in_this_process_loads_the_network_once(annotations, plain_run, photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(infer, "load_stored", lambda model: pytest.fail(f"{model} was loaded once more"))
    assert _label(photographs, tmp_path / "out", *PLAIN, "--shards", "2") == 0
    assert annotations(tmp_path / "out") == annotations(plain_run)


def test_the_output_contract(annotations, run, rows):
    written = annotations(run)
    assert written["categories"] == [
        {"id": 1, "name": "Egyptian cat"}, {"id": 2, "name": "espresso"}, {"id": 3, "name": "military uniform"},
        {"id": 4, "name": "moped"}, {"id": 5, "name": "tripod"},
    ]  # fmt: skip
    assert [image["id"] for image in written["images"]] == [1, 2, 3, 4, 5]
    assert [annotation["id"] for annotation in written["annotations"]] == [1, 2, 3, 4, 5]
    moped = next(image for image in written["images"] if image["file_name"].startswith("moped"))
    assert moped["review_reasons"] == ["uncertain_box: moped"], "its class has less than half of the probability"
    by_id = {row["image_id"]: row for row in rows(run)}
    for annotation, result in zip(written["annotations"], json.loads((run / "results.json").read_text()), strict=True):
        row = by_id[annotation["image_id"]]
        [box], [label] = row["boxes"], row["labels"]
        assert row["status"] == "ok" and row["reason"] is None
        assert annotation == {
            "id": annotation["image_id"], "image_id": row["image_id"], "category_id": label["category_id"],
            "bbox": box["bbox"], "area": round(box["bbox"][2] * box["bbox"][3], 2), "iscrowd": 0, "segmentation": [],
            "score": box["score"], "rank": 1, "box_uid": box["box_uid"],
            "review_priority": round(1 - box["score"], 4),
        }  # fmt: skip
        assert result == {key: annotation[key] for key in ("image_id", "category_id", "bbox", "score")}
        assert row["top5"][0] == {
            "class_index": label["class_index"],
            "name": label["label"],
            "probability": label["probability"],
        }
        assert len(row["digest"]) == 64
        [stored] = row["maps"]
        assert len(stored["cells"]) == stored["height"] * stored["width"], "a byte each"
        assert min(stored["height"], stored["width"]) == 28, "448 pixels, 16 each"
        assert stored["rectangle"] == [0, 0, row["width"], row["height"]]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["images"] == {"planned": 5, "ok": 5, "no_box": 0, "skipped": 0, "rejected": 0}
    assert summary["categories"]["tripod"] == {"images": 1, "with_box": 1, "boxes": 1}
    assert summary["run"]["images"] == 5 and summary["run"]["peak_memory_bytes"] > 0
    assert (run / "plan" / "weights.safetensors").stat().st_size > 10**7
    assert '<img src="data:image/jpeg;base64,' in (run / "report.html").read_text()


def test_pycocotools_loads_both_files_and_finds_a_copy_perfect(run):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(run / "annotations.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(run / "results.json")), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


def test_bad_files_cost_themselves_alone(photographs, run, tmp_path, rows, annotations):
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    whole = (data / "military uniform" / "grace_hopper.jpg").read_bytes()
    (data / "tripod" / "empty.jpg").touch()
    (data / "tripod" / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (data / "tripod" / "text.jpg").write_text("not an image")
    (data / "tripod" / "missing.jpg").symlink_to("nowhere")
    (data / "tripod" / "folder.jpg").mkdir()
    Image.new("RGB", (1, 1), "red").save(data / "tripod" / "pixel.png")
    Image.linear_gradient("L").resize((20_000, 10)).convert("RGB").save(data / "tripod" / "strip.png")
    Image.new("RGB", (300, 200), "red").save(data / "tripod" / "blank.png")
    ramp = np.linspace(0, 4095, 300 * 200).reshape(200, 300)
    Image.fromarray(ramp.astype(np.uint16)).save(data / "tripod" / "twelve_bits.png")
    Image.fromarray((ramp / 50_000).astype(np.float32)).save(data / "tripod" / "float.tiff")
    Image.new("1", (20_000, 20_000)).save(data / "tripod" / "bomb.png")
    assert _label(data, tmp_path / "out", "--boxes", "all", "--max-reject-rate", "0.6") == 0
    found = {row["path"]: (row["status"], (row["reason"] or "").partition(":")[0]) for row in rows(tmp_path / "out")}
    assert {path: status for path, status in found.items() if status[0] == "rejected"} == {
        "tripod/blank.png": ("rejected", "blank"),
        "tripod/bomb.png": ("rejected", "too_large"),
        "tripod/empty.jpg": ("rejected", "empty"),
        "tripod/float.tiff": ("rejected", "unclear_range"),
        "tripod/missing.jpg": ("rejected", "missing"),
        "tripod/text.jpg": ("rejected", "not_an_image"),
        "tripod/truncated.jpg": ("rejected", "truncated"),
        "tripod/twelve_bits.png": ("rejected", "unclear_range"),
    }
    assert found["tripod/pixel.png"] == ("no_box", "image_too_small")
    strip = next(row for row in rows(tmp_path / "out") if row["path"] == "tripod/strip.png")
    assert (strip["width"], strip["height"]) == (20_000, 10) and strip["status"] in ("ok", "no_box")
    assert len(found) == 5 + 8 + 2
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["rejected"] == {
        "blank": 1, "empty": 1, "missing": 1, "not_an_image": 1, "too_large": 1, "truncated": 1, "unclear_range": 2,
    }  # fmt: skip
    assert summary["images"]["planned"] == 15 == sum(summary["images"].values()) - 15
    # ids of rejected images stay unused; the others' boxes are those of a run without bad files
    ids = [image["id"] for image in annotations(tmp_path / "out")["images"]]
    assert len(ids) == 7 and max(ids) <= 15
    clean = {row["path"]: row["maps"] for row in rows(run)}
    assert all(row["maps"] == clean[row["path"]] for row in rows(tmp_path / "out") if row["path"] in clean)
    assert "not_an_image: no image format begins with" in (tmp_path / "out" / "report.html").read_text()


def test_manifests_of_every_kind_give_the_same_bytes(own_photographs, plain_run, tmp_path, results):
    rows = [
        {"path": str(path.relative_to(own_photographs)), "label": path.parent.name}
        for path in own_photographs.glob("*/*.*")
    ]
    (own_photographs / "m.csv").write_text("path,label\n" + "".join(f"{row['path']},{row['label']}\n" for row in rows))
    (own_photographs / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), own_photographs / "m.parquet")
    for kind in ("csv", "jsonl", "parquet"):
        assert _label(own_photographs / f"m.{kind}", tmp_path / kind, *PLAIN, "--shards", "2") == 0
        assert results(tmp_path / kind) == results(plain_run)


def test_several_labels_an_image_a_label_map_and_skipped_images(own_photographs, tmp_path, annotations, rows):
    (own_photographs / "multi.csv").write_text(
        "path,label\nespresso/coffee.png,cup\nespresso/coffee.png,pet\nespresso/coffee.png,unknown\n"
        "Egyptian cat/chelsea.png,unknown\nmoped/motorcycle_left.png,\n"
    )
    (tmp_path / "map.json").write_text(
        json.dumps({"cup": ["espresso", "cup", 968], "pet": list(range(151, 294)), "unknown": []})
    )
    options = ["--label-map", str(tmp_path / "map.json"), "--boxes", "all", "--min-area", "0.01"]
    assert _label(own_photographs / "multi.csv", tmp_path / "out", *options) == 0
    written = annotations(tmp_path / "out")
    assert [category["name"] for category in written["categories"]] == ["cup", "pet", "unknown"]
    assert {annotation["category_id"] for annotation in written["annotations"]} <= {1, 2}
    by_name = {row["path"].rpartition("/")[2]: row for row in rows(tmp_path / "out")}
    coffee = by_name["coffee.png"]
    assert coffee["labels"][0]["class_index"] == 967
    assert coffee["labels"][2]["class_index"] is None
    assert "no_class: unknown stands for no class of the network" in coffee["reason"]
    assert by_name["chelsea.png"]["status"] == by_name["motorcycle_left.png"]["status"] == "skipped"
    assert by_name["chelsea.png"]["width"] == 451
    ranks = [(a["image_id"], a["category_id"], a["rank"]) for a in written["annotations"]]
    assert ranks == sorted(ranks)


def test_a_kept_aspect_ratio_and_another_size(photographs, tmp_path, rows):
    options = ["--method", "cam", "--scales", "192", "--refine", "none", "--batch-size", "2"]
    assert _label(photographs, tmp_path / "out", *options) == 0
    shapes = {
        row["path"].rpartition("/")[2]: (row["maps"][0]["height"], row["maps"][0]["width"])
        for row in rows(tmp_path / "out")
    }
    assert shapes == {"camera.png": (6, 6), "chelsea.png": (6, 9), "coffee.png": (6, 9), "grace_hopper.jpg": (7, 6),
                      "motorcycle_left.png": (6, 9)}  # fmt: skip


def test_two_worker_processes_give_the_same_bytes(photographs, run, tmp_path, results):
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", str(photographs), "--shards", "2"]
    done = subprocess.run(
        [*call, "--output", str(tmp_path / "out"), *TWO_PROCESSES], capture_output=True, text=True, check=True
    )
    assert results(tmp_path / "out") == results(run)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["run"]["processes"] == 2
    said = [line for line in done.stderr.splitlines() if not line.endswith(" …")]
    assert len(said) <= 3, done.stderr  # the plan's two, and what is passed over; Beam's workers would log hundreds


def test_fused_maps_have_the_same_bytes_in_two_processes_and_from_the_runs_own_checkpoint(
    photographs, tmp_path, results, rows
):
    options = ["--shards", "2", "--method", "cam*layercam@16+gradcam++", "--scales", "192,256", "--flip"]
    options += ["--map-stride", "16", "--refine", "none"]
    assert _label(photographs, tmp_path / "one", *options) == 0
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", str(photographs), *options]
    subprocess.run([*call, "--output", str(tmp_path / "two"), *TWO_PROCESSES], check=True, capture_output=True)
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert _label(photographs, tmp_path / "again", *options, "--model", str(tmp_path / "one" / "plan")) == 0
    assert results(tmp_path / "again") == results(tmp_path / "one")
    stored = {row["path"].rpartition("/")[2]: row["maps"][0] for row in rows(tmp_path / "one")}
    assert {(one["method"], *one["scales"]) for one in stored.values()} == {("cam*layercam@16+gradcam++", 192, 256)}
    assert "at 192 and 256 (keep), fine scales, flipped too" in (tmp_path / "one" / "report.html").read_text()
    assert (stored["camera.png"]["height"], stored["camera.png"]["width"]) == (16, 16)
    assert (stored["chelsea.png"]["height"], stored["chelsea.png"]["width"]) == (16, 24)


def test_progress_is_shown_on_a_terminal(photographs, tmp_path):
    import pty
    import termios

    main_end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    call = [sys.executable, "-m", "camboxes.pipeline.cli", "label", "--input", str(photographs), *PLAIN]
    job = subprocess.Popen([*call, "--output", str(tmp_path / "out")], stderr=terminal, stdout=subprocess.DEVNULL)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # what reading says when the other end is closed
        while chunk := os.read(main_end, 4096):
            shown += chunk
    assert job.wait() == 0
    assert b"5/5" in shown and b"image/s" in shown
    steps = (b"loading PyTorch", b"loading efficientnet_lite0", b"starting the job", b"drawing boxes", b"report.html")
    places = [shown.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.parametrize("content", [[1], {}, {"epoch": 3}], ids=["a list", "an empty dict", "a number"])
def test_a_file_without_weights_is_a_wrong_call_told_in_one_line(content, photographs, tmp_path, capsys):
    import torch

    torch.save(content, tmp_path / "w.pth")
    options = ["--model", "timm:test_resnet", "--weights", str(tmp_path / "w.pth")]
    assert _label(photographs, tmp_path / "out", *options) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith(f"camboxes label: weights {tmp_path / 'w.pth'} hold a ") and said.count("\n") == 0
    assert "expected tensors by name" in said and not (tmp_path / "out").exists()


def test_copies_that_are_labelled_otherwise_are_told(photographs, tmp_path, capsys):
    """One photograph in two folders of labels: each copy has the boxes of its own label alone."""
    data = tmp_path / "data"
    shutil.copytree(photographs, data)
    for folder, name in [("moped", "cat.png"), ("Egyptian cat", "again.png")]:
        shutil.copy(photographs / "Egyptian cat" / "chelsea.png", data / folder / name)
    options = ["--method", "cam", "--scales", "224", "--refine", "none"]
    assert main(["label", "--input", str(data), "--output", str(tmp_path / "out"), *options]) == 0
    assert (
        "WARNING: images of the same bytes with other labels: 1, such as moped/cat.png (moped) and Egyptian "
        "cat/again.png (Egyptian cat); if one label is wrong, remove that copy; if both are right, name the image "
        "once, with both labels, in a table. Now each has boxes of its own labels, and labels of different copies "
        "do not compete\n"
    ) in capsys.readouterr().out
    copies = json.loads((tmp_path / "out" / "summary.json").read_text())["copies"]
    assert (copies["images"], copies["with_other_labels"]) == (2, 1)
    assert copies["example"][0] == {"path": "moped/cat.png", "labels": ["moped"]}
