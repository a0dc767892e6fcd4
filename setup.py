"""Maps the three top-level folders to the packages camboxes.models, camboxes.transforms and camboxes.pipeline.

What `import camboxes` itself gives stands in pipeline/camboxes: a folder of this name at the top would shadow the
installed package. Bare `import models` would collide with every other project. Everything else that packaging needs
stands in pyproject.toml.
"""

from setuptools import find_packages, setup

ROOMS = ("models", "transforms", "pipeline")
PACKAGES = find_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)], exclude=["pipeline.camboxes"])

setup(
    packages=["camboxes", *(f"camboxes.{name}" for name in PACKAGES)],
    package_dir={"camboxes": "pipeline/camboxes", **{f"camboxes.{room}": room for room in ROOMS}},
    package_data={
        "camboxes": ["py.typed"],
        "camboxes.models": ["py.typed"],
        "camboxes.transforms": ["py.typed"],
        "camboxes.transforms.planning.wordnet": ["nouns.json.gz", "LICENSE"],
        "camboxes.pipeline": ["py.typed", "*.json"],
        "camboxes.pipeline.reports": ["*.jinja"],
        "camboxes.pipeline.tuning": ["*.json"],
        "camboxes.pipeline.review.plugin": ["*.yml", "dist/*.js"],
    },
)
