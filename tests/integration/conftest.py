"""Samples that several files of tests read."""

import pytest
from typer.testing import CliRunner


@pytest.fixture(scope="session")
def collider_run(reference_data, tmp_path_factory):
    """Return ColliderML's display events as Parquet, and what `run` made of them."""
    pytest.importorskip("pyarrow")
    from tests.colliderml import write_sample
    from traccc_py import build_detector
    from traccc_py.cli.app import app

    folder = tmp_path_factory.mktemp("colliderml")
    sample = write_sample(reference_data / "colliderml", folder / "sample", build_detector("colliderml"))
    words = ["run", str(sample), "--detector", "colliderml", "--output", str(folder / "out"), "--format", "parquet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    return sample, folder / "out"
