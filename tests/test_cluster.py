"""Cluster files: Ray's own schema takes them, and so does a stricter reading of the parts that Ray leaves open.

Ray 2.60 accepts any key inside ``provider`` and ``node_config`` and finds the mistake when the nodes are already paid
for, so the keys it reads there (ray/autoscaler/_private/{local,aws}) are listed here.
"""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysplit.errors import unknown
from raysplit.space import load_space

FILES = sorted((Path(__file__).parent.parent / "cluster").glob("*.yaml"))

PROVIDER_KEYS = {
    "local": {"type", "head_ip", "worker_ips", "external_head_ip", "coordinator_address", "use_internal_ips"},
    "aws": {
        "type",
        "region",
        "availability_zone",
        "cache_stopped_nodes",
        "use_internal_ips",
        "key_pair",
        "security_group",
        "aws_credentials",
        "cloudwatch",
    },
}
# Those of EC2's RunInstances that a training node has use for.
NODE_KEYS = {
    "BlockDeviceMappings",
    "CapacityReservationSpecification",
    "IamInstanceProfile",
    "ImageId",
    "InstanceMarketOptions",
    "InstanceType",
    "KeyName",
    "NetworkInterfaces",
    "Placement",
    "SecurityGroupIds",
    "SubnetIds",
    "TagSpecifications",
}


def mistakes(config: dict[str, Any]) -> list[str]:
    """A sentence for each key or value that Ray would let through and choke on later."""
    provider = config["provider"]
    kind = provider["type"]
    if kind not in PROVIDER_KEYS:
        return [unknown("provider type", kind, PROVIDER_KEYS)]
    found = [unknown("provider key", key, PROVIDER_KEYS[kind]) for key in provider if key not in PROVIDER_KEYS[kind]]
    for name, node in config.get("available_node_types", {}).items():
        found += [
            f"{name}: {unknown('node key', key, NODE_KEYS)}" for key in node["node_config"] if key not in NODE_KEYS
        ]
    for phase in ("head", "worker"):
        commands = [shlex.split(command) for command in config[f"{phase}_start_ray_commands"]]
        if not any("start" in words for words in commands):
            found.append(f"{phase}_start_ray_commands never start Ray")
    if "head_node_type" in config:
        workers = [node for name, node in config["available_node_types"].items() if name != config["head_node_type"]]
        if config["max_workers"] > sum(node["max_workers"] for node in workers):
            found.append("max_workers is more than the node types allow together")
    return found


def read(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def test_there_are_files_to_check() -> None:
    assert {"aws", "local"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_takes_every_file(path: Path) -> None:
    autoscaler = pytest.importorskip("ray.autoscaler._private.util", reason="needs the train extra")
    autoscaler.validate_config(autoscaler.prepare_config(read(path)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_has_a_mistake_that_ray_lets_through(path: Path) -> None:
    assert mistakes(read(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_gets_the_pinned_packages_and_the_shared_folder(path: Path) -> None:
    setup = "\n".join(read(path)["setup_commands"])
    assert "make -C ~/raysplit install" in setup
    assert "/shared" in setup


def test_typos_that_ray_lets_through_are_found() -> None:
    autoscaler = pytest.importorskip("ray.autoscaler._private.util", reason="needs the train extra")
    config = read(next(path for path in FILES if path.stem == "aws"))
    config["provider"]["regoin"] = "us-west-2"
    config["available_node_types"]["head"]["node_config"]["InstanceTpye"] = "m6i.4xlarge"
    autoscaler.validate_config(autoscaler.prepare_config(config))
    provider, node = mistakes(config)
    assert provider.startswith("unknown provider key 'regoin' (did you mean 'region'?)")
    assert node.startswith("head: unknown node key 'InstanceTpye' (did you mean 'InstanceType'?)")


def test_the_aws_nodes_are_those_of_the_search_space(repository: Path) -> None:
    compute = load_space(repository / "search_spaces" / "cluster_8x8.yaml").compute
    worker = read(repository / "cluster" / "aws.yaml")["available_node_types"]["node_of_8_gpus"]
    assert worker["max_workers"] == compute.nodes
    assert worker["resources"]["GPU"] == compute.gpus_per_node
    assert worker["resources"]["CPU"] >= compute.gpus_per_node * compute.cpus_per_worker
