"""Shares of limits and turns of threads, by random sequences of what owners take, give back and use."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.wire.security import owner_of
from service.work.budget import RESERVED_BYTES, RESERVED_PLACES, Share
from service.work.jobs import N_KNOWN, Turns

limits = st.integers(1, 600)
takes = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30), st.booleans()), max_size=200)


@given(limit=limits, reserved=st.sampled_from((RESERVED_PLACES, RESERVED_BYTES)), takes=takes)
def test_an_owner_has_an_eighth_while_few_others_hold_anything(limit, reserved, takes):
    """Whatever owners take and give back: while at most three others hold places, an owner has an eighth of them.

    Of bytes it has an eighth beside two others. No owner ever holds more than what is open.
    """
    share, held = Share(limit, reserved), dict.fromkeys(range(41), 0)
    for owner, amount, gives_back in takes:
        for _ in range(amount):
            if gives_back and held[owner]:
                share.take(owner, -1)
                held[owner] -= 1
            elif not gives_back and share.has_room(owner):
                share.take(owner)
                held[owner] += 1
        assert share.taken == sum(held.values()) <= limit
        assert max(held.values()) <= share.largest == limit - reserved * (limit // 8)
        for owner, n in [*held.items(), ("newcomer", 0)]:
            others = sum(m > 0 for m in held.values()) - (n > 0)
            if others <= reserved and n < limit // 8:
                assert share.has_room(owner, limit // 8 - n)
    assert share._held == {owner: n for owner, n in held.items() if n}


@given(limit=st.integers(1000, 10**9), parts=st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1)), max_size=50))
def test_an_eighth_of_the_bytes_fits_beside_two_others(limit, parts):
    """Two owners that take amounts of any size leave an eighth of the bytes to a third, and hold at most the limit."""
    share = Share(limit, RESERVED_BYTES)
    for owner, part in parts:
        if owner < 2 and share.has_room(owner, amount := int(part * limit)):
            share.take(owner, amount)
        assert share.taken <= limit and share.has_room("newcomer", limit // 8)


@pytest.mark.parametrize("order", ["one after another", "in turn"])
@pytest.mark.parametrize("n_others", [1, 2, 3])
def test_64_requests_get_through_512_of_others(n_others, order):
    """The figures of the README: of 512 places 64 are left to an owner beside the 512 requests of each of three."""
    share = Share(512)
    for number in range(n_others * 512):
        owner = number // 512 if order == "one after another" else number % n_others
        if share.has_room(owner):
            share.take(owner)
    assert max(share._held.values()) == (320 if order == "one after another" else ceil(320 / n_others))
    for _ in range(64):
        assert share.has_room("honest")
        share.take("honest")


def test_four_others_can_take_every_place():
    """What shares do not promise: four owners that work together leave a fifth nothing, until they give back."""
    share = Share(512)
    for owner in [number for number in range(4) for _ in range(512)]:
        if share.has_room(owner):
            share.take(owner)
    assert list(share._held.values()) == [320, 64, 64, 64] and not share.has_room("honest")


uses = st.lists(st.tuples(st.floats(0, 10), st.floats(0.01, 5)), min_size=1, max_size=5)


@given(owners=uses, data=st.data())
def test_owners_that_wait_get_equal_time(owners, data):
    """While two owners wait, neither gets more than the other by more than the longest jobs of both.

    That holds from the moment when the later one arrives, whatever the earlier one has used before.
    """
    turns, clock, used, since = Turns(), 0.0, {}, {}
    for _ in range(60):
        for number, (arrival, _) in enumerate(owners):
            if number not in used and (arrival <= clock or not number):
                used[number] = 0.0
                since[number] = dict(used)
        owner = turns.next(used)
        seconds = data.draw(st.floats(0.001, owners[owner][1]))
        turns.charge(owner, seconds)
        clock += seconds
        used[owner] += seconds
        for late, before in since.items():
            for other in before:
                gained = used[other] - before[other] - used[late]
                assert abs(gained) <= owners[other][1] + owners[late][1] + 1e-9


@dataclass
class Sized:
    owner: str
    size: int


def test_items_are_ordered_by_what_is_before_them_of_their_owner():
    """The first item of each owner comes before what another has many of, and one owner's items keep their order."""
    items = [Sized("a", 5), Sized("a", 5), Sized("a", 1), Sized("b", 1), Sized("b", 1), Sized("c", 9)]
    found = Turns().order(items)
    assert found == [items[0], items[3], items[5], items[4], items[1], items[2]]


def test_few_owners_are_remembered():
    """What a million past owners have used takes no memory."""
    turns = Turns()
    for number in range(5000):
        turns.charge(turns.next([str(number)]), 1)
    assert len(turns._times) <= N_KNOWN + 1


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("/run/kanscope.sock", "/run/kanscope.sock"),
    ],
)
def test_an_ipv6_client_is_its_network(address, owner):
    """A client has all addresses of its /64 network, so they are one owner."""
    assert owner_of(address) == owner
