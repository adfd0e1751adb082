"""A pod with two containers through a CRI server, as the kubelet does it.

cri_pod.py SOCKET LOG_DIR; fails with an exception.
"""

import os
import sys
import time

import grpc
import runtime_v1_pb2 as cri

socket, logs = sys.argv[1:]
channel = grpc.insecure_channel("unix://" + socket)


def call(method, answer, request, service="runtime.v1.RuntimeService"):
    stub = channel.unary_unary(
        f"/{service}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=getattr(cri, answer).FromString,
    )
    return stub(request, timeout=60)


def until(what, attempt):
    for _ in range(100):
        found = attempt()
        if found:
            return found
        time.sleep(0.1)
    raise SystemExit(f"in vain: {what}")


os.makedirs(logs, exist_ok=True)
pod_config = cri.PodSandboxConfig(
    metadata=cri.PodSandboxMetadata(name="pod", uid="uid", namespace="default"),
    hostname="pod-host",
    log_directory=logs,
    linux=cri.LinuxPodSandboxConfig(
        cgroup_parent=f"/runsc-engines-{os.getpid()}",
        security_context=cri.LinuxSandboxSecurityContext(
            # No CNI plug-in is needed for the node's network.
            namespace_options=cri.NamespaceOption(network=cri.NODE, pid=cri.CONTAINER),
        ),
    ),
)
request = cri.RunPodSandboxRequest(config=pod_config, runtime_handler="runsc")
pod = call("RunPodSandbox", "RunPodSandboxResponse", request).pod_sandbox_id


def create(name, *command, **resources):
    config = cri.ContainerConfig(
        metadata=cri.ContainerMetadata(name=name),
        image=cri.ImageSpec(image="docker.io/local/bb:latest"),
        command=command,
        log_path=name + ".log",
        linux=cri.LinuxContainerConfig(
            resources=cri.LinuxContainerResources(**resources),
            security_context=cri.LinuxContainerSecurityContext(
                namespace_options=cri.NamespaceOption(network=cri.NODE, pid=cri.CONTAINER),
            ),
        ),
    )
    request = cri.CreateContainerRequest(
        pod_sandbox_id=pod, config=config, sandbox_config=pod_config
    )
    return call("CreateContainer", "CreateContainerResponse", request).container_id


def start(container):
    request = cri.StartContainerRequest(container_id=container)
    call("StartContainer", "StartContainerResponse", request)


def status(container):
    request = cri.ContainerStatusRequest(container_id=container)
    return call("ContainerStatus", "ContainerStatusResponse", request).status


def sync(container, *command):
    request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=20)
    return call("ExecSync", "ExecSyncResponse", request)


def log(name):
    with open(os.path.join(logs, name + ".log")) as file:
        return file.read()


first = create("first", "sh", "-c", "hostname; echo $$; exec sleep 1000")
second = create("second", "sh", "-c", "sleep 1; exit 7", memory_limit_in_bytes=200 << 20)
start(first)
start(second)
until("output", lambda: "stdout F pod-host\n" in log("first"))
until("pid", lambda: "stdout F 1\n" in log("first"))
done = sync(first, "sh", "-c", "echo out; echo err >&2; exit 3")
assert (done.stdout, done.stderr, done.exit_code) == (b"out\n", b"err\n", 3), done
until("an end", lambda: status(second).state == cri.CONTAINER_EXITED)
assert status(second).exit_code == 7, status(second)
assert status(first).state == cri.CONTAINER_RUNNING
# Several come and go.
for number in range(4):
    one = create(f"short{number}", "sh", "-c", f"exit {number}")
    start(one)
    until("an end", lambda: status(one).state == cri.CONTAINER_EXITED)
    assert status(one).exit_code == number, status(one)
    request = cri.RemoveContainerRequest(container_id=one)
    call("RemoveContainer", "RemoveContainerResponse", request)
resources = cri.LinuxContainerResources(memory_limit_in_bytes=100 << 20)
request = cri.UpdateContainerResourcesRequest(container_id=first, linux=resources)
call("UpdateContainerResources", "UpdateContainerResourcesResponse", request)
request = cri.ContainerStatsRequest(container_id=first)
stats = call("ContainerStats", "ContainerStatsResponse", request).stats
assert stats.memory.working_set_bytes.value > 0, stats
request = cri.StopContainerRequest(container_id=first, timeout=1)
call("StopContainer", "StopContainerResponse", request)
assert status(first).state == cri.CONTAINER_EXITED
request = cri.StopPodSandboxRequest(pod_sandbox_id=pod)
call("StopPodSandbox", "StopPodSandboxResponse", request)
request = cri.RemovePodSandboxRequest(pod_sandbox_id=pod)
call("RemovePodSandbox", "RemovePodSandboxResponse", request)
print("ok")
