"""Shares of limits and turns of threads, by random sequences of what owners take, give back and use."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.owners import owner_of
from service.work.shares import N_KNOWN, SMALL, Share, Turns

limits = st.integers(1, 600)
takes = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30), st.booleans()), max_size=200)


@given(limit=limits, takes=takes)
def test_who_holds_nothing_is_refused_only_while_many_hold_something(limit, takes):
    """Whatever owners take and give back, a newcomer finds a place while fewer than eight of them hold any."""
    share, held = Share(limit), dict.fromkeys(range(41), 0)
    for owner, amount, gives_back in takes:
        for _ in range(amount):
            if gives_back and held[owner]:
                share.take(owner, -1)
                held[owner] -= 1
            elif not gives_back and share.has_room(owner):
                share.take(owner)
                held[owner] += 1
        assert share.taken == sum(held.values()) <= limit
        assert max(held.values()) <= share.largest
        assert sum(max(0, n - share.small) for n in held.values()) <= share.largest
        holders = sum(n > 0 for n in held.values())
        assert share.has_room("newcomer") or holders >= min(8, limit // 4)
    assert share._held == {owner: n for owner, n in held.items() if n}


@given(limit=st.integers(1000, 10**9), parts=st.lists(st.tuples(st.integers(0, 40), st.floats(0, 1)), max_size=200))
def test_a_small_amount_of_bytes_fits_while_few_hold_any(limit, parts):
    """A newcomer gets up to a thirty-second of the bytes while fewer than seven owners hold any."""
    share = Share(limit)
    for owner, part in parts:
        if share.has_room(owner, amount := int(part * limit)):
            share.take(owner, amount)
        assert share.taken <= limit
        assert share.has_room("newcomer", limit // SMALL) or len(share._held) >= 7


def test_one_owner_has_three_quarters_and_a_newcomer_always_finds_a_place():
    """The figures of the README: one greedy owner of 64 places has 48, and eight more have two each."""
    share = Share(64)
    for owner in ["greedy"] * 64 + [number for number in range(20) for _ in range(5)]:
        if share.has_room(owner):
            share.take(owner)
    assert share._held == {"greedy": 48, **dict.fromkeys(range(8), 2)}


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
    found = Turns().order(items, lambda one: one.size)
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
