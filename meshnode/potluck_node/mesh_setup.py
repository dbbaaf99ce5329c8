"""`python -m potluck_node.mesh_setup create|join|leave …`: what is done to a node's membership while it does not run.

Prints the outcome as JSON, or an error as the node itself would.
"""

from __future__ import annotations

import sys
import time

import msgspec
import trio

from potluck import paths, wire
from potluck.errors import ConnectionError, Error, InvalidError
from potluck.wire import membership as messages
from potluck_ledger import membership as rules
from potluck_ledger.keys import PrivateKey, load_or_create
from potluck_node import config, mesh_token
from potluck_node.home import Home
from potluck_node.mesh_folder import MeshFile, MeshFolder
from potluck_node.transport.interface import NotAdmittedError, PeerUnreachableError, Stream


class Joiner:
    """An `Admission` for one introduction: shows a token, and takes the certificate."""

    def __init__(self, token: mesh_token.Token, peer: str, name: str) -> None:
        self._token, self._peer, self._name = token, peer, name
        self.welcome: messages.Welcome | None = None

    def admits(self, peer: str) -> bool:
        return self.welcome is not None

    async def introduce(self, stream: Stream) -> None:
        token = self._token
        proof = PrivateKey(token.seed).sign(rules.join_message(token.mesh, self._peer))
        await stream.send(wire.encode(messages.Join(token.invitation, proof, self._name, token.chain)))
        answer: messages.Answer = wire.decode(await stream.receive(), messages.Answer)
        if isinstance(answer, messages.Refuse):
            raise NotAdmittedError(answer.why)
        if not isinstance(answer, messages.Welcome):
            raise NotAdmittedError("it answered something else")
        self.welcome = answer

    async def answer(self, stream: Stream) -> None:
        raise NotAdmittedError("this node is about to join")


async def ask(token: mesh_token.Token, key: PrivateKey, name: str) -> messages.Welcome:
    """Show the token to whoever made it. Raises `potluck.errors.Error`."""
    from potluck_node.transport.libp2p import Libp2pTransport

    joiner = Joiner(token, key.peer, name)
    node = Libp2pTransport(key, (), (), lambda key, value: None, psk=token.psk, lane=False, admission=joiner)
    failures = []
    async with trio.open_nursery() as nursery:
        await nursery.start(node.serve)
        for address in token.addresses:
            try:
                await node.connect(address)
                break
            except PeerUnreachableError as error:
                failures.append(str(error))
        nursery.cancel_scope.cancel()
    if joiner.welcome is None:
        raise ConnectionError(
            f"The mesh {token.name} does not take this node.",
            why="; ".join(failures),
            fix="The node that made the token must run and be reachable. Or ask for another token.",
        )
    return joiner.welcome


def join(text: str, own_name: str = "") -> messages.Done:
    """Raises `potluck.errors.Error`."""
    token = mesh_token.read(text)
    home = Home(paths.home())
    try:
        folder, key = MeshFolder(home.path), load_or_create(home.key)
        name = own_name or config.load(home.path, {}).name
        folder.check_free()
        welcome = trio.run(ask, token, key, name)
        file = MeshFile(token.name, token.mesh, token.psk, welcome.member, token.addresses)
        folder.join(file, key.peer, _now_us())
        member = rules.read_member(welcome.member[0])[0]
        return messages.Done(token.name, token.mesh, member.roles)
    finally:
        home.close()


def create(name: str, own_name: str = "") -> messages.Done:
    """Raises `potluck.errors.Error`."""
    home = Home(paths.home())
    try:
        own_name = own_name or config.load(home.path, {}).name
        file = MeshFolder(home.path).create(name, load_or_create(home.key), own_name, _now_us())
        return messages.Done(file.name, file.id, rules.ROLES)
    finally:
        home.close()


def leave() -> messages.Done:
    """Raises `potluck.errors.Error`."""
    home = Home(paths.home())
    try:
        folder = MeshFolder(home.path)
        file = folder.load()
        folder.leave()
        return messages.Done(file.name if file else "", file.id if file else "", ())
    finally:
        home.close()


def _now_us() -> int:
    return time.time_ns() // 1000


def main() -> None:
    """One of the three; the token of `join` comes from standard input, since arguments can be seen by others."""
    try:
        match sys.argv[1:]:
            case ["create", name, *own]:
                done = create(name, *own)
            case ["join", *own]:
                done = join(sys.stdin.read(), *own)
            case ["leave"]:
                done = leave()
            case _:
                raise InvalidError("create NAME [OWN NAME], join [OWN NAME], or leave.")
    except Error as error:
        words = {"kind": error.kind, "what": error.what, "why": error.why, "fix": error.fix}
        sys.stdout.write(msgspec.json.encode(words).decode())
        raise SystemExit(1) from None
    sys.stdout.write(msgspec.json.encode(done).decode())


if __name__ == "__main__":
    main()
