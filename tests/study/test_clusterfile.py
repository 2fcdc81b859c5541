"""What Ray refuses, and what it lets pass, in one line each; the files we ship are right once they are filled in."""

from pathlib import Path

import pytest
import yaml

from study.cli import main
from study.clusterfile import check_cluster_file
from study.config import InputError, ResourcesConfig, StorageConfig

BUCKET = StorageConfig(url="s3://lab/study")
ROOT = Path(__file__).parent.parent.parent


#: What a lab fills in.
VALUES = {
    "FILL-IN-region": "eu-central-1",
    "FILL-IN-ami": "ami-0123456789abcdef0",
    "FILL-IN-head-profile": "arn:aws:iam::123456789012:instance-profile/head",
    "FILL-IN-worker-profile": "arn:aws:iam::123456789012:instance-profile/worker",
    "FILL-IN-head": "head",
    "FILL-IN-worker": "worker",
    "FILL-IN-user": "user",
    "FILL-IN-folder": "/share",
}


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """Write a shipped file with the lab's values and some changes; return its path."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("token")
    (tmp_path / "key").write_text("key")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(ROOT)

    def write(change=lambda config: None, name="cluster.yaml"):
        text = (ROOT / name).read_text()
        for blank, value in {**VALUES, "FILL-IN-key": str(tmp_path / "key")}.items():
            text = text.replace(blank, value)
        config = yaml.safe_load(text)
        change(config)
        path = tmp_path / "cluster.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    return write


@pytest.mark.parametrize("name", ["cluster.yaml", "clusters/onprem.yaml"])
def test_the_files_we_ship_are_right_once_filled_in(filled, name):
    check_cluster_file(filled(name=name), ResourcesConfig(gpu=0.25), BUCKET)


@pytest.mark.parametrize(("name", "count"), [("cluster.yaml", 7), ("clusters/onprem.yaml", 6)])
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
            lambda c: node(c).update(MetadataOptions={"HttpPutResponseHopLimit": "two"}),
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
        (lambda c: c["setup_commands"].append("pip install 'ray[default]==2.9.0'"), "install ray==2.9.0: must be"),
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
        (
            lambda c: c["docker"].update(worker_image="rayproject/ray:2.60.0-py312-gpu"),
            "docker images rayproject/ray:2.60.0-py311-gpu and rayproject/ray:2.60.0-py312-gpu: differ in Python",
        ),
        (
            lambda c: c["available_node_types"]["spot"].update(
                docker={"worker_image": "rayproject/ray:2.60.0-py311-cpu"}
            ),
            "docker image rayproject/ray:2.60.0-py311-cpu: has no CUDA for the GPU of spot",
        ),
        (lambda c: c["docker"].update(image="mylab/ray:2.9.0-py39"), "mylab/ray:2.9.0-py39: must be Ray"),
        (lambda c: c["docker"].update(image="here:5000/ray-ml:2.60.0-py310-gpu"), "Python 3.10 is older"),
        (lambda c: c["docker"].update(image="rayproject/ray@sha256:ab"), "must be Ray"),
        (lambda c: c["setup_commands"].append("pip install -U ray"), "install ray: must be ray=="),
        (lambda c: c["setup_commands"].append("pip install 'ray>=2.61'"), "install ray>=2.61: must be ray=="),
        (lambda c: node(c).pop("InstanceType"), "spot.node_config.InstanceType: is missing"),
        (lambda c: node(c).update(ImageId="ami-mine"), "spot.node_config.ImageId = ami-mine: does not look like one"),
        (lambda c: c["provider"].update(region="Frankfurt"), "provider.region = Frankfurt: does not look like one"),
        (
            lambda c: node(c)["IamInstanceProfile"].update(Arn="arn:aws:iam::123456789012:role/workers"),
            "spot.node_config.IamInstanceProfile.Arn = arn:aws:iam::123456789012:role/workers: does not look like one",
        ),
        (lambda c: c["file_mounts"].update({"/home/ray/masked-study": "docs"}), "is not this project: go to its"),
        (lambda c: c["auth"].update(ssh_private_key="/nowhere"), "auth.ssh_private_key: /nowhere is not there"),
    ],
)
def test_what_is_amiss_is_told(filled, change, told):
    with pytest.raises(InputError) as caught:
        check_cluster_file(filled(change), ResourcesConfig(), BUCKET)
    assert told in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["auth"].pop("ssh_private_key"), "auth.ssh_private_key: is missing"),
        (
            lambda c: c["provider"].update(worker_ip=["w"]),
            "provider.worker_ip: is not known to Ray: did you mean worker",
        ),
        (lambda c: c["provider"].update(worker_ip=c["provider"].pop("worker_ips")), "Ray refuses it"),
        (lambda c: c["setup_commands"].pop(0), "storage.url is unset, and no shared folder is mounted"),
    ],
)
def test_what_is_amiss_with_a_labs_own_machines_is_told(filled, capsys, change, told):
    with pytest.raises(InputError) as caught:
        check_cluster_file(filled(change, "clusters/onprem.yaml"), ResourcesConfig(), StorageConfig())
    assert told in str(caught.value)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["docker"].update(image="rayproject/ray:2.60.0-py311-gpu@sha256:" + "a" * 64),
        lambda c: c["docker"].update(image="mylab/ray:ours"),
        lambda c: c["docker"].update(head_image="rayproject/ray:2.60.0-py311-cpu"),
        lambda c: c["setup_commands"].append("pip install -c constraints.txt 'ray[default]' && ray --version"),
        lambda c: node(c).update(IamInstanceProfile={"Name": "workers"}),
    ],
)
def test_what_is_right_passes(filled, change):
    check_cluster_file(filled(change), ResourcesConfig(), BUCKET)


def test_another_folder_is_not_brought_for_the_project(filled, tmp_path, monkeypatch):
    path = filled()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is not this project"):
        check_cluster_file(path, ResourcesConfig(), BUCKET)


@pytest.mark.parametrize(("trials", "started"), [(16, {"spot": 4}), (40, {"spot": 4, "on_demand": 2})])
def test_what_spot_machines_cannot_hold_goes_to_on_demand_ones(filled, trials, started):
    """By the autoscaler that `ray up` starts on AWS."""
    from ray.autoscaler._private.util import prepare_config
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = AutoscalingConfig(prepare_config(yaml.safe_load(filled().read_text())), skip_content_hash=True)
    asked = [ResourceRequestUtil.make({"CPU": 1, "GPU": 0.25}) for _ in range(trials)]
    request = SchedulingRequest(
        disable_launch_config_check=True,
        node_type_configs=config.get_node_type_configs(),
        max_num_nodes=config.get_max_num_worker_nodes(),  # no head runs here
        resource_requests=ResourceRequestUtil.group_by_count(asked),
    )
    reply = ResourceDemandScheduler().schedule(request)
    assert {launch.instance_type: launch.count for launch in reply.to_launch} == started


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


@pytest.mark.parametrize("content", ["a: [", "- 1", "\0", "cluster_name: 2026-02-30"])
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
