"""FiftyOne's way in: it imports this file by its place, and asks it for the operators."""

from camboxes.pipeline.review.operators import register

__all__ = ["register"]
