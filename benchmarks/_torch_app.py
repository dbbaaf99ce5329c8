"""A function whose imports take seconds: with workers that serve one input each, and with some that stay."""

import potluck

TORCH = ("torch==2.13.0+cpu", "numpy")

image = potluck.Image.local_python().pip_install(*TORCH)
app = potluck.App("torch", image=image)

with image.imports():
    import torch


@app.function(cpu=1, memory=1024, single_use_containers=True)
def fresh(size: int) -> float:
    return float(torch.ones(size).sum())


@app.function(cpu=1, memory=1024)
def warm(size: int) -> float:
    return float(torch.ones(size).sum())
