"""Reads, writes, lists and deletes files, local or on any of Beam's filesystems. A reader never sees half a file."""

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils import retry

from camboxes.transforms.storage.stores import store_of


def join(folder: str, *names: str) -> str:
    """Joins a folder's path and names below it."""
    return FileSystems.join(folder, *names)


def is_local(path: str) -> bool:
    """Whether a path lies on this machine's own filesystem."""
    return FileSystems.get_scheme(path) is None


def absolute(path: str) -> str:
    """Makes a local path absolute, without following links; a store's path stays as it is."""
    return os.path.abspath(path) if is_local(path) else path  # noqa: PTH100


def exists(path: str) -> bool:
    """Whether there is a file or, locally, a folder at a path."""
    return store_of(path).exists(path)


def open_binary(path: str) -> IO[bytes]:
    """Opens a file for reading at any place. It is not decompressed, whatever its name ends in.

    Raises:
      FileNotFoundError: there is no such file, on whatever filesystem. GCS tells it when the file is read.
    """
    try:
        return store_of(path).open(path, "rb")
    except Exception as error:  # each store has errors of its own
        if exists(path):
            raise
        raise _no_such_file(path) from error


def read_bytes(path: str, most: int = -1) -> bytes:
    """Reads a file, or its first `most` bytes. It is not decompressed, whatever its name ends in.

    Raises:
      FileNotFoundError: there is no such file, on whatever filesystem.
      OSError: it cannot be read.
    """
    if is_local(path):
        with Path(path).open("rb") as file:
            return file.read(most)
    try:
        with store_of(path).open(path, "rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise
    except Exception as error:  # each store has errors of its own
        if exists(path):
            raise OSError(f"{path!r} cannot be read ({error})") from error
        raise _no_such_file(path) from error


def _no_such_file(path: str) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def read_json(path: str) -> Any:
    """Reads a JSON file."""
    return json.loads(read_bytes(path))


def write_json(path: str, value: Any) -> None:
    """Writes a small JSON file for people and programs."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the Parquet file of one shard."""
    # pq.read_table would make a data set of the file first, which takes as long as reading so few rows.
    return pq.ParquetFile(pa.BufferReader(read_bytes(path))).read(columns and list(columns), use_threads=False)


def write_table(path: str, rows: pa.Table) -> None:
    """Writes the Parquet file of one shard; equal rows make equal bytes."""
    data = pa.BufferOutputStream()
    pq.write_table(rows.combine_chunks(), data, compression="zstd")
    write_bytes(path, data.getvalue().to_pybytes())


def write_bytes(path: str, data: bytes) -> None:
    """Writes a whole file at once: locally by renaming, on a store by one upload.

    Raises:
      OSError: it cannot be written; or `data` is empty, and the path is on a store. S3 takes no empty file from Beam.
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


def _may_be_retried(error: Exception) -> bool:
    return not isinstance(error, OSError) and retry.retry_on_server_errors_filter(error)


@retry.with_exponential_backoff(num_retries=4, initial_delay_secs=1, retry_filter=_may_be_retried)
def _upload(path: str, data: bytes) -> None:
    """Uploads a file, with retries: Beam retries most calls, but not uploads."""
    with store_of(path).open(path, "wb") as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path`. It is renamed to `path` when the block ends, and deleted if that raises.

    On a store the temporary key is copied and deleted: no reader sees a part of a large file there either.
    """
    temporary, store = f"{path}.{uuid.uuid4().hex}.tmp", store_of(path)
    if is_local(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    file = store.open(temporary, "wb")
    try:
        yield file
        file.close()
        if is_local(path):
            os.replace(temporary, path)  # noqa: PTH105
        else:
            store.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(Exception):
            file.close()  # on a store this makes the key that is deleted next
        with contextlib.suppress(Exception):
            delete(temporary)
        raise


def sweep(folder: str, below: Sequence[str] = ()) -> None:
    """Deletes the temporary files that killed processes left: in a folder, and at any depth in its folders `below`.

    Other folders in it may belong to a job that is running.
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
    """The sorted names of the files in a folder that end in `suffix`; none if there is no such folder."""
    if is_local(folder):
        return sorted(path.name for path in Path(folder).glob(f"*{suffix}"))
    return sorted(path.rpartition("/")[2] for path in matching(f"{glob.escape(folder)}/*{suffix}"))


def delete(path: str) -> None:
    """Deletes a file, or a folder with everything below it; does nothing if there is neither.

    Raises:
      OSError: a file cannot be deleted.
    """
    if not is_local(path):
        store_of(path).delete(path)
    elif Path(path).is_dir():
        shutil.rmtree(path)
    else:
        Path(path).unlink(missing_ok=True)


def matching(pattern: str) -> Iterator[str]:
    """The paths of the files that a pattern of Beam's matches: * within a folder, ** across folders.

    S3 and GCS are listed one page after the other, and no page is held.

    Raises:
      BeamIOError: the store cannot be listed.
    """
    return store_of(pattern).matching(pattern)
