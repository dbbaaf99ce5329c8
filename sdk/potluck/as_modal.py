"""Stands for the module `modal`, at /app in the image of a program that was started with `--as modal`."""

from potluck.modal import take_name

take_name()
