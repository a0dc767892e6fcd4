"""Clients of the stores: one in a process, and Beam's own classes as they were."""

import os

import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from camboxes.transforms.storage.stores import store_of


@pytest.fixture
def options(monkeypatch):
    """Gives Beam other options in this process."""

    def given(*arguments):
        monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions(list(arguments)))

    return given


def _s3_client():
    return store_of("s3://bucket/a").io.client.client


def test_a_process_makes_one_client_of_s3(s3, options, monkeypatch):
    options()
    client = _s3_client()
    assert _s3_client() is client
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert _s3_client().meta.region_name == "eu-west-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    assert _s3_client() is client
    monkeypatch.setattr(os, "getpid", lambda: 0)  # a fork
    assert _s3_client() is not client
    options("--s3_region_name=eu-west-2")
    assert _s3_client().meta.region_name == "eu-west-2"


def test_a_process_makes_one_client_of_gcs(gs, options, monkeypatch):
    def client():
        return store_of("gs://bucket/a").io.client

    options()
    first = client()
    assert client() is first
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    assert client() is not first
    monkeypatch.undo()
    options()
    assert client() is not first


def test_beam_makes_clients_as_before(s3):
    """A user's own steps that read through Beam do not get the shared client."""
    from apache_beam.io.aws.s3io import S3IO

    shared, options = _s3_client(), PipelineOptions([])
    one, another = (S3IO(options=options).client.client for _ in range(2))
    assert one is not another and shared not in (one, another)


def test_a_scheme_that_nothing_is_installed_for():
    with pytest.raises(ValueError, match="ensure the required dependency is installed"):
        store_of("nothing://a/b")
