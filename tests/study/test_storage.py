"""A study's folder in a bucket, on a real S3 server: what goes up, what comes back, and who may write."""

import contextlib
import functools
import itertools
import json
import os
import shutil
import socket
import stat
import subprocess
import threading
import time

import pytest

from study import storage
from study.bucket import Bucket, StorageError, TakenError
from study.config import InputError, StorageConfig, StudyConfig
from study.config_text import to_plain
from study.opening import check_folder, refuse_another
from study.records import Record, RecordFile, read_records
from study.storage import bring_trial, carry_trial, opened, trial_folder

NUMBER = itertools.count()


@pytest.fixture
def bucket(s3):
    """An empty place of its own."""
    return Bucket(f"s3://lab/study-{next(NUMBER)}", s3)


@pytest.fixture
def fast(monkeypatch):
    """A lease that runs out in seconds; the test's own process counts as alive."""
    monkeypatch.setattr(storage, "LEASE_SECONDS", 3.0)
    monkeypatch.setattr(storage, "INTERVAL", 0.1)
    monkeypatch.setattr(storage, "_is_dead", lambda holder: False)


def at(bucket, folder, **allowed):
    folder.mkdir(exist_ok=True)
    return opened(StorageConfig(url=bucket.url, endpoint=bucket.endpoint), folder, **allowed)


def record(number):
    return Record(
        kind="sample", key=f"trial/{number}", trial=str(number), gaussian=1, categorical=0, batch_size=2, instance=0
    )


def relayed(port, to):
    """Pass one connection on, as a server that has just come back."""
    with socket.create_server(("127.0.0.1", port)) as server:
        client, _ = server.accept()
        with client, socket.create_connection(("127.0.0.1", to)) as behind:
            back = threading.Thread(target=passed_on, args=(behind, client))
            back.start()
            passed_on(client, behind)
            back.join()


def passed_on(source, target):
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)


