import dataclasses
import json

import numpy as np
import pytest
import torch

from camboxes.models import Localizer, MapSpec
from camboxes.models.execution import known
from camboxes.models.localization import measured as module
from camboxes.models.localization.measured import measured
from camboxes.models.spec import Execution

PLAIN, FUSED, HALF = Execution("fp32", "off"), Execution("fp32", "on"), Execution("bf16", "on")
OPEN = Execution("auto", "auto")


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty cache, one core, and a processor with bf16."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(module, "half_precision", lambda device: "bf16")


@pytest.fixture(scope="module")
def localizer(classifier):
    assert classifier.execution == FUSED
    return Localizer(classifier, MapSpec("cam*layercam@16", scales=(64, 128), fine_scales=True))


@pytest.fixture
def times(monkeypatch):
    """What passes take, in milliseconds, by how they are executed; and which were timed."""
    found, asked = {}, []

    def time_passes(passes, threads, clock):
        asked.append(list(passes))
        return {way: found[way] for way in passes if way in found}

    monkeypatch.setattr(module, "time_passes", time_passes)
    return found, asked


def near(monkeypatch, localizer, answer):
    monkeypatch.setattr(type(localizer.classifier), "is_near", lambda classifier, execution: answer)


def test_the_fastest_is_taken_and_known_to_the_next_job(localizer, times, monkeypatch):
    near(monkeypatch, localizer, True)
    found, asked = times
    found |= {PLAIN: 30.0, FUSED: 20.0, HALF: 10.0}
    chosen, told = measured(localizer, OPEN, 50)
    assert chosen.classifier.execution == HALF and told == (found, True)
    assert [chosen.settings["model"][name] for name in ("precision", "compile")] == ["bf16", "on"]
    assert localizer.classifier.execution == FUSED  # as it was
    assert {look.methods.classifier.execution for look in chosen._looks} == {HALF}
    again, told = measured(localizer, OPEN, 1)  # a small job knows it, too
    assert again.classifier.execution == HALF and told == (found, False)
    assert asked == [[PLAIN, FUSED, HALF]]


def test_what_gives_other_maps_is_not_taken(localizer, times, monkeypatch):
    near(monkeypatch, localizer, False)
    times[0].update({PLAIN: 30.0, FUSED: 20.0, HALF: 10.0})
    assert measured(localizer, OPEN, 50)[0].classifier.execution == FUSED
    assert measured(localizer, OPEN, 50)[0].classifier.execution == FUSED  # nor when it is known to be fast
    assert len(times[1]) == 1


def test_what_fails_is_not_taken(localizer, times):
    times[0].update({PLAIN: 30.0, FUSED: 20.0})
    assert measured(localizer, OPEN, 50)[0].classifier.execution == FUSED
    times[0].clear()
    known.remember(known_question(), {})
    assert measured(localizer, OPEN, 50) == (localizer, None)


def known_question():
    [file] = known.folder().iterdir()
    return json.loads(file.read_text())["question"]


def test_a_small_job_measures_nothing(localizer, times, monkeypatch):
    assert measured(localizer, OPEN, 49) == (localizer, None)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # passes at once, each of which costs what one image does
    assert measured(localizer, OPEN, 99) == (localizer, None)
    assert times[1] == [] and not known.folder().exists()


@pytest.mark.parametrize(
    ("asked", "ways"),
    [
        (Execution("auto", "on"), [FUSED, HALF]),
        (Execution("fp32", "auto"), [PLAIN, FUSED]),
        (Execution("fp32", "on"), None),
    ],
)
def test_what_is_asked_for_stays(localizer, times, asked, ways):
    times[0].update({PLAIN: 10.0, FUSED: 10.0, HALF: 10.0})
    chosen, told = measured(localizer, asked, 50)
    assert times[1] == ([ways] if ways else []) and (told is None) == (ways is None)
    assert chosen.classifier.execution == (ways[0] if ways else FUSED)  # a tie


def test_a_processor_without_bf16_is_not_asked_for_it(localizer, times, monkeypatch):
    monkeypatch.setattr(module, "half_precision", lambda device: None)
    times[0].update({PLAIN: 30.0, FUSED: 20.0})
    assert measured(localizer, OPEN, 50)[0].classifier.execution == FUSED
    assert times[1] == [[PLAIN, FUSED]]
    unfused = localizer.executed(PLAIN)
    assert measured(unfused, OPEN, 50) == (unfused, None)  # there is nothing to choose


def test_answers_are_of_a_kind_of_processor_and_job_and_not_of_weights(localizer, times, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "half_precision", lambda device: None)
    times[0].update({PLAIN: 30.0, FUSED: 20.0})
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(module, "_CPUINFO", cpuinfo)
    core = "processor\t: {}\nmodel name\t: X\ncpu MHz\t: {}\nflags\t: avx2{}\n\n"
    cpuinfo.write_text(core.format(0, 2000, "") + core.format(1, 2000, ""))
    measured(localizer, OPEN, 50)
    assert known_question()["processor"][1:] == ["model name\t: X", "flags\t: avx2"]
    cpuinfo.write_text(core.format(0, 3000, ""))
    trained = localizer.executed(FUSED)
    trained.settings["model"] = trained.settings["model"] | {"weights_sha256": "00", "class_names_sha256": "00"}
    measured(trained, OPEN, 50)
    assert len(times[1]) == 1
    other = localizer.executed(FUSED)
    other.settings["scales"] = [64, 96]
    for different in (other, Localizer(localizer.classifier, MapSpec("cam"))):
        measured(different, OPEN, 50)
    cpuinfo.write_text(core.format(0, 2000, " avx512f"))
    measured(localizer, OPEN, 50)
    cpuinfo.unlink()  # no Linux
    measured(localizer, OPEN, 50)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    measured(localizer, OPEN, 100)
    assert len(times[1]) == 6 and len(known.answers()) == 6


def test_layers_in_any_execution_give_nearly_the_same_maps_of_the_same_weights(localizer):
    """Really timed, in the ways that this processor has; which one wins is its own affair."""
    photograph = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    chosen, told = measured(localizer, Execution("fp32", "auto"), 50)
    assert list(told.milliseconds) == [PLAIN, FUSED] and min(told.milliseconds.values()) > 0
    assert chosen.classifier.network is localizer.classifier.network
    found = [
        each.localize([each.resize(photograph)], [[(285,)]])[0].maps for each in (chosen, localizer.executed(PLAIN))
    ]
    np.testing.assert_allclose(*found, atol=1e-3)
    assert dataclasses.replace(chosen.classifier.spec, compile="on") == localizer.classifier.spec


def test_the_largest_pass_is_one_at_the_largest_scale_with_gradients(localizer, monkeypatch):
    passes = []
    record = type(localizer.classifier).record

    def noted(classifier, images, layers, gradients=frozenset()):
        passes.append((tuple(images.shape), len(gradients)))
        return record(classifier, images, layers, gradients)

    monkeypatch.setattr(type(localizer.classifier), "record", noted)
    localizer.largest_pass(localizer.resize(torch.zeros(90, 120, 3, dtype=torch.uint8)))
    assert passes == [((1, 3, 128, 128), 1)]
