"""What people do with the Python client: each step is a line `ok STEP`; the first failure ends the run."""

from kubernetes import client, config, watch
from kubernetes.client.rest import ApiException
from kubernetes.stream import portforward, stream

NAMESPACE = "default"
POD = "web-0"

config.load_kube_config()
api = client.CoreV1Api()


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name), data=data)


def objects():
    pods = api.list_namespaced_pod(NAMESPACE)
    assert POD in [pod.metadata.name for pod in pods.items]
    api.create_namespaced_config_map(NAMESPACE, config_map("from-python", a="1"))
    api.patch_namespaced_config_map("from-python", NAMESPACE, {"data": {"b": "2"}})
    assert api.read_namespaced_config_map("from-python", NAMESPACE).data == {"a": "1", "b": "2"}
    api.delete_namespaced_config_map("from-python", NAMESPACE)
    try:
        api.read_namespaced_config_map("from-python", NAMESPACE)
        raise AssertionError("a deleted object was read")
    except ApiException as error:
        assert error.status == 404, error


def watching():
    start = api.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    api.create_namespaced_config_map(NAMESPACE, config_map("watched-from-python"))
    watcher = watch.Watch()
    for event in watcher.stream(
        api.list_namespaced_config_map, NAMESPACE, resource_version=start, _request_timeout=60
    ):
        if event["type"] == "ADDED" and event["object"].metadata.name == "watched-from-python":
            break
    watcher.stop()
    api.delete_namespaced_config_map("watched-from-python", NAMESPACE)


def logs():
    assert api.read_namespaced_pod_log(POD, NAMESPACE)


def execute():
    said = stream(
        api.connect_get_namespaced_pod_exec,
        POD,
        NAMESPACE,
        command=["echo", "through the tunnel"],
        stderr=True,
        stdin=False,
        stdout=True,
        tty=False,
    )
    assert said.strip() == "through the tunnel", said


def port_forward():
    forward = portforward(api.connect_get_namespaced_pod_portforward, POD, NAMESPACE, ports="7")
    socket = forward.socket(7)
    socket.settimeout(60)
    socket.sendall(b"marco")
    back = b""
    while len(back) < 5:
        piece = socket.recv(5 - len(back))
        assert piece, "the echo ended early"
        back += piece
    assert back == b"marco", back
    forward.close()


for step in [objects, watching, logs, execute, port_forward]:
    step()
    print("ok", step.__name__, flush=True)