def wait_for(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


class TestABucket:
    def test_objects_are_written_read_listed_and_deleted_below_their_place(self, bucket):
        other = Bucket(bucket.url + "0", bucket.endpoint)
        other.put("a", b"other")
        bucket.put("a", b"1")
        bucket.put("b/c", b"22")
        assert bucket.get("a") == b"1"
        assert {name: stored.size for name, stored in bucket.listing().items()} == {"a": 1, "b/c": 2}
        assert list(bucket.listing("b/")) == ["b/c"]
        bucket.delete("a", "b/c")
        assert bucket.listing() == {}
        assert other.get("a") == b"other"
        bucket.probe()
        assert bucket.listing() == {}

    def test_conditions_are_kept(self, bucket):
        tag = bucket.put("a", b"1", IfNoneMatch="*")
        with pytest.raises(TakenError):
            bucket.put("a", b"2", IfNoneMatch="*")
        assert bucket.put("a", b"3", IfMatch=tag) != tag
        with pytest.raises(TakenError):
            bucket.put("a", b"4", IfMatch=tag)
        assert bucket.put("a", b"3", IfMatch=tag) == bucket.age("a")[0]  # as when the answer to a write was lost
        assert bucket.get("a") == b"3"

    def test_what_is_not_there_is_told(self, s3, tmp_path):
        with pytest.raises(StorageError, match=r"s3://nowhere: cannot write .*NoSuchBucket"):
            Bucket("s3://nowhere", s3).probe()
        nobody = StorageConfig(url="s3://lab/x", endpoint="http://127.0.0.1:9")
        with pytest.raises(InputError, match=r"127\.0\.0\.1:9.*: storage.url and storage.endpoint say where"):
            opened(nobody, tmp_path).__enter__()

    def test_a_stalled_server_is_waited_for(self, bucket):
        with socket.socket() as later:
            later.bind(("127.0.0.1", 0))
            port = later.getsockname()[1]
        relay = threading.Timer(4, relayed, (port, int(bucket.endpoint.rpartition(":")[2])))
        relay.start()
        Bucket(bucket.url, f"http://127.0.0.1:{port}").put("a", b"1")
        relay.join()
        assert bucket.get("a") == b"1"


class TestADriver:
    def test_another_machine_finds_what_was_written(self, bucket, fast, tmp_path):
        here, there = tmp_path / "here", tmp_path / "there"
        with at(bucket, here) as up, RecordFile(here, up.check) as records:
            (here / "tables").mkdir()
            (here / "tables" / "a.csv").write_text("1")
            (here / "trials" / "t").mkdir(parents=True)
            (here / "trials" / "t" / "checkpoint.safetensors").write_text("a worker's")
            (here / ".hidden").mkdir()
            (here / ".hidden" / "x").write_text("nobody's")
            records.append(record(1))
            wait_for(lambda: "records/00000000.jsonl" in up.bucket.listing())
            first = up.bucket.get("records/00000000.jsonl")
            (here / "tables" / "a.csv").write_text("22")
            records.append(record(2))
        names = up.bucket.listing()
        assert sorted(names) == ["records/00000000.jsonl", "records/00000001.jsonl", "tables/a.csv"]
        assert up.bucket.get("records/00000000.jsonl") == first
        with at(bucket, there) as up, RecordFile(there, up.check) as records:
            assert [r.key for r in records.records] == ["trial/1", "trial/2"]
            assert (there / "tables" / "a.csv").read_text() == "22"
            records.append(record(3))
            (there / "tables" / "a.csv").unlink()
        assert "tables/a.csv" not in up.bucket.listing()
        with at(bucket, here):
            assert [r.key for r in read_records(here)] == ["trial/1", "trial/2", "trial/3"]

    def test_one_that_is_cut_off_as_it_brings_leaves_a_folder_that_goes_on(self, bucket, fast, tmp_path, monkeypatch):
        here, there = tmp_path / "here", tmp_path / "there"
        with at(bucket, here), RecordFile(here) as records:
            (here / "artifacts").mkdir()
            (here / "artifacts" / "a").write_text("1")
            (here / "config.json").write_text(json.dumps(to_plain(StudyConfig())))
            records.append(record(1))

        def cut(self, name, get=Bucket.get):
            if name == "artifacts/a":
                raise KeyboardInterrupt
            return get(self, name)

        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "get", cut)
            with pytest.raises(KeyboardInterrupt), at(bucket, there):
                pass
        check_folder(there, StudyConfig(), [])
        with at(bucket, there):
            assert (there / "artifacts" / "a").read_text() == "1"

    def test_what_trials_look_for_can_be_carried_at_once(self, bucket, tmp_path):
        with at(bucket, tmp_path / "here") as up:
            (tmp_path / "here" / "trials" / "t").mkdir(parents=True)
            (tmp_path / "here" / "trials" / "t" / "result.json").write_text("{}")
            up.carry()
            assert bucket.listing("trials/t/")

    def test_a_bucket_with_another_study_is_told_and_neither_side_is_touched(self, bucket, fast, tmp_path):
        mine, other = tmp_path / "mine", tmp_path / "other"
        with at(bucket, other), RecordFile(other) as records:
            (other / "config.json").write_text(json.dumps(to_plain(StudyConfig(seed=1))))
            records.append(record(1))
        before = bucket.listing()
        config = StudyConfig(seed=2)
        allowed = functools.partial(refuse_another, bucket.url, config=config, instead="storage.url")
        told = rf"{bucket.url}: holds a study that differs in seed = 2 \(it was 1\): choose another storage.url"
        with pytest.raises(InputError, match=told), at(bucket, mine, allowed=allowed):
            pass
        assert list(mine.iterdir()) == []
        assert bucket.listing() == before

    def test_keys_come_back_readable_by_their_owner_alone(self, bucket, fast, tmp_path):
        here, there = tmp_path / "here", tmp_path / "there"
        (here / "trials" / "t").mkdir(parents=True)
        (here / "trials" / "t" / "decoder.safetensors").write_text("key")
        with at(bucket, here):
            pass
        with at(bucket, there):
            pass
        assert stat.S_IMODE((there / "trials" / "t" / "decoder.safetensors").stat().st_mode) == 0o600

    def test_a_trial_that_is_gone_here_goes_there_with_its_checkpoint(self, bucket, fast, tmp_path):
        here = tmp_path / "here"
        with at(bucket, here) as up:
            (here / "trials" / "t").mkdir(parents=True)
            (here / "trials" / "t" / "started.json").write_text("{}")
            wait_for(lambda: "trials/t/started.json" in up.bucket.listing())
            up.bucket.put("trials/t/checkpoint.safetensors", b"a worker's")
            (here / "trials" / "t" / "started.json").unlink()
            (here / "trials" / "t").rmdir()
            wait_for(lambda: not up.bucket.listing("trials/"))
        assert up.bucket.listing() == {}

    def test_a_folder_that_vanishes_does_not_empty_the_bucket(self, bucket, fast, tmp_path):
        here = tmp_path / "here"
        with at(bucket, here) as up:
            (here / "trials" / "t").mkdir(parents=True)
            (here / "trials" / "t" / "decoder.safetensors").write_text("key")
            wait_for(lambda: up.bucket.listing("trials/"))
            shutil.rmtree(here)
            here.mkdir()
            (here / "summary.json").write_text("{}")
            wait_for(lambda: up.bucket.listing("summary"))
        assert set(bucket.listing()) == {"summary.json", "trials/t/decoder.safetensors"}

    def test_marks_of_folders_are_no_files(self, bucket, fast, tmp_path):
        bucket.put("", b"")
        bucket.put("trials/", b"")
        with at(bucket, tmp_path / "here"):
            assert not list((tmp_path / "here").glob("[!.]*"))

    def test_names_that_leave_the_folder_stay_where_they_are(self, bucket, fast, tmp_path):
        here = tmp_path / "here"
        with at(bucket, here) as up:
            up.bucket.put("../outside", b"x")
            up.bucket.put("a/../../outside", b"x")
        with at(bucket, here):
            pass
        assert [path.name for path in tmp_path.rglob("*")] == ["here"]

    def test_two_studies_in_one_place_are_refused(self, bucket, fast, tmp_path):
        for number in (1, 2):
            (tmp_path / str(number)).mkdir()
            with RecordFile(tmp_path / str(number)) as records:
                records.append(record(number))
        with at(bucket, tmp_path / "1"):
            pass
        with pytest.raises(InputError, match="holds other records than s3://"), at(bucket, tmp_path / "2"):
            pass
        assert [r.key for r in read_records(tmp_path / "2")] == ["trial/2"]


