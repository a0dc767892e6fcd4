"""Data sets that strangers made: every file and every line ends in a row, and nothing of it is executed."""

import collections
import csv
import hashlib
import json
import os
import posixpath
import socket

import pytest
from PIL import Image

from camboxes.pipeline.cli import main
from camboxes.pipeline.training.checkpoint_folder import REJECTED, write_table
from camboxes.transforms import PlannedRun

PLAIN = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none", "--max-reject-rate", "1"]


def _label(source, output, *options):
    return main(["label", "--input", str(source), "--output", str(output), *PLAIN, *options])


def _codes(found):
    return {row["path"]: (row["reason"] or row["status"]).partition(":")[0] for row in found}


def test_a_job_over_hostile_files(hostile_images, photographs, tmp_path, rows):
    """All of them in one job, with links, pipes and sockets beside them: a row for each, and nothing from outside."""
    data, outside = tmp_path / "data", tmp_path / "outside"
    folder = data / "tripod"
    folder.mkdir(parents=True)
    outside.mkdir()
    for path in hostile_images.iterdir():
        (folder / path.name).hardlink_to(path)
    Image.linear_gradient("L").resize((80, 60)).convert("RGB").save(outside / "secret.png")
    targets = {
        "inside.png": "odd-rgb.png", "dangling.png": "nowhere.png", "loop.png": "loop.png",
        "secret.png": outside / "secret.png", "zero.png": "/dev/zero", "environment.png": "/proc/self/environ",
    }  # fmt: skip
    for name, target in targets.items():
        (folder / name).symlink_to(target)
    (data / "espresso").symlink_to(outside)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.jpg"))
        assert _label(data, tmp_path / "out", "--shards", "4") == 0
    files = {f"tripod/{path.name}" for path in hostile_images.iterdir()}
    links = {f"tripod/{name}" for name in (*targets, "pipe.jpg", "socket.jpg")} | {"espresso/secret.png"}
    found = rows(tmp_path / "out")
    assert len(found) == len({row["path"] for row in found}) >= 500
    assert {row["path"] for row in found} == files | links
    codes = _codes(found)
    assert {path: codes[path] for path in links} == {
        "tripod/inside.png": codes["tripod/odd-rgb.png"],
        "tripod/dangling.png": "missing",
        "tripod/loop.png": "unreadable",
        "tripod/secret.png": "outside_root",
        "tripod/zero.png": "outside_root",
        "tripod/environment.png": "outside_root",
        "tripod/pipe.jpg": "unreadable",
        "tripod/socket.jpg": "unreadable",
        "espresso/secret.png": "outside_root",
    }
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    counts = collections.Counter(row["status"] for row in found)
    assert summary["images"] == {"planned": len(found), "skipped": 0, **counts}
    assert counts["ok"] > 100 and counts["rejected"] > 300
    secret = hashlib.sha256((outside / "secret.png").read_bytes()).hexdigest()
    assert secret not in {row["digest"] for row in found}
    assert not [row for row in found if str(tmp_path) in (row["reason"] or "")], "no machine's path in a result"


