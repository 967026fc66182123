"""The HTTP API of a running daemon, its description, its metrics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lab import CLIENT, NETWORK, SYN_OPTIONS, Lab, ends, lab, segment
from prometheus_client.parser import text_string_to_metric_families

from dysco.agent.packet import SYN


@pytest.fixture(scope="module")
def running(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("api")) as made:
        made.softnic()
        made.config(setup_timeout=20.0)
        made.dyscod()
        yield made


@pytest.fixture(scope="module")
def api(running: Lab) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=running.api.removeprefix("unix:"))
    with httpx.Client(transport=transport, base_url="http://dyscod", timeout=10) as client:
        yield client


@pytest.fixture(autouse=True)
def no_policies(api: httpx.Client) -> Iterator[None]:
    yield
    for policy in api.get("/v1/policies").json():
        api.delete(f"/v1/policies/{policy['name']}")


def problem(answer: httpx.Response, status: int) -> str:
    """What an error says; it is a problem document (RFC 9457)."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert set(body) == {"type", "title", "status", "detail"}
    return str(body["detail"])


def test_a_policy_s_life(api: httpx.Client) -> None:
    new = {"match": "tcp and dst port 80", "chain": ["fw", "scrub"], "name": "web"}
    added = api.post("/v1/policies", json=new)
    assert added.status_code == 201
    assert added.json() == {
        **new,
        "id": added.json()["id"],
        "priority": 100,
        "host": None,
        "on_failure": "refuse",
        "sessions": 0,
    }
    assert api.get("/v1/policies").json() == [added.json()]
    assert api.get("/v1/policies/web").json() == added.json()
    assert api.get(f"/v1/policies/{added.json()['id']}").json()["name"] == "web"
    assert api.delete("/v1/policies/web").json()["name"] == "web"
    assert "there are: none" in problem(api.get("/v1/policies/web"), 404)
    assert "there are: none" in problem(api.delete("/v1/policies/web"), 404)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"match": "udp"}, "policies are about TCP sessions only"),
        ({"chain": ["nix"]}, "'nix' is no host"),
        ({"chain": "fw"}, "chain: Input should be a valid list"),
        ({"priority": 40000}, "priority: Input should be less than or equal to 32767"),
        ({"priority": "high"}, "priority: Input should be a valid integer"),
        ({"on_failure": "explode"}, "on_failure: Input should be 'refuse' or 'direct'"),
        ({"name": "no good"}, "'no good' is no name"),
        ({"host": "nix"}, "no device has a host 'nix'"),
        ({"matches": "tcp"}, "matches: Extra inputs are not permitted"),
        ([], "the body must be a JSON object"),
    ],
)
def test_a_bad_policy_is_refused_and_changes_nothing(
    api: httpx.Client, body: Any, why: str
) -> None:
    assert why in problem(api.post("/v1/policies", json=body), 422)
    assert api.get("/v1/policies").json() == []


