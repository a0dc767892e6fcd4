"""Jobs for Dataflow as it would get them: the recorded request to create one, and the pipeline that is staged for it.

That the service accepts and runs them is not shown here.
"""

import argparse
import contextlib
import hashlib
import http.server
import io
import json
import re
import shlex
import shutil
import string
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import translations

from camboxes.models import ModelSpec
from camboxes.pipeline import flex_template
from camboxes.pipeline.cli import main
from camboxes.pipeline.jobs import remote
from camboxes.pipeline.jobs.beam_options import beam_options, workers_elsewhere
from camboxes.pipeline.label_job import LabelJob
from camboxes.pipeline.options.fields import add_arguments
from camboxes.transforms import PlannedRun, storage

ROOT = Path(__file__).parents[3]
IMAGE = "europe-docker.pkg.dev/project/camboxes/worker:1"
INFER = "InferClassMaps/ParDo(_InferClassMaps)"
FUSED = ("/PlannedRows", INFER, "BoxesFromMaps/Map(_draw_shard)", "WriteCoco/WriteShards")


@pytest.fixture(scope="module")
def bucket():
    """The URL of an empty bucket on a real S3 server of this machine, which S3's clients find in the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", "http://{}:{}".format(*server.get_host_and_port()))
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.setenv(name, "anyone")
        boto3.client("s3").create_bucket(Bucket="dataflow")
        yield "s3://dataflow"
    server.stop()


@pytest.fixture(scope="module")
def data(bucket, photographs):
    """The photographs' class folders on the store."""
    import boto3

    client = boto3.client("s3")
    for path in photographs.rglob("*.*"):
        if path.parent.parent == photographs:
            client.put_object(Bucket="dataflow", Key=f"photos/{path.relative_to(photographs)}", Body=path.read_bytes())
    return f"{bucket}/photos/"


