"""The report's section on true boxes: its values by hand, and the page in a real browser (apt install chromium)."""

import re
from pathlib import Path

import numpy as np
import pytest

from camboxes.pipeline.evaluation.average_precision import Boxes
from camboxes.pipeline.evaluation.figures import compute_figures
from camboxes.pipeline.evaluation.matching import Matching
from camboxes.pipeline.evaluation.redrawing import Redrawn
from camboxes.pipeline.formats.ground_truth import TrueImage
from camboxes.pipeline.reports import run_report
from camboxes.pipeline.reports.evaluation_report import Example, section
from camboxes.transforms import PlannedRun
from camboxes.transforms.wsol import metrics

CAT, COW, DOG = "cat", "cow", "dog"

HOSTILE = (
    "<script>window.ran = 'script'</script>",
    '"><img src=x onerror="window.ran=\'attribute\'">',
    "</title></style><svg onload=alert(1)>",
    "{{7*7}}{% raw %}",
    "unbroken" * 40,
)


@pytest.fixture
def visit(chromium):
    """Opens a page; at the end of the test nothing may have been complained of, nor asked for but its own data."""
    pages, troubles, requests = [], [], []

    def open_page(path, **options):
        page = chromium.new_page(**options)
        pages.append(page)
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(Path(path).as_uri())
        return page

    yield open_page
    for page in pages:
        page.close()
    assert troubles == []
    assert not [url for url in requests if not url.startswith(("file://", "data:"))]


def make(images, pairs, boxes, categories=(CAT, COW, DOG), rule=None):
    """A judged run: images of 10 x 10 pixels by path with true boxes by name; pairs and boxes as below.

    Args:
      images: for each path its true boxes and its crowds.
      pairs: path, label, IoU, score, calibrated score, IoU of the centred box, IoU at each of three thresholds.
      boxes: path, label, bbox, score.
      categories: names.
      rule: what the box rule of the settings has besides the threshold 0.25.
    """
    paths = list(images)
    truths = {
        path: TrueImage(path, 10, 10, *({c: np.array(b, float) for c, b in each.items()} for each in kinds))
        for path, kinds in images.items()
    }
    path, label, iou, score, calibrated, centre, at = zip(*pairs, strict=True)
    of_box = list(zip(*boxes, strict=True)) or [(), (), (), ()]
    at = np.array(at, np.float32)
    nan = [np.nan if value is None else value for value in score]
    return Redrawn(
        categories=list(categories),
        paths=paths,
        sizes=np.full((len(paths), 2), 10),
        image=np.array([paths.index(each) for each in path]),
        category=np.array([categories.index(each) for each in label]),
        iou=np.array(iou),
        score=np.array(nan),
        raw_score=np.array(nan),
        calibrated=np.array([np.nan if value is None else value for value in calibrated]),
        centre=np.array(centre),
        whole=np.zeros(len(iou)),
        top1=np.ones(len(iou), bool),
        top5=np.ones(len(iou), bool),
        thresholds=np.array([0.2, 0.4, 0.6]),
        otsu_shares=np.array([1.0]),
        iou_at=at,
        iou_at_otsu=at[:, :1],
        literature=metrics.BoxCounts(0.5, 1, np.zeros((2, 3, 2), np.int64)),
        detections=Boxes(
            np.array([paths.index(each) for each in of_box[0]], np.int64),
            np.array([categories.index(each) for each in of_box[1]], np.int64),
            np.array(of_box[2], float).reshape(-1, 4),
            np.array(of_box[3], float),
            np.zeros(len(boxes), bool),
        ),
        matching=Matching(truths, sorted(categories), [], [], [], [], [], [], [], []),
        settings={"rule": {"threshold": 0.25} | (rule or {})},
    )


def shown(judged, fitted=frozenset()):
    return section(judged, judged, compute_figures(judged, judged), fitted)


