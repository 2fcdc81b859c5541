"""Checking a file for `ray up` before it costs anything: Ray's own validation, and what that lets pass.

No credentials are used and no machine is asked. Ray refuses unknown keys and wrong types, but accepts misspelt
settings inside `node_config`, missing files, images of another Ray, and drops some keys in silence.
"""

from __future__ import annotations

import copy
import difflib
import importlib.metadata
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from study.config import InputError, ResourcesConfig, StorageConfig

#: Settings of a node that Ray reads itself; it passes on the others to EC2's RunInstances.
RAYS_OWN = ("SubnetIds",)

#: Keys of a provider that Ray reads and does not list; any other it lets pass, and never reads.
UNLISTED = {
    "aws": ("key_pair", "aws_credentials"),
    "local": ("coordinator_address", "external_head_ip", "external_worker_ips"),
}

#: What identifiers of AWS look like, which does not say that there is one, and an example.
LOOKS = {
    "region": (r"[a-z]+(-[a-z]+)+-\d+", "eu-central-1"),
    "ImageId": (r"ami-[0-9a-f]{8,}", "ami-0123456789abcdef0"),
    "Arn": (r"arn:aws[\w-]*:iam::\d{12}:instance-profile/.+", "arn:aws:iam::123456789012:instance-profile/NAME"),
}

#: Keys of older files: the new meaning of each.
DROPPED = {
    "min_workers": "Ray drops it here: give it to a node type",
    "initial_workers": "Ray no longer knows it: use min_workers of a node type",
    "autoscaling_mode": "Ray no longer knows it: leave it away",
    "head_node": "use available_node_types and head_node_type",
    "worker_nodes": "use available_node_types",
}


