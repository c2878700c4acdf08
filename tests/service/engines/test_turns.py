"""Whose turn it is to accept a connection."""

from __future__ import annotations

import socket

import uvicorn

from service.engines.turns import ABSENT, PATIENCE, TurnServer, create_shares


def test_the_turn_is_of_the_process_with_the_fewest_connections(monkeypatch):
    """Of several, of the one that has accepted the fewest; none of a process that ends, hangs or was never there."""
    shares, now = create_shares(4), [1000.0]
    monkeypatch.setattr("service.engines.turns.monotonic", lambda: now[0])
    servers = [TurnServer(uvicorn.Config("none"), shares, number) for number in range(3)]
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):

        def whose_turn():
            return [number for number, server in enumerate(servers) if server._is_next(listening)]

        def state(*counts):
            for share, (alive, n_open, n_accepted) in zip(shares, counts, strict=False):
                share.alive, share.n_open, share.n_accepted = alive, n_open, n_accepted

        state((1000, 3, 9), (1000, 2, 9), (1000, 2, 8))
        assert whose_turn() == [2]
        now[0] += PATIENCE / 2
        assert whose_turn() == [2]
        now[0] += PATIENCE
        assert whose_turn() == [0, 1, 2], "it waits too long"
        shares[1].n_accepted += 1
        assert whose_turn() == [2], "another was accepted meanwhile"
        state((1000, 3, 9), (1000, 2, 9), (0, 2, 8))
        assert whose_turn()[0] == 1, "2 takes no part, but may accept if it asks"
        state((1000, 3, 9), (1000 - ABSENT, 2, 9), (0, 4, 8))
        assert whose_turn() == [0, 1]
