"""A node's place on a private mesh: which one, its certificate, who else is known. Files for the owner alone."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TypeVar

import msgspec

from potluck.errors import AlreadyExistsError, InvalidError
from potluck_ledger import membership
from potluck_ledger.keys import KeyFileError, PrivateKey, load_or_create
from potluck_ledger.membership import ROLES, Chain, Member, MembershipError, check_chain
from potluck_ledger.roster import RosterState

PSK_BYTES = 32
NAME_MAX = 32

_T = TypeVar("_T")


class MeshFile(msgspec.Struct, frozen=True):
    """`id` is the peer id of the mesh's key, `psk` what every connection is locked with, `chain` our certificate."""

    name: str
    id: str
    psk: bytes
    chain: Chain
    bootstrap: tuple[str, ...] = ()


class MeshFolder:
    """Below a node's data folder. Methods raise `InvalidError` for files that cannot be used."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "mesh"

    def load(self) -> MeshFile | None:
        """None for a node that is on no private mesh."""
        path = self._folder / "mesh.json"
        return self._read(path, MeshFile) if path.exists() else None

    def key(self) -> PrivateKey | None:
        """The mesh's key, which its founder alone has."""
        path = self._folder / "mesh.key"
        try:
            return load_or_create(path) if path.exists() else None
        except KeyFileError as error:
            raise InvalidError("The key of the mesh cannot be used.", why=str(error)) from None

    def roster(self) -> RosterState:
        path = self._folder / "roster.json"
        return self._read(path, RosterState) if path.exists() else RosterState()

    def keep_roster(self, state: RosterState) -> None:
        """On disk when this returns."""
        self._write("roster.json", state)

    def create(self, name: str, key: PrivateKey, own_name: str, now_us: int) -> MeshFile:
        """Found a mesh, of which this node's key is the first member, in all roles. Raises `AlreadyExistsError`."""
        if not 0 < len(name) <= NAME_MAX or not all(each.isalnum() or each in "-_." for each in name):
            raise InvalidError(
                f"{name!r} is not a name for a mesh.", fix=f"Use up to {NAME_MAX} letters, digits, '-', '_' and '.'."
            )
        self.check_free()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mesh = load_or_create(self._folder / "mesh.key")
        member = Member(mesh.peer, key.peer, own_name, ROLES, now_us)
        chain = (membership.sign(mesh, membership.MEMBER_KIND, member),)
        return self._keep(MeshFile(name, mesh.peer, secrets.token_bytes(PSK_BYTES), chain))

    def join(self, file: MeshFile, peer: str, now_us: int) -> MeshFile:
        """Keep what a token and its issuer gave. Raises `AlreadyExistsError`, `InvalidError`."""
        self.check_free()
        try:
            member = check_chain(file.chain, file.id, now_us)[0]
        except MembershipError as error:
            raise InvalidError("The certificate does not hold.", why=str(error)) from None
        if member.peer != peer:
            raise InvalidError("The certificate is another node's.")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._keep(file)

    def leave(self) -> None:
        """Be on no private mesh. The mesh's key is kept beside, if it was here: without it nobody can mend the mesh."""
        if not self._folder.exists():
            raise InvalidError("This node is on no private mesh.")
        kept = self._folder.with_name(f"left-mesh-{secrets.token_hex(4)}")
        self._folder.rename(kept)

    def check_free(self) -> None:
        """Raises `AlreadyExistsError` for a node that is on a mesh."""
        found = self.load()
        if found:
            raise AlreadyExistsError(
                f"This node is on the mesh {found.name} already.",
                fix="Leave it first: potluck mesh leave. Or be on both: potluck --on NAME join TOKEN",
            )

    def _keep(self, file: MeshFile) -> MeshFile:
        self._write("mesh.json", file)
        return file

    def _write(self, name: str, value: msgspec.Struct) -> None:
        fresh = self._folder / f"{name}.new"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(value))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._folder / name)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _read(self, path: Path, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidError(f"{path} cannot be used.", why=str(error), fix="Restore it from a backup.") from None
