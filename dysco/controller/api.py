"""The northbound HTTP API; its OpenAPI description is at /openapi.json, readable at /docs.

Errors are problem documents (RFC 9457) whose detail says what to do. The API asks for no
credentials: it listens on loopback or on a Unix socket, whose mode decides who may use it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from finsy import P4ClientError
from starlette.exceptions import HTTPException

from dysco.agent.events import FixDeltas, Selector, SetRestOfChain, SetUpstream, Tag, Tell
from dysco.agent.model import MappingKey
from dysco.controller.api_models import (
    Answer,
    ChainOut,
    Counters,
    DeviceOut,
    FixedDeltas,
    NewPolicy,
    PolicyOut,
    Problem,
    Ready,
    RestOfChain,
    SessionChoice,
    SessionList,
    SessionOut,
    Upstream,
)
from dysco.controller.api_reconfigure import add_reconfigurations
from dysco.controller.chains import WishError
from dysco.controller.filters import FilterError
from dysco.controller.metrics import CONTENT_TYPE, exposition
from dysco.controller.p4device import DeviceError, State, explain
from dysco.controller.policies import NotFoundError, PolicyError
from dysco.controller.service import Service
from dysco.controller.sessions import session_number

log = logging.getLogger(__name__)

DEFAULT_LIMIT = 100
MAX_LIMIT = 100_000
_REFUSED = "request_refused"


class _RefusedError(Exception):
    """The request can't be done as things are."""


_STATUS: dict[type[Exception], tuple[int, str]] = {
    NotFoundError: (404, "Not found"),
    FilterError: (422, "Invalid match"),
    PolicyError: (422, "Invalid policy"),
    DeviceError: (503, "Device not usable"),
    _RefusedError: (409, "Refused"),
    WishError: (422, "Impossible wish"),
}
_PROBLEM_TYPE = "application/problem+json"
_MEANINGS = {
    400: "The body can't be read.",
    404: "There is no such thing; the detail names those that there are.",
    409: "The agent refuses it as things are.",
    422: "The request makes no sense; the detail says why.",
    503: "The device can't be used now.",
}

SessionState = Literal["received", "sent", "established", "closing", "reset"]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's description: the errors that it answers."""
    schema = {"$ref": "#/components/schemas/Problem"}
    content = {_PROBLEM_TYPE: {"schema": schema}}
    return {s: {"description": _MEANINGS[s], "content": content} for s in statuses}


_WISH_ERRORS = _errors(400, 404, 409, 422, 503)


def make_app(service: Service) -> FastAPI:
    """The API of a service."""
    app = FastAPI(
        title="dyscod",
        description="Service chains for live TCP connections.",
        version="1",
    )
    _add_errors(app)
    _add_policies(app, service)
    _add_sessions(app, service)
    _add_middlebox(app, service)
    add_reconfigurations(app, service, _errors)
    _add_state(app, service)
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        """The description, with the model of errors, which no route has for its answer."""
        schema = describe()
        models = schema["components"]["schemas"]
        models["Problem"] = Problem.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            models.pop(unused, None)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _problem(status: int, title: str, detail: str) -> JSONResponse:
    body = Problem(title=title, status=status, detail=detail).model_dump()
    return JSONResponse(body, status, media_type=_PROBLEM_TYPE)


def _fault(location: Sequence[str | int], text: str, kind: str) -> str:
    """What is wrong with one part of a request; the location starts with query, path or body."""
    where = ".".join(str(part) for part in location[1:])
    if kind == "json_invalid":
        return f"the body is no JSON: {text} at character {where}"
    if not where:
        return f"the {location[0]} must be a JSON object, sent with Content-Type: application/json"
    return f"{where}: {text}"


def _add_errors(app: FastAPI) -> None:
    async def known(_: Request, error: Exception) -> Response:
        status, title = next(s for kind, s in _STATUS.items() if isinstance(error, kind))
        return _problem(status, title, str(error))

    for kind in _STATUS:
        app.add_exception_handler(kind, known)

    @app.exception_handler(P4ClientError)
    async def device(_: Request, error: P4ClientError) -> Response:
        return _problem(503, "Device not usable", f"the device answered {explain(error)}")

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> Response:
        log.exception("%s %s failed; please report this", request.method, request.url.path)
        return _problem(500, "Fault of dyscod", f"{type(error).__name__}; see the daemon's log")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        faults = (_fault(item["loc"], item["msg"], item["type"]) for item in error.errors())
        return _problem(422, "Invalid request", "; ".join(faults))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, "HTTP error", f"{error.detail}; see /docs")


def _add_policies(app: FastAPI, service: Service) -> None:
    @app.get("/v1/policies", tags=["policies"], responses=_errors(503))
    async def list_policies() -> list[PolicyOut]:
        """All policies, the one that wins first."""
        hits = await service.policy_hits()
        return [PolicyOut.of(p, hits.get(p.id, 0)) for p in service.policies()]

    @app.post("/v1/policies", tags=["policies"], status_code=201, responses=_errors(400, 422, 503))
    async def add_policy(new: NewPolicy) -> PolicyOut:
        """Add a policy; it is in force on all connected devices when the answer comes."""
        policy = await service.add_policy(
            match=new.match,
            chain=new.chain,
            priority=new.priority,
            host=new.host,
            on_failure=new.on_failure,
            name=new.name,
        )
        return PolicyOut.of(policy, 0)

    @app.get("/v1/policies/{policy}", tags=["policies"], responses=_errors(404, 422, 503))
    async def show_policy(policy: str) -> PolicyOut:
        """One policy, by name or id."""
        found = service.find_policy(policy)
        hits = await service.policy_hits()
        return PolicyOut.of(found, hits.get(found.id, 0))

    @app.delete("/v1/policies/{policy}", tags=["policies"], responses=_errors(404, 422, 503))
    async def remove_policy(policy: str) -> PolicyOut:
        """Remove a policy, by name or id; sessions that it started go on."""
        return PolicyOut.of(await service.remove_policy(policy), None)


