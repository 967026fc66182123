"""The command `softnic`: the command line of bmv2's simple_switch_grpc, for this target.

    softnic -i 1@veth1 -i 2@veth2 --no-p4 -- --cpu-port 510 --grpc-server-addr 127.0.0.1:9559
    softnic stf PROGRAM.json SCRIPT.stf
    softnic trace PROGRAM.json PACKETS.pcap --entries ENTRIES.stf

Options after `--` are the target's own there; here both kinds may stand anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from softnic.build import server_object
from softnic.metrics import MetricsServer
from softnic.native import DataPlaneError, NativeDataPlane, compile_program
from softnic.p4runtime.device import Device
from softnic.p4runtime.front import BindError, Tls
from softnic.p4runtime.server import Server
from softnic.p4runtime.service import API_VERSION
from softnic.pcap import Capture
from softnic.stf import command as stf
from softnic.trace import command as trace
from softnic.trace.live import TraceLog

_log = logging.getLogger("softnic")

_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}
_COMMANDS = {"stf": stf.main, "trace": trace.main}
_DEFAULT_ADDRESS = "127.0.0.1:9559"
_LAST_PORT = 511
"""v1model ports have nine bits."""
_LAST_TCP_PORT = 65535
_GIL_SLICE_S = 0.0005
"""A packet-in must not wait the usual 5 ms while another thread encodes a long read."""


class StartError(Exception):
    """The device can't start; the text says why and what to do."""


class Options(argparse.Namespace):
    """The parsed command line."""

    program: Path | None
    ports: list[tuple[int, str]]
    device_id: int
    no_p4: bool
    log_console: bool
    log_file: Path | None
    log_level: str
    pcap: Path | None
    trace: Path | None
    metrics: str | None
    thrift_port: int | None
    cpu_port: int
    drop_port: int
    address: str
    ssl: bool
    cacert: Path | None
    cert: Path | None
    key: Path | None
    client_auth: bool


def _port(text: str) -> tuple[int, str]:
    number, at, interface = text.partition("@")
    if not at or not number.isdigit() or not interface:
        raise argparse.ArgumentTypeError(f"{text!r} is not PORT@INTERFACE, such as 1@eth0")
    return int(number), interface


def _number(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return int(text)


def _address(text: str) -> str:
    if not text.rpartition(":")[2].isdigit() or int(text.rpartition(":")[2]) > _LAST_TCP_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9560")
    return text


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text!r}")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="softnic",
        description="Run a P4 device in software and serve it over P4Runtime.",
        epilog="The options are those of bmv2's simple_switch_grpc; '--' may stand among them.",
    )
    add = parser.add_argument
    add("program", nargs="?", type=_file, metavar="PROGRAM.json", help="bmv2 JSON to start with")
    add(
        "-i",
        "--interface",
        dest="ports",
        action="append",
        default=[],
        type=_port,
        metavar="PORT@INTERFACE",
        help="attach a network interface as this port; repeat for more",
    )
    add("--device-id", type=_number, default=0, help="default, and for 0, which is none: 1")
    add("--no-p4", action="store_true", help="start without a program; a client will set one")
    add("--log-console", action="store_true", help="log to standard error")
    add("--log-file", type=Path, metavar="FILE", help="log to a file")
    add("-L", "--log-level", choices=_LEVELS, default="info")
    add(
        "--pcap",
        nargs="?",
        const=Path(),
        type=Path,
        metavar="DIR",
        help="capture each interface to DIR/INTERFACE_in.pcap and _out.pcap",
    )
    add(
        "--trace",
        type=Path,
        metavar="FILE",
        help="tell what each packet goes through (slow); JSON lines where it ends in .json",
    )
    add("--metrics-addr", dest="metrics", type=_address, metavar="HOST:PORT", help="for Prometheus")
    add("--thrift-port", type=_number, metavar="N", help="ignored: there is no Thrift server")
    target = parser.add_argument_group("target options").add_argument
    target("--cpu-port", type=_number, default=0, metavar="N", help="default 0: none")
    target("--drop-port", type=_number, default=511, metavar="N", help="default 511")
    target(
        "--grpc-server-addr",
        dest="address",
        default=_DEFAULT_ADDRESS,
        metavar="ADDRESS",
        help=f"HOST:PORT (port 0: a free one) or unix:PATH; default {_DEFAULT_ADDRESS}",
    )
    target("--grpc-server-ssl", dest="ssl", action="store_true", help="serve TLS")
    target("--grpc-server-cacert", dest="cacert", type=_file, metavar="FILE")
    target("--grpc-server-cert", dest="cert", type=_file, metavar="FILE")
    target("--grpc-server-key", dest="key", type=_file, metavar="FILE")
    target(
        "--grpc-server-with-client-auth",
        dest="client_auth",
        action="store_true",
        help="require clients' certificates",
    )
    return parser