@pytest.fixture(scope="module")
def service():
    """The address of a server that keeps what it is asked to create, and says of each job that it is done."""
    created = []

    class Service(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            created.append(request | {"path": self.path.partition("?")[0]})
            job = {"id": "1", "name": "job", "projectId": "project", "location": "europe-west4"}
            body = json.dumps(job | {"currentState": "JOB_STATE_DONE"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("localhost", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(address=f"http://localhost:{server.server_port}", created=created)
    server.shutdown()


def _label(service, data, output, folder, *options):
    for name in ("staging", "temp"):
        (folder / name).mkdir()
    call = ["--input", data, "--output", output, "--shards", "2", "--runner", "DataflowRunner", "--no_auth"]
    call += ["--project=project", "--region=europe-west4", f"--dataflow_endpoint={service.address}"]
    call += [f"--staging_location={folder / 'staging'}", f"--temp_location={folder / 'temp'}", *options]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(["label", *call])
    [staged] = (folder / "staging").rglob("pipeline.pb")
    return SimpleNamespace(
        code=code,
        said=said.getvalue(),
        request=service.created[-1] if service.created else None,
        pipeline=beam_runner_api_pb2.Pipeline.FromString(staged.read_bytes()),
        staged=staged.parent,
    )


@pytest.fixture(scope="module")
def gpu(service, data, bucket, tmp_path_factory):
    """A job whose workers have a GPU and an image of their own."""
    options = ["--accelerator", "nvidia-tesla-t4:n1-standard-8", "--sdk_container_image", IMAGE]
    options += ["--machine_type=n1-standard-2", "--max_num_workers=4"]
    options += ["--dataflow_service_options=enable_google_cloud_profiler"]
    return _label(service, data, f"{bucket}/gpu", tmp_path_factory.mktemp("gpu"), *options)


@pytest.fixture(scope="module")
def cpu(service, data, bucket, tmp_path_factory):
    """A small job on CPUs, whose workers install camboxes from its source."""
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for room in ("models", "transforms", "pipeline"):
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--setup_file", str(source / "setup.py"), "--experiments=use_multiple_sdk_containers"]
    return _label(service, data, f"{bucket}/cpu", tmp_path_factory.mktemp("cpu"), *options)


def _environments(pipeline):
    """Of each step that runs code of ours or of Beam's, by name."""
    return {
        step.unique_name: pipeline.components.environments[step.environment_id]
        for step in pipeline.components.transforms.values()
        if not step.subtransforms and step.environment_id
    }


def _infer(pipeline):
    """The step that runs the network."""
    [step] = [step for step in pipeline.components.transforms.values() if step.unique_name == INFER]
    payload = beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)
    return pickler.loads(payload.do_fn.payload)[0]


def test_hints_stand_on_the_steps_from_the_spread_shards_to_their_files(gpu):
    hints = {name: dict(environment.resource_hints) for name, environment in _environments(gpu.pipeline).items()}
    of_shards = [name for name in hints if "/Spread/" in name or name.endswith(FUSED)]
    assert len(of_shards) == 4 + len(FUSED)
    for name in of_shards:
        assert hints[name] == {
            "beam:resources:accelerator:v1": (
                b"type:nvidia-tesla-t4;count:1;machine_type:n1-standard-8;install-nvidia-driver:5xx"
            ),
            "beam:resources:min_ram_bytes:v1": b"12000000000",
        }, name
    others = set(hints) - set(of_shards)
    assert {"PlanOnWorkers/PlanShard", "PlanOnWorkers/Settle", "WriteCoco/Merge"} <= others
    assert all(hints[name] == {} for name in others)


def test_a_shard_stays_on_its_worker_from_its_plan_to_its_file(gpu):
    """As Beam's own rules of fusion have it: Dataflow's are not open."""
    pipeline = beam_runner_api_pb2.Pipeline.FromString(gpu.pipeline.SerializeToString())
    _, stages = translations.create_and_optimize_stages(
        pipeline, translations.standard_optimize_phases(), known_runner_urns=frozenset()
    )
    fused = [[step.unique_name for step in stage.transforms] for stage in stages]
    [of_shards] = [names for names in fused if INFER in names]
    assert len([name for name in of_shards if name.endswith(FUSED)]) == len(FUSED)
    assert "WriteCoco/Merge" not in of_shards


def test_one_process_a_worker(gpu):
    environment = gpu.request["environment"]
    assert "no_use_multiple_sdk_containers" in environment["experiments"]
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    assert environment["workerPools"][0]["numThreadsPerWorker"] == 2


def test_the_image_the_machines_and_the_service_s_options_are_those_of_the_call(gpu):
    environment = gpu.request["environment"]
    [pool] = environment["workerPools"]
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
    assert len(pool["sdkHarnessContainerImages"]) == 2, "with the hints, and without"
    assert (pool["machineType"], pool["autoscalingSettings"]["maxNumWorkers"]) == ("n1-standard-2", 4)
    assert environment["serviceOptions"] == ["enable_google_cloud_profiler"]
    packages = [package["name"] for package in pool["packages"]]
    assert packages == ["submission_environment_dependencies.txt"], "Beam's list of what is installed here; no code"
    assert gpu.request["path"] == "/v1b3/projects/project/locations/europe-west4/jobs"


def test_workers_load_the_staged_weights_and_no_others(gpu, bucket):
    model = _infer(gpu.pipeline)._model
    staged = storage.read_bytes(f"{bucket}/gpu/plan/weights.safetensors")
    assert (model.name, model.weights) == (f"{bucket}/gpu/plan", None)
    assert model.weights_sha256 == hashlib.sha256(staged).hexdigest()


def test_the_network_is_executed_as_the_accelerator_asks_and_not_as_this_machine_could(gpu):
    model = _infer(gpu.pipeline)._model
    assert (model.device, model.precision, model.compile, model.batch_size) == ("cuda", "fp16", "off", 64)


def test_a_job_that_wrote_nothing_has_failed(gpu, bucket):
    """The server says that the job is done, and nobody did it."""
    assert gpu.code == 1
    assert f"the job failed: Not found: {bucket}/gpu/summary.json" in gpu.said


def test_a_small_job_stages_the_source_and_has_no_hints(cpu):
    [pool] = cpu.request["environment"]["workerPools"]
    names = [package["name"] for package in pool["packages"]]
    assert [name for name in names if name.endswith(".tar.gz")] == ["workflow.tar.gz"]
    with tarfile.open(cpu.staged / "workflow.tar.gz") as source:
        members = {member.partition("/")[2] for member in source.getnames()}
    modules = {"models/cam/class_activation.py", "transforms/infer.py", "pipeline/commands/label.py"}
    assert {"setup.py", "pyproject.toml", *modules} <= members
    assert all(not environment.resource_hints for environment in _environments(cpu.pipeline).values())
    model = _infer(cpu.pipeline)._model
    assert (model.device, model.precision, model.compile, model.batch_size) == ("cpu", "fp32", "off", 4)


def test_what_the_call_says_of_processes_holds(cpu):
    experiments = cpu.request["environment"]["experiments"]
    assert "use_multiple_sdk_containers" in experiments and "no_use_multiple_sdk_containers" not in experiments


def test_a_template_s_launcher_gets_a_description_and_starts_nothing(service, data, bucket, tmp_path, capsys):
    for name in ("staging", "temp"):
        (tmp_path / name).mkdir()
    before = len(service.created)
    call = [f"--input={data}", f"--output={bucket}/template", "--shards=2", "--flip=true", "--compete=false"]
    call += ["--keep_plain=false", "--method=cam", "--refine=none", "--accelerator=nvidia-l4:g2-standard-8"]
    call += ["--runner=DataflowRunner", "--project=project", "--region=europe-west4", "--no_auth"]
    call += [f"--dataflow_endpoint={service.address}", f"--sdk_container_image={IMAGE}"]
    call += [f"--staging_location={tmp_path / 'staging'}", f"--temp_location={tmp_path / 'temp'}"]
    assert flex_template.main([*call, f"--template_location={tmp_path / 'job.json'}"]) == 0
    assert len(service.created) == before
    [pool] = json.loads((tmp_path / "job.json").read_text())["environment"]["workerPools"]
    assert {image["containerImage"] for image in pool["sdkHarnessContainerImages"]} == {IMAGE}
    [staged] = (tmp_path / "staging").rglob("pipeline.pb")
    infer = _infer(beam_runner_api_pb2.Pipeline.FromString(staged.read_bytes()))
    assert (infer._maps.flip, infer._maps.compete, infer._maps.keep_plain) == (True, False, False)
    assert infer._model.precision == "bf16"
    assert "images are listed and planned on the workers" in capsys.readouterr().err


def test_the_template_s_parameters_are_the_options_of_label():
    """Written by `python -m camboxes.pipeline.flex_template --metadata > pipeline/flex_template.json`."""
    written = json.loads((ROOT / "pipeline" / "flex_template.json").read_text())
    assert written == flex_template.metadata()
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser, LabelJob)
    by_name = {parameter["name"]: parameter for parameter in written["parameters"]}
    assert set(by_name) == {action.dest for action in parser._actions} | {"sdk_container_image"}
    assert [name for name, parameter in by_name.items() if not parameter.get("isOptional")] == [
        "input", "output", "sdk_container_image",
    ]  # fmt: skip
    assert by_name["boxes"]["regexes"] == ["^(largest|peak|all|instances)$"]
    assert by_name["flip"]["regexes"] == ["^(true|false)$"]
    assert all(re.fullmatch("[a-z_]+", name) for name in by_name)
    assert all(parameter["helpText"] and "%(" not in parameter["helpText"] for parameter in by_name.values())


def test_a_launcher_s_parameters_as_arguments():
    given = ["--input=gs://b/a=b", "--label_map=gs://b/m.json", "--flip=True", "--overwrite=false", "--compete=false"]
    assert flex_template.call([*given, "--job_name=j", "--runner=DataflowRunner"]) == [
        *("label", "--input=gs://b/a=b", "--label-map=gs://b/m.json", "--flip", "--no-compete"),
        *("--job_name=j", "--runner=DataflowRunner"),
    ]
    with pytest.raises(ValueError, match="parameter flip is 'yes'; expected true or false"):
        flex_template.call(["--flip=yes"])


COMPLETE = ["--project=p", "--region=r", "--temp_location=gs://b/t", "--sdk_container_image=i"]
ON_DATAFLOW = ["--runner=DataflowRunner", *COMPLETE]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "out", *ON_DATAFLOW], "--output 'out' is a local path, and workers on other machines cannot see"),
        (["--root", "here", *ON_DATAFLOW], "--root 'here' is a local path"),
        (ON_DATAFLOW[:-1], "Dataflow's workers would have no camboxes: give --sdk_container_image IMAGE"),
        (ON_DATAFLOW[:1], "DataflowRunner also needs --project and --region and --temp_location"),
        (["--accelerator", "nvidia-l4"], "--accelerator is for workers on other machines; on this one give --device"),
        (["--accelerator", "nvidia-l4", "--device=cpu", *ON_DATAFLOW], "--accelerator nvidia-l4 and --device cpu"),
    ],
)
def test_calls_that_are_refused(data, bucket, capsys, options, said):
    assert main(["label", "--input", data, "--output", f"{bucket}/never", *options]) == 2
    assert said in capsys.readouterr().err
    assert PlannedRun.load(f"{bucket}/never") is None