WHOLE = [0, 0, 10, 10]
IMAGES = {
    "a": ({CAT: [WHOLE]}, {}),
    "b": ({CAT: [WHOLE], DOG: [[0, 0, 1, 1], [9, 9, 1, 1]]}, {}),
    "c": ({DOG: [WHOLE]}, {CAT: [WHOLE]}),
}
PAIRS = [
    ("a", CAT, 0.9, 0.9, None, 0.5, (0.9, 0.6, 0.2)),
    ("b", CAT, 0.4, 0.8, None, 0.1, (0.4, 0.5, 0)),
    ("b", DOG, 0.0, None, None, 0.2, (0, 0, 0)),
    ("c", DOG, 0.55, 0.7, None, 0.0, (0.55, 0.35, 0.1)),
]
BOXES = [
    ("a", COW, WHOLE, 0.95),  # of a category without a true box: no part of AP, and of no curve
    ("a", CAT, [0, 0, 10, 9], 0.9),
    ("b", CAT, [0, 0, 10, 4], 0.8),
    ("c", DOG, [0, 0, 10, 5.5], 0.7),
    ("c", CAT, [0, 0, 5, 5], 0.6),  # in a crowd: neither right nor wrong
]


@pytest.fixture(scope="module")
def judged():
    return make(IMAGES, PAIRS, BOXES)


@pytest.fixture(scope="module")
def page(judged, run, tmp_path_factory):
    """A page with that section; of its photographs none exists."""
    folder = tmp_path_factory.mktemp("page")
    run_report.write(str(run), shown(judged), str(folder))
    return folder / "report.html"


def test_accuracy_over_threshold_by_hand(judged, page, visit):
    found = shown(judged).accuracy
    assert {delta: [share for _, share in points] for delta, points in found.curves.items()} == {
        0.3: [0.75, 0.75, 0],
        0.5: [0.5, 0.5, 0],
        0.7: [0.25, 0, 0],
    }
    assert (found.own, found.centre, found.top) == (0.25, 0.25, 0.8)
    chart = visit(page).locator(".accuracy > svg")
    # A threshold t stands at x 40 + 350 t; a share s at y 190 - 175 s / 0.8.
    assert [line.get_attribute("points") for line in chart.locator("polyline").all()] == [
        "110.0,25.9 180.0,25.9 250.0,190.0",
        "110.0,80.6 180.0,80.6 250.0,190.0",
        "110.0,135.3 180.0,190.0 250.0,190.0",
    ]
    assert [chart.locator(".own").get_attribute(name) for name in ("x1", "x2")] == ["127.5"] * 2
    assert [chart.locator(".floor").get_attribute(name) for name in ("y1", "y2")] == ["135.3"] * 2
    assert chart.locator("title").first.text_content() == (
        "threshold 0.20: 75.0% at IoU 0.3, 50.0% at IoU 0.5, 25.0% at IoU 0.7"
    )
    assert chart.locator("text").all_text_contents() == (
        ["0", "0", "20", "0.25", "40", "0.5", "60", "0.75", "80%", "1", "threshold"]
    )