def _add_sessions(app: FastAPI, service: Service) -> None:
    @app.get("/v1/sessions", tags=["sessions"], responses=_errors(404, 422))
    async def list_sessions(
        match: Annotated[str, Query(description="In pcap-filter words.")] = "",
        host: str | None = None,
        state: SessionState | None = None,
        limit: Annotated[int, Query(ge=0, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    ) -> SessionList:
        """Sessions, the youngest first."""
        found = service.sessions(match, host, state)
        return SessionList(
            total=len(found), sessions=[SessionOut.of(whole) for whole in found[:limit]]
        )

    @app.get("/v1/sessions/{session}", tags=["sessions"], responses=_errors(404, 422, 503))
    async def show_session(session: str) -> SessionOut:
        """One session, with what its devices counted."""
        whole = service.session(session_number(session))
        traffic: dict[MappingKey, tuple[int, int]] = {}
        for hop in whole.hops:
            traffic.update(await hop.nic.session_traffic(hop.session.keys))
        return SessionOut.of(whole, traffic)

    @app.delete("/v1/sessions/{session}", tags=["sessions"], responses=_errors(404, 422))
    async def close_session(session: str) -> SessionOut:
        """Release a session's mappings and ports; its hosts are not told."""
        whole = service.session(session_number(session))
        before = SessionOut.of(whole)
        service.close_session(whole.id)
        return before

    @app.get("/v1/chains/{session}", tags=["sessions"], responses=_errors(404, 422))
    async def show_chain(session: str) -> ChainOut:
        """The chain of a session as each hop saw it."""
        return ChainOut.of(service.session(session_number(session)))


def _add_middlebox(app: FastAPI, service: Service) -> None:
    @app.post("/v1/middlebox/{host}/chain", tags=["middlebox"], responses=_WISH_ERRORS)
    async def set_rest_of_chain(host: str, wish: RestOfChain) -> Answer:
        """A middlebox that holds a session's SYN says where the session goes next."""
        event = SetRestOfChain(_selector(wish), tuple(wish.chain))
        return _answer(service.tell_agent(host, event))

    @app.post("/v1/middlebox/{host}/upstream", tags=["middlebox"], responses=_WISH_ERRORS)
    async def set_upstream(host: str, wish: Upstream) -> Answer:
        """A proxy says which connection of its own will carry a session on."""
        event = SetUpstream(_selector(wish), wish.upstream.five_tuple())
        return _answer(service.tell_agent(host, event))

    @app.post("/v1/middlebox/{host}/deltas", tags=["middlebox"], responses=_WISH_ERRORS)
    async def fix_deltas(host: str, wish: FixedDeltas) -> Answer:
        """A middlebox that changed a session's stream passes it on as it is from now on."""
        event = FixDeltas(_selector(wish), wish.rightwards, wish.leftwards)
        return _answer(service.tell_agent(host, event))


def _selector(choice: SessionChoice) -> Selector:
    given: list[Selector] = [
        *([int(choice.session, 16)] if choice.session is not None else []),
        *([Tag(choice.tag)] if choice.tag is not None else []),
        *([choice.five_tuple.five_tuple()] if choice.five_tuple is not None else []),
    ]
    if len(given) != 1:
        raise _RefusedError("name the session by exactly one of session, tag and five_tuple")
    return given[0]


def _answer(told: list[Tell]) -> Answer:
    for tell in told:
        if tell.counter == _REFUSED:
            raise _RefusedError(tell.text)
    return Answer(done="; ".join(tell.text for tell in told))


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/v1/devices", tags=["state"])
    async def list_devices() -> list[DeviceOut]:
        """All devices."""
        return [DeviceOut.of(nic) for nic in service.nics]

    @app.get("/v1/devices/{device}", tags=["state"], responses=_errors(404, 422))
    async def show_device(device: str) -> DeviceOut:
        """One device."""
        return DeviceOut.of(service.nic(device))

    @app.get("/v1/counters", tags=["state"], responses=_errors(503))
    async def counters() -> Counters:
        """Everything that was counted since the daemon started."""
        return Counters(
            devices={nic.name: dict(nic.all_counters()) for nic in service.nics},
            hosts={
                host: dict(counted)
                for nic in service.nics
                for host, counted in nic.host_counters().items()
            },
            drops={nic.name: await nic.drops() for nic in service.nics},
        )

    @app.get("/metrics", tags=["state"], response_class=PlainTextResponse, responses=_errors(503))
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(await exposition(service), media_type=CONTENT_TYPE)

    @app.get("/healthz", tags=["state"])
    async def health() -> Answer:
        """Answers as long as the daemon does its work."""
        return Answer(done="alive")

    @app.get("/readyz", tags=["state"], responses={503: {"model": Ready}})
    async def readiness(response: Response) -> Ready:
        """200 if all devices are connected and reconciled, else 503."""
        waiting = {
            nic.name: nic.device.problem
            for nic in service.nics
            if nic.device.state is not State.READY
        }
        response.status_code = 503 if waiting else 200
        return Ready(ready=not waiting, waiting_for=waiting)
