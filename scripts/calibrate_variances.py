"""Make the measurement-variance table of a detector and write it beside the package's detectors.

Usage: python scripts/calibrate_variances.py odd odd-2024 [n_particles]
"""

from __future__ import annotations

import sys
import time

import numpy as np

from traccc_py.geometry import build_detector
from traccc_py.simulation.calibration import CalibrationConfig, calibrate_variances, write_calibration


def main() -> None:
    """Calibrate, write, print sigmas."""
    name, digitization = sys.argv[1:3]
    detector = build_detector(name, digitization=digitization)
    config = CalibrationConfig(n_particles=int(sys.argv[3])) if len(sys.argv) > 3 else CalibrationConfig()  # noqa: PLR2004
    start = time.perf_counter()
    result = calibrate_variances(detector, config)
    write_calibration(detector, result, config)
    print(f"{result.n_clusters[:, 0].sum()} clusters in {time.perf_counter() - start:.0f} s -> {detector.variance_path}")
    for design, design_name in enumerate(detector.design_names):
        for axis in range(2):
            sigma = np.sqrt(result.variances[design, axis, 1:]) * 1e3
            shown = " ".join(f"{s:.1f}" for s in sigma[: max(1, np.count_nonzero(sigma))])
            print(f"{design_name} loc{axis}: sigma [um] by cluster size: {shown}")


if __name__ == "__main__":
    main()
