"""Files on real servers of S3's and Google Cloud Storage's protocols, whole or not at all."""

import glob
import subprocess
import sys
import uuid
from pathlib import Path

import pyarrow as pa
import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from camboxes.transforms import storage
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.images.decoding import BadImageError


@pytest.fixture(autouse=True)
def options(monkeypatch):
    """Beam's own calls, with which these are compared, need options."""
    monkeypatch.setattr(FileSystems, "_pipeline_options", PipelineOptions([]))


@pytest.fixture(params=["s3", "gs", "local"])
def folder(request, tmp_path):
    """A folder in which nothing lies, of a name with what patterns are made of."""
    name = f"a run [1] ä* {uuid.uuid4().hex[:8]}"
    return f"{tmp_path if request.param == 'local' else request.getfixturevalue(request.param)}/{name}"


@pytest.fixture
def keys():
    """The names of everything below a folder."""

    def below(folder):
        if storage.is_local(folder):
            return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())
        start = folder.rpartition("/")[0] + "/**"
        paths = [file.path for file in FileSystems.match([start])[0].metadata_list]
        return sorted(path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/"))

    return below


def test_what_is_written_is_read(folder, keys):
    storage.write_json(f"{folder}/a.json", {"ä": [1, None]})
    rows = pa.table({"number": [1, 2], "name": ["ä", None]})
    storage.write_table(f"{folder}/shards/b.parquet", rows)
    storage.write_bytes(f"{folder}/shards/c.gz", b"not compressed at all")
    storage.write_bytes(f"{folder}/shards/c.gz", b"written anew")
    assert storage.read_json(f"{folder}/a.json") == {"ä": [1, None]}
    assert storage.read_table(f"{folder}/shards/b.parquet", ["name"]).to_pydict() == {"name": ["ä", None]}
    assert storage.read_bytes(f"{folder}/shards/c.gz") == b"written anew"
    assert storage.names(f"{folder}/shards", ".parquet") == ["b.parquet"]
    assert storage.names(f"{folder}/shards", "") == ["b.parquet", "c.gz"]
    assert storage.names(f"{folder}/nothing", "") == []
    assert storage.exists(f"{folder}/a.json") and not storage.exists(f"{folder}/b.json")
    assert keys(folder) == ["a.json", "shards/b.parquet", "shards/c.gz"]


def test_a_file_that_is_not_there(folder):
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{folder}/a.jpg")
    with pytest.raises(BadImageError, match=r"^missing: there is no file at this path$"):
        read_image(f"{folder}/a.jpg")


def test_files_and_folders_are_deleted(folder, keys):
    for name in ("plan", "plan/a", "plan/b/c", "planned/d", "e"):
        if not (storage.is_local(folder) and name == "plan"):  # on a store a file may stand where a folder is
            storage.write_bytes(f"{folder}/{name}", b"1")
    storage.delete(f"{folder}/plan")
    storage.delete(f"{folder}/nothing")
    assert keys(folder) == ["e", "planned/d"]
    storage.delete(f"{folder}/e")
    assert keys(folder) == ["planned/d"]


def test_a_name_is_no_pattern(store):
    storage.write_bytes(f"{store}/run1/a", b"another run's")
    for name in ("run[1]", "run?", "run*"):
        storage.delete(f"{store}/{name}/a")
        storage.delete(f"{store}/{name}")
        assert storage.names(f"{store}/{name}", "") == []
    assert storage.read_bytes(f"{store}/run1/a") == b"another run's"


@pytest.mark.parametrize("size", [0, 10, 300_000, 6_000_000])
def test_a_file_whose_writing_fails_never_was(folder, keys, size):
    with pytest.raises(ZeroDivisionError), storage.replacing(f"{folder}/a.json") as file:
        file.write(bytes(size))
        raise ZeroDivisionError
    assert keys(folder) == []


def test_a_file_whose_rewriting_fails_stays_as_it_was(folder, keys):
    storage.write_bytes(f"{folder}/a.json", b"before")
    with pytest.raises(KeyboardInterrupt), storage.replacing(f"{folder}/a.json") as file:
        file.write(bytes(300_000))
        raise KeyboardInterrupt
    assert keys(folder) == ["a.json"]
    assert storage.read_bytes(f"{folder}/a.json") == b"before"


def test_a_file_stands_under_its_name_when_it_is_whole(folder, keys):
    with storage.replacing(f"{folder}/a.json") as file:
        for number in range(70):
            file.write(bytes([number]) * 100_000)
        assert not storage.exists(f"{folder}/a.json")
    assert keys(folder) == ["a.json"]
    data = storage.read_bytes(f"{folder}/a.json")
    assert len(data) == 7_000_000
    assert data[::100_000] == bytes(range(70))


def test_what_killed_jobs_left_is_swept_out(folder, keys):
    unfinished = f"{uuid.uuid4().hex}.tmp"
    another_jobs = f"boxes/shards/b.parquet.{unfinished}"
    for name in (f"a.json.{unfinished}", f"plan/shards/b.parquet.{unfinished}", another_jobs, "mine.tmp", "c.json"):
        storage.write_bytes(f"{folder}/{name}", b"1")
    storage.sweep(folder, ["plan", "shards"])
    assert keys(folder) == [another_jobs, "c.json", "mine.tmp"]


def test_no_store_is_given_an_empty_file(store):
    with pytest.raises(OSError, match=r"empty' cannot be written: there is nothing to write"):
        storage.write_bytes(f"{store}/empty", b"")


def test_a_bucket_that_is_not_there(s3):
    with pytest.raises(OSError, match=r"^'s3://no-bucket/a' cannot be written \(.*NoSuchBucket"):
        storage.write_bytes("s3://no-bucket/a", b"1")


def test_two_files_that_are_read_in_turns(store):
    """What is kept of a download is no other's to go on with."""
    for number in (1, 2):
        storage.write_bytes(f"{store}/turns/{number}", bytes([number]) * 1000)
    with storage.open_binary(f"{store}/turns/1") as one, storage.open_binary(f"{store}/turns/2") as two:
        assert (one.read(10), two.read(10), one.read(), two.read()) == (
            b"\1" * 10, b"\2" * 10, b"\1" * 990, b"\2" * 990,
        )  # fmt: skip


def test_a_store_is_read_before_there_is_a_pipeline(s3):
    storage.write_bytes(f"{s3}/early", b"early enough")
    code = f"from camboxes.transforms import storage; print(storage.read_bytes('{s3}/early').decode())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "early enough\n"


def test_without_credentials_nothing_is_tried(s3, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(OSError, match="there are no credentials for s3://: set AWS_ACCESS_KEY_ID and"):
        storage.read_bytes(f"{s3}/a")


def test_what_a_store_holds_is_matched_as_beam_matches_it(store):
    folder = f"{store}/matching [1] {uuid.uuid4().hex[:8]}"
    for name in ("a/1.jpg", "a/2.png", "a/b/3.jpg", "c.jpg", "d [2].jpg", "ä.jpg"):
        storage.write_bytes(f"{folder}/{name}", b"1")
    start = glob.escape(folder)
    for pattern in (
        f"{start}/**",
        f"{start}/*.jpg",
        f"{start}/a/*",
        f"{start}/a/?.jpg",
        f"{start}/[cd]*",
        f"{start}/no/**",
    ):
        expected = [file.path for file in FileSystems.match([pattern])[0].metadata_list]
        assert sorted(storage.matching(pattern)) == sorted(expected), pattern
    assert len([*storage.matching(f"{start}/**")]) == 6
    assert [*storage.matching(f"{store}/matching")] == []


def test_a_folder_of_a_store_is_listed_page_by_page(s3, s3_requests, monkeypatch):
    """What is taken is asked for, and no more: of a billion names none are held."""
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "4")
    folder = f"{s3}/pages"
    for number in range(18):
        storage.write_bytes(f"{folder}/{number:02d}.jpg", b"1")
    before = s3_requests.asked
    listed = storage.matching(f"{folder}/**")
    assert next(listed) == f"{folder}/00.jpg" and s3_requests.asked - before == 1
    assert len([next(listed) for _ in range(4)]) == 4 and s3_requests.asked - before == 2
    assert [*listed][-1] == f"{folder}/17.jpg" and s3_requests.asked - before == 5


def test_a_store_that_is_not_there(s3, gs):
    assert [*storage.matching("s3://no-such-bucket-of-anyones/**")] == []
    with pytest.raises(BeamIOError, match="List operation failed"):
        [*storage.matching("gs://no-such-bucket-of-anyones/**")]