def test_limits_are_options_and_part_of_the_configuration(tmp_path, rows, capsys):
    folder = tmp_path / "data" / "tripod"
    folder.mkdir(parents=True)
    for side in (40, 50):
        Image.linear_gradient("L").resize((side, side)).convert("RGB").save(folder / f"{side}.bmp")
    (folder / "60.bmp").write_bytes((folder / "50.bmp").read_bytes() + bytes(5000))
    limits = ["--max-pixels", "2000", "--max-bytes", "10000"]
    assert _label(tmp_path / "data", tmp_path / "out", *limits) == 0
    reasons = {row["path"]: row["reason"] for row in rows(tmp_path / "out")}
    assert reasons["tripod/50.bmp"] == "too_large: 50 x 50 pixels are more than --max-pixels 2000 allows"
    assert reasons["tripod/60.bmp"] == "too_large: 12654 bytes are more than --max-bytes 10000 allows"
    assert reasons["tripod/40.bmp"] is None
    assert PlannedRun.load(str(tmp_path / "out")).settings["limits"] == {"max_bytes": 10000, "max_pixels": 2000}
    assert _label(tmp_path / "data", tmp_path / "out") == 2
    assert (
        "asks for max-bytes 268435456 instead of 10000, max-pixels 120000000 instead of 2000" in capsys.readouterr().err
    )
    # what another run decoded is taken over only where this run would decode it, too
    assert _label(tmp_path / "data", tmp_path / "wide", "--reuse", str(tmp_path / "out")) == 0
    assert set(_codes(rows(tmp_path / "wide")).values()).isdisjoint({"too_large"})
    assert _label(tmp_path / "data", tmp_path / "narrow", *limits, "--reuse", str(tmp_path / "wide")) == 0
    assert {row["path"]: row["reason"] for row in rows(tmp_path / "narrow")} == reasons
    assert _label(tmp_path / "data", tmp_path / "none", "--max-pixels", "200000000") == 2
    assert "expected 1 to 178956970, above which Pillow refuses" in capsys.readouterr().err


FORMULA = "=cmd|' /C calc'!A0"
LABELS = [
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 2</script>",
    '"><img src=x onerror="window.ran=3">',
    "<!--", "]]>", "${7*7}{{7*7}}{% raw %}", "javascript:alert(1)", "../../escape", "__proto__", "con",
    FORMULA, "@SUM(1+1)", "+1", "-1",
    "\x1b]0;title\x07\x1b[31m", "\x00nul", "line\r\nbreak", "\u202eright to left", "\ufeffmark", "next\u2028line",
    "ééé", "e\u0301",
    "x" * 1_000_000,
]  # fmt: skip
PATHS = {
    "../secret.png": "outside_root",
    "tripod/../../other.png": "outside_root",
    "/etc/passwd": "outside_root",
    "//etc/passwd": "outside_root",
    "file:///etc/passwd": "outside_root",
    "s3://bucket/secret.png": "outside_root",
    "http://127.0.0.1:9/secret.png": "outside_root",
    "tripod\x00.png": "unreadable",
    "cat.png\n": "missing",
    "cat.png\x00.jpg": "unreadable",
    "..\\..\\secret.png": "missing",
    "~/secret.png": "missing",
    "$HOME/secret.png": "missing",
    "%2e%2e/secret.png": "missing",
    "n" * 5000: "unreadable",
    "d/" * 3000 + "x.png": "unreadable",
    "<img src=x onerror=window.ran=4>.png": "missing",
    FORMULA: "missing",
    ".": "unreadable",
    "cat.png/x.png": "unreadable",
}


class Visit:
    """An open page, with what it asked for and what it did besides being looked at."""

    def __init__(self, chromium, path):
        self.page = chromium.new_page()
        self.requests, self.troubles = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.troubles.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())


