"""One device of ours with everything that belongs to it: static rows, routes, policies, agents.

Reconciling reads what the device holds and writes only the difference, so that nothing that is
right is ever taken away under a packet; an empty device simply gets everything. It happens whenever
the device becomes ours: at start, after a restart of the device, after a broken connection. Agents
begin anew each time, with the sessions that the device holds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from itertools import islice

from finsy.proto import p4r, rpc_code

from dysco.agent.agent import Agent
from dysco.agent.events import Event as AgentEvent
from dysco.agent.events import PacketIn, Progress, Reason, Recovered, Submit
from dysco.agent.model import Address, Host, MacAddress, MappingKey, Peer
from dysco.agent.model import Mapping as SessionMapping
from dysco.agent.model import Policy as AgentPolicy
from dysco.agent.reconfigure.state import Count
from dysco.controller import neighbour_frames
from dysco.controller.config import DeviceConfig
from dysco.controller.journal import Journal, JournalFileError
from dysco.controller.mappings import MappingCodec
from dysco.controller.neighbours import Neighbours
from dysco.controller.p4device import DeviceError, P4Device, State
from dysco.controller.pipeline import Pipeline, Row, RowKey
from dysco.controller.progress import OVER, Chronicle
from dysco.controller.routes import Routes, Then
from dysco.controller.runner import Runner
from dysco.controller.state_calls import StateCalls
from dysco.controller.static_rows import port_rows, replication
from dysco.controller.writer import MAX_UPDATES, Errors

log = logging.getLogger(__name__)

_REASONS = {int(reason): reason for reason in Reason}
_COUNTERS = {reason: f"packet_in_{reason.name.lower()}" for reason in Reason}
_DROPS: tuple[str, ...] = ("no_route", "hairpin", "bad_packet_out")
"""Names of the P4 program's `Drop`."""
_LEG_COUNTS = tuple(count.value for count in Count)
_POLICY_TABLES = ("policy_v4", "policy_v6")
_ROUTE_TABLES = ("route_v4", "route_v6")