def _check_ports(parser: argparse.ArgumentParser, options: Options) -> None:
    for what, index in (("port", 0), ("interface", 1)):
        for value, times in Counter(port[index] for port in options.ports).items():
            if times > 1:
                parser.error(f"{what} {value} is given {times} times")
    for number, interface in options.ports:
        if number > _LAST_PORT:
            parser.error(f"port {number}@{interface}: ports are 0 to {_LAST_PORT}")
        if options.cpu_port == number != 0:
            parser.error(f"port {number}@{interface}: {number} is the CPU port")
    for what, number in (("--cpu-port", options.cpu_port), ("--drop-port", options.drop_port)):
        if number > _LAST_PORT:
            parser.error(f"{what} {number}: ports are 0 to {_LAST_PORT}")


def parse(argv: Sequence[str]) -> Options:
    """Parse a command line; exits with status 2 and a message if it is wrong."""
    args = list(argv)
    if "--" in args:
        args.remove("--")
    parser = _parser()
    options = parser.parse_args(args, Options())
    _check_ports(parser, options)
    if options.no_p4 and options.program is not None:
        parser.error(f"--no-p4 and a program ({options.program}) exclude each other")
    if not options.no_p4 and options.program is None:
        parser.error("give a PROGRAM.json, or --no-p4 to wait for a client to set one")
    if options.ssl and not (options.cert and options.key):
        parser.error("--grpc-server-ssl needs --grpc-server-cert and --grpc-server-key")
    if not options.ssl and (options.cert or options.key or options.cacert or options.client_auth):
        parser.error("certificates and --grpc-server-with-client-auth need --grpc-server-ssl")
    if options.client_auth and not options.cacert:
        parser.error("--grpc-server-with-client-auth needs --grpc-server-cacert")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; the exit status: 0 after those, 1 if it can't start."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in _COMMANDS:
        return _COMMANDS[arguments[0]](arguments[1:])
    options = parse(arguments)
    _set_up_logging(options)
    stopped = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> None:
        _log.info("%s: shutting down", signal.Signals(number).name)
        stopped.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    sys.setswitchinterval(_GIL_SLICE_S)
    try:
        with _running(options) as ready:
            print(ready, flush=True)
            stopped.wait()
    except StartError as error:
        print(f"softnic: {error}", file=sys.stderr)
        return 1
    return 0


def _build_ahead() -> None:
    """Compile the server beside the program, where neither is in the cache."""
    with contextlib.suppress(OSError, RuntimeError):  # told when the server is made
        server_object()


@contextlib.contextmanager
def _running(options: Options) -> Iterator[str]:
    """The device while it serves; the value is the line that says it is ready."""
    for _, interface in options.ports:
        try:
            socket.if_nametoindex(interface)
        except OSError as error:
            raise StartError(f"there is no network interface {interface!r}") from error
    threading.Thread(target=_build_ahead, daemon=True).start()
    with contextlib.ExitStack() as stack:
        try:
            dp = NativeDataPlane(
                dict(options.ports), cpu_port=options.cpu_port, drop_port=options.drop_port
            )
            stack.callback(dp.close)
            translate = partial(compile_program, traced=options.trace is not None)
            device = Device(options.device_id or 1, dp, translate)
            if options.trace is not None:
                stack.callback(TraceLog(dp, options.trace).close)
            if options.program is not None:
                dp.load(translate(options.program.read_bytes()))
            tls = None
            if options.ssl and options.cert and options.key:
                tls = Tls(options.cert, options.key, options.cacert, options.client_auth)
            server = Server(device, options.address, tls)
            if options.metrics is not None:
                metrics = MetricsServer(dp, device.drops, options.metrics)
                stack.callback(metrics.close)
                _log.info("metrics at http://%s/metrics", metrics.address)
            if options.pcap is not None:
                capture = Capture(options.pcap, [interface for _, interface in options.ports])
                stack.callback(capture.close)
        except PermissionError as error:
            raise StartError(f"{error}; attaching to interfaces needs CAP_NET_RAW") from error
        except (BindError, DataPlaneError, OSError, ValueError) as error:
            raise StartError(str(error)) from error
        server.start()
        stack.callback(server.stop)
        ports = " ".join(f"{number}@{interface}" for number, interface in options.ports)
        yield (
            f"softnic: device {device.device_id} serves P4Runtime {API_VERSION} "
            f"on {server.address}, ports {ports or 'none'}, CPU port {options.cpu_port or 'none'}"
        )


def _set_up_logging(options: Options) -> None:
    handlers: list[logging.Handler] = []
    if options.log_console:
        handlers.append(logging.StreamHandler())
    if options.log_file is not None:
        handlers.append(logging.FileHandler(options.log_file))
    if not handlers:
        handlers.append(logging.NullHandler())
    logging.basicConfig(
        level=_LEVELS[options.log_level],
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        handlers=handlers,
    )
    if options.thrift_port is not None:
        print("softnic: --thrift-port is ignored, there is no Thrift server", file=sys.stderr)
