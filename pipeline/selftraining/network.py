"""The network that a self-training reads features with: the one that made the run's maps."""

from camboxes.models import ModelSpec, load_classifier
from camboxes.models.networks.checkpoints import DESCRIPTION
from camboxes.models.training.selftraining import FeatureReader
from camboxes.transforms import PlannedRun, storage

_REMEDY = "run camboxes label once more and start from its --output, which keeps the network"
_SIZE = 448  # pixels: smaller photographs give features that are too coarse to learn outlines from


def network_of(run: PlannedRun) -> ModelSpec:
    """The run's network, with images squashed to a size at which its features show outlines."""
    model = run.settings["model"]
    folder = storage.join(run.output, "plan")
    kept = storage.exists(storage.join(folder, DESCRIPTION))
    return ModelSpec(
        folder if kept else model["name"],
        size=max(_SIZE, *run.settings["scales"]),
        map_stride=model["map_stride"],
        device="cpu" if model["device"] == "cpu" else "auto",
        # As in the run, where they are settled for all workers; a run without them is older than these options.
        precision=model.get("precision", "fp32"),
        compile=model.get("compile", "off"),
    )


def load_reader(run: PlannedRun, spec: ModelSpec) -> FeatureReader:
    """Loads the run's network, and checks that its weights are those of the run.

    Raises:
      ValueError: it cannot be loaded, has other weights, or has no block at stride 16.
    """
    try:
        classifier = load_classifier(spec)
    except (ValueError, OSError) as error:
        raise ValueError(f"the network of --run {run.output!r} cannot be had: {error}; {_REMEDY}") from error
    now, then = classifier.settings["weights_sha256"], run.settings["model"]["weights_sha256"]
    if now != then:
        raise ValueError(
            f"the network of --run {run.output!r} had weights {then[:16]}, {spec.name!r} has {now[:16]}; {_REMEDY}"
        )
    return FeatureReader(classifier)
