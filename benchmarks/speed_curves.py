"""docs/pictures/speed.png: images/s over the number of images, and over worker processes."""

from collections.abc import Mapping
from pathlib import Path

_COLOURS = {"efficientnet_lite0": "#1f5fa8", "resnet50": "#b3541e"}


def draw(
    file: Path, by_images: Mapping[str, Mapping[int, float]], by_processes: Mapping[str, Mapping[int, float]]
) -> None:
    """Draws both curves of each network.

    Args:
      file: a PNG.
      by_images: for each network, images/s of whole calls, start-up included, by the number of images.
      by_processes: for each network, images/s by the number of worker processes of one core, start-up left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.4), dpi=150, width_ratios=(3, 2), layout="constrained")
    panels = [
        (by_images, "images in one call, start-up included"),
        (by_processes, "worker processes of one core, start-up left out"),
    ]
    for axis, (curves, below) in zip(axes, panels, strict=True):
        for name, points in curves.items():
            places, rates = sorted(points), [points[place] for place in sorted(points)]
            axis.plot(places, rates, "o-", color=_COLOURS[name], markersize=4, linewidth=1.5)
            axis.annotate(name, (places[-1], rates[-1]), (-4, 7), textcoords="offset points", ha="right", fontsize=8)
        axis.set_xlabel(below, fontsize=9)
        axis.set_ylim(0, 1.2 * max(rate for points in curves.values() for rate in points.values()))
        axis.set_xlim(0, 1.05 * max(place for points in curves.values() for place in points))
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_ylabel("images per second", fontsize=9)
    axes[1].set_xticks(sorted({place for points in by_processes.values() for place in points}))
    figure.savefig(file)
    pyplot.close(figure)
