"""Acts's own chain on particles in files: Fatras, digitisation, seeding, Kalman filter, ambiguity resolution.

One thread; settings are those of Acts's monitoring of physics for the Open Data Detector, with pT > 0.5 GeV and 2 T.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from studies.acts_geometry import add_material, build, import_acts, without_passive
from traccc_py.geometry.digitization import Digitization
from traccc_py.geometry.variance_table import VarianceTable

_AXES = ("binX", "binY")
#: Layers that seeds are made of, as in Acts's seeding configuration for the detector: pixel barrel and inner discs.
_SEED_LAYERS = {17: (2, 4, 6, 8), 18: (2, 4, 6, 8), 16: (16, 14, 12, 10)}
#: Stage of our chain by parts of the names of Acts's algorithms.
STAGES = {
    "SpacePointMaker": "spacepoints",
    "SeedingAlgorithm": "seeding",
    "TrackParamsEstimationAlgorithm": "parameters",
    "SeedsToPrototracks": "parameters",
    "ProtoTracksToSeeds": "parameters",
    "TrackFindingAlgorithm": "finding",
    "TracksToTrajectories": "finding",
    "AmbiguityResolution": "resolution",
}


class ActsRun(NamedTuple):
    """What Acts took."""

    seconds: dict[str, float]  # processor time of an event, by stage
    n_events: int
    version: str


def digitization_json(digitization: Digitization, table: VarianceTable) -> dict[str, Any]:
    """Return designs as Acts's geometric digitisation; errors by the number of channels are those of `table`."""
    entries = []
    for k, design in enumerate(digitization.designs):
        binning = [
            {
                "bins": axis.n_channels,
                "min": axis.minimum,
                "max": axis.maximum,
                "option": "open",
                "type": "equidistant",
                "value": name,
            }
            for name, axis in zip(_AXES, design.axes, strict=True)
        ]
        rms = [[float(x) for x in np.sqrt(row[row > 0])] for row in table.variances[k]]
        variances = [{"index": axis, "rms": values} for axis, values in enumerate(rms) if values]
        geometric = {
            "digital": design.is_digital,
            "indices": [0, 1],
            "segmentation": {"binningdata": binning},
            "thickness": design.thickness,
            "threshold": design.threshold,
            "charge-smearing": {"type": "Gauss", "mean": 0.0, "stddev": design.charge_smearing},
            "variances": variances,
        }
        entries.append({"volume": design.volume, "value": {"geometric": geometric}})
    header = {"format-version": 0, "value-identifier": "digitization-configuration"}
    return {"acts-geometry-hierarchy-map": header, "entries": entries}


def _collector(acts: Any, folder: Path) -> Any:
    """Return an algorithm that writes parameters, covariances and measurements of tracks."""
    examples = acts.examples

    class Collector(examples.IAlgorithm):  # type: ignore[misc]
        def __init__(self) -> None:
            examples.IAlgorithm.__init__(self, "Collector", acts.logging.WARNING)
            self.tracks = examples.ReadDataHandle(self, examples.ConstTrackContainer, "Tracks")
            self.tracks.initialize("ambi_tracks")

        def execute(self, context: Any) -> Any:
            tracks = self.tracks(context.eventStore)
            link = examples.IndexSourceLink.fromSourceLink
            measurements = [
                [link(s.uncalibratedSourceLink).index() for s in track.trackStatesReversed if s.typeFlags.isMeasurement]
                for track in tracks
            ]
            chi2 = np.array([(track.chi2, track.nDoF) for track in tracks], np.float64).reshape(-1, 2)
            path = folder / f"event{context.eventNumber:09d}-acts.npz"
            lists = np.array([m for found in measurements for m in found], np.int64)
            offsets = np.concatenate(([0], np.cumsum([len(found) for found in measurements]))).astype(np.int64)
            parameters, covariance = np.asarray(tracks.parameters), np.asarray(tracks.covariance)
            np.savez(path, parameters=parameters, covariance=covariance, chi2=chi2, measurements=lists, offsets=offsets)
            return examples.ProcessCode.SUCCESS

    return Collector()


