"""The model repository: config.pbtxt of the models, generated from the table of tensors.

`traccc-gpu` takes either kind of cells. `traccc-gpu-compact` is an ensemble of this one step that takes the compact
tensor alone. The model makes batches itself, so tensors have no batch axis. If asked for there are `exatrkx`, which
labels spacepoints, and the same in six steps with an ensemble of them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from traccc_py import wire
from traccc_py.backend.settings import SETTINGS_FILE, ModelSettings, QueueSettings, SchedulingSettings
from traccc_py.errors import ConfigError
from traccc_py.wire.exatrkx import ENSEMBLE_MODEL, STEPS, Step, step_tensor

__all__ = ["ModelRepository"]

_MODEL_FILE = (
    '"""The model that the server loads."""\n\n{path}from traccc_py.backend.{module} import TritonPythonModel\n'
)

#: Modules of the models that are code.
_CODE = {
    wire.MODEL: "model",
    wire.EXATRKX_MODEL: "exatrkx",
    **{step.model: "exatrkx_steps" for step in STEPS},
}


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
        facts = self._facts()
        found = {wire.MODEL: self._model(), wire.COMPACT_MODEL: _compact_ensemble(facts)}
        if self.settings.has_labels:
            found[wire.EXATRKX_MODEL] = self._labels(*_EXATRKX_TENSORS)
        if self.settings.exatrkx_ensemble:
            found |= {step.model: self._labels(*_tensors_of(step)) for step in STEPS}
            found[ENSEMBLE_MODEL] = _ensemble(facts, *_EXATRKX_TENSORS, [(s.model, s.inputs, s.outputs) for s in STEPS])
        return found

    def n_models(self) -> int:
        """Return the number of models whose instances are processes: all but ensembles."""
        return sum(name in _CODE for name in self.configs())

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

    def _labels(self, inputs: list[_Tensor], outputs: list[_Tensor]) -> str:
        """Return a model that labels spacepoints, or does a step of it."""
        lines = [
            'backend: "python"',
            "max_batch_size: 0",
            f"instance_group [ {{ {self._group()} }} ]",
            *_parameters(self._facts()),
            *(_line("input", tensor) for tensor in inputs),
            *(_line("output", tensor) for tensor in outputs),
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
            *(_line("input", _tensor_of(spec), "optional: true") for spec in inputs),
            *(_line("output", _tensor_of(spec)) for spec in wire.OUTPUTS),
        ]
        return "\n".join(lines) + "\n"


def _config_file(folder: Path, model: str) -> Path:
    return folder / model / "config.pbtxt"


def _compact_ensemble(facts: Mapping[str, str]) -> str:
    inputs, outputs = ([_tensor_of(spec) for spec in specs] for specs in (wire.COMPACT_INPUTS, wire.OUTPUTS))
    same = [{tensor.name: tensor.name for tensor in tensors} for tensors in (inputs, outputs)]
    return _ensemble(facts, inputs, outputs, [(wire.MODEL, same[0], same[1])])


def _ensemble(
    facts: Mapping[str, str],
    inputs: list[_Tensor],
    outputs: list[_Tensor],
    steps: Sequence[tuple[str, Mapping[str, str], Mapping[str, str]]],
) -> str:
    """Return an ensemble; a step is a model, and what each of its inputs and outputs is in the ensemble."""
    lines = [
        'platform: "ensemble"',
        "max_batch_size: 0",
        *_parameters(facts),
        *(_line("input", tensor) for tensor in inputs),
        *(_line("output", tensor) for tensor in outputs),
        "ensemble_scheduling {",
        "  step [",
        ",\n".join(_step(*step) for step in steps),
        "  ]",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    lines = [f'    model_name: "{model}"', "    model_version: -1"]
    for direction, names in (("input", inputs), ("output", outputs)):
        lines += [f'    {direction}_map {{ key: "{key}" value: "{value}" }}' for key, value in names.items()]
    return "\n".join(["  {", *lines, "  }"])


class _Tensor(NamedTuple):
    """A tensor of a model's configuration."""

    name: str
    dtype: str
    dims: tuple[int, ...]


def _tensor_of(spec: wire.TensorSpec) -> _Tensor:
    return _Tensor(spec.name, spec.triton_dtype, spec.dims)


def _tensors_of(step: Step) -> tuple[list[_Tensor], list[_Tensor]]:
    """Return the inputs and outputs of a step."""
    found = []
    for names in (step.inputs, step.outputs):
        specs = {name: step_tensor(shared) for name, shared in names.items()}
        found.append([_Tensor(name, spec.triton_dtype, spec.dims) for name, spec in specs.items()])
    return found[0], found[1]


_EXATRKX_TENSORS = [_tensor_of(wire.FEATURES)], [_tensor_of(wire.LABELS)]


def _line(direction: str, tensor: _Tensor, more: str = "") -> str:
    dims = ", ".join(map(str, tensor.dims))
    return f'{direction} [ {{ name: "{tensor.name}" data_type: TYPE_{tensor.dtype} dims: [ {dims} ] {more} }} ]'


def _parameters(values: Mapping[str, str]) -> list[str]:
    quoted = {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}
    return [f'parameters {{ key: "{name}" value: {{ string_value: {text} }} }}' for name, text in quoted.items()]
