"""hashpolicy - is a stored hash what PASSWORD_SCHEME asks for?

    is_due(stored, secret, policy)    whether a login should have it replaced

Prefix and numbers tell, so a login can afford the question: nothing is computed, and of passlib
nothing imported. policy is that of `newhash`. Its numbers are lower bounds: a hash of the scheme
with as many rounds, or more, is kept, and any number is where the policy names none.

A form of SCRAM's is what SCRAM needs, too: another form would keep its user's program out. So only
one of the same name, with more rounds, may take its place.
"""

from __future__ import annotations

from courierchain import newhash, passwords, scram

# How the forms of a scheme begin, and which of the policy's numbers come then, in this order.
SCHEMES: dict[str, tuple[tuple[bytes, ...], tuple[str, ...]]] = {
    "argon2": ((b"$argon2id$v=19$",), ("memory_cost", "time_cost", "parallelism")),
    "bcrypt": ((b"$2a$", b"$2b$", b"$2y$"), ("rounds",)),
    "pbkdf2_sha256": ((b"$pbkdf2-sha256$",), ("rounds",)),
    "pbkdf2_sha512": ((b"$pbkdf2-sha512$",), ("rounds",)),
    "scrypt": ((b"$scrypt$",), ("rounds", "block_size", "parallelism")),
    "sha256_crypt": ((b"$5$",), ("rounds",)),
    "sha512_crypt": ((b"$6$",), ("rounds",)),
    "yescrypt": ((b"$y$",), ("rounds",)),
    "$1$": ((b"$1$",), ()),
}
ALIASES = {("argon2", "rounds"): "time_cost"}  # passlib's
SHA_ROUNDS = 5000  # of $5$ and $6$ where none are named (crypt(5))
DIGITS = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # crypt(3)'s


def is_due(stored: bytes, secret: bytes, policy: str) -> bool:
    """Raises newhash.CannotMake for a policy that is none."""
    if not policy:
        return False  # Courier's rule: what there is decides
    name = policy.split()[0]
    form = scram.stored_secret(stored)
    if form and newhash.SCRAM.get(name) != form.algorithm:
        return False
    if name == "bcrypt" and len(secret) > newhash.BCRYPT_SEES:
        return False
    return not is_kept(stored, policy)


def is_kept(stored: bytes, policy: str) -> bool:
    """Whether it is of the scheme, with as many rounds. Raises newhash.CannotMake."""
    name, *words = policy.split()
    least = newhash.numbers(policy, words)
    if name.encode() in newhash.COURIER:
        return stored.upper().startswith(b"{%s}" % name.encode())
    if name in newhash.SCRAM:
        form = scram.stored_secret(stored)
        of_name = form is not None and form.algorithm == newhash.SCRAM[name]
        rounds = least.get("rounds", scram.LEAST_ROUNDS)
        return of_name and form is not None and form.rounds >= rounds
    prefixes, names = SCHEMES.get(name, ((), ()))
    stored = bare(stored)
    prefix = next((prefix for prefix in prefixes if stored.startswith(prefix)), None)
    if prefix is None:
        return False
    found = dict(zip(names, numbers(name, stored[len(prefix) :]), strict=False))
    for option, number in least.items():
        option = ALIASES.get((name, option), option)
        if name == "yescrypt":
            number = yescrypt_cost(newhash.gensalt(name, b"$y$", number)[len(prefix) :])
        if option in found and found[option] < number:
            return False
    return True


def bare(stored: bytes) -> bytes:
    """Without the {CRYPT}, or its like, in front."""
    name, brace, form = stored[1:].partition(b"}")
    is_contained = stored.startswith(b"{") and brace and name.upper() in passwords.CONTAINERS
    return form if is_contained else stored


def numbers(name: str, rest: bytes) -> list[int]:
    """The numbers of a form, of which the prefix is cut off, in the order of SCHEMES."""
    if name == "yescrypt":
        return [yescrypt_cost(rest)]
    if name in ("sha256_crypt", "sha512_crypt") and not rest.startswith(b"rounds="):
        return [SHA_ROUNDS]
    return [int(digits[:9]) for digits in rest.translate(passwords.DIGITS_ONLY).split()]


def yescrypt_cost(rest: bytes) -> int:
    """What computing it takes, N * r, of `j9T$...`: flavour, log2 of N less 1, r less 1."""
    size, blocks = (max(0, DIGITS.find(digit)) for digit in rest[1:3].ljust(2, b"."))
    return (2 << size) * (blocks + 1)
