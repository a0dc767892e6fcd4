# One image for Dataflow's workers and for the launcher of a flex template: docs/how-to/dataflow.md.
# What a worker needs and nothing else: neither FiftyOne nor a training library. The CUDA libraries come with PyTorch's
# wheels, so the base has none.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam
FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20230622_RC00 AS launcher

FROM python:3.11-slim-bookworm
COPY --from=beam /opt/apache/beam /opt/apache/beam
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/python_template_launcher

WORKDIR /camboxes
COPY constraints.txt ./
# Some 5.5 GB, in a layer of its own: a change of camboxes does not send them again.
RUN pip install --no-cache-dir --constraint constraints.txt torch torchvision

COPY pyproject.toml setup.py README.md LICENSE ./
COPY models models
COPY transforms transforms
COPY pipeline pipeline
RUN pip install --no-cache-dir --constraint constraints.txt ".[aws,gcp,prompts]" && pip check

COPY pipeline/flex_template.py /template/main.py
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py
ENTRYPOINT ["/opt/apache/beam/boot"]
