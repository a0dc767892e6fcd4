from camboxes.pipeline import ReboxJob, Run, rebox
from camboxes.pipeline.cli import main


def test_from_python_it_gives_the_command_s_bytes_and_says_nothing(run, tmp_path, results, capfd):
    assert main(["rebox", "--run", str(run), "--output", str(tmp_path / "command"), "--threshold", "0.4"]) == 0
    capfd.readouterr()
    done = rebox(ReboxJob(run=run, output=tmp_path / "python", threshold=0.4))
    assert capfd.readouterr() == ("", "")
    assert results(tmp_path / "python") == results(tmp_path / "command") != results(run)
    uids = [[box.uid for image in read.images() for box in image.boxes] for read in (done, Run.open(str(run)))]
    assert uids[0] == uids[1]
