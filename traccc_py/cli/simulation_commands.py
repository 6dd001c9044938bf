"""Commands that simulate: events, variances, and the performance of the chain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from traccc_py.cli.common import Compress, ConfigFile, Debug, Device, Seed, Threads, consoles, reports_errors
from traccc_py.cli.detector_options import takes_detector
from traccc_py.cli.settings import naming_options
from traccc_py.detector_options import DetectorOptions

__all__ = ["calibrate", "performance", "simulate"]


@reports_errors
@takes_detector("detector")
def simulate(
    detector: DetectorOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for cells, truth and manifest.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option("--check", metavar="DIR", help="Only compare a folder with its manifest.")
    ] = None,
    process: Annotated[
        str, typer.Option("--process", help="gun, or collisions by Pythia: minbias, softqcd, ttbar, jets or zmumu.")
    ] = "gun",
    events: Annotated[int, typer.Option("--events", "-n", min=1, help="Number of events.")] = 1,
    first_event: Annotated[int, typer.Option("--first-event", min=0, help="Number of the first event.")] = 0,
    pileup: Annotated[float, typer.Option("--pileup", metavar="MU", help="Mean number of collisions besides.")] = 0,
    pileup_process: Annotated[
        str, typer.Option("--pileup-process", help="Collisions: process of the others.")
    ] = "minbias",
    pt_hat: Annotated[float, typer.Option("--pt-hat", help="Collisions: smallest pT of the hard one [GeV].")] = 0,
    max_eta: Annotated[float, typer.Option("--max-eta", help="Collisions: |eta| of particles kept.")] = 4,
    min_pt: Annotated[float, typer.Option("--min-pt", help="Collisions: pT of particles kept [GeV].")] = 0.1,
    beam_spot: Annotated[
        tuple[float, float, float], typer.Option("--beam-spot", metavar="X Y Z", help="Collisions: its sigma [mm].")
    ] = (0.01, 0.01, 55),
    particles: Annotated[int, typer.Option("--particles", min=0, help="Gun: particles per event.")] = 10,
    particle: Annotated[str, typer.Option("--particle", help="Gun: electron, muon, pion, kaon or proton.")] = "muon",
    charge: Annotated[str, typer.Option("--charge", help="Gun: negative, positive or random.")] = "random",
    pt: Annotated[tuple[float, float], typer.Option("--pt", metavar="MIN MAX", help="Gun: range of pT [GeV].")] = (
        1,
        10,
    ),
    log: Annotated[bool, typer.Option("--log", help="Gun: pT uniform in its logarithm.")] = False,
    eta: Annotated[tuple[float, float], typer.Option("--eta", metavar="MIN MAX", help="Gun: range of eta.")] = (
        -2.5,
        2.5,
    ),
    phi: Annotated[
        tuple[float, float], typer.Option("--phi", metavar="MIN MAX", help="Gun: range of phi [degrees].")
    ] = (-180, 180),
    vertex_sigma: Annotated[
        tuple[float, float, float], typer.Option("--vertex-sigma", metavar="X Y Z", help="Gun: its vertices [mm].")
    ] = (0.0125, 0.0125, 55),
    no_material: Annotated[bool, typer.Option("--no-material", help="No interactions with material.")] = False,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="NAME", help="Switch off an interaction with material.")
    ] = None,
    no_noise: Annotated[bool, typer.Option("--no-noise", help="No charge noise.")] = False,
    noise_cells: Annotated[
        tuple[float, float],
        typer.Option("--noise-cells", metavar="P2D P1D", help="Chance of a channel to fire by itself, 2D and 1D."),
    ] = (0, 0),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace events in the folder that were made in another way.")
    ] = False,
    seed: Seed = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; files don't depend on it.")] = 1,
    threads: Threads = None,
    compress: Compress = False,
    debug: Debug = False,
) -> None:
    """Simulate events, of a particle gun or collisions with pile-up: cells, truth and a manifest."""
    from traccc_py.cli.simulate import OPTIONS_OF_SOURCES, check_sample
    from traccc_py.cli.simulate import simulate as simulate_events
    from traccc_py.simulation.generators.gun import ParticleGunConfig
    from traccc_py.simulation.generators.pileup import CollisionConfig
    from traccc_py.simulation.samples import SampleConfig
    from traccc_py.simulation.transport.transport import TransportConfig
    from traccc_py.units import degree

    console, messages = consoles()
    if check is not None:
        check_sample(check, console)
        return
    if output is None:
        msg = "no folder: name one with --output DIR, or one to check with --check DIR"
        raise typer.BadParameter(msg)
    source: ParticleGunConfig | CollisionConfig
    with naming_options(OPTIONS_OF_SOURCES):
        gun = ParticleGunConfig(
            n_particles=particles,
            particle=particle,
            charge=charge,
            momentum=pt,
            momentum_distribution="log" if log else "uniform",
            eta=eta,
            phi=(phi[0] * degree, phi[1] * degree),
            vertex_sigma=vertex_sigma,
        )
        if process == "gun" and pileup == 0:
            source, transport = gun, TransportConfig()
        else:
            source = CollisionConfig(
                process,
                pileup,
                pileup_process,
                pt_hat_min=pt_hat,
                max_eta=max_eta,
                min_pt=min_pt,
                vertex_sigma=beam_spot,
                gun=gun if process == "gun" else None,
            )
            transport = TransportConfig.of_collisions()
        config = SampleConfig(
            source=source,
            seed=seed,
            transport=TransportConfig.without_material() if no_material else transport.without(*(without or ())),
            smearing=not no_noise,
            noise=noise_cells,
            compress=compress,
        )
    simulate_events(
        output,
        detector,
        config,
        events,
        console,
        messages,
        first_event=first_event,
        workers=workers,
        threads=threads,
        overwrite=overwrite,
    )


@reports_errors
@takes_detector("chosen", is_positional=True)
def calibrate(
    chosen: DetectorOptions,
    particles: Annotated[int, typer.Option("--particles", min=1, help="Simulated muons.")] = 100_000,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write. (default: the package)")
    ] = None,
    seed: Seed = 20_240_501,
    debug: Debug = False,
) -> None:
    """Make the table of measurement variances by cluster size."""
    from traccc_py.cli.outputs import check_file
    from traccc_py.cli.simulate import calibrate as make_table

    check_file(output, "--output")
    make_table(chosen.load(), particles, seed, output, consoles()[0])


@reports_errors
@takes_detector("detector")
def performance(
    detector: DetectorOptions,
    sample: Annotated[
        list[Path] | None,
        typer.Option("--sample", metavar="DIR", help="Reconstruct the events of 'simulate'; several: also versus mu."),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="DIR", help="Folder with hits, particles and measurement links.")
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option("--tracks", metavar="DIR", help="Folder with tracks: of 'run', or traccc's tables.")
    ] = None,
    tracks_kind: Annotated[
        str | None,
        typer.Option("--tracks-kind", help="own, fitted, resolved, found or seeds. (default: the first found)"),
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option("--compare", metavar="LABEL=DIR[:KIND]", help="Tracks to show beside them.")
    ] = None,
    definition: Annotated[str, typer.Option("--definition", help="traccc or acts.")] = "traccc",
    matching_ratio: Annotated[
        float | None, typer.Option("--matching-ratio", help="Smallest purity, and completeness. (default: 0.5)")
    ] = None,
    single_matching: Annotated[bool, typer.Option("--single-matching", help="Do not ask for completeness.")] = False,
    seed_matching_ratio: Annotated[
        float | None, typer.Option("--seed-matching-ratio", help="Purity of seeds. (default: the definition's)")
    ] = None,
    require_fit: Annotated[bool, typer.Option("--require-fit", help="Leave out tracks whose fit failed.")] = False,
    min_pt: Annotated[float | None, typer.Option("--min-pt", help="Particles: pT [GeV]. (default: 0.5)")] = None,
    max_eta: Annotated[float | None, typer.Option("--max-eta", help="Particles: |eta|. (default: 3)")] = None,
    min_z: Annotated[float | None, typer.Option("--min-z", help="Particles: z [mm]. (default: -500)")] = None,
    max_z: Annotated[float | None, typer.Option("--max-z", help="Particles: z [mm]. (default: 500)")] = None,
    max_r: Annotated[float | None, typer.Option("--max-r", help="Particles: radius [mm]. (default: 200)")] = None,
    process: Annotated[
        int | None, typer.Option("--process", help="Particles: process; negative: any. (default: 0)")
    ] = None,
    min_measurements: Annotated[
        int | None, typer.Option("--min-measurements", min=0, help="Particles: measurements. (default: 3)")
    ] = None,
    min_modules: Annotated[
        int | None, typer.Option("--min-modules", min=0, help="Particles: different modules. (default: 0)")
    ] = None,
    min_pixel_layers: Annotated[
        int | None, typer.Option("--min-pixel-layers", min=0, help="Particles: pixel layers of the ODD. (default: 0)")
    ] = None,
    any_charged: Annotated[
        bool, typer.Option("--any-charged", help="Particles: all kinds, not electrons, muons and pions alone.")
    ] = False,
    truth_side: Annotated[
        str, typer.Option("--truth-side", help="Side of the first surface's material: outgoing or incoming.")
    ] = "outgoing",
    events: Annotated[
        int | None, typer.Option("--events", "-n", min=1, help="Number of events. (default: 10, or all there are)")
    ] = None,
    particles: Annotated[int, typer.Option("--particles", min=1, help="Simulation: particles per event.")] = 100,
    particle: Annotated[
        str, typer.Option("--particle", help="Simulation: kind and mass hypothesis: muon, pion, electron.")
    ] = "muon",
    pt: Annotated[
        tuple[float, float], typer.Option("--pt", metavar="MIN MAX", help="Simulation: range of pT [GeV].")
    ] = (10, 10),
    eta: Annotated[tuple[float, float], typer.Option("--eta", metavar="MIN MAX", help="Simulation: range of eta.")] = (
        -2.5,
        2.5,
    ),
    config: ConfigFile = None,
    device: Device = "auto",
    threads: Threads = None,
    per_bin: Annotated[bool, typer.Option("--per-bin", help="Print tables versus eta, phi and pT.")] = False,
    plots: Annotated[Path | None, typer.Option("--plots", metavar="DIR", help="Draw plots.")] = None,
    plot_format: Annotated[str, typer.Option("--plot-format", help="png, pdf or svg.")] = "png",
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write tables and plots as one page of HTML.")
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers.")] = None,
    seed: Seed = 1,
    debug: Debug = False,
) -> None:
    """Compare tracks with the truth: efficiency, duplicates, fakes, pulls; simulated now, or from files."""
    from traccc_py.cli.performance import Evaluation, Gun, run_performance

    cuts: dict[str, Any] = {
        "min_pt": min_pt,
        "max_eta": max_eta,
        "min_z": min_z,
        "max_z": max_z,
        "max_r": max_r,
        "process": process,
        "min_measurements": min_measurements,
        "min_modules": min_modules,
        "min_pixel_layers": min_pixel_layers,
        "particle_types": () if any_charged else None,
    }
    evaluation = Evaluation(
        definition=definition,
        matching_ratio=matching_ratio,
        double_matching=not single_matching,
        seed_matching_ratio=seed_matching_ratio,
        require_fit=require_fit,
        cuts={name: value for name, value in cuts.items() if value is not None},
        truth_side=truth_side,
        detector=detector,
        events=events,
        samples=tuple(sample or ()),
        truth=truth,
        tracks=tracks,
        tracks_kind=tracks_kind,
        compare=tuple(compare or ()),
        per_bin=per_bin,
        plots=plots,
        plot_format=plot_format,
        report=report,
        json=json,
    )
    gun = Gun(particles, particle, pt, eta, seed, config, device, threads)
    run_performance(evaluation, gun, *consoles())