class TestTheLease:
    def test_a_second_driver_is_refused_as_long_as_the_first_lives(self, bucket, fast, tmp_path):
        with (
            at(bucket, tmp_path / "1"),
            pytest.raises(InputError, match=rf"process {os.getpid()}\) runs this"),
            at(bucket, tmp_path / "2"),
        ):
            pass
        with at(bucket, tmp_path / "2"):
            pass

    def test_a_dead_drivers_lease_runs_out(self, bucket, fast, tmp_path):
        with at(bucket, tmp_path / "1") as up:
            pass
        up.bucket.put("lease.json", json.dumps({"host": "gone", "pid": 1}).encode())
        begin = time.monotonic()
        with at(bucket, tmp_path / "2"):
            assert 1 < time.monotonic() - begin < 30
        assert up.bucket.listing() == {}

    def test_one_that_is_given_back_as_it_is_looked_at_is_taken(self, bucket, fast, tmp_path, monkeypatch):
        with at(bucket, tmp_path / "1") as up:
            pass
        up.bucket.put("lease.json", json.dumps({"host": "gone", "pid": 1}).encode())
        get = Bucket.get

        def gone(self, name):
            if name == "lease.json":
                self.delete(name)
            return get(self, name)

        monkeypatch.setattr(Bucket, "get", gone)
        with at(bucket, tmp_path / "2"):
            assert up.bucket.listing().keys() == {"lease.json"}

    def test_one_of_another_make_is_told(self, bucket, fast, tmp_path):
        with at(bucket, tmp_path / "1") as up:
            pass
        up.bucket.put("lease.json", b"hello")
        with pytest.raises(InputError, match=r"lease\.json: is damaged"), at(bucket, tmp_path / "2"):
            pass

    def test_a_driver_killed_on_this_machine_is_known_to_be_dead(self, bucket, tmp_path):
        with at(bucket, tmp_path / "1") as up:
            pass
        child = subprocess.Popen(["true"])
        child.wait()
        up.bucket.put("lease.json", json.dumps(json.loads(storage._holder()) | {"pid": child.pid}).encode())
        begin = time.monotonic()
        with at(bucket, tmp_path / "2"):
            assert time.monotonic() - begin < storage.LEASE_SECONDS / 2

    @pytest.mark.parametrize("other", [{"machine": "another of this name"}, {"host": "another"}, {"machine": ""}])
    def test_a_process_of_another_machine_may_live(self, other):
        child = subprocess.Popen(["true"])
        child.wait()
        gone = json.loads(storage._holder()) | {"pid": child.pid}
        assert storage._is_dead(gone)
        assert not storage._is_dead(gone | other)

    def test_who_lost_it_writes_no_more(self, bucket, fast, tmp_path):
        here = tmp_path / "here"
        lost = pytest.raises(InputError, match="another driver has taken over")
        with lost, at(bucket, here) as up, RecordFile(here, up.check) as records:
            records.append(record(1))
            wait_for(lambda: up.bucket.listing("records/"))
            up.bucket.put("lease.json", b"another's")
            wait_for(lambda: up._lost)
            with pytest.raises(InputError, match="another driver has taken over"):
                records.append(record(2))
            (here / "summary.json").write_text("stale")
        assert "summary.json" not in up.bucket.listing()
        assert len(up.bucket.listing("records/")) == 1
        assert up.bucket.get("lease.json") == b"another's"

    def test_carrying_much_does_not_age_it(self, bucket, fast, tmp_path, monkeypatch):
        put = Bucket.put

        def slow(self, name, content, **condition):
            if name == "large":
                time.sleep(2 * storage.LEASE_SECONDS)
            return put(self, name, content, **condition)

        monkeypatch.setattr(Bucket, "put", slow)
        with at(bucket, tmp_path / "1") as up:
            (tmp_path / "1" / "large").write_text("x")
            begin = time.monotonic()
            while time.monotonic() - begin < 1.5 * storage.LEASE_SECONDS:
                assert up.bucket.age("lease.json")[1] < storage.LEASE_SECONDS
                time.sleep(0.2)
        assert "large" in up.bucket.listing()

    def test_a_folder_that_is_refused_leaves_no_lease(self, bucket, fast, tmp_path):
        for name, number in (("1", 1), ("2", 2)):
            (tmp_path / name).mkdir()
            with RecordFile(tmp_path / name) as records:
                records.append(record(number))
        with at(bucket, tmp_path / "1"):
            pass
        with pytest.raises(InputError, match="holds other records"), at(bucket, tmp_path / "2"):
            pass
        assert "lease.json" not in bucket.listing()