@pytest.mark.parametrize("rule", [{"threshold": "0.8*otsu"}, {"thresholds": {CAT: 0.4}}])
def test_a_threshold_that_varies_is_not_marked(rule, run, tmp_path):
    judged = make(IMAGES, PAIRS, BOXES, rule=rule)
    found = shown(judged)
    assert found.accuracy.own is None
    run_report.write(str(run), found, str(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert "This run's varies, and is not marked." in text
    assert "this run, " not in text


def test_precision_and_recall_by_hand(judged, page, visit):
    found = shown(judged).precision_recall
    # Right, wrong, right: of five true boxes one, one, two are found.
    assert found.points == [(0.2, 1.0), (0.2, 0.5), (0.4, pytest.approx(2 / 3))]
    assert found.top == 0.4
    chart = visit(page).locator(".precision")
    assert chart.locator("polyline").get_attribute("points") == "215.0,15.0 215.0,102.5 390.0,73.3"
    ap50 = compute_figures(judged, judged).figures["ap50"].run.value
    assert f"AP50, a mean over labels, is {ap50:.1f}." in chart.locator("p").text_content()


def test_precision_and_recall_without_a_box(run, tmp_path):
    pairs = [(*pair[:2], 0.0, None, *pair[4:]) for pair in PAIRS]
    judged = make(IMAGES, pairs, BOXES[:1])
    found = shown(judged)
    assert found.precision_recall.points == []
    assert found.best[0].box is None
    run_report.write(str(run), found, str(tmp_path))
    assert "There is no box." in (tmp_path / "report.html").read_text()


def test_a_curve_of_many_boxes_has_few_points(judged):
    images = {f"{number:03}": ({CAT: [WHOLE]}, {}) for number in range(1000)}
    pairs = [(path, CAT, 1.0, 0.5, None, 0, (1, 1, 1)) for path in images]
    many = make(images, pairs, [(path, CAT, WHOLE, 0.5) for path in images])
    points = shown(many).precision_recall.points
    assert len(points) == 200
    assert (points[0], points[-1]) == ((0.001, 1.0), (1.0, 1.0))


def test_histogram_of_iou_by_hand(judged, page, visit):
    found = shown(judged).ious
    assert {place: count for place, count in enumerate(found.counts) if count} == {0: 1, 8: 1, 11: 1, 18: 1}
    assert (found.without_box, found.top) == (1, 0.4)
    chart = visit(page).locator(".fit")
    assert "1 of them has no box, and counts at 0." in chart.locator("p").text_content()
    bar = chart.locator("rect").nth(18)
    # A quarter of the pairs, where the axis ends at 40%: 175 * 0.25 / 0.4 high.
    assert [bar.get_attribute(name) for name in ("x", "y", "height")] == ["356.00", "80.6", "109.4"]
    assert bar.text_content() == "IoU 0.9 to 0.95: 1"


def test_an_iou_of_one_is_in_the_last_bar(judged):
    pairs = [(*PAIRS[0][:2], 1.0000000002, *PAIRS[0][3:]), *PAIRS[1:]]
    assert shown(make(IMAGES, pairs, BOXES)).ious.counts[19] == 1


def test_figures_and_classes_by_hand(judged, page, visit):
    opened = visit(page)
    rows = [" ".join(row.inner_text().split()) for row in opened.locator(".figures tr").all()]
    assert len(rows) == 11
    assert rows[2].startswith("GT-known Loc, IoU 0.5 by 0.5 or more: the usual meaning of a right box 50.0 ")
    assert [cell.inner_text() for cell in opened.locator(".figures tr").nth(2).locator("b").all()] == [
        "50.0",
        "25.0",
        "0.0",
    ]
    names = [row.inner_text() for row in opened.locator(".class .name").all()]
    assert names == [CAT, DOG], "equally frequent: by name; no pair of a cow"
    assert "all 2. Percent" in opened.locator("h2", has_text="By label").inner_text()
    cats = opened.locator(".class").first
    assert cats.locator("rect").nth(1).get_attribute("width") == "50.0"
    assert [cats.locator(".tick").get_attribute(name) for name in ("x1", "x2")] == ["50.0"] * 2
    assert [cats.locator(".whisker").get_attribute(name) for name in ("x1", "x2")] == ["0.0", "100.0"]
    assert " ".join(cats.locator(".numbers").inner_text().split()) == "50.0 of 2"


def test_the_most_frequent_classes_are_shown(judged):
    images = {f"{number}": ({}, {}) for number in range(50)}
    names = [f"label {number:02}" for number in range(50)]
    pairs = [(path, name, 0.0, None, None, 0, (0, 0, 0)) for path, name in zip(images, names, strict=True)]
    pairs += [("0", "label 49", 0.0, None, None, 0, (0, 0, 0))]
    for path, name, *_ in pairs:
        images[path][0][name] = [WHOLE]
    many = make(images, pairs, [], tuple(names))
    found = shown(many)
    assert list(found.classes) == ["label 49", *names[:39]]
    assert found.all_classes == 50


def test_examples_by_hand(judged):
    found = shown(judged)
    # Of four pairs a third, rounded up, may be called best.
    assert [(each.path, each.label) for each in found.best] == [("a", CAT), ("c", DOG)]
    assert [(each.path, each.label) for each in found.worst] == [("b", DOG), ("b", CAT)]
    assert found.best[0] == Example("a", 10, 10, CAT, 0.9, 0.9, [0, 0, 10, 9], [WHOLE])
    assert found.worst[0] == Example("b", 10, 10, DOG, 0.0, None, None, [[0, 0, 1, 1], [9, 9, 1, 1]])


def test_examples_are_spread_over_classes():
    labels = [f"label {number:02}" for number in range(20)]
    images = {f"{number:03}": ({labels[number % 20]: [WHOLE]}, {}) for number in range(200)}
    pairs = [
        (path, labels[number % 20], number % 20 / 20, 1 - number / 1000, None, 0, (0, 0, 0))
        for number, path in enumerate(images)
    ]
    boxes = [(path, label, [0, 0, 10, 10 * iou or 1], score) for path, label, iou, score, *_ in pairs]
    many = make(images, pairs, boxes, tuple(labels))
    found = shown(many)
    assert [each.path for each in found.best] == [  # two of each of the last six labels, of equals the more confident
        *("019", "039", "018", "038", "017", "037", "016", "036", "015", "035", "014", "034")
    ]
    assert [each.path for each in found.worst[:4]] == ["000", "020", "001", "021"]
    assert len(found.worst) == 24
    assert max(labels.index(each.label) for each in found.worst) == 11


def test_one_class_gives_as_many_examples():
    images = {f"{number:02}": ({CAT: [WHOLE]}, {}) for number in range(40)}
    pairs = [(path, CAT, number / 40, 0.5, None, 0, (0, 0, 0)) for number, path in enumerate(images)]
    boxes = [(path, CAT, [0, 0, 10, 1], 0.5) for path in images]
    many = make(images, pairs, boxes, (CAT,))
    found = shown(many)
    assert (len(found.best), len(found.worst)) == (12, 24)


def test_of_boxes_with_equal_scores_the_judged_one_is_shown():
    boxes = [("a", CAT, [0, 0, 10, 5], 0.9), *BOXES[1:]]
    two = make(IMAGES, PAIRS, boxes)
    assert shown(two).best[0].box == [0, 0, 10, 9]


def trusted(seen=20):
    """Forty boxes on an image each: the first twenty, five of them right, are those that the scores were fitted to.

    Of the others ten score 0.2, of which the last two are right, and ten 0.8, of which the first two are wrong.
    """
    right = [1] * 5 + [0] * 15 + [0] * 8 + [1] * 2 + [0] * 2 + [1] * 8
    scores = [0.5] * 20 + [0.2] * 10 + [0.8] * 10
    images = {f"{number:02}": ({CAT: [WHOLE]}, {}) for number in range(40)}
    pairs = [
        (path, CAT, float(hit), score, score, 0, (0, 0, 0))
        for path, hit, score in zip(images, right, scores, strict=True)
    ]
    boxes = [(path, CAT, WHOLE, score) for path, score in zip(images, scores, strict=True)]
    judged = make(images, pairs, boxes, (CAT,))
    return shown(judged, set(list(images)[:seen]))


def test_reliability_by_hand_on_images_that_were_not_fitted_to(run, tmp_path, visit):
    found = trusted()
    boxes, left_out, base_rate = found.reliability[1:]
    assert (boxes, left_out, base_rate) == (20, 20, 0.25)
    trust = found.reliability.trust
    assert trust.brier == pytest.approx((2 * 0.8**2 + 8 * 0.2**2) / 10)
    assert trust.constant_brier == pytest.approx((0.75**2 + 0.25**2) / 2)
    assert trust.auroc == pytest.approx((8 * 8 + (2 * 8 + 8 * 2) / 2) / 100)
    run_report.write(str(run), found, str(tmp_path))
    page = visit(tmp_path / "report.html")
    chart = page.locator(".reliability")
    assert chart.locator("p").text_content().startswith("20 boxes, 20 more left out because their scores were fitted")
    # Bins of two boxes each: at 0.2 four of none right, then one of two; at 0.8 one of none, then four of two.
    circles = [tuple(c.get_attribute(name) for name in ("cx", "cy", "r")) for c in chart.locator("circle").all()]
    low, high = "110.0", "320.0"  # 40 + 350 * 0.2, 40 + 350 * 0.8
    expected = [(low, "190.0")] * 4 + [(low, "15.0"), (high, "190.0")] + [(high, "15.0")] * 4
    assert circles == [(*place, "7.0") for place in expected]
    cells = chart.locator("td.n").all_inner_texts()
    assert (cells[:2], cells[4:]) == (["0.160", "0.312"], ["0.800", "0.500"])


def test_too_few_boxes_say_nothing_of_reliability(run, tmp_path):
    assert trusted(20).reliability.trust is not None
    found = trusted(21)
    assert found.reliability.trust is None
    assert found.reliability.boxes == 19
    run_report.write(str(run), found, str(tmp_path))
    text = (tmp_path / "report.html").read_text()
    assert "Too few to say: at least 20 are needed." in text
    assert "Brier" not in text


def test_uncalibrated_scores_and_images_that_were_all_fitted_to(judged, page):
    assert shown(judged, {"a"}).reliability is None
    assert "Can scores be trusted" not in page.read_text()
    assert trusted(40).reliability == (None, 0, 40, (5 + 10) / 40)
    assert trusted(0).reliability.base_rate == (5 + 10) / 40, "where no other boxes are judged, their own"


@pytest.fixture(scope="module")
def hostile(run, tmp_path_factory):
    """A page whose labels would like to be markup, over photographs that exist."""
    paths = [
        row["path"]
        for planned in [PlannedRun.load(str(run))]
        for key in planned.shards
        for row in planned.planned_rows(key).to_pylist()
    ]
    images = {path: ({label: [[1, 1, 5, 5]]}, {}) for path, label in zip(paths, HOSTILE, strict=True)}
    pairs = [(path, label, 0.5, 0.5, 0.5, 0, (0, 0, 0)) for path, label in zip(images, HOSTILE, strict=True)]
    boxes = [(path, label, [2, 2, 6, 6], 0.5) for path, label in zip(images, HOSTILE, strict=True)]
    judged = make(images, pairs, boxes, HOSTILE)
    folder = tmp_path_factory.mktemp("hostile")
    run_report.write(str(run), shown(judged), str(folder))
    return folder / "report.html"


def test_labels_are_shown_and_never_run(hostile, run, visit):
    page = visit(hostile)
    assert sorted(page.locator(".class .name").all_text_contents()) == sorted(HOSTILE)
    assert sorted(page.locator(".examples .name").all_text_contents()) == sorted(HOSTILE)
    titles = page.locator(".class title").all_text_contents()
    assert sorted(titles) == sorted(f"{text}: 100.0%, centred box 0.0%" for text in HOSTILE)
    assert page.evaluate("window.ran") is None
    scripts = [re.findall(r"<script.*?</script>", p.read_text(), re.DOTALL) for p in (hostile, run / "report.html")]
    assert len(scripts[0]) == 1
    assert scripts[0] == scripts[1]


# The longest text and the longest attribute of what is judged, but for pictures.
LONGEST = """() => {
  const texts = document.createTreeWalker(document.querySelector(".judged"), NodeFilter.SHOW_TEXT);
  let longest = 0;
  for (let node = texts.nextNode(); node; node = texts.nextNode()) longest = Math.max(longest, node.data.length);
  for (const element of document.querySelectorAll(".judged *"))
    for (const { name, value } of element.attributes)
      if (name !== "src") longest = Math.max(longest, value.length);
  return longest;
}"""


def test_long_names_are_shortened(run, tmp_path, visit):
    label, path = "<&\"'" + "x" * 100_000, "d/" * 50_000
    judged = make(
        {path: ({label: [WHOLE]}, {})},
        [(path, label, 1.0, 0.5, 0.5, 0, (1, 1, 1))],
        [(path, label, WHOLE, 0.5)],
        (label,),
    )
    run_report.write(str(run), shown(judged), str(tmp_path))
    assert (tmp_path / "report.html").stat().st_size - (run / "report.html").stat().st_size < 60_000
    page = visit(tmp_path / "report.html")
    for place in (".class .name", ".examples .name"):
        assert page.locator(place).all_text_contents() == [f"{label[:500]}…"]
    assert page.locator(".class .name").get_attribute("title") == f"{label[:500]}…"
    assert page.locator(".examples .path").all_text_contents() == [f"{path[:500]}…"]
    assert page.evaluate(LONGEST) < 600


def test_photographs_with_both_kinds_of_boxes(hostile, visit):
    page = visit(hostile)
    assert page.locator(".examples figure").count() == 5
    assert page.locator(".examples img").evaluate_all("all => all.every(image => image.naturalWidth > 0)")
    assert page.locator(".examples .picture rect.drawn").count() == 5
    true = page.locator(".examples .picture rect.true").first
    assert [true.get_attribute(name) for name in ("x", "y", "width", "height")] == ["1.0", "1.0", "5.0", "5.0"]
    strokes = [
        page.locator(f".picture rect.{kind}").first.get_attribute("stroke-dasharray") for kind in ("drawn", "true")
    ]
    assert strokes == ["none", "0.3 0.2"]
    page.get_by_role("checkbox", name="boxes").uncheck()
    assert page.locator(".examples .picture svg").first.is_visible(), "the switch is that of the contact sheet"
    assert not page.locator("#sheet .picture svg").first.is_visible()
    caption = page.locator(".examples figcaption").first.inner_text()
    assert "IoU 0.50" in caption
    assert "score 0.50" in caption


def test_on_a_phone(hostile, page, visit):
    for path in (hostile, page):
        opened = visit(path, viewport={"width": 390, "height": 844})
        assert opened.evaluate("document.documentElement.scrollWidth") <= 390
        right = opened.locator("figure, td, .chart, .class, .legend, .numbers, svg text").evaluate_all(
            "all => Math.max(...all.map(element => element.getBoundingClientRect().right))"
        )
        assert right <= 390


def test_dark_and_light(page, visit):
    opened = visit(page)
    colours = set()
    for scheme in ("light", "dark"):
        opened.emulate_media(color_scheme=scheme)
        colours.add(opened.evaluate("getComputedStyle(document.querySelector('.accuracy .high')).stroke"))
    assert colours == {"rgb(31, 60, 92)", "rgb(219, 232, 246)"}


def test_without_true_boxes_the_page_is_as_it_was(run):
    before = (run / "report.html").read_bytes()
    run_report.write(str(run))
    assert (run / "report.html").read_bytes() == before
    assert b"judged" not in before
    assert b"--drawn" not in before


def test_the_section_is_bounded(run, tmp_path):
    """36 photographs and 40 classes, whatever the run's size: twice the pairs give no longer a page."""
    sizes = []
    for count in (400, 800):
        labels = tuple(f"label {number:03}" for number in range(count // 8))
        images = {f"{number:05}": ({labels[number % len(labels)]: [WHOLE]}, {}) for number in range(count)}
        pairs = [(path, next(iter(true)), 0.5, 0.5, 0.5, 0, (0, 0, 0)) for path, (true, _) in images.items()]
        many = make(images, pairs, [(path, label, [0, 0, 10, 5], 0.5) for path, label, *_ in pairs], labels)
        run_report.write(str(run), shown(many), str(tmp_path))
        text = (tmp_path / "report.html").read_text()
        assert text.count('class="class"') == 40
        assert text.count('class="drawn" x=') == 36
        sizes.append(len(text))
    assert abs(sizes[1] - sizes[0]) < 200
