import pytest

from camboxes.pipeline.reports.report_sample import Stratum, deal, stratum_of


def test_places_are_dealt_in_turn():
    big, small, none = Stratum("ok", "a"), Stratum("ok", "b"), Stratum("no_box", "a")
    assert deal({big: 10, small: 1, none: 2}, 6) == {big: 3, none: 2, small: 1}
    assert deal({big: 10, small: 1, none: 2}, 20) == {big: 10, none: 2, small: 1}
    assert deal({big: 10, small: 5, none: 1}, 2) == {big: 1, none: 1, small: 0}


@pytest.mark.parametrize(
    ("row", "stratum"),
    [
        ({"status": "rejected", "reason": "missing: not here", "labels": [{"label": "cat"}]}, ("rejected", "missing")),
        ({"status": "ok", "labels": [{"label": "cat"}, {"label": "owl"}]}, ("ok", "owl")),
        ({"status": "ok", "labels": [{"label": "owl"}, {"label": "emu"}]}, ("ok", "emu")),
        ({"status": "skipped", "reason": "no_class: none", "labels": []}, ("skipped", "")),
        ({"status": "skipped", "reason": "background: none", "labels": []}, ("skipped", "background")),
    ],
    ids=["by reason", "by the rarest label", "by name among equals", "without labels", "background"],
)
def test_strata(row, stratum):
    assert stratum_of(row, {"cat": 5, "owl": 2, "emu": 2}) == stratum
