"""Files, local or on any of Beam's filesystems, such that a reader never sees half a file."""

import contextlib
import json
import os
import re
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems


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


def read_bytes(path: str) -> bytes:
    """A whole file, as it is: Beam would decompress one whose name ends in .gz."""
    if is_local(path):
        return Path(path).read_bytes()
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read()


def read_json(path: str) -> Any:
    """A JSON file's value."""
    return json.loads(read_bytes(path))


def write_json(path: str, value: Any) -> None:
    """Writes a small JSON file for people and programs."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_table(path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of one shard."""
    return pq.read_table(pa.BufferReader(read_bytes(path)), columns=columns and list(columns))


def write_table(path: str, rows: pa.Table) -> None:
    """Writes a Parquet file of one shard; equal rows make equal bytes."""
    data = pa.BufferOutputStream()
    pq.write_table(rows.combine_chunks(), data, compression="zstd")
    write_bytes(path, data.getvalue().to_pybytes())


def write_bytes(path: str, data: bytes) -> None:
    """Writes a whole file at once: locally by renaming, on a store by one upload."""
    if is_local(path):
        with replacing(path) as file:
            file.write(data)
        return
    with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(data)


def is_temporary(name: str) -> bool:
    """Whether a file's name is one that `replacing` gives to what is not finished."""
    return re.search(r"\.[0-9a-f]{32}\.tmp$", name) is not None


@contextlib.contextmanager
def replacing(path: str) -> Iterator[IO[bytes]]:
    """Opens a temporary file beside `path`, which takes its name when the block ends well, and else vanishes.

    On a store the temporary key is copied and deleted: no reader sees a part of a large file there either.
    """
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    if is_local(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileSystems.create(temporary, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            yield file
        if is_local(path):
            os.replace(temporary, path)  # noqa: PTH105
        else:
            FileSystems.rename([temporary], [path])
    except BaseException:
        with contextlib.suppress(Exception):
            FileSystems.delete([temporary])
        raise


def names(folder: str, suffix: str) -> list[str]:
    """The names of the files in a folder that end so, sorted; none where there is no such folder."""
    if is_local(folder):
        return sorted(path.name for path in Path(folder).glob(f"*{suffix}"))
    found = FileSystems.match([join(folder, f"*{suffix}")])[0].metadata_list
    return sorted(file.path.rpartition("/")[2] for file in found)


def delete(path: str) -> None:
    """Deletes a file, or everything below a folder."""
    FileSystems.delete([path])
