"""Settings of the models that label spacepoints: those of the chain, with one graph for the whole and for its steps."""

from __future__ import annotations

from traccc_py.backend.settings import ModelSettings
from traccc_py.config import ChainConfig, read_config
from traccc_py.device.base import Device
from traccc_py.pipeline.label_steps import LabelSteps
from traccc_py.pipeline.labelling import SpacepointLabeller

__all__ = ["label_config", "try_labels"]


def label_config(settings: ModelSettings) -> ChainConfig:
    """Return the settings of the finder of candidates; with an ensemble the embedding makes all graphs."""
    config = read_config(settings.config)
    return config.with_settings({"graph.constructor": "metric"}) if settings.exatrkx_ensemble else config


def try_labels(settings: ModelSettings, device: Device) -> None:
    """Label an example, so that all settings are tried out and the kernels compiled.

    Raises
    ------
    ConfigError
        If weights can't be read, or have no embedding.
    GeometryError
        If they are for another detector.
    """
    detector, config = settings.detector.load(), label_config(settings)
    SpacepointLabeller(detector, config, device).warm_up()
    if settings.exatrkx_ensemble:
        LabelSteps(detector, config, device).warm_up()
