"""Beam's filesystems, with one client of S3 and one of Google Cloud Storage in each process.

Beam makes a new client for every call. A client of S3 costs 70 to 300 ms of a processor, and each client opens
connections of its own (docs/how-to/stores.md). Threads may share a client; a forked process makes its own. Beam's
classes stay as they are: the clients are shared by camboxes' own calls alone.
"""

import copy
import functools
import os
import re
from collections.abc import Callable, Hashable, Iterable, Iterator
from http import HTTPStatus
from typing import IO, Any, Literal

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client, messages
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from apache_beam.utils import retry

_Batch = Callable[[list[Any]], Iterable[tuple[Any, ...]]]


def store_of(path: str) -> "Store":
    """The store that holds a path: its operations on files."""
    FileSystems.get_filesystem(path)  # says which of Beam's extras is missing
    make = {"s3": _s3, "gs": _google_storage}.get(FileSystems.get_scheme(path) or "")
    return make(FileSystems._pipeline_options or _no_options()) if make else Store()


@functools.cache
def _no_options() -> PipelineOptions:
    """What stands in before there is a pipeline. To make it, Beam configures Python's logging: not when imported."""
    return PipelineOptions([])


class Store:
    """Operations on the files of any of Beam's filesystems. Beam's own errors come through."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or, locally, a folder at a path."""
        return FileSystems.exists(path)

    def open(self, path: str, mode: Literal["rb", "wb"]) -> IO[bytes]:
        """Opens a file for reading or writing; its bytes are neither decompressed nor compressed."""
        opening = FileSystems.open if mode == "rb" else FileSystems.create
        return opening(path, compression_type=CompressionTypes.UNCOMPRESSED)

    def rename(self, source: str, target: str) -> None:
        """Moves a file."""
        FileSystems.rename([source], [target])

    def delete(self, path: str) -> None:
        """Deletes a file, and everything below the folder of that name."""
        FileSystems.delete([path])
        FileSystems.delete([path + "/"])

    def matching(self, pattern: str) -> Iterator[str]:
        """The paths of the files that a pattern of Beam's matches."""
        return (file.path for file in FileSystems.match([pattern])[0].metadata_list)


class _Cloud(Store):
    """S3 or Google Cloud Storage."""

    def __init__(self, io: Any, copy: _Batch, remove: _Batch, listed: Callable[[str], Iterator[str]]):
        """Takes the calls of one of the stores.

        Args:
          io: Beam's S3IO or GcsIO.
          copy: copies (source, target) pairs, and returns (source, target, error or None) for each.
          remove: deletes files, and returns (path, error or None) for each.
          listed: the paths that begin with a text, one page after the other. Beam's `list_files` keeps all names.
        """
        self.io, self._copy, self._remove, self._listed = io, copy, remove, listed

    def exists(self, path: str) -> bool:
        try:
            return self.io.exists(path)
        except Exception as error:  # each store has errors of its own
            raise BeamIOError("exists() operation failed", {path: error}) from error

    def open(self, path: str, mode: Literal["rb", "wb"]) -> IO[bytes]:
        return self.io.open(path, mode)

    def rename(self, source: str, target: str) -> None:
        _check("Rename", self._copy([(source, target)]))
        _check("Rename", self._remove([source]))

    def delete(self, path: str) -> None:
        _check("Delete", self._remove([path, *self._listed(path + "/")]))

    def matching(self, pattern: str) -> Iterator[str]:
        start = re.split(r"[*?\[]", pattern)[0]
        if start == pattern:
            yield from [pattern] if self.exists(pattern) else []
            return
        matches = re.compile(FileSystems.get_filesystem(pattern).translate_pattern(pattern)).match
        try:
            yield from filter(matches, self._listed(start))
        except Exception as error:
            raise BeamIOError("List operation failed", {pattern: error}) from error


def _check(operation: str, results: Iterable[tuple[Any, ...]]) -> None:
    """Raises BeamIOError if a result, (path, ..., error or None), holds an error."""
    if errors := {result[0]: result[-1] for result in results if result[-1] is not None}:
        raise BeamIOError(f"{operation} operation failed", errors)


def _here() -> tuple[int, frozenset[tuple[str, str]]]:
    """What a client belongs to: the process, and the environment, which may name credentials and servers."""
    names = ("AWS_", "GOOGLE_", "STORAGE_")
    return os.getpid(), frozenset(item for item in os.environ.items() if item[0].startswith(names))


@functools.lru_cache(maxsize=8)
def _s3_client(options: PipelineOptions, here: Hashable) -> boto3_client.Client:
    """Beam's client of S3.

    Raises:
      OSError: there is no library, or there are no credentials. Beam itself would try for ten minutes.
    """
    if boto3_client.boto3 is None:
        raise OSError('s3:// needs boto3, which is not installed: pip install ".[aws]" (in the clone)')
    given = options.view_as(S3Options).s3_access_key_id
    if given is None and boto3_client.boto3.session.Session().get_credentials() is None:
        raise OSError(
            "there are no credentials for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    return boto3_client.Client(options)


@functools.lru_cache(maxsize=8)
def _gcs_client(options: PipelineOptions, here: Hashable) -> Any:
    from apache_beam.io.gcp import gcsio

    return gcsio.create_storage_client(options)


def _s3(options: PipelineOptions) -> _Cloud:
    io = s3io.S3IO(copy.copy(_s3_client(options, _here())))  # a copy: it keeps the state of one file's download
    ask = retry.with_exponential_backoff(retry_filter=retry.retry_on_server_errors_and_timeout_filter)(io.client.list)

    def listed(start: str) -> Iterator[str]:
        bucket, prefix = s3io.parse_s3_path(start, object_optional=True)
        request = messages.ListRequest(bucket, prefix)
        try:
            while True:
                page = ask(request)
                yield from (f"s3://{bucket}/{item.key}" for item in page.items)
                if not page.next_token:
                    return
                request.continuation_token = page.next_token
        except messages.S3ClientError as error:
            if error.code != HTTPStatus.NOT_FOUND:  # which S3 also answers where no path begins so
                raise

    return _Cloud(io, io.copy_paths, io.delete_files, listed)


def _google_storage(options: PipelineOptions) -> _Cloud:
    from apache_beam.io.gcp import gcsio

    io = gcsio.GcsIO(_gcs_client(options, _here()), options)

    def listed(start: str) -> Iterator[str]:
        bucket, prefix = gcsio.parse_gcs_path(start, object_optional=True)
        files = io.client.list_blobs(bucket, prefix=prefix, retry=io._storage_client_retry)
        yield from (f"gs://{bucket}/{file.name}" for file in files)

    return _Cloud(io, io.copy_batch, io.delete_batch, listed)