class Nic:
    """A device, its agents and their policies."""

    def __init__(
        self,
        config: DeviceConfig,
        pipeline: Pipeline,
        make_agent: Callable[[Host], Agent],
        *,
        election_id: int | None = None,
        push_pipeline: bool = False,
        journal: Journal | None = None,
        chronicle: Chronicle | None = None,
    ) -> None:
        self.config = config
        self.pipeline = pipeline
        self.codec = MappingCodec(pipeline)
        self.device = P4Device(
            config, pipeline, self, election_id=election_id, push_pipeline=push_pipeline
        )
        self.neighbours = Neighbours(self._ask, self._neighbour_changed)
        self.routes = Routes(config, self.neighbours, self._write_row)
        self.runner = Runner(self.device, self.codec, self.routes, self.session_traffic)
        self._journal = journal
        self._will_flush = False
        self._chronicle = chronicle
        self.runner.keep, self.runner.progress = self._keep, self._progress
        self.states = StateCalls(config, self._deliver)
        self.runner.call_state = self.states.call
        self.counters: Counter[str] = Counter()
        self._ended: dict[int, Counter[str]] = {}
        """What the agents counted that are no more, by host."""
        self._make_agent = make_agent
        self._policies: Mapping[int, AgentPolicy] = {}
        self._policy_rows: dict[RowKey, Row] = {}
        self._peers: tuple[Peer, ...] = ()
        packet_in = pipeline.metadata["packet_in"]
        self._metadata = {packet_in[name]: name for name in ("port", "host", "policy", "reason")}

    @property
    def name(self) -> str:
        """The device's name in the configuration."""
        return self.config.name

    # Handler of the device

    async def reconcile(self) -> None:
        """Bring the device to what it should hold. Raises DeviceError if it refuses."""
        await self._set_replication()
        await self._reconcile_rows(("port", "bridge"), port_rows(self.config))
        self.routes.clear()
        self.neighbours.clear()
        held = [row async for row in self._read_rows(_ROUTE_TABLES)]
        kept = self.routes.adopt(held)
        await self._write_difference(held, [*kept, *self.routes.static_rows()])
        await self._recover()
        await self._reconcile_rows(_POLICY_TABLES, self._policy_rows.values())
        self.routes.warm(a for peer in self._peers for a in peer.addresses)

    def packet_in(self, packet: p4r.PacketIn) -> None:
        """A packet from the pipeline: for an agent, or an answer to one of our questions."""
        values = {
            self._metadata.get(m.metadata_id, ""): int.from_bytes(m.value, "big")
            for m in packet.metadata
        }
        reason = _REASONS.get(values.get("reason", 0))
        if reason is None:
            self.counters["packet_in_unknown_reason"] += 1
        elif reason is Reason.NEIGHBOUR:
            answer = neighbour_frames.answer(packet.payload)
            if answer is None:
                self.counters["neighbour_malformed"] += 1
            else:
                self.neighbours.answered(answer)
        else:
            self.counters[_COUNTERS[reason]] += 1
            self.runner.packet_in(
                PacketIn(
                    reason,
                    values.get("port", 0),
                    values.get("host", 0),
                    values.get("policy", 0),
                    packet.payload,
                )
            )

    def idle(self, entries: Iterable[p4r.TableEntry]) -> None:
        """Session entries that no packet hit for their time-out."""
        for entry in entries:
            key = self.codec.key(entry)
            if key is not None:
                self.counters["idle"] += 1
                self.runner.idle(key)

    def down(self) -> None:
        """The device is not ours any more."""
        self.runner.stop()
        self.neighbours.clear()
        self.routes.clear()

    def about_to_send(self) -> None:
        """What sessions are to be known by after a restart is kept before what follows from it."""
        self._will_flush = False
        if self._journal is not None:
            try:
                self._journal.flush()
            except JournalFileError as error:
                # The sessions go on; only a restart in a reconfiguration would show it.
                self.counters["journal_failed"] += 1
                log.error("device %s: %s", self.name, error)

    # Policies and peers

    async def set_policies(
        self, policies: Mapping[int, AgentPolicy], rows: Mapping[RowKey, Row]
    ) -> None:
        """Make these the policies of sessions to come. Raises DeviceError if the device refuses.

        The agents know a policy before the device punts for it, and as long as it does.
        """
        before, old_rows = self._policies, self._policy_rows
        self._policies, self._policy_rows = policies, dict(rows)
        if self.device.state is not State.READY:
            return
        self._tell_policies({**before, **policies})
        await self._write_difference(old_rows.values(), rows.values())
        self._tell_policies(self._policies)

    def set_peers(self, peers: tuple[Peer, ...]) -> None:
        """The hosts that chains may name."""
        self._peers = peers
        for agent in self.runner.agents.values():
            agent.set_peers(peers)

    def _tell_policies(self, policies: Mapping[int, AgentPolicy]) -> None:
        for agent in self.runner.agents.values():
            agent.set_policies(policies)

    async def policy_hits(self) -> dict[int, int]:
        """Sessions that each policy caught on this device, as the device counted."""
        hits: Counter[int] = Counter()
        if self.device.state is not State.READY:
            return hits
        tables = [self.pipeline.tables[name] for name in _POLICY_TABLES]
        for table in tables:
            wanted = p4r.TableEntry(table_id=table.id, counter_data=p4r.CounterData())
            async for entity in self.device.read(p4r.Entity(table_entry=wanted)):
                entry = entity.table_entry
                if not entry.is_default_action and not entry.is_const:
                    row = table.row(entry)
                    if row.action == "chain":
                        hits[row.params[0]] += entry.counter_data.packet_count
        return hits

    # Counters

    def all_counters(self) -> Counter[str]:
        """What happened to the device and on the way to its agents."""
        return (
            self.counters
            + self.device.counters
            + self.device.writer.counters
            + self.runner.counters
            + self.runner.legs.counters
            + self.neighbours.counters
            + self.states.counters
        )

    def host_counters(self) -> dict[str, Counter[str]]:
        """What the agents counted since the daemon started, by host."""
        return {
            agent.host.name: agent.counters + self._ended.get(number, Counter())
            for number, agent in self.runner.agents.items()
        }

    def session_states(self) -> dict[str, Counter[str]]:
        """Sessions in each state, by host."""
        return {
            agent.host.name: Counter(s.state.value for s in agent.sessions.values())
            for agent in self.runner.agents.values()
        }

    async def drops(self) -> dict[str, int]:
        """Packets that the P4 program dropped, or that a change of a chain cost, by reason."""
        found: Counter[str] = Counter()
        if self.device.state is not State.READY:
            return found
        names = dict.fromkeys(self.pipeline.drop_counters, _DROPS)
        names |= dict.fromkeys(self.pipeline.leg_counters, _LEG_COUNTS)
        wanted = [p4r.Entity(counter_entry=p4r.CounterEntry(counter_id=number)) for number in names]
        async for entity in self.device.read(*wanted):
            counter, index = entity.counter_entry.counter_id, entity.counter_entry.index.index
            if index < len(names[counter]):
                found[names[counter][index]] += entity.counter_entry.data.packet_count
        return dict(found)

    # Sessions

    async def session_traffic(
        self, keys: Sequence[MappingKey]
    ) -> dict[MappingKey, tuple[int, int]]:
        """Packets and bytes of entries, as the device counted."""
        wanted = []
        for key in keys:
            entry = self.codec.key_entry(key)
            entry.counter_data.SetInParent()
            wanted.append(p4r.Entity(table_entry=entry))
        traffic = {}
        if wanted and self.device.state in (State.READY, State.RECONCILING):
            async for entity in self.device.read(*wanted):
                found = self.codec.key(entity.table_entry)
                if found is not None:
                    data = entity.table_entry.counter_data
                    traffic[found] = (data.packet_count, data.byte_count)
        return traffic

    async def _recover(self) -> None:
        """New agents, with the sessions that the device holds for them."""
        agents = {h.host_id: self._new_agent(h.host()) for h in self.config.hosts}
        mappings: dict[int, list[SessionMapping]] = {number: [] for number in agents}
        strangers: list[p4r.TableEntry] = []
        overdue: list[p4r.TableEntry] = []
        async for entry in self.device.read_table(*self.codec.table_ids, with_idle=True):
            if 0 < entry.idle_timeout_ns <= entry.time_since_last_hit.elapsed_ns:
                overdue.append(entry)
            mapping = self.codec.mapping(entry)
            if mapping is None or mapping.key.host not in agents:
                strangers.append(entry)
            else:
                mappings[mapping.key.host].append(mapping)
        rows = [row async for row in self.device.read_table(*self.runner.legs.table_ids)]
        legs = self.runner.legs.start((m for found in mappings.values() for m in found), rows)
        if strangers:
            log.warning(
                "device %s: %d session entries belong to no host of the configuration: taken out",
                self.name,
                len(strangers),
            )
            await self._write([_delete(entry) for entry in strangers])
        for number, agent in self.runner.agents.items():
            self._ended.setdefault(number, Counter()).update(agent.counters)
        self.runner.start(agents, (m.key for found in mappings.values() for m in found))
        for number, found in mappings.items():
            records = self._journal.of(agents[number].host.name) if self._journal else ()
            if found or records:
                held = legs.get(number, ())
                self.runner.deliver(number, Recovered(tuple(found), held, records))
        # The device tells of silence once, and may have told nobody.
        self.idle(overdue)
        await self.runner.look_for_answers()

    def _deliver(self, host: int, event: AgentEvent) -> None:
        if host in self.runner.agents:
            self.runner.deliver(host, event)

    def _keep(self, host: int, session: int, record: bytes) -> None:
        if self._journal is not None:
            self._journal.keep(self.runner.agents[host].host.name, session, record)
            if not self._will_flush:
                # Also where nothing is sent.
                self._will_flush = True
                asyncio.get_running_loop().call_soon(self.about_to_send)

    def _progress(self, host: int, step: Progress) -> None:
        name = self.runner.agents[host].host.name
        why = f" ({step.why})" if step.why else ""
        log.log(
            logging.INFO if step.state in OVER else logging.DEBUG,
            "host %s: session %013x: %s of reconfiguration %s/%d: %s%s",
            name,
            step.session,
            step.role,
            step.left,
            step.number,
            step.state,
            why,
        )
        if self._chronicle is not None:
            self._chronicle.add(name, step)

    def _new_agent(self, host: Host) -> Agent:
        agent = self._make_agent(host)
        agent.set_peers(self._peers)
        agent.set_policies(self._policies)
        return agent

    # Rows

    async def _set_replication(self) -> None:
        for entity in replication(self.config):
            for kind in (p4r.Update.INSERT, p4r.Update.MODIFY):
                errors = await self.device.writer.write(
                    [p4r.Update(type=kind, entity=entity)], frozenset({"replication"})
                )
                if not errors:
                    break
            self._check(errors)

    async def _reconcile_rows(self, tables: Sequence[str], wanted: Iterable[Row]) -> None:
        held = [row async for row in self._read_rows(tables)]
        await self._write_difference(held, wanted)

    async def _read_rows(self, tables: Sequence[str]) -> AsyncIterator[Row]:
        by_id = {self.pipeline.tables[name].id: self.pipeline.tables[name] for name in tables}
        async for entry in self.device.read_table(*by_id):
            yield by_id[entry.table_id].row(entry)

    async def _write_difference(self, held: Iterable[Row], wanted: Iterable[Row]) -> None:
        """Deletes, then changes, then new rows: each kind may need the room of the one before."""
        have = {row.key: row for row in held}
        want = {row.key: row for row in wanted}
        gone = [row for key, row in have.items() if key not in want]
        changed = [row for key, row in want.items() if key in have and have[key] != row]
        new = [row for key, row in want.items() if key not in have]
        for kind, rows in (
            (p4r.Update.DELETE, gone),
            (p4r.Update.MODIFY, changed),
            (p4r.Update.INSERT, new),
        ):
            await self._write([self.pipeline.update(kind, row) for row in rows])

    async def _write(self, updates: Iterable[p4r.Update]) -> None:
        rest = iter(updates)
        while chunk := list(islice(rest, MAX_UPDATES)):
            self._check(await self.device.writer.write(chunk, frozenset({id(chunk)})))

    def _check(self, errors: Errors) -> None:
        if errors:
            texts = sorted({text for _, text in errors.values()})
            raise DeviceError(
                f"it refused {len(errors)} entries of its configuration: {'; '.join(texts[:3])}"
            )

    def _write_row(self, row: Row, then: Then) -> None:
        """Insert or modify a route, whichever it takes."""

        def inserted(errors: Errors) -> None:
            if errors and errors[0][0] == rpc_code.ALREADY_EXISTS:
                update = self.pipeline.update(p4r.Update.MODIFY, row)
                self.device.writer.submit([update], frozenset({row.key}), modified)
            else:
                modified(errors)

        def modified(errors: Errors) -> None:
            then(errors[0][1] if errors else "")

        update = self.pipeline.update(p4r.Update.INSERT, row)
        self.device.writer.submit([update], frozenset({row.key}), inserted)

    # Neighbours

    def _ask(self, address: Address, port: int) -> None:
        """Ask for a neighbour's MAC in the name of the host whose address is most like its own."""
        own = [
            (int(source) ^ int(address), source, interface.mac)
            for host in self.config.hosts
            for interface in host.interfaces
            for source in interface.addresses
            if source.version == address.version
        ]
        if not own:
            self.counters["neighbour_no_source"] += 1
            return
        _, source, mac = min(own, key=lambda candidate: candidate[0])
        frame = neighbour_frames.request(address, source, mac)
        self.device.packet_out(port, Submit.PORT, frame)

    def _neighbour_changed(self, address: Address, port: int, mac: MacAddress) -> None:
        self.routes.neighbour_changed(address, port, mac)


def _delete(entry: p4r.TableEntry) -> p4r.Update:
    name = p4r.TableEntry(table_id=entry.table_id, match=entry.match, priority=entry.priority)
    return p4r.Update(type=p4r.Update.DELETE, entity=p4r.Entity(table_entry=name))