def check_cluster_file(path: Path, resources: ResourcesConfig, storage: StorageConfig) -> None:
    """Raise `InputError` with one line for everything amiss in a cluster file.

    Args:
        resources: the share a trial of the study is to get, which some machine must be able to give.
        storage: the study's bucket, if it has one; else a shared folder must be mounted.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # a date that there is not is a ValueError
        raise InputError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: must be a table of keys, as cluster.yaml is")
    problems = list(
        dict.fromkeys([*_unfilled(config), *_refused_by_ray(config), *_accepted_by_ray(config, resources, storage)])
    )
    if problems:
        raise InputError("\nstudy: ".join(f"{path}: {problem}" for problem in problems))


def _accepted_by_ray(config: dict[str, Any], resources: ResourcesConfig, storage: StorageConfig) -> Iterator[str]:
    yield from (f"{key}: {instead}" for key, instead in DROPPED.items() if key in config)
    if "--autoscaling-config" not in _commands(config, "head_start_ray_commands"):
        yield "head_start_ray_commands: without --autoscaling-config=~/ray_bootstrap_config.yaml no worker ever starts"
    yield from _provider(config)
    yield from _missing_files(config)
    yield from _images(config)
    yield from _open_doors(config)
    if storage.url and not re.search(r"boto3|\[s3\]", _commands(config)):
        yield f"setup_commands: nothing installs boto3, without which no node reaches {storage.url}: install .[s3]"
    yield from _pins(config)
    yield from _reach(config, storage)
    if _section(config, "provider").get("type") == "aws":
        yield from _aws(config)
        yield from _shares(config, resources)


def _unfilled(value: Any, key: str = "") -> Iterator[str]:
    """Everything that only the lab knows and that still waits for it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _unfilled(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _unfilled(inner, f"{key}[{number}]")
    elif isinstance(value, str):
        yield from (f"{key}: fill in {name}" for name in re.findall(r"FILL-IN[\w-]*", value))


def _refused_by_ray(config: dict[str, Any]) -> Iterator[str]:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # it prints what it then raises
            validate_config(prepare_config(copy.deepcopy(config)))
    except ValidationError as error:
        yield f"{'.'.join(map(str, error.absolute_path)) or 'the file'}: {error.message[:200]}"
    except Exception as error:  # whatever Ray's own checks raise is what `ray up` would end with
        yield f"Ray refuses it: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _missing_files(config: dict[str, Any]) -> Iterator[str]:
    for target, source in _section(config, "file_mounts").items():
        place = Path(str(source)).expanduser()
        if not place.exists():
            hint = ": make it with `ray get-auth-token --generate`" if str(source).endswith("auth_token") else ""
            yield f"file_mounts {target}: {source} is not there{hint}"
        elif f"{target}/constraints.txt" in _commands(config) and not _is_this_project(place):
            yield f"file_mounts {target}: {source} ({place.resolve()}) is not this project: go to its folder"
    key = _section(config, "auth").get("ssh_private_key")
    if key is not None and "FILL-IN" not in str(key) and not Path(str(key)).expanduser().exists():
        yield f"auth.ssh_private_key: {key} is not there: make it with ssh-keygen"


def _is_this_project(folder: Path) -> bool:
    project = folder / "pyproject.toml"
    return (folder / "constraints.txt").exists() and project.exists() and 'name = "masked-study"' in project.read_text()


def _images(config: dict[str, Any]) -> Iterator[str]:
    """Every node must run this project's Ray, on one Python that the project supports, with CUDA where it has a GPU."""
    ours = importlib.metadata.version("ray")
    images = _images_of_nodes(config)
    pythons: dict[str, str] = {}
    for image, nodes in images.items():
        name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
        told = re.match(r"\d+\.\d+\.\w+", tag)
        if not name.startswith("ray") or not (told or "rayproject/" in image):
            continue  # a lab's own, that says nothing of the Ray in it
        if not told or told[0] != ours:
            yield f"docker image {image}: must be Ray {ours}, as in constraints.txt: another cannot join"
            continue
        python = re.search(r"-py3(\d+)", tag)
        if not python:
            yield f"docker image {image}: does not say which Python: name one, as -py311"
        elif int(python[1]) < 11:
            yield f"docker image {image}: Python 3.{python[1]} is older than the 3.11 this project needs"
        else:
            pythons[python[0]] = image
        for node in nodes:
            given = _section(_section(_section(config, "available_node_types"), node), "resources")
            if _number(given.get("GPU", 0)) and not re.search(r"-(gpu|cu\d+)", tag):
                yield f"docker image {image}: has no CUDA for the GPU of {node}: name one with -gpu"
    if len(pythons) > 1:
        yield f"docker images {' and '.join(pythons.values())}: differ in Python, so workers cannot join: name one"
    commands = _commands(config)
    if _section(config, "provider").get("type") == "aws" and not images and not re.search(r"pip3? .*install", commands):
        yield "setup_commands: nothing installs Ray, so Ray's defaults would install a nightly one: name a docker image"
    if re.search(r"nightly|ray-wheels", commands):
        yield f"setup_commands: a nightly Ray cannot be repeated: install ray=={ours}"


def _images_of_nodes(config: dict[str, Any]) -> dict[str, list[str]]:
    """The node types that run each image, as Ray chooses it."""
    nodes, common = _section(config, "available_node_types"), _section(config, "docker")
    images: dict[str, list[str]] = {}
    for node in nodes or ("head", "worker"):
        docker = common | _section(_section(nodes, node), "docker")
        kind = "head" if node == config.get("head_node_type", "head") else "worker"
        if image := docker.get(f"{kind}_image", docker.get("image")):
            images.setdefault(str(image), []).append(node)
    return images


def _pins(config: dict[str, Any]) -> Iterator[str]:
    """No command brings another Ray."""
    ours = importlib.metadata.version("ray")
    for command in re.split(r"\n|;|&&|\|\|", _commands(config)):
        if not re.search(r"\bpip3?\b.*\binstall\b", command):
            continue
        for found in re.findall(r"""(?<=[\s'"])ray(?:\[[^\]]*\])?(?=[\s'"=<>!~]|$)([^\s'"]*)""", command):
            if found != f"=={ours}" and (found or "constraints.txt" not in command):
                yield f"setup_commands: install ray{found}: must be ray=={ours}: another cannot join"


def _open_doors(config: dict[str, Any]) -> Iterator[str]:
    """Ray runs whatever it is sent: nodes must know the token, and ask for it."""
    if not any(str(target).endswith("auth_token") for target in _section(config, "file_mounts")):
        yield "file_mounts: no auth_token is brought to the nodes: mount ~/.ray/auth_token, as cluster.yaml does"
    for key in (
        "head_start_ray_commands",
        "worker_start_ray_commands",
    ):  # Ray's own, where there are none, ask for none
        starts = [line for line in _commands(config, key).splitlines() if "ray start" in line]
        if not starts or any("RAY_AUTH_MODE=token" not in line for line in starts):
            yield f"{key}: a node would let in anyone: begin with RAY_AUTH_MODE=token, as cluster.yaml does"


def _provider(config: dict[str, Any]) -> Iterator[str]:
    provider = _section(config, "provider")
    if str(provider.get("type")) not in UNLISTED:
        return
    known = [*_rays_schema()["properties"]["provider"]["properties"], *UNLISTED[provider["type"]]]
    yield from (f"provider.{key}: is not known to Ray{_meant(key, known)}" for key in provider if key not in known)
    if provider["type"] == "local" and "ssh_private_key" not in _section(config, "auth"):
        yield "auth.ssh_private_key: is missing: without it the head cannot reach the workers to start them"


def _unlike(place: str, table: dict[str, Any], key: str) -> Iterator[str]:
    """What cannot be what its key says; a value that is not filled in is told elsewhere."""
    pattern, example = LOOKS[key]
    value = str(table.get(key, example))
    if "FILL-IN" not in value and not re.fullmatch(pattern, value):
        yield f"{place}.{key} = {value}: does not look like one, as {example} does"


def _aws(config: dict[str, Any]) -> Iterator[str]:
    provider = _section(config, "provider")
    if "region" not in provider:
        yield "provider.region: is missing: name the region the machines are to run in"
    yield from _unlike("provider", provider, "region")
    if provider.get("cache_stopped_nodes", True):
        yield "provider.cache_stopped_nodes: must be false, or `ray down` only stops machines and disks cost on"
    nodes = _section(config, "available_node_types")
    for name in nodes:
        given = _section(_section(nodes, name), "node_config")
        yield from _unknown_to_ec2(given, f"{name}.node_config")
        if "ImageId" not in given:
            yield f"{name}.node_config.ImageId: is missing, and Ray's own default is years old: pin one"
        if "InstanceType" not in given and "LaunchTemplate" not in given:
            yield f"{name}.node_config.InstanceType: is missing: name one, as g5.2xlarge"
        yield from _unlike(f"{name}.node_config", given, "ImageId")
        yield from _unlike(f"{name}.node_config.IamInstanceProfile", _section(given, "IamInstanceProfile"), "Arn")


def _rays_schema() -> dict[str, Any]:
    """What Ray's own validation goes by."""
    import ray.autoscaler

    path = Path(ray.autoscaler.__file__).parent / "ray-schema.json"
    schema: dict[str, Any] = json.loads(path.read_text())
    return schema


def _unknown_to_ec2(given: dict[str, Any], place: str) -> Iterator[str]:
    """By the description of EC2 that AWS's own library brings along."""
    try:
        import botocore.session
        from botocore.validate import ParamValidator
    except ImportError:
        yield f"{place}: cannot be checked without boto3, which `ray up` needs too: pip install boto3"
        return
    takes = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    passed = {key: value for key, value in given.items() if key not in RAYS_OWN}
    misspelt = list(_misspelt(passed, takes, place))
    yield from misspelt
    if not misspelt:
        report = ParamValidator().validate({**passed, "MinCount": 1, "MaxCount": 1}, takes)
        yield from (f"{place}: EC2 takes no such value: {line}" for line in report.generate_report().splitlines())


def _misspelt(value: Any, shape: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict) and shape.type_name == "structure":
        for key, inner in value.items():
            if key in shape.members:
                yield from _misspelt(inner, shape.members[key], f"{place}.{key}")
            else:
                yield f"{place}.{key}: is not known to EC2{_meant(key, shape.members)}"
    elif isinstance(value, list) and shape.type_name == "list":
        for number, inner in enumerate(value):
            yield from _misspelt(inner, shape.member, f"{place}[{number}]")
    elif isinstance(value, str) and getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{place} = {value}: is not known to the installed boto3{_meant(value, shape.enum)}"


def _meant(word: Any, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""


def _reach(config: dict[str, Any], storage: StorageConfig) -> Iterator[str]:
    """Every node must reach the same checkpoints and keys: in a bucket it may read and write, or in a shared folder."""
    if storage.url:
        nodes = _section(config, "available_node_types")
        for name in nodes if _section(config, "provider").get("type") == "aws" else ():
            if "IamInstanceProfile" not in _section(_section(nodes, name), "node_config"):
                yield f"{name}.node_config.IamInstanceProfile: is missing: {storage.url} refuses a node without a role"
        return
    mounts = _commands(config) + " ".join(map(str, _section(config, "docker").get("run_options") or []))
    if not re.search(r"\bmount(point)?\b|\befs\b|\bfsx\b|-v ", mounts):
        yield "the study's storage.url is unset, and no shared folder is mounted: nodes could not exchange checkpoints"


def _shares(config: dict[str, Any], resources: ResourcesConfig) -> Iterator[str]:
    nodes = _section(config, "available_node_types")
    workers = [_section(nodes, name) for name in nodes if name != config.get("head_node_type")]
    most = [config.get("max_workers"), max((_number(node.get("max_workers", 1)) for node in workers), default=0)]
    if 0 in most:
        yield "max_workers: is 0, so no worker ever starts: give the file and a node type some"
    starts = [node for node in workers if _number(node.get("max_workers", 1))]
    starts += [_section(nodes, str(config.get("head_node_type")))]
    given = [_section(node, "resources") for node in starts]
    if not any(resources.fit({key: _number(node.get(key, 0)) for key in ("CPU", "GPU")}) for node in given):
        yield (
            f"available_node_types: none gives a trial its {resources.cpu} CPU and {resources.gpu:g} GPU, so it would "
            f"wait for ever: ask for less in resources.cpu and resources.gpu, or add a larger type"
        )


def _commands(config: dict[str, Any], name: str = "commands") -> str:
    """Every command of the file in one text, or those under keys that end so."""
    nodes = [node for node in _section(config, "available_node_types").values() if isinstance(node, dict)]
    return "\n".join(
        str(command)
        for table in [config, *nodes]
        for key, value in table.items()
        if str(key).endswith(name) and isinstance(value, list)
        for command in value
    )


def _number(value: Any) -> float:
    """Of what a number should be; Ray's own check refuses anything else."""
    return value if isinstance(value, int | float) else 0


def _section(table: dict[str, Any], key: str) -> dict[str, Any]:
    value = table.get(key) if isinstance(table, dict) else None
    return value if isinstance(value, dict) else {}