def test_a_machine_that_does_not_see_the_folder_trains_nothing(tmp_path):
    with (
        pytest.raises(OSError, match="does not see it: put --out on a folder"),
        trial_folder(tmp_path / "trials", "t", None),
    ):
        pass


def test_a_trial_goes_on_where_it_was_carried(bucket, tmp_path):
    with trial_folder(tmp_path, "t", bucket) as (folder, carry):
        (folder / "checkpoint.safetensors").write_text("epoch 1")
        carry()
    assert not folder.exists()
    with trial_folder(tmp_path, "t", bucket) as (folder, carry):
        assert (folder / "checkpoint.safetensors").read_text() == "epoch 1"
        (folder / "checkpoint.safetensors").unlink()
        for name in ("decoder.safetensors", "encoder.safetensors", "result.json"):
            (folder / name).write_text(name)
        carry()
    assert sorted(bucket.listing()) == [
        f"trials/t/{n}" for n in ("decoder.safetensors", "encoder.safetensors", "result.json")
    ]
    bring_trial(bucket, "t", tmp_path / "x")
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == [
        "decoder.safetensors",
        "encoder.safetensors",
        "result.json",
    ]
    carry_trial(bucket, "u", tmp_path / "x")
    assert len(bucket.listing()) == 6
    assert list(tmp_path.iterdir()) == [tmp_path / "x"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "bucket"}, "url = 'bucket': must be s3://BUCKET"),
        ({"url": "s3://key:secret@bucket/x"}, "without credentials"),
        ({"url": "s3://b"}, "must be s3://BUCKET"),
        ({"endpoint": "localhost"}, "endpoint = 'localhost': must be"),
        ({"endpoint": "http://key:secret@host"}, "without credentials"),
    ],
)
def test_a_place_that_is_none_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        StorageConfig(**settings)