def test_noise_for_a_body(api: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    for noise in (b"", b"{", b"\xff" * 100, b"[" * 5000):
        answer = api.post("/v1/policies", content=noise, headers=headers)
        assert problem(answer, answer.status_code)
        assert answer.status_code in (400, 422)
    assert api.get("/healthz").json() == {"done": "alive"}


def test_a_name_can_be_taken_once(api: httpx.Client) -> None:
    new = {"chain": ["fw"], "name": "web"}
    assert api.post("/v1/policies", json=new).status_code == 201
    assert "already: remove it first" in problem(api.post("/v1/policies", json=new), 422)


@pytest.mark.parametrize(
    ("method", "path", "status", "why"),
    [
        ("GET", "/v1/sessions/zz", 404, "'zz' is no session id: 13 hex digits"),
        ("GET", "/v1/sessions/0000000000001", 404, "there is no session 0000000000001"),
        ("DELETE", "/v1/sessions/0000000000001", 404, "there is no session"),
        ("GET", "/v1/chains/0000000000001", 404, "there is no session"),
        ("GET", "/v1/chains/x", 404, "is no session id"),
        ("GET", "/v1/devices/nix", 404, "no device is named 'nix'; there are: nic1"),
        ("GET", "/v1/sessions?match=udp", 422, "TCP sessions only"),
        ("GET", "/v1/sessions?limit=-1", 422, "limit: Input should be greater"),
        ("GET", "/v1/sessions?limit=x", 422, "limit: Input should be a valid integer"),
        ("GET", "/v1/sessions?state=dead", 422, "state: Input should be"),
        ("GET", "/v1/sessions?host=nix", 404, "no device has a host 'nix'"),
        ("GET", "/v1/nothing", 404, "see /docs"),
        ("PUT", "/v1/policies", 405, "see /docs"),
    ],
)
def test_what_is_not_there(
    api: httpx.Client, method: str, path: str, status: int, why: str
) -> None:
    assert why in problem(api.request(method, path), status)


def test_sessions_and_the_middlebox_s_wishes(running: Lab, api: httpx.Client) -> None:
    api.post("/v1/policies", json={"match": "dst port 80", "chain": ["fw", "scrub"]})
    running.send(CLIENT, segment(ends(51000), SYN, options=SYN_OPTIONS))
    listed = running.session(51000, "sent")
    assert (listed["policy"], listed["hosts"]) == (listed["policy"], ["client", "fw", "scrub"])
    number = listed["id"]
    for query, total in [
        ("match=dst port 80", 1),
        ("match=dst port 81", 0),
        ("host=fw", 1),
        ("state=sent", 1),
        ("state=established", 0),
        ("limit=0", 1),
    ]:
        assert api.get(f"/v1/sessions?{query}").json()["total"] == total, query
    assert api.get("/v1/sessions?limit=0").json()["sessions"] == []
    # The firewall's wishes about the session that it holds.
    wish = {"session": number, "chain": []}
    answer = api.post("/v1/middlebox/fw/chain", json=wish)
    assert "goes on through no more middleboxes" in answer.json()["done"]
    assert running.sessions()[51000]["hosts"] == ["client", "fw"]
    upstream = {"src": "10.0.1.3", "sport": 9000, "dst": "10.0.5.2", "dport": 80}
    wish = {"session": number, "upstream": upstream}
    assert "goes on as 10.0.1.3:9000" in api.post("/v1/middlebox/fw/upstream", json=wish).text
    for host, body, status, why in [
        ("fw", {"chain": []}, 409, "exactly one of session, tag and five_tuple"),
        ("fw", {"session": number, "tag": 3, "chain": []}, 409, "exactly one of"),
        ("fw", {"session": "1", "chain": []}, 409, "no SYN was delivered here for session 0"),
        ("fw", {"tag": 5, "chain": []}, 409, "no SYN was delivered here for tag 00000005"),
        ("fw", {"session": number, "chain": ["nix"]}, 409, "'nix'"),
        ("fw", {"session": number, "chain": ["fw"]}, 409, "the chain names 'fw'"),
        ("fw", {"session": "zz", "chain": []}, 422, "session: String should match"),
        ("nix", {"session": number, "chain": []}, 404, "no device has a host 'nix'"),
    ]:
        assert why in problem(api.post(f"/v1/middlebox/{host}/chain", json=body), status)
    closed = api.delete(f"/v1/sessions/{number}")
    assert closed.json()["id"] == number
    running.gone(51000)


def test_every_route_is_described_with_its_errors(api: httpx.Client) -> None:
    document = api.get("/openapi.json").json()
    assert document["openapi"].startswith("3.")
    assert document["info"]["title"] == "dyscod"
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) >= 15
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation["description"], where
        assert operation["tags"], where
        statuses = operation["responses"]
        success = [s for s in statuses if s.startswith("2")]
        assert success, where
        for status in success:
            for kind, content in statuses[status]["content"].items():
                described = content["schema"].get("$ref") or content["schema"].get("items")
                assert described or kind == "text/plain", where
        for status, answer in statuses.items():
            if status[0] in "45" and path != "/readyz":
                (kind,) = answer["content"]
                assert kind == "application/problem+json", where
                assert answer["content"][kind]["schema"]["$ref"].endswith("/Problem"), where
        needs = {"404"} if "{" in path else set()
        needs |= {"400", "422"} if method == "post" else set()
        assert needs <= set(statuses), where
    _references_resolve(document, document)
    assert api.get("/docs").status_code == 200


