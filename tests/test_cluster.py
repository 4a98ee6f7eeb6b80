"""Cluster files: each tool's own schema takes them, and so does a stricter reading of the parts that it leaves open.

Ray 2.60 accepts any key inside ``provider`` and ``node_config`` and finds the mistake when the nodes are already paid
for, so the keys it reads there (ray/autoscaler/_private/{local,aws}) are listed here.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysplit.errors import unknown
from raysplit.space import load_space

CLUSTER = Path(__file__).parent.parent / "cluster"
FILES = sorted(CLUSTER.glob("*.yaml"))
"""Those of Ray's launcher."""
YOURS = {
    "local": {"head_ip": "192.0.2.10", "worker_ips": ["192.0.2.11"]},
    "aws": {"region": "us-west-2", "availability_zone": "us-west-2a"},
    "gcp": {"project_id": "a-project"},
}
"""What a file needs before Ray takes it."""

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
    "gcp": {"type", "region", "availability_zone", "project_id", "cache_stopped_nodes", "use_internal_ips"},
}
# Those of EC2's RunInstances that a training node has use for, and those of Compute Engine's instances.
NODE_KEYS = {
    "disks",
    "machineType",
    "networkInterfaces",
    "scheduling",
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
        if opens := open_to_all(kind, node["node_config"]):
            found.append(f"{name}: {opens}")
    for phase in ("head", "worker"):
        commands = config[f"{phase}_start_ray_commands"]
        if not any("ray start" in command for command in commands):
            found.append(f"{phase}_start_ray_commands never start Ray")
    if "head_node_type" in config:
        workers = [node for name, node in config["available_node_types"].items() if name != config["head_node_type"]]
        if config["max_workers"] > sum(node["max_workers"] for node in workers):
            found.append("max_workers is more than the node types allow together")
    return found


def open_to_all(kind: str, node: dict[str, Any]) -> str:
    """Why a node would take ssh from every address, as it does where Ray chooses its network."""
    if kind == "aws" and not node.get("SecurityGroupIds"):
        return "without SecurityGroupIds Ray makes a group that is open to ssh from everywhere"
    subnets = [each.get("subnetwork", "default") for each in node.get("networkInterfaces", [{}])]
    if kind == "gcp" and any(subnet.endswith("default") for subnet in subnets):
        return "the network `default` is open to ssh from everywhere"
    return ""


def read(path: Path) -> dict[str, Any]:
    """A file with what its user has to fill in."""
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["provider"] |= YOURS.get(path.stem, {})
    return config


def test_there_are_files_to_check() -> None:
    assert {"aws", "gcp", "local"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_ray_takes_every_file(path: Path) -> None:
    autoscaler = pytest.importorskip("ray.autoscaler._private.util", reason="needs the train extra")
    autoscaler.validate_config(autoscaler.prepare_config(read(path)))


@pytest.mark.parametrize(("name", "missing"), [("local", "head_ip"), ("aws", "region|availability_zone")])
def test_ray_refuses_a_file_that_is_not_filled_in(name: str, missing: str) -> None:
    autoscaler = pytest.importorskip("ray.autoscaler._private.util", reason="needs the train extra")
    raw = yaml.safe_load((CLUSTER / f"{name}.yaml").read_text(encoding="utf-8"))
    with pytest.raises(Exception, match=missing):
        autoscaler.validate_config(autoscaler.prepare_config(raw))


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_a_network_that_ray_would_choose_is_a_mistake(name: str) -> None:
    config = read(CLUSTER / f"{name}.yaml")
    for node in config["available_node_types"].values():
        node["node_config"].pop("SecurityGroupIds", None)
        node["node_config"].pop("networkInterfaces", None)
    assert all("open to ssh from everywhere" in mistake for mistake in mistakes(config))
    assert len(mistakes(config)) == len(config["available_node_types"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_has_a_mistake_that_ray_lets_through(path: Path) -> None:
    assert mistakes(read(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_gets_the_pinned_packages_their_path_and_the_shared_folder(path: Path) -> None:
    config = read(path)
    for there, here in config["file_mounts"].items():
        if there.startswith("~/raysplit/"):
            assert (CLUSTER.parent / here).exists(), "`ray up` is run in the work tree"
    setup = "\n".join(config["setup_commands"])
    assert "make -C ~/raysplit install" in setup
    assert "~/.bashrc" in setup, "`ray down`, jobs and `ray exec` run in shells that read it"
    assert "/shared" in setup + "\n".join(config["worker_start_ray_commands"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_token_travels_and_the_dashboard_is_open_to_nobody(path: Path) -> None:
    config = read(path)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "RAY_AUTH_MODE=token" in "\n".join(config["setup_commands"])
    start = "\n".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "raysplit_stable" in start + str(config.get("available_node_types", ""))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_low_limit_of_open_files_does_not_keep_ray_from_starting(path: Path) -> None:
    for phase in ("head", "worker"):
        [start] = [command for command in read(path)[f"{phase}_start_ray_commands"] if "ray start" in command]
        limit = start.partition("ray start")[0]
        done = subprocess.run(
            ["bash", "-ec", f"ulimit -Sn 256; ulimit -Hn 512; {limit} true"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_gpu_nodes_come_and_go_with_the_sweep(name: str) -> None:
    config = read(CLUSTER / f"{name}.yaml")
    workers = [node for kind, node in config["available_node_types"].items() if kind != config["head_node_type"]]
    assert [node["min_workers"] for node in workers] == [0] * len(workers)
    assert config["available_node_types"]["head"]["resources"]["CPU"] == 0, "no lane trains on the head"


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_the_gpu_nodes_are_those_of_the_search_space(name: str, repository: Path) -> None:
    compute = load_space(repository / "search_spaces" / "cluster_8x8.yaml").compute
    config = read(CLUSTER / f"{name}.yaml")
    workers = [node for kind, node in config["available_node_types"].items() if kind != config["head_node_type"]]
    assert config["max_workers"] == sum(node["max_workers"] for node in workers) == compute.nodes
    for node in workers:
        assert node["resources"]["GPU"] == compute.gpus_per_node
        assert node["resources"]["CPU"] >= compute.gpus_per_node * compute.cpus_per_worker


def test_aws_starts_what_the_file_says_and_opens_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As far as a stand-in of EC2 goes: roles, keys, groups, a head on demand and a worker on spot, and away again."""
    autoscaler = pytest.importorskip("ray.autoscaler._private.util", reason="needs the train extra")
    moto = pytest.importorskip("moto", reason="needs the dev extra")
    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair goes to ~/.ssh
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        import boto3
        from ray.autoscaler._private.aws import config as aws
        from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

        monkeypatch.setattr(aws.time, "sleep", lambda _: None)  # for a role to be known everywhere
        raw = read(CLUSTER / "aws.yaml")
        ec2 = boto3.client("ec2", region_name=raw["provider"]["region"])
        group = ec2.create_security_group(GroupName="raysplit", Description="as the README makes it")["GroupId"]
        for node in raw["available_node_types"].values():
            node["node_config"]["SecurityGroupIds"] = [group]
        config = aws.bootstrap_aws(autoscaler.prepare_config(raw))
        provider = AWSNodeProvider(config["provider"], config["cluster_name"])
        types = config["available_node_types"]
        for name, role in (("head", "head"), ("spot_node_of_8_gpus", "worker")):
            tags = {"ray-node-type": role, "ray-node-name": name, "ray-launch-config": "x"}
            provider.create_node(dict(types[name]["node_config"]), tags, 1)
        started = [i for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        assert sorted((i["InstanceType"], i.get("InstanceLifecycle", "")) for i in started) == [
            ("m6i.4xlarge", ""),
            ("p5.48xlarge", "spot"),
        ]
        assert {g["GroupId"] for i in started for g in i["SecurityGroups"]} == {group}
        for found in ec2.describe_security_groups()["SecurityGroups"]:
            ranges = [each["CidrIp"] for rule in found["IpPermissions"] for each in rule["IpRanges"]]
            assert ranges == [], "Ray has opened nothing"
        provider.terminate_nodes(provider.non_terminated_nodes({}))
        assert provider.non_terminated_nodes({}) == []


KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kubernetes_takes_pods_and_volumes(path: Path) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="needs the dev extra")
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        if document["apiVersion"] != "ray.io/v1":
            kubernetes.validate(document, "1.33", strict=True)
            continue
        cluster = ray_cluster(document)
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **group["template"]}
            kubernetes.validate(pod, "1.33", strict=True)


@pytest.mark.parametrize("path", KUBERAY, ids=lambda path: path.stem)
def test_kubernetes_files_have_the_fields_of_their_kinds(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    for document in documents:
        assert {"apiVersion", "kind", "metadata", "spec"} == set(document)
    [ours] = [document for document in documents if document["apiVersion"] == "ray.io/v1"]
    cluster = ray_cluster(ours)
    assert set(cluster) <= RAY_CLUSTER_FIELDS
    assert set(cluster.get("autoscalerOptions", {})) <= AUTOSCALER_FIELDS
    if ours["kind"] == "RayJob":
        assert set(ours["spec"]) <= RAY_JOB_FIELDS
        yaml.safe_load(ours["spec"]["runtimeEnvYAML"])
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert (head["serviceType"], cluster["authOptions"]) == ("ClusterIP", {"mode": "token"}), "open to nobody outside"
    assert {"rayStartParams", "template"} <= set(head) <= HEAD_FIELDS
    for group in workers:
        assert {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"} <= set(group) <= WORKER_FIELDS
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["limits"] == container["resources"]["requests"], "Ray reads the limits"
    resources = json.loads(json.loads(head["rayStartParams"]["resources"].strip("'")))
    assert resources == {"raysplit_stable": 1}


def ray_cluster(document: dict[str, Any]) -> dict[str, Any]:
    """The specification of a RayCluster, or of that of a RayJob."""
    spec: dict[str, Any] = document["spec"]
    cluster: dict[str, Any] = spec if document["kind"] == "RayCluster" else spec["rayClusterSpec"]
    return cluster


# By KubeRay's API v1 (ray-operator/apis/ray/v1/raycluster_types.go and rayjob_types.go): no package ships its schemas.
RAY_CLUSTER_FIELDS = {
    "headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions",
    "authOptions", "headServiceAnnotations", "suspend",
}  # fmt: skip
AUTOSCALER_FIELDS = {
    "resources", "image", "imagePullPolicy", "env", "envFrom", "volumeMounts", "securityContext", "idleTimeoutSeconds",
    "upscalingMode",
}  # fmt: skip
HEAD_FIELDS = {"serviceType", "headService", "enableIngress", "rayStartParams", "template"}
WORKER_FIELDS = {
    "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template", "scaleStrategy",
}  # fmt: skip
RAY_JOB_FIELDS = {
    "entrypoint", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit",
    "runtimeEnvYAML", "rayClusterSpec",
}  # fmt: skip


def test_a_slurm_job_starts_ray_on_every_node_and_the_sweep_on_the_first(tmp_path: Path) -> None:
    said = slurm(tmp_path, n_nodes=3)
    lines = said.splitlines()
    [head] = [line for line in lines if line.startswith("ray start --block --head")]
    assert "--node-ip-address=192.0.2.1 --port=20042 --num-cpus=16 --num-gpus=8" in head
    assert "ray start --block --address=192.0.2.1:20042 --num-cpus=16 --num-gpus=8" in lines
    assert head.endswith("--dashboard-host=127.0.0.1")
    [sweep] = [line for line in lines if line.startswith("raysplit")]
    assert sweep == "raysplit run space.yaml --out /shared/first --ray-address 192.0.2.1:20042"
    first, *at_once = [line for line in lines if line.startswith("srun")]
    assert first == "srun --nodes=1 --ntasks=1"
    assert sorted(at_once) == ["srun --overlap --nodes=1 --ntasks=1", "srun --overlap --nodes=2 --ntasks=2"]


def test_a_slurm_job_without_a_space_says_so(tmp_path: Path) -> None:
    assert "give --export=ALL,SPACE=" in slurm(tmp_path, n_nodes=1, status=1, SPACE="")


def slurm(folder: Path, *, n_nodes: int, status: int = 0, **changes: str) -> str:
    """What the batch script runs, with stand-ins for Slurm's and Ray's commands."""
    commands = {
        # A node at a time: who reads the first alone breaks its pipe.
        "scontrol": "for node in node1 node2 node3; do echo $node; sleep 0.05; done",
        "hostname": "echo 192.0.2.1",
        # Its options are told, and the rest is run.
        "srun": """
            said=srun
            while [[ $1 == -* ]]; do
                case $1 in --overlap|--nodes=*|--ntasks=*) said+=" $1";; -w) shift;; esac
                shift
            done
            echo "$said" >> "$SAID"; "$@\"""",
        "ray": 'echo "ray $*" >> "$SAID"',
        # As a sweep does, it lasts longer than Ray takes to start.
        "raysplit": """
            for _ in $(seq 300); do [ "$(grep -c 'ray start' "$SAID")" -ge "$STARTS" ] && break; sleep 0.1; done
            echo "raysplit $*" >> "$SAID\"""",
    }
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name, body in commands.items():
        path = folder / ".venv" / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    environment = os.environ | {
        "SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_NODELIST": "node[1-3]", "SLURM_JOB_ID": "42",
        "SLURM_JOB_NUM_NODES": str(n_nodes), "SLURM_CPUS_ON_NODE": "16", "SLURM_GPUS_ON_NODE": "8",
        "SPACE": "space.yaml", "OUT": "/shared/first", "SAID": str(folder / "said"), "STARTS": str(min(n_nodes, 2)),
        **changes,
    }  # fmt: skip
    done = subprocess.run(
        ["bash", str(CLUSTER / "slurm" / "raysplit.sbatch")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode != 0) == bool(status), done.stderr
    said = folder / "said"
    return done.stderr + (said.read_text() if said.exists() else "")


def test_skypilot_refuses_the_file_until_it_has_a_bucket() -> None:
    config = yaml.safe_load((CLUSTER / "skypilot" / "raysplit.yaml").read_text(encoding="utf-8"))
    assert config["file_mounts"]["/shared"]["name"] == "BUCKET", "no bucket's name may have a capital letter"
    assert set(config) <= {"name", "num_nodes", "resources", "workdir", "file_mounts", "envs", "setup", "run"}
    assert "ports" not in config["resources"]
    assert "--dashboard-host=127.0.0.1" in config["run"]
    for script in ("setup", "run"):
        assert subprocess.run(["bash", "-n"], input=config[script], text=True, check=False).returncode == 0
    [head] = [line for line in config["run"].splitlines() if "SKYPILOT_NODE_IPS" in line]
    told = subprocess.run(
        ["bash", "-c", f"{head}\necho $head"],
        env=os.environ | {"SKYPILOT_NODE_IPS": "192.0.2.1\n192.0.2.2\n"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "192.0.2.1\n"


def test_typos_that_ray_lets_through_are_found() -> None:
    autoscaler = pytest.importorskip("ray.autoscaler._private.util", reason="needs the train extra")
    config = read(next(path for path in FILES if path.stem == "aws"))
    config["provider"]["regoin"] = "us-west-2"
    config["available_node_types"]["head"]["node_config"]["InstanceTpye"] = "m6i.4xlarge"
    autoscaler.validate_config(autoscaler.prepare_config(config))
    provider, node = mistakes(config)
    assert provider.startswith("unknown provider key 'regoin' (did you mean 'region'?)")
    assert node.startswith("head: unknown node key 'InstanceTpye' (did you mean 'InstanceType'?)")
