"""A receipt is what was signed, or it is not valid: with another key, or with any change."""

from __future__ import annotations

import string

import numpy as np
import pytest

from service.telemetry.history import Counted
from service.telemetry.receipts import Receipts

OF = Counted("load", "1", "sha256:a", 3, 2, "0.8 0.95")
KEY = "k" * 32
FORECASTS = np.array([1 / 3, -2e-300, 5.0])
INTERVALS = np.arange(12.0).reshape(3, 2, 2) / 7


@pytest.fixture(scope="module")
def signed() -> list[str]:
    return Receipts(KEY).sign(OF, "load+1", "some id", FORECASTS, INTERVALS)


def test_a_receipt_is_what_was_signed(signed):
    """Every bit of the forecast and its intervals, in another process with the same key."""
    for number, text in enumerate(signed):
        found = Receipts(KEY).verify(text)
        assert (found.of, found.output, found.request_id, found.instance) == (OF, "load+1", "some id", number)
        assert found.forecast == FORECASTS[number] and found.intervals == INTERVALS[number].tolist()
    without = Receipts(KEY).sign(OF, "load+1", "some id", FORECASTS, np.empty((3, 0)))
    assert [Receipts(KEY).verify(text).intervals for text in without] == [[]] * 3
    assert len({*signed, *without}) == 6


def test_any_change_of_any_character_is_found(signed):
    """Also of the bits that base64 does not need, and of the length: each is unknown, or no receipt at all."""
    receipts, text = Receipts(KEY), signed[0]
    alphabet = string.ascii_letters + string.digits + "-_"
    changed = [text[:at] + other + text[at + 1 :] for at in range(len(text)) for other in alphabet if other != text[at]]
    changed += [text[:end] for end in range(len(text))] + [f"{text}{other}" for other in (*alphabet, "=", "\n", " ")]
    for one in changed:
        try:
            assert receipts.verify(one) is None, one
        except ValueError:
            continue


def test_another_key_signs_otherwise(signed):
    """Though it differs in one character; a key may have any."""
    other = Receipts("\udcff" * 32)
    assert other.verify(other.sign(OF, "load+1", "an id", FORECASTS, INTERVALS)[0])
    assert [Receipts(f"{KEY[1:]}l").verify(text) for text in signed] == [None] * 3


@pytest.mark.parametrize("text", ["", "a", "AAAA", "é" * 80, "\ud800" * 80, "+/" * 40, "A" * 81, " " * 80, "\0" * 80])
def test_other_texts_are_no_receipts(text):
    """They raise an error of their own."""
    with pytest.raises(ValueError, match=r"."):
        Receipts(KEY).verify(text)
