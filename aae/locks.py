"""A passphrase for a decoder: AES-256-GCM under a key that scrypt makes of it (RFC 7914), by `cryptography`."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

#: How a locked file begins; then 16 bytes of salt, 12 of nonce, and what is locked with its tag.
MAGIC = b"AAE-LOCKED-1\n"

#: Characters of the shortest passphrase. A guess costs 128 MiB and some tenths of a second, not more.
SHORTEST = 12

_SALT, _NONCE = 16, 12


class LockError(ValueError):
    """A passphrase is too short or not the right one, or what is locked was changed."""


def lock(content: bytes, passphrase: str) -> bytes:
    """Lock `content`; the same content and passphrase give other bytes each time."""
    if len(passphrase) < SHORTEST:
        raise LockError(f"a passphrase of {len(passphrase)} characters: must have {SHORTEST} or more")
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    return MAGIC + salt + nonce + AESGCM(_key(passphrase, salt)).encrypt(nonce, content, MAGIC)


def unlock(content: bytes, passphrase: str) -> bytes:
    """Give back what was locked; `LockError` for another passphrase or a single changed byte."""
    body = content[len(MAGIC) :]
    salt, nonce = body[:_SALT], body[_SALT : _SALT + _NONCE]
    try:
        return AESGCM(_key(passphrase, salt)).decrypt(nonce, body[_SALT + _NONCE :], MAGIC)
    except (InvalidTag, ValueError):
        raise LockError("the passphrase is not the right one, or the file was changed") from None


def _key(passphrase: str, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=2**17, r=8, p=1).derive(
        passphrase.encode(errors="surrogateescape")
    )  # as a terminal gives what is no UTF-8
