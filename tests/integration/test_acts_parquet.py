"""Acts's own reader takes our Parquet files, where pyacts is installed (it is large, and in no extra)."""

import subprocess
import sys

import pytest

pytest.importorskip("pyarrow")

# In a process of its own: a sequencer that fails ends the process.
READ = """
import sys
import acts
import acts.arrow
import acts.examples
from acts.examples.arrow import ColliderMLRelease1InputConverter, ParquetReader

folders, schemas = {}, {}
for name, folder, schema in (
    ("tracks", sys.argv[2], acts.arrow.trackSchema()),
    ("tracker_hits", sys.argv[1] + "/tracker_hits", acts.arrow.simHitSchema()),
    ("particles", sys.argv[1] + "/particles", acts.arrow.particleSchema()),
):
    folders[name], schemas[name] = folder, schema


class Count(acts.examples.IAlgorithm):
    def __init__(self):
        super().__init__("Count", acts.logging.WARNING)
        self.particles = acts.examples.ReadDataHandle(self, acts.examples.SimParticleContainer, "Particles")
        self.particles.initialize("sim_particles")

    def execute(self, context):
        print("event", context.eventNumber, len(self.particles(context.eventStore)), flush=True)
        return acts.examples.ProcessCode.SUCCESS


sequencer = acts.examples.Sequencer(numThreads=1, logLevel=acts.logging.WARNING)
sequencer.addReader(
    ParquetReader(level=acts.logging.WARNING, inputDir="/", collections=folders, expectedSchemas=schemas)
)
sequencer.addAlgorithm(
    ColliderMLRelease1InputConverter(
        level=acts.logging.WARNING,
        inputParticlesTable="particles",
        inputHitsTable="tracker_hits",
        outputParticles="sim_particles",
    )
)
sequencer.addAlgorithm(Count())
sequencer.run()
"""


def test_the_reader_of_acts_takes_hits_particles_and_tracks(collider_run):
    pytest.importorskip("acts")
    sample, output = collider_run
    done = subprocess.run(
        [sys.executable, "-c", READ, str(sample), str(output / "tracks")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    lines = [line for line in done.stdout.splitlines() if line.startswith("event ")]
    assert lines == ["event 0 46", "event 1 53"]
