"""A client of another version: what it sends, and the tensors that it knows.

`data/compact_request.http.gz` is the body of the request that the client of commit 6d6842b sends over HTTP, with the
compact tensor, for the event that comes with the package. It must never be made anew.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

#: Type in Triton's words and shape of each tensor that the client knows.
KNOWN_OUTPUTS = {
    "TRK_PARAMS": ("FP32", (-1, 8)),
    "MEASUREMENTS": ("FP32", (-1, 6)),
    "COVARIANCES": ("FP32", (-1, 25)),
    "GEOMETRY_IDS": ("INT64", (-1,)),
    "STAGE_TIMES": ("FP32", (-1,)),
    "TRK_PERIGEE": ("FP32", (-1, 5)),
    "TRK_COVARIANCES": ("FP32", (-1, 15)),
    "TRK_SUMMARY": ("INT32", (-1, 2)),
}
LARGEST_VERSION = 2  #: of `protocol_version`, above which the client refuses a server

_BODY = Path(__file__).parent / "data" / "compact_request.http.gz"


class OldRequest(NamedTuple):
    """What the client sends."""

    body: bytes
    header_length: int  # of the JSON part [bytes]

    @property
    def header(self) -> dict:
        return json.loads(self.body[: self.header_length])

    @property
    def outputs(self) -> list[str]:
        return [output["name"] for output in self.header["outputs"]]

    @property
    def cells(self) -> np.ndarray:
        return np.frombuffer(self.body[self.header_length :], np.uint8).copy()


def old_request() -> OldRequest:
    body = gzip.decompress(_BODY.read_bytes())
    return OldRequest(body, body.index(b'"}}') + len(b'"}}'))
