"""arrival - an accepted connection on its way to the process that serves it

It may have to wait for its proxy's header (`proxies`) or its TLS handshake (`encryption`), each of
which changes what is known of it; then a process is told of it, over a channel or by a fork.
"""

from __future__ import annotations

import os
from socket import AF_INET6, inet_ntop, socket

from couriertcpd.listen import address_bytes, peer_name

Address = tuple[str, int]  # as in TCPREMOTEIP, and the port
Variables = dict[str, str]


class Arrival:
    """client      what the session will have on descriptors 0 and 1
    remote, local  the ends of the connection, as the session is told
    address        16 bytes of the remote one, by which the limits count
    variables      for the session alone: of its access record, its proxy, its TLS connection
    number         of the connection in a front, see `front`
    login          what the client has sent there; None if it has a login program of its own
    """

    __slots__ = ("client", "remote", "local", "address", "variables", "number", "login")

    client: socket
    remote: Address
    local: Address
    address: bytes
    variables: Variables
    number: int
    login: bytes | None

    def __init__(self, client: socket, peer: tuple):
        """`peer`: as accept() gives it. Raises OSError."""
        here = client.getsockname()
        self.client = client
        self.address = address_bytes(peer)
        self.remote = (inet_ntop(AF_INET6, self.address), peer[1])
        self.local = (peer_name(here), here[1])
        self.variables = {}
        self.number = 0
        self.login = None

    @classmethod
    def known(
        cls, address: bytes, remote: Address, local: Address, variables: Variables
    ) -> Arrival:
        """One whose connection somebody else has just now."""
        arrival = cls.__new__(cls)
        arrival.address = address
        arrival.remote, arrival.local = remote, local
        arrival.variables = variables
        arrival.number = 0
        arrival.login = None
        return arrival


def announce(arrival: Arrival) -> bytes:
    """What a worker is told with a connection."""
    ends = [str(part) for part in (*arrival.remote, *arrival.local)]
    assignments = [f"{name}={value}" for name, value in arrival.variables.items()]
    return os.fsencode("\0".join(ends + assignments))


def announced(message: bytes) -> tuple[Address, Address, Variables]:
    remote, port, local, local_port, *assignments = os.fsdecode(message).split("\0")
    pairs = (assignment.partition("=") for assignment in assignments)
    variables = {name: value for name, _, value in pairs}
    return (remote, int(port)), (local, int(local_port)), variables
