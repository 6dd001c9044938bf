"""What may happen to a file of a cache."""

import numpy as np


def _random(path):
    path.write_bytes(np.random.default_rng(1).bytes(path.stat().st_size))


def _flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "random": _random,
    "flipped": _flipped,
    "folder": _folder,
    "missing": lambda path: path.unlink(),
}