def run_acts(particles: Path, output: Path, n_events: int, *, with_material: bool = True, seed: int = 42) -> ActsRun:
    """Run Acts on particles.

    Parameters
    ----------
    particles : Path
        Folder of files of particles, with their ids in five columns.
    output : Path
        Folder for hits, cells, measurements and tracks.
    n_events : int
        Events, from number 0.
    with_material : bool, optional
        Modules have material.
    seed : int, optional
        Seed of the simulation.

    Returns
    -------
    ActsRun
        Times.
    """
    acts = import_acts()
    from acts.examples.simulation import ParticleSelectorConfig, addDigiParticleSelection, addDigitization, addFatras

    examples = acts.examples
    detector = without_passive()
    made = build(detector)
    output.mkdir(parents=True, exist_ok=True)
    if with_material:
        add_material(made, detector, output / "material.json")
    digitization = output / "digitization.json"
    digitization.write_text(json.dumps(digitization_json(detector.digitization, detector.variance_table)))
    np.savez(
        output / "ids.npz", acts=np.array(list(made.ids), np.uint64), ours=np.array(list(made.ids.values()), np.uint64)
    )
    field = acts.ConstantBField(acts.Vector3(0, 0, detector.b_field_z * acts.UnitConstants.T))
    random = examples.RandomNumbers(seed=seed)
    quiet = acts.logging.WARNING
    s = examples.Sequencer(events=n_events, numThreads=1, logLevel=quiet, outputDir=str(output), trackFpes=False)
    s.addReader(
        examples.CsvParticleReader(
            level=quiet, inputDir=str(particles), inputStem="particles_initial", outputParticles="particles_generated"
        )
    )
    s.addWhiteboardAlias("particles_generated_selected", "particles_generated")
    s.addWhiteboardAlias("particles", "particles_generated")
    addFatras(s, made.geometry, field, rnd=random, enableInteractions=with_material, outputDirCsv=output)
    addDigitization(s, made.geometry, field, digiConfigFile=digitization, rnd=random, outputDirCsv=output)
    u = acts.UnitConstants
    addDigiParticleSelection(
        s, ParticleSelectorConfig(pt=(0.5 * u.GeV, None), measurements=(7, None), removeNeutral=True)
    )
    _add_reconstruction(acts, s, made.geometry, field, output, detector.b_field_z)
    s.addAlgorithm(_collector(acts, output))
    begin = time.process_time()
    s.run()
    seconds = time.process_time() - begin
    from importlib.metadata import version

    return ActsRun(_stage_times(output / "timing.csv", seconds / n_events), n_events, version("pyacts"))


def _add_reconstruction(acts: Any, s: Any, geometry: Any, field: Any, output: Path, b_z: float) -> None:
    """Add seeding, finding and ambiguity resolution, with the cuts of Acts's monitoring of physics."""
    import acts.examples.reconstruction as chain

    u = acts.UnitConstants
    layers = output / "seeding.json"
    layers.write_text(json.dumps([{"volume": v, "layer": n} for v, numbers in _SEED_LAYERS.items() for n in numbers]))
    chain.addSeeding(
        s,
        geometry,
        field,
        chain.SeedFinderConfigArg(
            r=(33 * u.mm, 200 * u.mm),
            deltaR=(1 * u.mm, 300 * u.mm),
            collisionRegion=(-250 * u.mm, 250 * u.mm),
            z=(-2000 * u.mm, 2000 * u.mm),
            maxSeedsPerSpM=1,
            sigmaScattering=5,
            radLengthPerSeed=0.1,
            minPt=0.5 * u.GeV,
            impactMax=3 * u.mm,
        ),
        chain.SeedFinderOptionsArg(bFieldInZ=b_z * u.T, beamPos=(0.0, 0.0)),
        seedingAlgorithm=chain.SeedingAlgorithm.GridTriplet,
        initialSigmas=[1 * u.mm, 1 * u.mm, 1 * u.degree, 1 * u.degree, 0 * u.e / u.GeV, 1 * u.ns],
        initialSigmaQoverPt=0.1 * u.e / u.GeV,
        initialSigmaPtRel=0.1,
        initialVarInflation=[1.0] * 6,
        geoSelectionConfigFile=str(layers),
    )
    chain.addCKFTracks(
        s,
        geometry,
        field,
        chain.TrackSelectorConfig(
            pt=(0.5 * u.GeV, None), loc0=(-4 * u.mm, 4 * u.mm), nMeasurementsMin=6, maxHoles=2, maxOutliers=2
        ),
        chain.CkfConfig(
            chi2CutOffMeasurement=15.0,
            chi2CutOffOutlier=25.0,
            numMeasurementsCutOff=10,
            seedDeduplication=True,
            stayOnSeed=True,
        ),
        writeTrackSummary=False,
        writeTrackStates=False,
        writePerformance=False,
    )
    chain.addAmbiguityResolution(
        s,
        chain.AmbiguityResolutionConfig(maximumSharedHits=3, maximumIterations=100000, nMeasurementsMin=6),
        writeTrackSummary=False,
        writeTrackStates=False,
        writePerformance=False,
    )


def _stage_times(path: Path, seconds: float) -> dict[str, float]:
    """Return the times of the stages of an event: their shares of the wall time of all algorithms, of `seconds`."""
    with path.open() as file:
        rows = [(row["identifier"], float(row["time_perevent_s"])) for row in csv.DictReader(file)]
    total = sum(wall for _, wall in rows)
    found = dict.fromkeys(STAGES.values(), 0.0)
    for name, wall in rows:
        stage = next((stage for part, stage in STAGES.items() if part in name), None)
        if stage is not None:
            found[stage] += seconds * wall / total
    return found


def event_numbers(folder: Path) -> Sequence[int]:
    """Return the numbers of Acts's events in a folder."""
    return sorted(int(path.name[5:14]) for path in folder.glob("event*-acts.npz"))
