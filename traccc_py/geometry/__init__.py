"""Detectors: surfaces, layers, navigation bins, digitisation, field."""

from traccc_py.geometry.builders import build_detector, detector_names
from traccc_py.geometry.detector import Detector
from traccc_py.geometry.detray.read import read_detray
from traccc_py.geometry.detray.write import write_detray
from traccc_py.geometry.records import DetectorArrays
from traccc_py.geometry.trackml import read_trackml_detector

__all__ = [
    "Detector",
    "DetectorArrays",
    "build_detector",
    "detector_names",
    "read_detray",
    "read_trackml_detector",
    "write_detray",
]
