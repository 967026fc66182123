"""The command `softnic` with simple_switch_grpc's options: TLS, mutual TLS, and what it refuses."""

from __future__ import annotations

import datetime
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from finsy.proto import p4r
from p4rt import PROGRAMS, Client

from softnic.cli import parse

Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    certificate: x509.Certificate
    key: Key
    cert_file: Path
    key_file: Path


def make(directory: Path, name: str, issuer: Pair | None = None) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(key if issuer is None else issuer.key, hashes.SHA256())
    )
    cert_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Pair(certificate, key, cert_file, key_file)


@pytest.fixture
def ca(tmp_path: Path) -> Pair:
    return make(tmp_path, "ca")


@contextmanager
def softnic(*argv: object) -> Iterator[str]:
    """The command while it serves; the value is its port."""
    command = [sys.executable, "-m", "softnic", *map(str, argv)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "serves P4Runtime 1.4.0 on " in line
        try:
            yield line.partition(" on ")[2].partition(",")[0].rpartition(":")[2]
        finally:
            process.terminate()
            assert process.wait(10) == 0


def tls_options(ca: Pair, server: Pair, *, mutual: bool) -> list[object]:
    options: list[object] = ["--no-p4", "--", "--grpc-server-addr", "localhost:0"]
    options += ["--grpc-server-ssl", "--grpc-server-cert", server.cert_file]
    options += ["--grpc-server-key", server.key_file]
    if mutual:
        options += ["--grpc-server-cacert", ca.cert_file, "--grpc-server-with-client-auth"]
    return options


def version(port: str, credentials: grpc.ChannelCredentials | None) -> str:
    client = Client(f"localhost:{port}", credentials)
    try:
        request = p4r.CapabilitiesRequest()
        return client.stub.Capabilities(request, timeout=5).p4runtime_api_version
    finally:
        client.close()


def test_tls(tmp_path: Path, ca: Pair) -> None:
    server, other = make(tmp_path, "server", ca), make(tmp_path, "other")
    with softnic(*tls_options(ca, server, mutual=False)) as port:
        trust = grpc.ssl_channel_credentials(ca.cert_file.read_bytes())
        assert version(port, trust) == "1.4.0"
        for wrong in (None, grpc.ssl_channel_credentials(other.cert_file.read_bytes())):
            with pytest.raises(grpc.RpcError) as error:
                version(port, wrong)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_mutual_tls(tmp_path: Path, ca: Pair) -> None:
    server, client = make(tmp_path, "server", ca), make(tmp_path, "client", ca)
    stranger = make(tmp_path, "stranger")
    root = ca.cert_file.read_bytes()

    def credentials(pair: Pair) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(
            root, pair.key_file.read_bytes(), pair.cert_file.read_bytes()
        )

    with softnic(*tls_options(ca, server, mutual=True)) as port:
        assert version(port, credentials(client)) == "1.4.0"
        for wrong in (grpc.ssl_channel_credentials(root), credentials(stranger)):
            with pytest.raises(grpc.RpcError) as error:
                version(port, wrong)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_program_on_the_command_line(tmp_path: Path) -> None:
    program = PROGRAMS / "entities.json"
    address = f"unix:{tmp_path}/p4rt.sock"
    command = [sys.executable, "-m", "softnic", program, "--device-id", "7", "--"]
    command += ["--cpu-port", "510", "--grpc-server-addr", address]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert address in process.stdout.readline()
        client = Client(address)
        try:
            stream = client.stream()
            stream.arbitrate(1, device_id=7)
            assert stream.standing() == (0, 1)
        finally:
            client.close()
            process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "--no-p4"),
        (["--no-p4", str(PROGRAMS / "entities.json")], "exclude"),
        (["/no/program.json"], "no file '/no/program.json'"),
        (["--no-p4", "-i", "eth0"], "PORT@INTERFACE"),
        (["--no-p4", "-i", "1@a", "-i", "1@b"], "port 1 is given 2 times"),
        (["--no-p4", "-i", "1@a", "-i", "2@a"], "interface a is given 2 times"),
        (["--no-p4", "-i", "600@a"], "port 600@a: ports are 0 to 511"),
        (["--no-p4", "-i", "255@a", "--cpu-port", "255"], "255 is the CPU port"),
        (["--no-p4", "--cpu-port", "-1"], "--cpu-port"),
        (["--no-p4", "--cpu-port", "9999"], "--cpu-port 9999: ports are 0 to 511"),
        (["--no-p4", "--grpc-server-ssl"], "--grpc-server-cert"),
        (["--no-p4", "--grpc-server-cert", "/no/file"], "no file '/no/file'"),
        (["--no-p4", "--grpc-server-with-client-auth"], "--grpc-server-ssl"),
    ],
)
def test_a_command_line_that_cannot_be(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(argv)
    assert end.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--no-p4", "-i", "1@no-such-link"], "no network interface 'no-such-link'"),
        (["--no-p4", "--grpc-server-addr", "256.0.0.1:1"], "can't listen"),
        ([str(PROGRAMS / "entities.p4")], "not JSON"),
    ],
)
def test_a_device_that_cannot_start(argv: list[str], told: str) -> None:
    command = [sys.executable, "-m", "softnic", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr
