"""Volumes: written by a function, read by the program, mounted in part and read-only."""

import io
import os

import modal

app = modal.App("example-storing")
volume = modal.Volume.from_name("example-storing", create_if_missing=True, version=2)


@app.function(volumes={"/data": volume})
def write(name: str, text: str) -> int:
    os.makedirs("/data/deep", exist_ok=True)
    with open(f"/data/deep/{name}", "w") as file:
        file.write(text)
    volume.commit()
    return len(os.listdir("/data/deep"))


@app.function(volumes={"/part": volume.with_mount_options(read_only=True, sub_path="/deep")})
def read(name: str) -> str:
    with open(f"/part/{name}") as file:
        return file.read()


@app.local_entrypoint()
def main():
    print("files:", write.remote("one.txt", "first"), write.remote("two.txt", "second"))
    print("read:", read.remote("two.txt"))
    print("listed:", sorted(entry.path for entry in volume.listdir("/deep")))
    print("here:", b"".join(volume.read_file("deep/one.txt")).decode())
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"third"), "/three.txt")
    volume.copy_files(["three.txt"], "deep")
    volume.remove_file("/deep/one.txt")
    print("then:", sorted(entry.path for entry in volume.iterdir("/") if entry.type == modal.volume.FileEntryType.FILE))