def _references_resolve(document: dict[str, Any], value: Any) -> None:
    if isinstance(value, dict):
        if (reference := value.get("$ref")) is not None:
            found: Any = document
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]
        for inner in value.values():
            _references_resolve(document, inner)
    elif isinstance(value, list):
        for inner in value:
            _references_resolve(document, inner)


def test_state(api: httpx.Client) -> None:
    (device,) = api.get("/v1/devices").json()
    assert device == api.get("/v1/devices/nic1").json()
    assert (device["ready"], device["state"], device["problem"]) == (True, "ready", "")
    assert device["hosts"] == ["client", "fw"]
    assert api.get("/readyz").json() == {"ready": True, "waiting_for": {}}
    counted = api.get("/v1/counters").json()
    assert counted["devices"]["nic1"]["updates"] > 0
    assert set(counted["hosts"]) == {"client", "fw"}


def test_metrics(running: Lab, api: httpx.Client) -> None:
    api.post("/v1/policies", json={"match": "dst port 80", "chain": ["scrub"]})
    running.send(CLIENT, segment(ends(51001), SYN, options=SYN_OPTIONS))
    running.receive(NETWORK, lambda s: s.is_syn)
    running.session(51001, "sent")
    answer = api.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = {f.name: f for f in text_string_to_metric_families(answer.text)}
    for name, family in families.items():
        assert name.startswith("dysco_"), name
        assert family.documentation, name

    def value(name: str, **labels: str) -> float:
        (sample,) = [
            s
            for f in families.values()
            for s in f.samples
            if s.name == name and labels.items() <= s.labels.items()
        ]
        return sample.value

    assert value("dysco_device_ready", device="nic1") == 1
    assert value("dysco_session_entries", device="nic1") == 2
    assert value("dysco_legs_tracked", device="nic1") == 1
    assert value("dysco_ports_in_use", device="nic1", host="client") == 1
    assert value("dysco_sessions", host="client", state="sent") == 1
    assert value("dysco_agent_events_total", host="client", event="session_started") >= 1
    assert value("dysco_device_events_total", device="nic1", event="packet_in_host_syn") >= 1
    assert value("dysco_drops_total", device="nic1", reason="no_route") == 0
    assert value("dysco_write_seconds_count", device="nic1") >= 1
    api.delete(f"/v1/sessions/{running.sessions()[51001]['id']}")


def test_a_device_that_is_away(running: Lab, api: httpx.Client) -> None:
    """The API answers all the same, and says what it can't do."""
    running.running[0].kill()
    running.running[1].wait_for("trying again")
    ready = api.get("/readyz")
    assert ready.status_code == 503
    assert set(ready.json()["waiting_for"]) == {"nic1"}
    for path in ("/v1/devices", "/v1/policies", "/v1/sessions", "/v1/counters", "/metrics"):
        assert api.get(path).status_code == 200, path
    wish = {"session": "1", "chain": []}
    answer = api.post("/v1/middlebox/fw/chain", json=wish)
    assert "device nic1 of host fw is not ready" in problem(answer, 503)
    running.softnic()
    running.running[1].wait_for("device nic1: ready", times=2)


POSTS = (
    "/v1/policies",
    "/v1/reconfigurations",
    *(f"/v1/middlebox/fw/{what}" for what in ("chain", "upstream", "deltas", "reconfigure")),
)
FIELDS = ("match", "chain", "name", "priority", "host", "on_failure", "left", "right", "through")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=12) | st.sampled_from(FIELDS), inner, max_size=5)
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(POSTS),
    JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60),
)
def test_bodies_of_noise_are_refused_by_name(api: httpx.Client, path: str, body: bytes) -> None:
    answer = api.post(path, content=body, headers={"content-type": "application/json"})
    if answer.status_code >= 300:
        assert 400 <= answer.status_code < 500, answer.text
        problem(answer, answer.status_code)
    assert api.get("/v1/policies").status_code == 200
