"""Signatures of models: bundles of OpenSSF Model Signing that are verified with public keys, offline.

    model_signing sign key m.safetensors --private_key key.pem --signature m.safetensors.sig

The bundle is that of Sigstore: a DSSE envelope with an in-toto statement, which has the SHA-256 of the file.
"""

import base64
import json
from hashlib import file_digest
from pathlib import Path
from typing import Any

from kanmodel.errors import CheckpointError, ConfigError, needs_package
from kanmodel.prepared import results_path
from service.models.repository import signature_path

_MAX_BUNDLE = 1 << 20  # bytes
_STATEMENT = "application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"
_CURVES = {"secp256r1": "SHA256", "secp384r1": "SHA384", "secp521r1": "SHA512"}


class TrustedKeys:
    """The public keys of which one must have signed each model.

    Args:
        paths: files of keys of the elliptic curves P-256, P-384 or P-521 in PEM, separated by commas.

    Raises:
        ConfigError: one cannot be read, or the package cryptography is not installed.
    """

    def __init__(self, paths: str) -> None:
        with needs_package("KANSCOPE_TRUSTED_KEYS", "kanscope[signatures]"):
            from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
            from cryptography.hazmat.primitives.serialization import load_pem_public_key
        self._keys = []
        for path in filter(None, map(str.strip, paths.split(","))):
            try:
                key = load_pem_public_key(Path(path).read_bytes())
            except (OSError, ValueError) as error:
                raise ConfigError(f"KANSCOPE_TRUSTED_KEYS: {path} is not a public key in PEM: {error}") from error
            if not isinstance(key, EllipticCurvePublicKey) or key.curve.name not in _CURVES:
                raise ConfigError(f"KANSCOPE_TRUSTED_KEYS: the key in {path} is of none of {', '.join(_CURVES)}")
            self._keys.append(key)
        if not self._keys:
            raise ConfigError("KANSCOPE_TRUSTED_KEYS names no file")

    def verify(self, path: Path) -> str:
        """The SHA-256 of a checkpoint, as answers state it; CheckpointError unless it and its results are signed."""
        results = results_path(path)
        if results.exists():
            self._verify_file(results)
        return f"sha256:{self._verify_file(path)}"

    def _verify_file(self, path: Path) -> str:
        bundle = signature_path(path)
        try:
            with bundle.open("rb") as file:
                content = file.read(_MAX_BUNDLE)
            with path.open("rb") as file:
                found = file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise CheckpointError(f"{path.name} is not signed: there is no {bundle.name}") from error
        except OSError as error:
            raise CheckpointError(f"cannot read {error.filename}: {error.strerror}") from error
        try:
            statement = self._open(content, path.name)
            resources = statement["predicate"]["resources"] if statement["predicateType"] == _PREDICATE else []
            signed = [(one["name"], one["algorithm"], one["digest"]) for one in resources]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise CheckpointError(f"{bundle.name} is not a bundle of OpenSSF Model Signing") from error
        if not {(".", "sha256", found), (path.name, "sha256", found)}.intersection(signed):
            raise CheckpointError(f"{path.name} is not the file that {bundle.name} signs")
        return found

    def _open(self, content: bytes, name: str) -> Any:
        """The statement of a bundle. CheckpointError if no key has signed it."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA

        envelope = json.loads(content)["dsseEnvelope"]
        kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"], validate=True)
        if kind != _STATEMENT:
            raise ValueError(kind)
        # DSSE's pre-authentication encoding
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind.encode(), len(payload), payload)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
        for key in self._keys:
            try:
                key.verify(signature, signed, ECDSA(getattr(hashes, _CURVES[key.curve.name])()))
            except InvalidSignature:
                continue
            return json.loads(payload)
        raise CheckpointError(f"{name} is signed by none of KANSCOPE_TRUSTED_KEYS")
