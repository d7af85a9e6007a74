"""The listener's side of the TLS relay, with a test in the place of the relay."""

from __future__ import annotations

import socket

from couriertcpd.arrival import Arrival
from couriertcpd.encryption import Relay


def test_f_net_3_an_event_of_a_closed_socket_fails_no_handshake_of_another():
    """Its number may have been given to a new one in the same turn of the loop."""
    watched, lost = {}, []
    relay = Relay("/nowhere/couriertls", None, {}, on_demand=False)
    relay.channel, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    relay.serve(
        lambda sock, callback, events: watched.update({sock: callback}),
        lambda sock: watched.pop(sock),
        lambda arrival: None,
        lost.append,
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        arrival = Arrival(*listening.accept())
    relay.take(arrival)
    (stale,) = [callback for sock, callback in watched.items() if sock is not relay.channel]
    stale()
    assert (relay.waiting, lost) == (1, [])
    _, descriptors, _, _ = socket.recv_fds(far, 1000, 2)
    for descriptor in descriptors:
        socket.close(descriptor)
    stale()
    assert (relay.waiting, lost) == (0, [arrival])
    for end in (client, far, relay.channel):
        end.close()
