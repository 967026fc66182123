"""State commands and helpers: what agents ask for, carried out by real processes, within bounds."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from dysco.agent.events import (
    MAX_STATE,
    Event,
    Sides,
    StateCall,
    StateDone,
    StateFailed,
    StateVerb,
)
from dysco.agent.model import FiveTuple
from dysco.controller import state_calls
from dysco.controller.chains import WishError
from dysco.controller.config import Config, DeviceConfig
from dysco.controller.pipeline import load
from dysco.controller.policies import PolicyStore
from dysco.controller.service import Service
from dysco.controller.state_calls import StateCalls
from dysco.controller.state_helper import Helper
from dysco.state.command import answered
from dysco.state.request import VARIABLE, Request, StateError

ENDS = FiveTuple(ip_address("10.0.1.2"), 1111, ip_address("10.0.6.2"), 80)
SIDES = Sides(ENDS, ENDS)
HOST, SESSION = 7, 0x123456789ABC


class Desk:
    """A device with one host, and what was delivered to its agent."""

    def __init__(self, **state: object) -> None:
        host = {
            "name": "box",
            "id": HOST,
            "port": 2,
            "mac": "02:00:00:00:01:02",
            "addresses": ["10.0.1.2"],
        }
        if state:
            host["state"] = state
        config = DeviceConfig.model_validate(
            {"name": "nic", "address": "127.0.0.1:1", "network_ports": [1], "host": [host]}
        )
        self.calls = StateCalls(config, self._deliver)
        self._answers: asyncio.Queue[Event] = asyncio.Queue()
        self._number = 0

    def _deliver(self, host: int, event: Event) -> None:
        assert host == HOST
        self._answers.put_nowait(event)

    def ask(
        self, verb: StateVerb, state: bytes = b"", *, limit: float = 5.0, session: int = SESSION
    ) -> int:
        self._number += 1
        self.calls.call(HOST, StateCall(self._number, session, verb, SIDES, SIDES, state, limit))
        return self._number

    async def answer(self) -> Event:
        return await asyncio.wait_for(self._answers.get(), 10.0)

    async def says(self, verb: StateVerb, state: bytes = b"", *, limit: float = 5.0) -> bytes:
        number = self.ask(verb, state, limit=limit)
        event = await self.answer()
        assert isinstance(event, StateDone), event
        assert (event.call, event.session) == (number, SESSION)
        return event.state

    async def refuses(self, verb: StateVerb, state: bytes = b"", *, limit: float = 5.0) -> str:
        number = self.ask(verb, state, limit=limit)
        event = await self.answer()
        assert isinstance(event, StateFailed), event
        assert (event.call, event.session) == (number, SESSION)
        return event.why

    async def quiet(self) -> bool:
        """True if nothing more is answered when nothing is under way any more."""
        while self.calls._calls:
            await asyncio.sleep(0.01)
        return self._answers.empty()


@asynccontextmanager
async def desk(**state: object) -> AsyncIterator[Desk]:
    made = Desk(**state)
    try:
        yield made
    finally:
        await made.calls.close()


def sh(text: str, *words: str) -> list[str]:
    return ["sh", "-c", text, "sh", *words]


def commands(**text: str) -> dict[str, object]:
    return {name: sh(script) for name, script in {"drop": "true", **text}.items()}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5.0
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_a_command_gets_the_request_and_the_state() -> None:
    script = {"export": f'printf %s "${VARIABLE}"', "import": 'test "$(cat)" = "some state"'}
    async with desk(**commands(**script)) as d:
        request = Request.of(json.loads(await d.says(StateVerb.EXPORT)))
        assert request == Request(StateVerb.EXPORT, f"{SESSION:013x}", "box", SIDES, SIDES)
        assert await d.says(StateVerb.IMPORT, b"some state") == b""
        assert "status 1" in await d.refuses(StateVerb.IMPORT, b"another state")
        # Nothing is configured for it, and nothing has to be done.
        assert await d.says(StateVerb.RESUME) == b""
        assert d.calls.counters == {"state_call": 4, "state_call_failed": 1}


async def test_no_shell_sees_an_argument(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; print(sys.argv[1:])", "$HOME; *", "a b"]
    async with desk(export=argv, drop=["true"]) as d:
        assert await d.says(StateVerb.EXPORT) == b"['$HOME; *', 'a b']\n"


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["/nowhere/tool"], "there is no command /nowhere/tool"),
        (["/"], "/ can't be started: Permission denied"),
        (sh("exit 3"), "sh ended with status 3: it said nothing"),
        (sh("echo first >&2; echo last >&2; exit 1"), "sh ended with status 1: last"),
        (sh("kill -9 $$"), "sh ended with signal 9"),
        (sh("printf 'a\\033[1mb' >&2; exit 1"), "status 1: a?[1mb"),
        (sh(f"head -c {MAX_STATE + 1} /dev/zero"), f"printed more than {MAX_STATE} bytes"),
        (sh("yes | head -c 3000000 >&2; exit 1"), "status 1: y"),
        (sh("exec sleep 30"), "sh still ran after 0.3 s, and was killed"),
        (sh("yes"), "sh still ran after 0.3 s, and was killed"),
    ],
)
async def test_what_goes_wrong_is_told(argv: list[str], why: str) -> None:
    async with desk(export=argv, drop=["true"]) as d:
        limit = 0.3 if "0.3 s" in why else 5.0
        assert why in await d.refuses(StateVerb.EXPORT, limit=limit)
        assert await d.quiet()


async def test_as_much_as_may_be_is_taken() -> None:
    async with desk(**commands(export=f"head -c {MAX_STATE} /dev/zero")) as d:
        assert await d.says(StateVerb.EXPORT) == bytes(MAX_STATE)


async def test_its_own_time_limit_counts_too() -> None:
    async with desk(export=sh("exec sleep 30"), drop=["true"], timeout=0.2) as d:
        assert "after 0.2 s" in await d.refuses(StateVerb.EXPORT)


async def test_children_of_a_command_die_with_it(tmp_path: Path) -> None:
    script = f"sleep 30 & echo $! > {tmp_path}/pid; wait"
    async with desk(**commands(export=script)) as d:
        assert "was killed" in await d.refuses(StateVerb.EXPORT, limit=0.3)
        await until(lambda: is_gone(int((tmp_path / "pid").read_text())))


async def test_a_host_without_commands_says_so() -> None:
    async with desk() as d:
        assert "no state commands" in await d.refuses(StateVerb.EXPORT)
    async with desk(**commands(export="true")) as d:
        assert "no command is configured for import" in await d.refuses(StateVerb.IMPORT)


@pytest.mark.parametrize("verb", [StateVerb.DROP, StateVerb.RESUME])
async def test_what_undoes_ends_what_still_runs(tmp_path: Path, verb: StateVerb) -> None:
    script = f"echo $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid; exec sleep 30"
    after = f"kill -0 $(cat {tmp_path}/pid) && exit 1; touch {tmp_path}/done"
    told = commands(**{"import": script, "resume": after, "drop": after})
    async with desk(**told) as d:
        d.ask(StateVerb.IMPORT)
        await until((tmp_path / "pid").exists)
        await d.says(verb)
        assert (tmp_path / "done").exists()
        assert await d.quiet()


async def test_calls_of_one_session_come_one_after_the_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f"echo begin >> {log}; sleep 0.05; echo end >> {log}"
    async with desk(**commands(**{"export": script, "drop": script})) as d:
        for verb in (StateVerb.DROP, StateVerb.DROP, StateVerb.EXPORT):
            d.ask(verb)
        for number in (1, 2, 3):
            event = await d.answer()
            assert isinstance(event, StateDone)
            assert event.call == number
        assert log.read_text().split() == ["begin", "end"] * 3


async def test_not_more_than_may_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_calls, "MAX_AT_ONCE", 2)
    monkeypatch.setattr(state_calls, "MAX_CALLS", 5)
    script = f"mkdir {tmp_path}/$$; ls {tmp_path} | wc -l; sleep 0.05; rmdir {tmp_path}/$$"
    async with desk(**commands(export=script)) as d:
        for session in range(6):
            d.ask(StateVerb.EXPORT, session=session)
        told = [await d.answer() for _ in range(6)]
        (refused,) = [event for event in told if isinstance(event, StateFailed)]
        assert (refused.session, refused.why) == (5, "more than 5 calls are under way")
        assert max(int(e.state) for e in told if isinstance(e, StateDone)) <= 2


# Helpers.

HELPER = """
import sys
from dysco.state.command import main
from dysco.state.request import StateError

