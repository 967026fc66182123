"""What `dyscod` does, without the HTTP around it: devices, policies, sessions.

Agents of different hosts share nothing: all that they are given in common is the group's key, the
policies and the peers, as separate daemons would be given them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from dysco.agent.agent import Agent
from dysco.agent.events import CloseSession, Event, StateVerb, Tell
from dysco.agent.model import Host, OnFailure, Peer
from dysco.agent.trust import TrustGroup
from dysco.controller import sessions as views
from dysco.controller.chains import WishError
from dysco.controller.config import Config, HostConfig
from dysco.controller.journal import Journal
from dysco.controller.nic import Nic
from dysco.controller.p4device import DeviceError, State
from dysco.controller.pipeline import Pipeline
from dysco.controller.policies import (
    NotFoundError,
    Policy,
    PolicyStore,
    Rows,
    agent_policies,
    check,
    rows,
)
from dysco.controller.progress import Chronicle
from dysco.controller.sessions import Hop, WholeSession

log = logging.getLogger(__name__)

_EXPORTS = (StateVerb.EXPORT, StateVerb.DROP)
_IMPORTS = (StateVerb.IMPORT, StateVerb.DROP)


class Service:
    """The devices of one configuration and everything on them."""

    def __init__(
        self,
        config: Config,
        key: bytes,
        pipeline: Pipeline,
        store: PolicyStore,
        *,
        election_id: int | None = None,
        push_pipeline: bool = False,
        journal: Journal | None = None,
    ) -> None:
        self.config = config
        self.started = time.time()
        self._store = store
        self._group = TrustGroup(config.group.name, key)
        self._changing = asyncio.Lock()
        self.chronicle = Chronicle()
        self.nics = [
            Nic(
                device,
                pipeline,
                self._make_agent,
                election_id=election_id,
                push_pipeline=push_pipeline,
                journal=journal,
                chronicle=self.chronicle,
            )
            for device in config.devices
        ]
        self._peers = config.all_peers()

    def _make_agent(self, host: Host) -> Agent:
        return Agent(
            host,
            self._group,
            self.config.settings,
            # Numbers of a new agent's headers are higher than those of all before it.
            epoch=time.time_ns() // 1_000_000,
        )

    async def run(self) -> None:
        """Run the devices until cancelled."""
        for nic in self.nics:
            nic.set_peers(self._peers)
        await self._apply(self._usable(self._store.all()))
        try:
            async with asyncio.TaskGroup() as group:
                for nic in self.nics:
                    group.create_task(nic.device.run())
                    group.create_task(nic.states.open())
        finally:
            for nic in self.nics:
                await nic.states.close()

    @property
    def ready(self) -> bool:
        """True if every device is connected and reconciled."""
        return all(nic.device.state is State.READY for nic in self.nics)

    async def wait_ready(self) -> None:
        """Until every device is."""
        for nic in self.nics:
            while not await nic.device.wait_ready(3600.0):
                pass

    def nic(self, name: str) -> Nic:
        """The device of that name. Raises NotFoundError."""
        for nic in self.nics:
            if nic.name == name:
                return nic
        known = ", ".join(n.name for n in self.nics) or "none"
        raise NotFoundError(f"no device is named {name!r}; there are: {known}")

    # Peers

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The hosts of the trust group."""
        return self._peers

    async def set_peers(self, config: Config) -> None:
        """Take the peers of a configuration that was read again, and policies that need them."""
        async with self._changing:
            self._peers = config.all_peers()
            for nic in self.nics:
                nic.set_peers(self._peers)
            log.info("%d peers read again", len(self._peers))
            try:
                await self._apply(self._usable(self._store.all()))
            except DeviceError as error:
                log.error("policies could not be loaded again: %s", error)

    # Policies

    def policies(self) -> list[Policy]:
        """The one that wins first."""
        return self._store.all()

    async def policy_hits(self) -> dict[int, int]:
        """New sessions that each policy caught, on all devices."""
        total: dict[int, int] = {}
        for nic in self.nics:
            for number, hits in (await nic.policy_hits()).items():
                total[number] = total.get(number, 0) + hits
        return total

    async def add_policy(
        self,
        *,
        match: str,
        chain: Sequence[str] | None,
        priority: int,
        host: str | None,
        on_failure: OnFailure,
        name: str | None,
    ) -> Policy:
        """Check, keep and load a policy on all connected devices.

        Raises PolicyError, FilterError, and DeviceError if a device refused it: then it is gone
        again everywhere.
        """
        async with self._changing:
            number = self._store.free_id()
            hops = None if chain is None else tuple(chain)
            policy = Policy(
                number, name or f"policy{number}", match, hops, priority, host, on_failure
            )
            hosts = [h.name for d in self.config.devices for h in d.hosts]
            check(policy, self._peers, hosts)
            before = self._store.all()
            self._rows_of([*before, policy])
            self._store.add(policy)
            try:
                await self._apply(self._usable(self._store.all()))
            except DeviceError:
                self._store.remove(policy)
                await self._apply(self._usable(before))
                raise
            log.info("policy %s (%d) added: %s", policy.name, policy.id, policy.match)
            return policy

    async def remove_policy(self, name_or_id: str) -> Policy:
        """Take a policy away; sessions that it started go on. Raises NotFoundError."""
        async with self._changing:
            policy = self._store.find(name_or_id)
            self._store.remove(policy)
            await self._apply(self._usable(self._store.all()))
            log.info("policy %s (%d) removed", policy.name, policy.id)
            return policy

    def find_policy(self, name_or_id: str) -> Policy:
        """Raises NotFoundError."""
        return self._store.find(name_or_id)

    def _usable(self, wanted: list[Policy]) -> list[Policy]:
        """Without those that the configuration of now makes impossible; they are kept, and told."""
        hosts = [h.name for d in self.config.devices for h in d.hosts]
        usable = []
        for policy in wanted:
            try:
                check(policy, self._peers, hosts)
            except ValueError as error:
                log.warning("policy %s is not in force: %s", policy.name, error)
            else:
                usable.append(policy)
        return usable

    def _rows_of(self, wanted: list[Policy]) -> list[Rows]:
        return [rows(wanted, {h.name: h.host_id for h in nic.config.hosts}) for nic in self.nics]

    async def _apply(self, wanted: list[Policy]) -> None:
        told = agent_policies(wanted)
        outcomes = await asyncio.gather(
            *(
                nic.set_policies(told, its_rows)
                for nic, its_rows in zip(self.nics, self._rows_of(wanted), strict=True)
            ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    # Sessions

    def sessions(
        self, match: str = "", host: str | None = None, state: str | None = None
    ) -> list[WholeSession]:
        """Sessions, the youngest first. Raises FilterError, and NotFoundError for the host."""
        names = [h.name for device in self.config.devices for h in device.hosts]
        if host is not None and host not in names:
            raise NotFoundError(f"no device has a host {host!r}; there are: {', '.join(names)}")
        fits = views.five_tuple_filter(match) if match else None
        hops = views.all_hops(self.nics)
        found = views.merge(hops, None if fits is None else lambda s: fits(s.session))
        return [
            whole
            for whole in found
            if (host is None or any(hop.host == host for hop in whole.hops))
            and (state is None or whole.state.value == state)
        ]

    def session(self, number: int) -> WholeSession:
        """One session. Raises NotFoundError."""
        hops = list(views.hops_of(self.nics, number))
        if not hops:
            raise NotFoundError(f"there is no session {number:013x}, or not any more")
        return views.merge(hops)[0]

    def close_session(self, number: int) -> WholeSession:
        """Release a session at all hosts known here. Raises NotFoundError."""
        whole = self.session(number)
        for hop in whole.hops:
            hop.nic.runner.deliver(hop.host_id, CloseSession(number))
        return whole

    # Middleboxes

    def tell_agent(self, host: str, event: Event) -> list[Tell]:
        """Hand a middlebox's wish to its agent: what the agent says to it. Raises NotFoundError."""
        for nic in self.nics:
            for configured in nic.config.hosts:
                if configured.name == host:
                    if nic.device.state is not State.READY:
                        raise DeviceError(f"device {nic.name} of host {host} is not ready")
                    actions = nic.runner.deliver(configured.host_id, event)
                    return [action for action in actions if isinstance(action, Tell)]
        names = ", ".join(h.name for device in self.config.devices for h in device.hosts)
        raise NotFoundError(f"no device has a host {host!r}; there are: {names}")

    def check_state(self, old: str, new: str) -> None:
        """Whether a session's state can go from host to host, as far as that is known here.

        Raises WishError; hosts of other daemons are asked when it comes to them.
        """
        for words, verbs in ((old, _EXPORTS), (new, _IMPORTS)):
            for host in self._hosts_called(words):
                for verb in verbs:
                    if host.state is None or not host.state.has(verb):
                        raise WishError(
                            f"{host.name} has no {verb.value} command: its state of a session "
                            "can't be moved; see [device.host.state] in the configuration"
                        )

    def _hosts_called(self, words: str) -> list[HostConfig]:
        """By name, address or kind, as in a chain."""
        return [
            host
            for device in self.config.devices
            for host in device.hosts
            if words in (host.name, host.kind, *map(str, host.addresses))
        ]

    def hops(self) -> list[Hop]:
        """Every agent's view of every session."""
        return list(views.all_hops(self.nics))
