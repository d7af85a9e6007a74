"""couriertls - TLS for programs that know nothing of it

    couriertls -server -tcpd [-user=U] PROGRAM [ARGUMENT...]     behind couriertcpd: see `single`
    couriertls -server -remotefd=N -localfd=N -statusfd=N -printx509=N   for STLS: the same
    couriertls -host=H -port=P [-protocol=pop3] [-verify=DOMAIN] the client's side: see `client`
    couriertls -server -relay [-user=U]                          ours, for many: see `keeper`
    couriertls -check                                            ours: what is wrong, if anything

All options are in `options`, all settings in `settings`. PROGRAM finds the client on descriptors 0
and 1, and TLS_CONNECTED_PROTOCOL and TLS_SUBJECT_... in its environment (see `peer`).

Exits 0 when the connection is over, 1 after an error, with one line on descriptor 2 or -statusfd.
Reference: couriertcpd.md 12.

Nothing here imports ssl until it is needed: a listener loads the programs in its command line.
"""

from __future__ import annotations

import os

from courierchain import log
from courierchain.refusal import Refused
from couriertls.options import Options, parse


def main(argv: list[str], env: dict[str, str]) -> int:
    try:
        options = parse(argv)
        if options.check:
            return check(env)
        if options.relay:
            return relay(options, env)
        from couriertls.single import Single

        return Single(options, env).run()
    except Refused as why:
        log.plain(str(why))
        return 1
    except ValueError as why:  # of the settings that all programs have
        log.err(f"couriertls: {why}")
        return 1


def check(env: dict[str, str]) -> int:
    """Write what there is to say on descriptor 1; 1 if there is an error."""
    from couriertls import certificates

    lines = certificates.check(env)
    os.write(1, os.fsencode("".join(f"{line}\n" for line in lines)))
    return int(any(line.startswith("ERR") for line in lines))


def relay(options: Options, env: dict[str, str]) -> int:
    from couriertls.keeper import Keeper

    return Keeper(options, env).run()
