"""An image whose build asks for a GPU."""

import potluck

app = potluck.App("made-with-a-gpu")

LOOK = (
    "import os; open('/seen', 'w').write(' '.join([os.environ['CUDA_VISIBLE_DEVICES'], *sorted(os.listdir('/dev'))]))"
)

base = potluck.Image.local_python().shell(["/opt/python/bin/python3", "-c"])


@app.function(image=base.run_commands(LOOK, gpu="H100"))
def seen() -> str:
    with open("/seen") as file:
        return file.read()


@app.function(image=base.run_commands("print('never')", gpu="B200"))
def never() -> None: ...
