"""Files on their way into a volume: staged on disk until the change that puts them, or until whoever sent them left."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path

from potluck.errors import InvalidError, StoreFullError
from potluck.wire import volumes as messages
from potluck_images.tree import HostFile, Node, Text, Tree


class Uploads:
    """`bytes_max` bounds what one asker has staged. Blocks; one thread at a time for each asker."""

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder, self._bytes_max = folder, bytes_max
        self._staged: Counter[str] = Counter()
        shutil.rmtree(folder, ignore_errors=True)

    def add(self, asker: str, request: messages.StageData) -> None:
        """Raises `InvalidError`, `StoreFullError`."""
        if len(request.data) > messages.BLOCK_BYTES or not 0 <= request.file < messages.OPERATIONS_MAX:
            raise InvalidError("A piece of a file is too large, or there are too many files.")
        if self._staged[asker] + len(request.data) > self._bytes_max:
            raise StoreFullError(
                "There is no room to take the files.", fix="Upload less at once, or raise `store_gib`."
            )
        folder = self._of(asker, request.upload)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with (folder / str(request.file)).open("ab") as file:
                file.write(request.data)
        except OSError as error:
            raise StoreFullError("The files cannot be taken.", why=str(error), fix="Make room.") from None
        self._staged[asker] += len(request.data)

    def tree(self, asker: str, upload: str, operations: tuple[messages.PutFile, ...]) -> Tree:
        """The staged files, each under its number."""
        tree, folder = Tree(), self._of(asker, upload)
        for each in operations:
            path = folder / str(each.file)
            node: Node = HostFile(path, path.stat().st_size, each.executable) if path.exists() else Text(b"")
            tree.put(str(each.file), node)
        return tree

    def done(self, asker: str, upload: str) -> None:
        """It is in the store."""
        folder = self._of(asker, upload)
        if folder.exists():
            self._staged[asker] -= sum(path.stat().st_size for path in folder.iterdir())
            shutil.rmtree(folder, ignore_errors=True)

    def left(self, asker: str) -> None:
        if self._staged.pop(asker, None) is not None:
            shutil.rmtree(self._place(asker), ignore_errors=True)

    def _of(self, asker: str, upload: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{8,64}", upload):
            raise InvalidError("An upload has a name of 8 to 64 hex digits.")
        return self._place(asker) / upload

    def _place(self, asker: str) -> Path:
        return self._folder / hashlib.sha256(asker.encode()).hexdigest()[:32]
