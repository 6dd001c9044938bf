"""The model repository: config.pbtxt of the three models, generated from the table of tensors.

The models `traccc-gpu` (standard tensors, shape (n, columns)) and `traccc-gpu-compact` are ensembles over one core
model. They give every tensor a batch axis of one event, so that Triton's dynamic batcher passes events of any size,
even empty ones, to one call of the core (ragged batching).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from traccc_py import wire
from traccc_py.backend.settings import ModelSettings, SchedulingSettings
from traccc_py.errors import ConfigError

__all__ = ["ModelRepository"]

_MODEL_FILE = '"""The model that the server loads."""\n\n{path}from traccc_py.backend.model import TritonPythonModel\n'


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """What a repository is made of.

    Parameters
    ----------
    settings : ModelSettings
        Settings of each instance.
    scheduling : SchedulingSettings, optional
        Instances and batches.
    device : str, optional
        "cpu" or "cuda".
    fingerprint : str, optional
        Of the detector; clients find it in the parameters of the model.
    package_folder : Path, optional
        Folder of this package, if it is not installed where the server's Python processes look.
    reloads, restarts : int, optional
        Recoveries of the server so far [1], for its metrics.
    """

    settings: ModelSettings = field(default_factory=ModelSettings)
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    device: str = "cpu"
    fingerprint: str = ""
    package_folder: Path | None = None
    reloads: int = 0
    restarts: int = 0

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            msg = f"is {self.device!r}; expected 'cpu' or 'cuda'"
            raise ConfigError(msg, field="device", value=self.device)
        gpus = list(self.scheduling.gpus)
        if gpus and self.device == "cpu":
            msg = f"is {gpus}, but no GPU can be used: the device is 'cpu'"
            raise ConfigError(msg, field=SchedulingSettings.path_of("gpus"), value=gpus)

    def configs(self) -> dict[str, str]:
        """Return the content of config.pbtxt by model."""
        standard = _ensemble(self._facts(), wire.STANDARD_INPUTS, (*wire.STANDARD_OUTPUTS, wire.STAGE_TIMES))
        return {
            wire.MODEL: standard,
            wire.COMPACT_MODEL: _ensemble(self._facts(), wire.COMPACT_INPUTS, wire.OUTPUTS),
            wire.CORE_MODEL: self._core(),
        }

    def write(self, folder: Path) -> None:
        """Write the repository.

        Parameters
        ----------
        folder : Path
            Where the models go; models of the same names are replaced.
        """
        for name, config in self.configs().items():
            version = folder / name / "1"
            shutil.rmtree(folder / name, ignore_errors=True)
            version.mkdir(parents=True)
            _config_file(folder, name).write_text(config, encoding="utf-8")
            if name == wire.CORE_MODEL:
                folder_line = (
                    f"import sys\n\nsys.path.insert(0, {str(self.package_folder)!r})\n" if self.package_folder else ""
                )
                (version / "model.py").write_text(_MODEL_FILE.format(path=folder_line), encoding="utf-8")

    def write_core_config(self, folder: Path) -> None:
        """Rewrite the configuration of the core model in a repository that a server is using."""
        _config_file(folder, wire.CORE_MODEL).write_text(self._core(), encoding="utf-8")

    def _facts(self) -> dict[str, str]:
        """Return the parameters of the models that clients see: what they may want to know."""
        return {
            "protocol_version": str(wire.INPUT_VERSION),  # the name that clients of version 0.1.0 read
            wire.OUTPUT_VERSION_PARAMETER: str(wire.OUTPUT_VERSION),
            "detector": Path(self.settings.detector.label).name,
            wire.FINGERPRINT_PARAMETER: self.fingerprint,
        }

    def _core(self) -> str:
        scheduling = self.scheduling
        group = f"count: {scheduling.instances} kind: KIND_{'GPU' if self.device == 'cuda' else 'CPU'}"
        if scheduling.gpus:
            group += f" gpus: [ {', '.join(map(str, scheduling.gpus))} ]"
        wait = scheduling.queue_delay_us
        delay = f" max_queue_delay_microseconds: {wait} " if wait else " "
        inputs = (*wire.STANDARD_INPUTS, *wire.COMPACT_INPUTS)
        lines = [
            'backend: "python"',
            f"max_batch_size: {scheduling.max_batch}",
            f"dynamic_batching {{{delay}}}",
            f"instance_group [ {{ {group} }} ]",
            *_parameters(self.settings.to_parameters()),
            *_parameters({"reloads": str(self.reloads), "restarts": str(self.restarts)}),
            *(_tensor("input", spec, "allow_ragged_batch: true optional: true") for spec in inputs),
            *(_tensor("output", spec) for spec in wire.OUTPUTS),
        ]
        return "\n".join(lines) + "\n"


def _config_file(folder: Path, model: str) -> Path:
    return folder / model / "config.pbtxt"


def _ensemble(facts: Mapping[str, str], inputs: Sequence[wire.TensorSpec], outputs: Sequence[wire.TensorSpec]) -> str:
    lines = [
        'platform: "ensemble"',
        "max_batch_size: 0",
        *_parameters(facts),
        *(_tensor("input", spec, _one_event(spec)) for spec in inputs),
        *(_tensor("output", spec, _one_event(spec)) for spec in outputs),
        "ensemble_scheduling {",
        "  step [ {",
        f'    model_name: "{wire.CORE_MODEL}"',
        "    model_version: -1",
        *_maps("input", inputs),
        *_maps("output", outputs),
        "  } ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _one_event(spec: wire.TensorSpec) -> str:
    """Return the reshape that adds the batch axis."""
    return f"reshape {{ shape: [ {', '.join(map(str, (1, *spec.dims)))} ] }}"


def _tensor(direction: str, spec: wire.TensorSpec, more: str = "") -> str:
    dims = ", ".join(map(str, spec.dims))
    return f'{direction} [ {{ name: "{spec.name}" data_type: TYPE_{spec.triton_dtype} dims: [ {dims} ] {more} }} ]'


def _maps(direction: str, specs: Iterable[wire.TensorSpec]) -> list[str]:
    return [f'    {direction}_map {{ key: "{spec.name}" value: "{spec.name}" }}' for spec in specs]


def _parameters(values: Mapping[str, str]) -> list[str]:
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return [f'parameters {{ key: "{name}" value: {{ string_value: {text} }} }}' for name, text in quoted.items()]
