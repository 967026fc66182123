"""The API's part about reconfigurations: wishes, how they stand, and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field

from dysco.agent.events import CancelReconfiguration, MoveEnd, Reconfigure, Tell
from dysco.controller import chains
from dysco.controller.chains import Kind, Plan, WishError
from dysco.controller.p4device import DeviceError
from dysco.controller.policies import NotFoundError
from dysco.controller.progress import Event, Reconfiguration
from dysco.controller.service import Service
from dysco.controller.sessions import WholeSession, session_number

MAX_WAIT = 30.0
_REFUSED = "request_refused"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Wish(_Model):
    """What to change, and for which sessions. Exactly one of delete, insert, replace and move."""

    sessions: list[str] = Field([], description="Session ids; or `match`.")
    match: str | None = Field(None, description="All established sessions that fit a filter.")
    delete: list[str] = Field([], description="Middleboxes to take out; several follow each other.")
    insert: str | None = Field(
        None, description="A middlebox to put in: host name, address or kind."
    )
    after: str | None = Field(None, description="With insert: the host to put it behind.")
    replace: str | None = Field(None, description="A middlebox to exchange.")
    by: str | None = Field(None, description="With replace: the middlebox that takes its place.")
    migrate_state: bool = Field(
        False, description="With replace: the state that the middlebox has of a session goes along."
    )
    move: str | None = Field(None, description="The host where the session ends.")
    to: str | None = Field(None, description="With move: the host that takes the session over.")


class BoxWish(_Model):
    """What a middlebox asks for itself, in one session."""

    session: str = Field(description="Its id, 13 hex digits.")
    insert: str | None = Field(None, description="A middlebox to put behind it; else: take it out.")


class WishOut(_Model):
    """What became of a wish for one session."""

    session: str
    accepted: bool
    detail: str
    """What begins, or why not."""
    left: str | None = None
    right: str | None = None
    at: float = 0.0
    """When it was asked for, and so `started` of the reconfiguration."""


class ReconfigurationOut(_Model):
    """One reconfiguration; times are seconds since 1970."""

    session: str
    left: str
    right: str
    through: list[str]
    number: int
    state: str
    over: bool
    why: str
    started: float
    locked: float | None
    switched: float | None
    """Both directions send new data on the new path."""
    finished: float | None

    @staticmethod
    def of(known: Reconfiguration) -> ReconfigurationOut:
        """For an answer."""
        return ReconfigurationOut(
            session=f"{known.session:013x}",
            left=known.left,
            right=known.right,
            through=list(known.through),
            number=known.number,
            state=known.state,
            over=known.is_over,
            why=known.why,
            started=known.started,
            locked=known.locked,
            switched=known.switched,
            finished=known.finished,
        )


class EventOut(_Model):
    """A step of a reconfiguration at one of its anchors."""

    number: int
    at: float
    host: str
    session: str
    left: str
    reconfiguration: int
    role: str
    state: str
    why: str

    @staticmethod
    def of(event: Event) -> EventOut:
        """For an answer."""
        step = event.progress
        return EventOut(
            number=event.number,
            at=event.at,
            host=event.host,
            session=f"{step.session:013x}",
            left=step.left,
            reconfiguration=step.number,
            role=step.role,
            state=step.state,
            why=step.why,
        )


Errors = Callable[..., dict[int | str, dict[str, Any]]]


def add_reconfigurations(app: FastAPI, service: Service, errors: Errors) -> None:
    """Add the paths to the API; `errors` describes those with the given statuses."""
    path = "/v1/reconfigurations"

    @app.post(path, tags=["reconfigurations"], status_code=202, responses=errors(400, 404, 422))
    async def start(wish: Wish) -> list[WishOut]:
        """Begin to change the chains of live sessions; refusals are answers, session by session."""
        _check(wish)
        return [_start(service, whole, wish) for whole in _chosen(service, wish)]

    @app.post(
        "/v1/middlebox/{host}/reconfigure",
        tags=["middlebox"],
        status_code=202,
        responses=errors(400, 404, 422),
    )
    async def ask(host: str, wish: BoxWish) -> WishOut:
        """A middlebox wants out of a session's chain, or another one beside it.

        One that changes the stream says first that it is done (`deltas`).
        """
        whole = service.session(session_number(wish.session))
        delete = [] if wish.insert is not None else [host]
        after = host if wish.insert is not None else None
        asked = Wish(
            sessions=[wish.session],
            match=None,
            delete=delete,
            insert=wish.insert,
            after=after,
            replace=None,
            by=None,
            migrate_state=False,
            move=None,
            to=None,
        )
        return _start(service, whole, asked)

    @app.get(path, tags=["reconfigurations"], responses=errors(404, 422))
    async def list_reconfigurations(session: str | None = None) -> list[ReconfigurationOut]:
        """How reconfigurations stand that begin at hosts of this daemon, the oldest first."""
        number = None if session is None else session_number(session)
        return [ReconfigurationOut.of(r) for r in service.chronicle.reconfigurations(number)]

    @app.delete(path + "/{session}", tags=["reconfigurations"], responses=errors(404, 422, 503))
    async def cancel(session: str) -> WishOut:
        """Go back to the old path, if that is still possible."""
        number = session_number(session)
        under_way = [r for r in service.chronicle.reconfigurations(number) if not r.is_over]
        if not under_way:
            raise NotFoundError(f"no reconfiguration of session {session} is under way here")
        left = under_way[-1].left
        told = service.tell_agent(left, CancelReconfiguration(number))
        return _out(number, told, Plan(left, under_way[-1].right, ()))

    @app.get("/v1/events", tags=["reconfigurations"], responses=errors(422))
    async def events(
        after: Annotated[int, Query(ge=0, description="Only events with higher numbers.")] = 0,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds, if none.")] = 0.0,
    ) -> list[EventOut]:
        """Steps of reconfigurations at the hosts of this daemon."""
        return [EventOut.of(event) for event in await service.chronicle.after(after, wait)]


def _check(wish: Wish) -> None:
    given = (wish.insert, wish.replace, wish.move)
    if bool(wish.delete) + sum(what is not None for what in given) != 1:
        raise WishError("say exactly one of delete, insert, replace and move")
    if (wish.insert is None) != (wish.after is None):
        raise WishError("insert and after go together")
    if (wish.replace is None) != (wish.by is None):
        raise WishError("replace and by go together")
    if (wish.move is None) != (wish.to is None):
        raise WishError("move and to go together")
    if wish.migrate_state and wish.replace is None:
        raise WishError("migrate_state goes with replace")
    if bool(wish.sessions) == (wish.match is not None):
        raise WishError("say which sessions: by their ids, or by match")


def _chosen(service: Service, wish: Wish) -> list[WholeSession]:
    if wish.match is not None:
        return service.sessions(wish.match, None, "established")
    return [service.session(session_number(session)) for session in wish.sessions]


def _plan(service: Service, whole: WholeSession, wish: Wish) -> Plan:
    names = list(whole.hosts)
    last = whole.paths.chain[-1].session
    if last.right is not None:
        # The session goes on to hosts of other daemons: its chain is known, and where it ends.
        end = next((p.name for p in service.peers if last.right.emitted.dst in p.addresses), "")
        if end and end not in names:
            names.append(end)
    if wish.delete:
        return chains.delete(names, wish.delete)
    if wish.insert is not None and wish.after is not None:
        return chains.insert(names, wish.insert, wish.after)
    if wish.move is not None and wish.to is not None:
        return chains.move(names, wish.move, wish.to)
    put = chains.migrate if wish.migrate_state else chains.exchange
    return put(names, wish.replace or "", wish.by or "")


def _event(session: int, plan: Plan) -> Reconfigure | MoveEnd:
    if plan.kind is Kind.END:
        return MoveEnd(session, plan.right, plan.through[0])
    return Reconfigure(session, plan.right, plan.through, with_state=plan.kind is Kind.STATE)


def _start(service: Service, whole: WholeSession, wish: Wish) -> WishOut:
    try:
        plan = _plan(service, whole, wish)
        if plan.kind is not Kind.PATH:
            service.check_state(plan.old, plan.through[0])
    except (WishError, NotFoundError, DeviceError) as error:
        return _refused(whole.id, error)
    at = service.chronicle.asked(whole.id, plan.left, plan.right, plan.through)
    try:
        told = service.tell_agent(plan.left, _event(whole.id, plan))
    except (NotFoundError, DeviceError) as error:
        answer = _refused(whole.id, error)
    else:
        answer = _out(whole.id, told, plan, at)
    if not answer.accepted:
        service.chronicle.refused(whole.id, plan.left, at)
    return answer


def _refused(session: int, why: Exception) -> WishOut:
    return WishOut(session=f"{session:013x}", accepted=False, detail=str(why))


def _out(session: int, told: list[Tell], plan: Plan, at: float = 0.0) -> WishOut:
    return WishOut(
        session=f"{session:013x}",
        accepted=not any(tell.counter == _REFUSED for tell in told),
        detail="; ".join(tell.text for tell in told) or "the agent did not answer",
        left=plan.left,
        right=plan.right,
        at=at,
    )
