"""The model repository: config.pbtxt of the two models, generated from the table of tensors.

`traccc-gpu` takes either kind of cells. `traccc-gpu-compact` is an ensemble of this one step that takes the compact
tensor alone. The model makes batches itself, so tensors have no batch axis.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from traccc_py import wire
from traccc_py.backend.settings import SETTINGS_FILE, ModelSettings, QueueSettings, SchedulingSettings
from traccc_py.errors import ConfigError

__all__ = ["ModelRepository"]

_MODEL_FILE = (
    '"""The model that the server loads."""\n\n{path}from traccc_py.backend.{module} import TritonPythonModel\n'
)

_CODE = {wire.MODEL: "model", wire.EXATRKX_MODEL: "exatrkx"}  #: modules of the models that are code


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """What a repository is made of.

    Parameters
    ----------
    settings : ModelSettings
        Settings of each instance.
    queue : QueueSettings, optional
        Limits of the queue and of batches of each instance.
    scheduling : SchedulingSettings, optional
        Instances.
    device : str, optional
        "cpu" or "cuda".
    fingerprint : str, optional
        Of the detector; clients find it in the parameters of the model.
    package_folder : Path, optional
        Folder of this package, if it is not installed where the server's Python processes look.
    restarts : int, optional
        Restarts of the server so far [1], for its metrics.
    """

    settings: ModelSettings = field(default_factory=ModelSettings)
    queue: QueueSettings = field(default_factory=QueueSettings)
    scheduling: SchedulingSettings = field(default_factory=SchedulingSettings)
    device: str = "cpu"
    fingerprint: str = ""
    package_folder: Path | None = None
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
        found = {wire.MODEL: self._model(), wire.COMPACT_MODEL: _ensemble(self._facts())}
        return found | ({wire.EXATRKX_MODEL: self._exatrkx()} if self.settings.exatrkx else {})

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
            if name in _CODE:
                folder_line = (
                    f"import sys\n\nsys.path.insert(0, {str(self.package_folder)!r})\n" if self.package_folder else ""
                )
                (version / "model.py").write_text(
                    _MODEL_FILE.format(path=folder_line, module=_CODE[name]), encoding="utf-8"
                )
                values = {
                    **self.settings.to_parameters(),
                    **self.queue.to_parameters(),
                    "restarts": str(self.restarts),
                }
                (version / SETTINGS_FILE).write_text(json.dumps(values, indent=1), encoding="utf-8")
            _config_file(folder, name).write_text(config, encoding="utf-8")

    def _facts(self) -> dict[str, str]:
        """Return the parameters of the models that clients see: what they may want to know."""
        return {
            "protocol_version": str(wire.INPUT_VERSION),  # the name that clients of version 0.1.0 read
            wire.OUTPUT_VERSION_PARAMETER: str(wire.OUTPUT_VERSION),
            "detector": Path(self.settings.detector.label).name,
            wire.FINGERPRINT_PARAMETER: self.fingerprint,
        }

    def _group(self) -> str:
        scheduling = self.scheduling
        group = f"count: {scheduling.instances} kind: KIND_{'GPU' if self.device == 'cuda' else 'CPU'}"
        if scheduling.gpus:
            group += f" gpus: [ {', '.join(map(str, scheduling.gpus))} ]"
        return group

    def _exatrkx(self) -> str:
        lines = [
            'backend: "python"',
            "max_batch_size: 0",
            f"instance_group [ {{ {self._group()} }} ]",
            *_parameters(self._facts()),
            _tensor("input", wire.FEATURES),
            _tensor("output", wire.LABELS),
        ]
        return "\n".join(lines) + "\n"

    def _model(self) -> str:
        group = self._group()
        inputs = (*wire.STANDARD_INPUTS, *wire.COMPACT_INPUTS)
        lines = [
            'backend: "python"',
            "max_batch_size: 0",
            f"instance_group [ {{ {group} }} ]",
            *_parameters(self._facts()),
            *(_tensor("input", spec, "optional: true") for spec in inputs),
            *(_tensor("output", spec) for spec in wire.OUTPUTS),
        ]
        return "\n".join(lines) + "\n"


def _config_file(folder: Path, model: str) -> Path:
    return folder / model / "config.pbtxt"


def _ensemble(facts: Mapping[str, str]) -> str:
    lines = [
        'platform: "ensemble"',
        "max_batch_size: 0",
        *_parameters(facts),
        *(_tensor("input", spec) for spec in wire.COMPACT_INPUTS),
        *(_tensor("output", spec) for spec in wire.OUTPUTS),
        "ensemble_scheduling {",
        "  step [ {",
        f'    model_name: "{wire.MODEL}"',
        "    model_version: -1",
        *_maps("input", wire.COMPACT_INPUTS),
        *_maps("output", wire.OUTPUTS),
        "  } ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _tensor(direction: str, spec: wire.TensorSpec, more: str = "") -> str:
    dims = ", ".join(map(str, spec.dims))
    return f'{direction} [ {{ name: "{spec.name}" data_type: TYPE_{spec.triton_dtype} dims: [ {dims} ] {more} }} ]'


def _maps(direction: str, specs: Iterable[wire.TensorSpec]) -> list[str]:
    return [f'    {direction}_map {{ key: "{spec.name}" value: "{spec.name}" }}' for spec in specs]


def _parameters(values: Mapping[str, str]) -> list[str]:
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return [f'parameters {{ key: "{name}" value: {{ string_value: {text} }} }}' for name, text in quoted.items()]
