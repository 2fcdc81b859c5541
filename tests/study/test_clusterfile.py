"""What Ray refuses, and what it lets pass, in one line each; the files we ship are right once they are filled in."""

from pathlib import Path

import pytest
import yaml

from study.cli import main
from study.clusterfile import check_cluster_file
from study.config import InputError, ResourcesConfig, StorageConfig

BUCKET = StorageConfig(url="s3://lab/study")
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """Write a shipped file with the lab's values and some changes; return its path."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("token")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(ROOT)

    def write(change=lambda config: None, name="cluster.yaml"):
        config = yaml.safe_load((ROOT / name).read_text().replace("FILL-IN", "ours"))
        change(config)
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


@pytest.mark.parametrize("name", ["cluster.yaml", "clusters/onprem.yaml"])
def test_the_files_we_ship_are_right_once_filled_in(filled, name):
    check_cluster_file(filled(name=name), ResourcesConfig(gpu=0.25), BUCKET)


@pytest.mark.parametrize(("name", "count"), [("cluster.yaml", 7), ("clusters/onprem.yaml", 4)])
def test_what_only_the_lab_knows_is_asked_for(filled, name, count):
    filled()
    with pytest.raises(InputError) as caught:
        check_cluster_file(ROOT / name, ResourcesConfig(), BUCKET)
    lines = str(caught.value).splitlines()
    assert len(lines) == count
    assert all("fill in FILL-IN" in line for line in lines)


def node(config):
    return config["available_node_types"]["spot"]["node_config"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c.update(max_worker=3), "max_worker"),
        (lambda c: c.update(max_workers="three"), "max_workers: 'three' is not of type"),
        (lambda c: c.update(head_node_type="haed"), "Ray refuses it"),
        (lambda c: c["available_node_types"]["spot"]["resources"].update(GPU=0.5), "0.5 is not of type"),
        (lambda c: c.update(min_workers=2), "min_workers: Ray drops it here: give it to a node type"),
        (
            lambda c: node(c).update(InstnaceType="x"),
            "spot.node_config.InstnaceType: is not known to EC2: did",
        ),
        (
            lambda c: node(c)["BlockDeviceMappings"][0]["Ebs"].update(VolumeSzie=200),
            "spot.node_config.BlockDeviceMappings[0].Ebs.VolumeSzie: is not known to EC2: did you mean VolumeSize?",
        ),
        (
            lambda c: node(c)["MetadataOptions"].update(HttpPutResponseHopLimit="two"),
            "spot.node_config: EC2 takes no such value: Invalid type for parameter MetadataOptions.HttpPutResponseHop",
        ),
        (lambda c: node(c).pop("ImageId"), "spot.node_config.ImageId: is missing"),
        (lambda c: c["file_mounts"].update({"/x": "nowhere"}), "file_mounts /x: nowhere is not there"),
        (lambda c: c["docker"].update(image="rayproject/ray:2.9.0-py311-gpu"), "must be Ray"),
        (lambda c: c["docker"].update(image="rayproject/ray:latest-gpu"), "must be Ray"),
        (lambda c: c["docker"].update(image="rayproject/ray:2.60.0-py310-gpu"), "Python 3.10 is older"),
        (lambda c: c["provider"].pop("cache_stopped_nodes"), "cache_stopped_nodes: must be false"),
        (lambda c: node(c).pop("IamInstanceProfile"), "spot.node_config.IamInstanceProfile: is missing"),
        (
            lambda c: c.update(head_start_ray_commands=["RAY_AUTH_MODE=token ray start --head"]),
            "without --autoscaling-config",
        ),
        (lambda c: c.update(max_workers=0), "max_workers: is 0, so no worker ever starts"),
        (lambda c: c["docker"].update(image="rayproject/ray:2.60.0-gpu"), "does not say which Python"),
        (lambda c: c["file_mounts"].pop("/home/ray/.ray/auth_token"), "no auth_token is brought to the nodes"),
        (
            lambda c: c.update(worker_start_ray_commands=["ray start --address=$RAY_HEAD_IP:6379"]),
            "a node would let in anyone",
        ),
        (lambda c: c.update(setup_commands=["pip install -c constraints.txt ."]), "nothing installs boto3"),
        (lambda c: c["available_node_types"]["spot"]["resources"].update(CPU="8"), "'8' is not of type"),
        (lambda c: c["setup_commands"].append("pip install ray-nightly.whl"), "a nightly Ray cannot be repeated"),
        (lambda c: c["setup_commands"].append("pip install 'ray[default]==2.9.0'"), "install Ray 2.9.0: must be"),
        (
            lambda c: node(c).update(InstanceType="g5.2xlrage"),
            "spot.node_config.InstanceType = g5.2xlrage: is not known to the installed boto3: did you mean g5.2xlarge?",
        ),
        (lambda c: node(c).update(InstanceMarketOptions={"MarketType": "spto"}), "did you mean spot?"),
        (lambda c: c["provider"].pop("region"), "provider.region: is missing"),
        (
            lambda c: c["provider"].update(availabilty_zone="eu-central-1a"),
            "provider.availabilty_zone: is not known to Ray: did you mean availability_zone?",
        ),
    ],
)
def test_what_is_amiss_is_told(filled, change, told):
    with pytest.raises(InputError) as caught:
        check_cluster_file(filled(change), ResourcesConfig(), BUCKET)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "resources"),
    [
        (lambda c: None, ResourcesConfig(cpu=16)),
        (
            lambda c: [c["available_node_types"][name].update(max_workers=0) for name in ("spot", "on_demand")],
            ResourcesConfig(gpu=0.5),
        ),
        (
            lambda c: [t["resources"].update(GPU=0) for t in c["available_node_types"].values()],
            ResourcesConfig(gpu=0.5),
        ),
    ],
)
def test_a_share_that_no_machine_can_give_is_told(filled, change, resources):
    with pytest.raises(InputError, match="would wait for ever"):
        check_cluster_file(filled(change), resources, BUCKET)


def test_without_a_bucket_a_shared_folder_must_be_mounted(filled):
    with pytest.raises(InputError, match=r"storage\.url is unset, and no shared folder is mounted"):
        check_cluster_file(filled(), ResourcesConfig(), StorageConfig())
    mounted = filled(lambda c: c["docker"]["run_options"].append("-v /mnt/study:/study"))
    check_cluster_file(mounted, ResourcesConfig(), StorageConfig())


def test_what_a_section_may_not_hold_breaks_nothing(filled):
    odd = filled(lambda c: (c["docker"].update(run_options=None), c.update({7: ["x"]})))
    with pytest.raises(InputError, match=r"cluster\.yaml: "):
        check_cluster_file(odd, ResourcesConfig(), StorageConfig())


@pytest.mark.parametrize("content", ["a: [", "- 1", "\0"])
def test_what_is_no_table_is_told_on_the_command_line(tmp_path, capsys, content):
    path = tmp_path / "x.yaml"
    path.write_text(content)
    assert main(["check", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none.yaml")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_the_command_says_that_nothing_is_amiss(filled, capsys):
    assert main(["check", str(filled()), "--set", "resources.gpu=0.25", "--set", "storage.url=s3://lab/x"]) == 0
    assert "nothing amiss" in capsys.readouterr().out