def test_a_local_data_set_is_refused(bucket, photographs, capsys):
    assert main(["label", "--input", str(photographs), "--output", f"{bucket}/never", *ON_DATAFLOW]) == 2
    assert "copy it to a store and name that: gs://BUCKET/FOLDER" in capsys.readouterr().err


def test_an_accelerator_that_is_none(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["label", "--input", "i", "--output", "o", "--accelerator", "T4;count:8"])
    assert stopped.value.code == 2
    assert "'T4;count:8' is not KIND[:MACHINE], such as nvidia-l4:g2-standard-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "accelerator", "settled"),
    [
        ({}, None, ("cpu", "fp32", "off")),
        ({"precision": "bf16", "compile": "on"}, None, ("cpu", "bf16", "on")),
        ({"device": "cuda"}, None, ("cuda", "bf16", "off")),
        ({}, "nvidia-tesla-v100", ("cuda", "fp16", "off")),
        ({}, "nvidia-tesla-a100:a2-highgpu-1g", ("cuda", "bf16", "off")),
        ({"precision": "fp32"}, "nvidia-tesla-t4", ("cuda", "fp32", "off")),
    ],
)
def test_how_other_machines_run_the_network(asked, accelerator, settled):
    spec = remote.settled(ModelSpec(**asked), accelerator and remote.Accelerator.parse(accelerator))
    assert (spec.device, spec.precision, spec.compile) == settled


