"""Models are served if a trusted key has signed them; `signed` has a file that OpenSSF's model_signing 1.1.1 signed."""

import base64
import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from factories import make_model
from waiting import poll

from kanmodel.checkpoint import save_checkpoint
from kanmodel.errors import CheckpointError, ConfigError
from service.models.trust import TrustedKeys

pytest.importorskip("cryptography")
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

SIGNED = Path(__file__).with_name("signed")


@pytest.fixture(scope="module")
def private_key():
    return ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def keys(private_key, tmp_path_factory):
    """The setting: the key that signed `SIGNED`, and that of `sign`."""
    path = tmp_path_factory.mktemp("keys") / "key.pub"
    path.write_bytes(
        private_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return f"{SIGNED / 'key.pub'}, {path}"


def sign(path, private_key, kind="application/vnd.in-toto+json", **resource):
    """Writes the bundle of a file."""
    resource = {"name": ".", "algorithm": "sha256", "digest": sha256(path.read_bytes()).hexdigest(), **resource}
    statement = {"predicateType": "https://model_signing/signature/v1.0", "predicate": {"resources": [resource]}}
    payload = json.dumps(statement).encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
    signature = base64.b64encode(private_key.sign(signed, ec.ECDSA(hashes.SHA384()))).decode()
    envelope = {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": [{"sig": signature}]}
    path.with_name(f"{path.name}.sig").write_text(json.dumps({"dsseEnvelope": envelope}))


def test_what_the_tool_of_openssf_signed_is_trusted(keys, tmp_path):
    """Its own bundle is verified; one byte more in the file, or in the statement, and it is not."""
    content = (SIGNED / "m.safetensors").read_bytes()
    assert TrustedKeys(keys).verify(SIGNED / "m.safetensors") == f"sha256:{sha256(content).hexdigest()}"
    path = tmp_path / "m.safetensors"
    path.write_bytes(content + b" ")
    shutil.copy(SIGNED / "m.safetensors.sig", tmp_path)
    with pytest.raises(CheckpointError, match=r"^m.safetensors is not the file that m.safetensors.sig signs$"):
        TrustedKeys(keys).verify(path)
    bundle = json.loads((SIGNED / "m.safetensors.sig").read_text())
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"]) + b" "
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(payload).decode()
    (tmp_path / "m.safetensors.sig").write_text(json.dumps(bundle))
    with pytest.raises(CheckpointError, match=r"^m.safetensors is signed by none of KANSCOPE_TRUSTED_KEYS$"):
        TrustedKeys(keys).verify(path)


def test_a_model_that_is_not_signed_is_refused_and_the_others_are_served(serve, keys, private_key, tmp_path):
    """So is one that another key signed, and one whose results are not signed; a signature that comes later counts."""
    for number, name in enumerate(("good", "bare", "forged", "mixed")):
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(make_model("head", seed=number, n_reference=20), path)
        if name != "bare":
            sign(path, private_key if name != "forged" else ec.generate_private_key(ec.SECP384R1()))
    (tmp_path / "mixed.results").write_text("{}")
    with serve(models=tmp_path, trusted_keys=keys, poll_seconds=0.05) as client:

        def states():
            return {one["name"]: one["state"] for one in client.get("/v1/models").json()["details"]}

        def reason(name):
            return client.get(f"/v1/models/{name}").json()["error"]

        poll(lambda: states() == {"good": "ready", "bare": "failed", "forged": "failed", "mixed": "failed"})
        assert "bare.safetensors is not signed: there is no bare.safetensors.sig" in reason("bare")
        assert "forged.safetensors is signed by none of KANSCOPE_TRUSTED_KEYS" in reason("forged")
        assert "mixed.results is not signed: there is no mixed.results.sig" in reason("mixed")
        sign(tmp_path / "bare.safetensors", private_key)
        sign(tmp_path / "mixed.results", private_key)
        poll(lambda: states() == {"good": "ready", "bare": "ready", "forged": "failed", "mixed": "ready"})


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "{}", '{"dsseEnvelope": {}}', '{"dsseEnvelope": 1}', "[" * 100_000, "\0"]
)
def test_what_is_no_bundle_is_said(keys, tmp_path, content):
    """Whatever it is instead."""
    (tmp_path / "m.safetensors").write_bytes(b"x")
    (tmp_path / "m.safetensors.sig").write_text(content)
    with pytest.raises(CheckpointError, match=r"^m.safetensors.sig is not a bundle of OpenSSF Model Signing$"):
        TrustedKeys(keys).verify(tmp_path / "m.safetensors")


def test_a_signature_of_something_else_is_none(keys, private_key, tmp_path):
    """Of another file of a folder, or of a payload that is no statement."""
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"x")
    sign(path, private_key, name="other.safetensors")
    with pytest.raises(CheckpointError, match="is not the file that"):
        TrustedKeys(keys).verify(path)
    sign(path, private_key, kind="text/plain")
    with pytest.raises(CheckpointError, match="is not a bundle"):
        TrustedKeys(keys).verify(path)
    sign(path, private_key, name="m.safetensors")
    assert TrustedKeys(keys).verify(path).startswith("sha256:")


def test_keys_that_cannot_be_used_are_said(tmp_path):
    """A file that is missing, or no key; no file at all."""
    (tmp_path / "bad").write_text("no key")
    for name in ("bad", "missing"):
        with pytest.raises(ConfigError, match=f"KANSCOPE_TRUSTED_KEYS: .*{name} is not a public key in PEM"):
            TrustedKeys(str(tmp_path / name))
    with pytest.raises(ConfigError, match="names no file"):
        TrustedKeys(" , ")