def handle(request, state):
    if request.session[-1] == "f":
        raise StateError("that one never")
    if state == b"die":
        sys.exit("oh no")
    if state == b"sleep":
        import time
        time.sleep(30)
    if state == b"garbage":
        print("garbage", flush=True)
    return request.verb.value.encode() + b" " + state.upper()

main("helper", handle)
"""


def helper() -> Sequence[str]:
    return [sys.executable, "-c", HELPER, "serve"]


async def test_a_helper_answers_all_calls_in_one_process() -> None:
    async with desk(helper=helper()) as d:
        assert await d.says(StateVerb.EXPORT) == b"export "
        assert await d.says(StateVerb.IMPORT, b"\n{}\n") == b"import \n{}\n"
        big = os.urandom(MAX_STATE - len(b"import "))
        assert await d.says(StateVerb.IMPORT, big) == b"import " + big.upper()
        assert await d.says(StateVerb.RESUME) == b"resume "
        for session in range(0x10, 0x20):
            d.ask(StateVerb.EXPORT, session=session)
        told = [await d.answer() for _ in range(16)]
        (refused,) = [event for event in told if isinstance(event, StateFailed)]
        assert (refused.session, refused.why) == (0x1F, "that one never")


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (b"die", "it ended: oh no"),
        (b"garbage", "what it answered makes no sense"),
        (b"sleep", "did not answer within 1.5 s"),
    ],
)
async def test_a_helper_that_fails_is_started_again(state: bytes, why: str) -> None:
    async with desk(helper=helper()) as d:
        assert await d.says(StateVerb.EXPORT) == b"export "
        assert why in await d.refuses(StateVerb.IMPORT, state, limit=1.5)
        assert await d.says(StateVerb.EXPORT) == b"export "


async def test_a_helper_that_is_slow_to_start_is_not_ended_for_it(tmp_path: Path) -> None:
    """It is waited for by the next call; otherwise it would never be there."""
    script = f"echo x >> {tmp_path}/starts; sleep 0.5; exec {sys.executable} -c '{HELPER}' serve"
    async with desk(helper=sh(script)) as d:
        await d.calls.open()
        assert "did not answer within 0.2 s" in await d.refuses(StateVerb.EXPORT, limit=0.2)
        assert await d.says(StateVerb.EXPORT) == b"export "
        assert (tmp_path / "starts").read_text() == "x\n"


async def test_a_helper_that_is_not_there() -> None:
    async with desk(helper=["/nowhere/tool"]) as d:
        assert "there is no command" in await d.refuses(StateVerb.EXPORT)
    async with desk(helper="unix:/nowhere/socket") as d:
        assert "can't be reached: No such file" in await d.refuses(StateVerb.EXPORT)


async def test_an_answer_that_nobody_waits_for_is_ignored(tmp_path: Path) -> None:
    """A call was undone; its answer comes before that of the next one."""
    async with desk(helper=helper()) as d:
        assert await d.says(StateVerb.EXPORT) == b"export "
        d.ask(StateVerb.IMPORT, b"one")
        await asyncio.sleep(0)
        d.ask(StateVerb.DROP)
        events = [await d.answer()]
        if isinstance(events[0], StateDone) and events[0].state == b"import ONE":
            events.append(await d.answer())  # it was faster
        assert isinstance(events[-1], StateDone)
        assert events[-1].state == b"drop "


async def test_a_helper_behind_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    held: list[asyncio.StreamWriter] = []

    def handle(request: Request, state: bytes) -> bytes:
        if state == b"no":
            raise StateError("not that")
        return state + b"!"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)
        while (answer := await answered(handle, reader)) is not None:
            writer.write(answer)

    server = await asyncio.start_unix_server(serve, path)
    async with server, desk(helper=f"unix:{path}") as d:
        assert await d.says(StateVerb.IMPORT, b"state") == b"state!"
        assert await d.refuses(StateVerb.IMPORT, b"no") == "not that"
        held[-1].close()  # as if it was started anew
        hook = d.calls._hooks[HOST]
        assert isinstance(hook, Helper)
        await until(lambda: hook._connection is not None and hook._connection.is_over)
        assert await d.says(StateVerb.IMPORT, b"state") == b"state!"
        assert len(held) == 2


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    script = f"echo $$ > {tmp_path}/new && mv {tmp_path}/new {tmp_path}/pid; exec sleep 30"
    async with desk(**commands(export=script)) as d:
        d.ask(StateVerb.EXPORT)
        await until((tmp_path / "pid").exists)
    assert is_gone(int((tmp_path / "pid").read_text()))
    script = f"echo $$ > {tmp_path}/helper; exec {sys.executable} -c '{HELPER}' serve"
    async with desk(helper=sh(script)) as d:
        assert await d.says(StateVerb.EXPORT) == b"export "
    assert is_gone(int((tmp_path / "helper").read_text()))


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("copies", "copies", ""),
        ("copies", "10.0.1.4", ""),
        ("helped", "copies", ""),
        ("copies", "elsewhere", ""),
        ("gives", "copies", ""),
        ("copies", "gives", "gives has no import command"),
        ("none", "copies", "none has no export command"),
        ("copies", "none", "none has no import command"),
        ("copies", "10.0.1.5", "none has no import command"),
        ("copies", "firewall", "gives has no import command"),
    ],
)
def test_who_can_t_move_state_is_named(tmp_path: Path, old: str, new: str, why: str) -> None:
    commands = {"export": ["x"], "import": ["x"], "drop": ["x"]}
    states = {
        "copies": commands,
        "gives": {"export": ["x"], "drop": ["x"]},
        "helped": {"helper": ["x"]},
        "none": None,
    }
    hosts = [
        {
            "name": name,
            "kind": "firewall",
            "port": number,
            "mac": f"02:00:00:00:01:{number:02}",
            "addresses": [f"10.0.1.{number}"],
            "state": state,
        }
        for number, (name, state) in enumerate(states.items(), start=2)
    ]
    device = {"name": "nic", "address": "127.0.0.1:1", "network_ports": [1], "host": hosts}
    group = {"name": "lab", "key_file": "key"}
    config = Config.model_validate({"group": group, "device": [device]})
    service = Service(config, bytes(32), load(), PolicyStore(tmp_path / "policies.sqlite"))
    if not why:
        service.check_state(old, new)
        return
    with pytest.raises(WishError, match=why):
        service.check_state(old, new)
