"""Where others could connect: TLS 1.3 and tokens, or no server at all."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from hepipe.errors import PeerLost, Unsupported
from hepipe.models.logistic import clear_scores
from hepipe.service.run import Address, check_address
from served_models import FRAME, made
from service.conftest import SAMPLES

X = FRAME.iloc[:SAMPLES]


def certify(folder: Path, days: int = 1) -> Path:
    """A certificate for 127.0.0.1, its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hepipe test")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(today - datetime.timedelta(days=2))
        .not_valid_after(today + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "key.pem").write_bytes(pem)
    return folder / "cert.pem"


def test_a_server_beyond_this_machine_takes_tls_and_tokens(tmp_path: Path) -> None:
    cert, key, tokens = tmp_path / "c", tmp_path / "k", tmp_path / "t"
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        for given in ((None, None, None), (None, None, tokens), (cert, key, None)):
            with pytest.raises(Unsupported, match="can be reached from other machines"):
                check_address(Address(host, 0, given[0], given[1]), given[2])
        check_address(Address(host, 0, cert, key), tokens)
    for host in ("127.0.0.1", "::1", "localhost"):
        check_address(Address(host, 0), None)
    for given in ((cert, None), (None, key)):
        with pytest.raises(Unsupported, match="both or none"):
            check_address(Address("127.0.0.1", 0, *given), tokens)


def test_a_prediction_over_tls(own: Any, tmp_path: Path) -> None:
    authority = certify(tmp_path)
    server = own("linear", "powers", options=("workers=1", "round_workers=1"))
    assert server.url.startswith("https://")
    for name, scheme in (("linear", "ckks"), ("powers", "paillier")):
        remote = server.remote(name, authority=authority)
        client = remote.client(scheme)
        found = client.predict(remote, X)
        assert np.abs(found - clear_scores(made(name), X)[:, 0]).max() < 2.0**-7
        remote.close()
    with pytest.raises(PeerLost):  # an authority that nobody vouches for
        server.remote("linear", retries=0).plan("ckks")
    old = ssl.create_default_context(cafile=str(authority))
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(httpx2.TransportError), httpx2.Client(verify=old) as http:
        http.get(f"{server.url}/v2")
    with pytest.raises(httpx2.TransportError), httpx2.Client() as http:
        http.get(server.url.replace("https", "http") + "/v2")
