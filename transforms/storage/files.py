"""Files, local or on any of Beam's filesystems, such that a reader never sees half a file."""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils import retry

from camboxes.transforms.storage import clients

clients.share()
if FileSystems._pipeline_options is None:
    # Without any options Beam asks no store. Every pipeline and every worker puts its own in the place of these.
    FileSystems.set_options(PipelineOptions([]))


def join(folder: str, *names: str) -> str:
    """A path below a folder."""
    return FileSystems.join(folder, *names)


def is_local(path: str) -> bool:
    """Whether a path lies on this machine's own filesystem."""
    return FileSystems.get_scheme(path) is None


def absolute(path: str) -> str:
    """A local path from the root of the filesystem; links are not followed. A store's path as it is."""
    return os.path.abspath(path) if is_local(path) else path  # noqa: PTH100


def exists(path: str) -> bool:
    """Whether there is a file or, locally, a folder at a path."""
    return FileSystems.exists(path)


def read_bytes(path: str, most: int = -1) -> bytes:
    """A whole file, or its first so many bytes, as they are: Beam would decompress one whose name ends in .gz.

    Raises:
      FileNotFoundError: there is none, on whatever filesystem.
      OSError: it cannot be read.
    """
    if is_local(path):
        with Path(path).open("rb") as file:
            return file.read(most)
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            return file.read(most)
    except FileNotFoundError:
        raise
    except Exception as error:  # each store has errors of its own
        if not exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error
        raise OSError(f"{path!r} cannot be read ({error})") from error


def read_json(path: str) -> Any:
    """A JSON file's value."""
    return json.loads(read_bytes(path))


def write_json(path: str, value: Any) -> None:
    """Writes a small JSON file for people and programs."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of one shard."""
    # read_table would make a data set of the file first, which takes as long as to read so few rows.
    return pq.ParquetFile(pa.BufferReader(read_bytes(path))).read(columns and list(columns), use_threads=False)


def write_table(path: str, rows: pa.Table) -> None:
    """Writes a Parquet file of one shard; equal rows make equal bytes."""
    data = pa.BufferOutputStream()
    pq.write_table(rows.combine_chunks(), data, compression="zstd")
    write_bytes(path, data.getvalue().to_pybytes())


def write_bytes(path: str, data: bytes) -> None:
    """Writes a whole file at once: locally by renaming, on a store by one upload.

    Raises:
      OSError: it cannot be written, or would be an empty one on a store, of which S3 takes none from Beam.
    """
    if is_local(path):
        with replacing(path) as file:
            file.write(data)
        return
    if not data:
        raise OSError(f"{path!r} cannot be written: there is nothing to write, and not every store takes an empty file")
    try:
        _upload(path, data)
    except Exception as error:  # each store has errors of its own
        raise OSError(f"{path!r} cannot be written ({error})") from error


def _may_pass(error: Exception) -> bool:
    return not isinstance(error, OSError) and retry.retry_on_server_errors_filter(error)


@retry.with_exponential_backoff(num_retries=4, initial_delay_secs=1, retry_filter=_may_pass)
def _upload(path: str, data: bytes) -> None:
    """Beam tries most calls again where S3's own client has given up, but not uploads."""
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path`, which takes its name when the block ends well, and else vanishes.

    On a store the temporary key is copied and deleted: no reader sees a part of a large file there either.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    if is_local(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED)
    try:
        yield file
        file.close()
        if is_local(path):
            os.replace(temporary, path)  # noqa: PTH105
        else:
            FileSystems.rename([temporary], [path])
    except BaseException:
        with contextlib.suppress(Exception):
            file.close()  # on a store this makes the key that is then to be deleted
        with contextlib.suppress(Exception):
            delete(temporary)
        raise


def sweep(folder: str, below: Sequence[str] = ()) -> None:
    """Deletes what `replacing` has left in processes that were killed: in a folder, and below those of the names given.

    What lies in other folders below may belong to a job that is running.
    """
    left: list[Any]
    if is_local(folder):
        left = [*Path(folder).glob("*.tmp"), *(file for name in below for file in Path(folder, name).rglob("*.tmp"))]
    else:
        start = glob.escape(folder)
        left = [*matching(f"{start}/*.tmp"), *(file for name in below for file in matching(f"{start}/{name}/**.tmp"))]
    for path in map(str, left):
        if re.search(r"\.[0-9a-f]{32}\.tmp$", path):
            delete(path)


def names(folder: str, suffix: str) -> list[str]:
    """The names of the files in a folder that end so, sorted; none where there is no such folder."""
    if is_local(folder):
        return sorted(path.name for path in Path(folder).glob(f"*{suffix}"))
    return sorted(path.rpartition("/")[2] for path in matching(f"{glob.escape(folder)}/*{suffix}"))


def delete(path: str) -> None:
    """Deletes a file, or a folder with everything below it; does nothing where there is neither.

    Raises:
      OSError: something of it is still there.
    """
    if is_local(path):
        if Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)
        return
    # Beam's GCS alone takes a name for a pattern, by which another run's files could go.
    FileSystems.delete([glob.escape(path) if FileSystems.get_scheme(path) == "gs" else path])
    FileSystems.delete([path + "/"])
    if left := list(matching(f"{glob.escape(path)}/**")):  # GCS tells of what it keeps in a log alone
        raise OSError(f"{len(left)} files below {path!r} cannot be deleted, the first of them {left[0]!r}")


def matching(pattern: str) -> Iterator[str]:
    """The paths of the files that a pattern of Beam's matches: * within a folder, ** across.

    S3 and GCS are asked for one page after the other, and what was listed is not held. FileSystems.match would give all
    files at once, and what it takes them from keeps all names.

    Raises:
      BeamIOError: the store does not list them.
    """
    files, start = FileSystems.get_filesystem(pattern), re.split(r"[*?\[]", pattern)[0]
    pages = {"s3": _s3_pages, "gs": _gs_pages}.get(FileSystems.get_scheme(pattern) or "")
    if pages is None or start == pattern:
        yield from (file.path for file in FileSystems.match([pattern])[0].metadata_list)
        return
    matches = re.compile(files.translate_pattern(pattern)).match
    try:
        yield from filter(matches, pages(start))
    except Exception as error:  # each store has errors of its own
        raise BeamIOError("List operation failed", {pattern: error}) from error


def _s3_pages(start: str) -> Iterator[str]:
    from apache_beam.io.aws import s3io
    from apache_beam.io.aws.clients.s3 import messages

    bucket, prefix = s3io.parse_s3_path(start, object_optional=True)
    request = messages.ListRequest(bucket, prefix)
    again = retry.with_exponential_backoff(retry_filter=retry.retry_on_server_errors_and_timeout_filter)
    ask = again(s3io.S3IO(options=FileSystems._pipeline_options).client.list)
    while True:
        try:
            page = ask(request)
        except messages.S3ClientError as error:
            if error.code == HTTPStatus.NOT_FOUND:  # also where nothing begins so
                return
            raise
        yield from (f"s3://{bucket}/{item.key}" for item in page.items)
        if not page.next_token:
            return
        request.continuation_token = page.next_token


def _gs_pages(start: str) -> Iterator[str]:
    from apache_beam.io.gcp import gcsio

    bucket, prefix = gcsio.parse_gcs_path(start, object_optional=True)
    store = gcsio.GcsIO(pipeline_options=FileSystems._pipeline_options)
    listed = store.client.list_blobs(bucket, prefix=prefix, retry=store._storage_client_retry)
    yield from (f"gs://{bucket}/{file.name}" for file in listed)
