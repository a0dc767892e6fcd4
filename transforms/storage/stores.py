"""Beam's filesystems, with one client of S3 and one of Google Cloud Storage in each process.

Beam makes a new client for every call. A client of S3 costs 70 to 300 ms of a processor, and each client opens
connections of its own (docs/stores.md). Threads may share a client; a forked process makes its own. Beam's classes stay
as they are: the clients are shared by camboxes' own calls alone.
"""

import copy
import functools
import os
import re
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import IO, Any

from apache_beam.io.aws import s3io
from apache_beam.io.aws.clients.s3 import boto3_client, messages
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions, S3Options
from apache_beam.utils import retry

# Credentials and servers may be named in the environment.
_ENVIRONMENT = ("AWS_", "GOOGLE_", "STORAGE_")


def store_of(path: str) -> "Store":
    """The store that holds a path: its operations on files."""
    FileSystems.get_filesystem(path)  # says which of Beam's extras is missing
    return {"s3": _S3, "gs": _GoogleStorage}.get(FileSystems.get_scheme(path) or "", Store)()


class Store:
    """Operations on the files of any of Beam's filesystems. Beam's own errors come through."""

    def exists(self, path: str) -> bool:
        """Whether there is a file or, locally, a folder at a path."""
        return FileSystems.exists(path)

    def open(self, path: str) -> IO[bytes]:
        """Opens a file for reading; it is not decompressed."""
        return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)

    def create(self, path: str) -> IO[bytes]:
        """Opens a file for writing; it is not compressed."""
        return FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)

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


class _ListedByPage(Store):
    """A store that is listed one page after the other. Beam's `match` holds the names of all files."""

    def matching(self, pattern: str) -> Iterator[str]:
        start = re.split(r"[*?\[]", pattern)[0]
        if start == pattern:
            yield from [pattern] if self.exists(pattern) else []
            return
        matches = re.compile(FileSystems.get_filesystem(pattern).translate_pattern(pattern)).match
        try:
            yield from filter(matches, self._listed(start))
        except Exception as error:  # each store has errors of its own
            raise BeamIOError("List operation failed", {pattern: error}) from error

    def _listed(self, start: str) -> Iterator[str]:
        """The paths that begin with `start`."""
        raise NotImplementedError


class _S3(_ListedByPage):
    def __init__(self) -> None:
        # A copy: what the client keeps of a download belongs to one file.
        self._s3 = s3io.S3IO(client=copy.copy(_s3_client(_options())))

    def exists(self, path: str) -> bool:
        try:
            return self._s3.exists(path)
        except Exception as error:
            raise BeamIOError("exists() operation failed", {path: error}) from error

    def open(self, path: str) -> IO[bytes]:
        return self._s3.open(path, "rb")

    def create(self, path: str) -> IO[bytes]:
        return self._s3.open(path, "wb")

    def rename(self, source: str, target: str) -> None:
        [(_, _, error)] = self._s3.rename_files([(source, target)])
        _check("Rename", {source: error})

    def delete(self, path: str) -> None:
        _check("Delete", self._s3.delete_paths([path, path + "/"]))

    def _listed(self, start: str) -> Iterator[str]:
        bucket, prefix = s3io.parse_s3_path(start, object_optional=True)
        request = messages.ListRequest(bucket, prefix)
        again = retry.with_exponential_backoff(retry_filter=retry.retry_on_server_errors_and_timeout_filter)
        ask = again(self._s3.client.list)
        while True:
            try:
                page = ask(request)
            except messages.S3ClientError as error:
                if error.code == HTTPStatus.NOT_FOUND:  # also where no path begins so
                    return
                raise
            yield from (f"s3://{bucket}/{item.key}" for item in page.items)
            if not page.next_token:
                return
            request.continuation_token = page.next_token


class _GoogleStorage(_ListedByPage):
    def __init__(self) -> None:
        from apache_beam.io.gcp import gcsio

        self._gcs = gcsio.GcsIO(_gcs_client(_options()), _options())

    def exists(self, path: str) -> bool:
        return self._gcs.exists(path)

    def open(self, path: str) -> IO[bytes]:
        return self._gcs.open(path, "rb")

    def create(self, path: str) -> IO[bytes]:
        return self._gcs.open(path, "wb")

    def rename(self, source: str, target: str) -> None:
        [(_, _, error)] = self._gcs.copy_batch([(source, target)])
        _check("Rename", {source: error})
        _check("Rename", dict(self._gcs.delete_batch([source])))

    def delete(self, path: str) -> None:
        _check("Delete", dict(self._gcs.delete_batch([path, *self._listed(path + "/")])))

    def _listed(self, start: str) -> Iterator[str]:
        from apache_beam.io.gcp import gcsio

        bucket, prefix = gcsio.parse_gcs_path(start, object_optional=True)
        listed = self._gcs.client.list_blobs(bucket, prefix=prefix, retry=self._gcs._storage_client_retry)
        yield from (f"gs://{bucket}/{file.name}" for file in listed)


def _check(operation: str, results: dict[str, Any]) -> None:
    if errors := {path: error for path, error in results.items() if error is not None}:
        raise BeamIOError(f"{operation} operation failed", errors)


def _options() -> PipelineOptions:
    """Beam's options in this process; those of no pipeline before there is one."""
    return FileSystems._pipeline_options or _no_options()


@functools.cache
def _no_options() -> PipelineOptions:
    return PipelineOptions([])


def _kept(make: Callable[[PipelineOptions], Any]) -> Callable[[PipelineOptions], Any]:
    """`make`, whose result is kept for the same options in the same process and environment."""

    @functools.lru_cache(maxsize=8)
    def made(process: int, environment: frozenset[tuple[str, str]], options: PipelineOptions) -> Any:
        return make(options)

    def kept(options: PipelineOptions) -> Any:
        environment = frozenset(item for item in os.environ.items() if item[0].startswith(_ENVIRONMENT))
        return made(os.getpid(), environment, options)

    return kept


@_kept
def _s3_client(options: PipelineOptions) -> boto3_client.Client:
    """Beam's client of S3.

    Raises:
      OSError: there is no library, or there are no credentials. Beam itself would try for ten minutes.
    """
    if boto3_client.boto3 is None:
        raise OSError('s3:// needs boto3, which is not installed: pip install "camboxes[aws]"')
    given = options.view_as(S3Options).s3_access_key_id
    if given is None and boto3_client.boto3.session.Session().get_credentials() is None:
        raise OSError(
            "there are no credentials for s3://: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    return boto3_client.Client(options)


@_kept
def _gcs_client(options: PipelineOptions) -> Any:
    from apache_beam.io.gcp import gcsio

    return gcsio.create_storage_client(options)