@pytest.mark.parametrize(
    ("options", "elsewhere"),
    [
        ([], False),
        (["--direct_num_workers=2", "--direct_running_mode=multi_processing"], False),
        (["--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=LOOPBACK"], False),
        (["--runner=PortableRunner", "--job_endpoint=localhost:1"], True),
        (["--runner=FlinkRunner", "--flink_master=host:8081", "--environment_type=EXTERNAL"], True),
        (["--runner=SparkRunner", "--spark_master_url=spark://host:7077"], True),
        (["--runner=apache_beam.runners.dataflow.dataflow_runner.DataflowRunner", *COMPLETE], True),
    ],
)
def test_where_the_workers_are(options, elsewhere):
    assert workers_elsewhere(beam_options(options)) is elsewhere


def _documented():
    """The calls of `camboxes label` in the documentation of runners."""
    for page in ("dataflow.md", "runners.md"):
        text = (ROOT / "docs" / "how-to" / page).read_text().replace("\\\n", " ")
        yield from re.findall(r"^camboxes label (.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("call", _documented())
def test_the_documented_calls_have_no_unknown_options(call):
    arguments = shlex.split(string.Template(call).safe_substitute(BUCKET="b", REGION="r", PROJECT="p", IMAGE="i"))
    parser = argparse.ArgumentParser(allow_abbrev=False)
    add_arguments(parser, LabelJob)
    known, of_beam = parser.parse_known_args(arguments)
    options = beam_options(of_beam)
    stores = {"output": known.output, "input": known.input}
    remote.check_stores(options, **stores)
    local = any(folder.startswith("photos") for folder in stores.values())
    assert workers_elsewhere(options) is not local
