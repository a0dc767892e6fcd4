import numpy as np

from camboxes.pipeline.evaluation import resampling
from camboxes.pipeline.evaluation.resampling import Estimate, bootstrap, estimates, image_weights


def _all(paths, resamples, seed=0):
    return np.concatenate(list(image_weights(paths, resamples, seed)))


def test_each_resample_draws_as_many_images_as_there_are():
    weights = _all(["c", "a", "b"], 3000)
    assert weights.shape == (3000, 3)
    assert (weights.sum(axis=1) == 3).all()
    assert set(weights.ravel()) == {0, 1, 2, 3}
    # An image is left out with probability (2/3)^3 = 0.296; four standard errors are 0.033.
    assert np.abs((weights == 0).mean(axis=0) - (2 / 3) ** 3).max() < 0.034


def test_weights_go_with_the_path_whatever_the_order():
    there, back = _all(["a", "b", "c"], 50), _all(["c", "b", "a"], 50)
    assert (there == back[:, ::-1]).all()
    assert (there != back).any()
    assert (_all(["a", "b", "c"], 50, seed=1) != there).any()


def test_fewer_resamples_are_the_first_of_more_and_chunks_change_nothing(monkeypatch):
    paths = ["a", "b", "c"]
    weights = _all(paths, 50)
    assert (_all(paths, 20) == weights[:20]).all()
    monkeypatch.setattr(resampling, "_CELLS", 21)
    chunks = list(image_weights(paths, 50, 0))
    assert [len(chunk) for chunk in chunks] == [7] * 7 + [1]
    assert (np.concatenate(chunks) == weights).all()


def test_a_bootstrap_weighs_images_whatever_the_chunks(monkeypatch):
    paths, heights = ["a", "b", "c"], np.array([1.0, 2.0, 6.0])
    done = []
    monkeypatch.setattr(resampling, "_CELLS", 40)
    values, samples = bootstrap(lambda weights: weights @ heights[:, None] / 3, paths, 50, 5, done.append)
    assert values.tolist() == [3], "the mean"
    assert samples.tolist() == (_all(paths, 50) @ heights[:, None] / 3).tolist()
    assert done == [8] * 6 + [2], "an array of 40 cells has 8 rows of 5 pairs"
    monkeypatch.undo()
    assert bootstrap(lambda weights: weights @ heights[:, None] / 3, paths, 50)[1].tolist() == samples.tolist()


def test_intervals_are_percentiles_of_what_is_defined():
    samples = np.full((101, 3), np.nan)
    samples[:, 0] = np.arange(101)[::-1]
    samples[:41, 1] = np.arange(41)
    assert estimates(np.array([60.0, 7.0, 1.0]), samples) == [
        Estimate(60, 2.5, 97.5),
        Estimate(7, 1, 39),
        Estimate(1, None, None),
    ]
    assert estimates(np.array([np.nan]), np.zeros((5, 1))) == [Estimate(None, None, None)]