def test_a_hostile_manifest(photographs, tmp_path, rows, chromium):
    data = tmp_path / "data"
    data.mkdir()
    cat = next(photographs.glob("*/chelsea.png")).read_bytes()
    (data / "cat.png").write_bytes(cat)
    (tmp_path / "secret.png").write_bytes(cat + b"secret")
    lines = [json.dumps({"path": "cat.png", "labels": LABELS})]
    lines += [json.dumps({"path": path, "label": LABELS[number % 8]}) for number, path in enumerate(PATHS)]
    lines += ['{"path": "twice.png", "path": "cat.png", "label": "+1", "label": "-1", "x": {"y": [[[]]]}}']
    lines += [json.dumps({"path": "many.png", "labels": [f"<b>{number}</b>" for number in range(2000)]})]
    (data / "m.jsonl").write_text("\ufeff" + "\n".join(lines) + "\n\n", encoding="utf-8")
    classes = {label: [282] for label in LABELS} | {f"<b>{number}</b>": [] for number in range(2000)}
    (tmp_path / "map.json").write_text(json.dumps(classes))
    assert _label(data / "m.jsonl", tmp_path / "out", "--label-map", str(tmp_path / "map.json"), "--no-compete") == 0
    found = rows(tmp_path / "out")
    codes = _codes(found)
    assert codes.pop("cat.png") == "ok" and codes.pop("many.png") == "missing"
    assert codes == {path if "://" in path else posixpath.normpath(path): code for path, code in PATHS.items()}
    assert len(found) == len(PATHS) + 2
    of_cat = next(row for row in found if row["path"] == "cat.png")
    assert {label["label"] for label in of_cat["labels"]} == set(LABELS)
    assert {len(of_cat["boxes"]), len(of_cat["maps"])} == {len(LABELS)}
    assert hashlib.sha256(cat + b"secret").hexdigest() not in {row["digest"] for row in found}
    assert not [row for row in found if str(tmp_path) in (row["reason"] or "")]
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert {category["name"] for category in written["categories"]} >= set(LABELS)

    report = tmp_path / "out" / "report.html"
    assert report.stat().st_size < 1_500_000, "a label of a million letters is shortened"
    visit = Visit(chromium, report)
    shown = set(visit.page.locator("#label option").all_text_contents())
    assert {LABELS[0], LABELS[1], LABELS[2], FORMULA, "x" * 500 + "…"} <= shown
    visit.page.get_by_label("Label").select_option(label=LABELS[0])
    visit.page.get_by_label("Sort by").select_option(label="highest score")
    assert visit.page.locator("script").count() == 1, "ours"
    assert visit.page.evaluate("window.ran") is None
    assert visit.troubles == []
    assert {url.partition(":")[0] for url in visit.requests} <= {"file", "data"}
    assert [url for url in visit.requests if url.startswith("file:")] == [report.as_uri()]
    visit.page.close()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("m.csv", "path,label\na.jpg,cat\n".encode("utf-16-le"), "is UTF-16 without its mark; save it as UTF-8"),
        ("m.csv", "path,label\nä.jpg,cat\n".encode("latin-1"), "UTF-8"),
        ("m.csv", b"path,label\na.jpg,cat\n" + "ä.jpg,cat\n".encode("cp1252"), "UTF-8"),
        ("m.csv", b"\x00\x00\x00\x00", "name the one with the images' paths: --path-column NAME"),
        ("m.csv", b"PK\x03\x04path,label\n", "name the one with the images' paths: --path-column NAME"),
        (
            "m.jsonl",
            '{"path": "a.jpg", "label": "cat"}'.encode("utf-16-le"),
            "is UTF-16 without its mark; save it as UTF-8",
        ),
        ("m.jsonl", b'{"path": "../a", "label": ' + b"[" * 100_000, "recursion"),
        ("m.jsonl", b'{"path": ["a.jpg"], "label": "cat"}', "expected a path in 'path', got"),
        ("m.jsonl", b'{"path": "a.jpg"', "not JSON"),
        ("m.parquet", b"PAR1" + bytes(1000) + b"PAR1", "is not readable as Parquet"),
    ],
)
def test_manifests_that_are_none(name, content, said, tmp_path, capsys):
    """One line with what to do, before anything runs."""
    (tmp_path / name).write_bytes(content)
    assert _label(tmp_path / name, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("camboxes label: ")
    assert not (tmp_path / "out").exists()


def test_no_spreadsheet_executes_a_path(tmp_path):
    """The one table for spreadsheets that is written lists paths; behind ./ they are the same, and no formula."""
    rejected = {
        FORMULA: "missing: gone",
        "+a.png": "empty: empty",
        '"a,b".png': "missing: gone",
        "a.png": "missing: gone",
    }
    write_table(tmp_path / REJECTED, ("path", "reason"), rejected.items())
    with (tmp_path / "rejected.csv").open(newline="", encoding="utf-8") as file:
        _, *written = csv.reader(file)
    assert written == [[path, reason] for path, reason in zip(
        (f"./{FORMULA}", "./+a.png", '"a,b".png', "a.png"), rejected.values(), strict=True
    )]  # fmt: skip
