"""What a study has to do, piece by piece, before any of it runs: every job, named and seeded.

The order in which jobs run changes none of their numbers.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import attacks
from aae.config import RECIPES, AutoencoderConfig, TrainingConfig
from attacks import AttacksConfig
from classifiers import ClassifiersConfig
from classifiers.together import memory
from study import datasets
from study.attack import NEEDED, YARDSTICKS, AttackJob
from study.config import Control, StudyConfig, TaskConfig
from study.config_text import to_plain
from study.datasets import AttackParts
from study.evaluate import MIRRORED, ClassificationJob, ReconstructionJob, Source
from study.opening import Data
from study.pictures import Images
from study.seeds import derive
from study.trial import TrialSpec

#: Pictures of every pair and set that the report can show.
SHOWN = 12


def source_of(spec: TrialSpec, config: StudyConfig) -> Source:
    """How records name this autoencoder."""
    own, usual = to_plain(spec.config), to_plain(config.autoencoder(config.latents[0]))
    recipe, whiten = own["training"]["recipe"], own["training"]["whiten"]
    decided = to_plain(AutoencoderConfig(training=TrainingConfig(recipe=recipe)))
    known = decided["network"] | decided["training"]
    implied = {key: known[key] for key in RECIPES[recipe]} if recipe != usual["training"]["recipe"] else {}
    if whiten != implied.get("whiten", usual["training"]["whiten"]):
        decided = to_plain(AutoencoderConfig(training=TrainingConfig(recipe=recipe, whiten=whiten)))
        implied["couplings"] = decided["network"]["couplings"]
    other = [
        f"{key} {_short(value)}"
        for room in ("network", "training")
        for key, value in own[room].items()
        if key != "batch_size" and value != implied.get(key, usual[room][key])
    ]
    return Source(
        trial=spec.id,
        gaussian=own["latent"]["gaussian"],
        categorical=own["latent"]["categorical"],
        batch_size=own["training"]["batch_size"],
        instance=spec.instance,
        variant=", ".join(other),
    )


def _short(value: object) -> str:
    """A number in three digits, where these tell it from others."""
    short = f"{value:.3g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


def first_instances(specs: list[TrialSpec]) -> list[TrialSpec]:
    """One autoencoder of each configuration: the first that was trained."""
    return list({spec.config: spec for spec in reversed(specs)}.values())[::-1]


# --- pairs -------------------------------------------------------------------------------------------------------


def reconstruction_jobs(
    config: StudyConfig, specs: list[TrialSpec], sets: Mapping[str, Images]
) -> list[ReconstructionJob]:
    """Every encoder with the decoders of all instances of its configuration, on every set of images."""
    groups: dict[AutoencoderConfig, list[TrialSpec]] = defaultdict(list)
    for spec in specs:
        groups[spec.config].append(spec)
    return [
        ReconstructionJob(
            source=source_of(spec, config),
            decoders=tuple(s.id for s in group),
            images=name,
            shown=SHOWN,
            seed=derive(config.seed, "pairs", name),
        )
        for group in groups.values()
        for spec in group
        for name in sets
    ]


def reconstruction_sets(config: StudyConfig, data: Data) -> dict[str, Images]:
    """P, T and V, and T and V of every task: the paper leaves open which data set its 40,000 and 10,000 are of."""
    network = config.network
    sets = {
        "P": datasets.patterns(network.image_size, network.channels),
        "T": data.train,
        "V": data.held_out,
    }
    for name, image_set in data.tasks.items():
        parts = datasets.split(image_set, "paper", "mlp", config.seed)
        sets |= {f"{name} T": image_set.images[parts.train], f"{name} V": image_set.images[parts.validation]}
    return {name: images for name, images in sets.items() if len(images) > 1}  # one has no other beside it


# --- classification ----------------------------------------------------------------------------------------------


def classification_jobs(config: StudyConfig, specs: list[TrialSpec], data: Data) -> list[ClassificationJob]:
    """Every classification of a study: encoders and controls, protocols, classifiers, draws."""
    return [
        ClassificationJob(
            source=source,
            dataset=task.data,
            classes=classes,
            class_names=tuple(data.tasks[task.data].class_names[c] for c in classes),
            draw=draw,
            protocol=protocol,
            classifier=classifier,
            representation=representation,
            seed=derive(config.seed, "classifier", classifier, task.data, count, draw),
            estimators=estimators,
        )
        for source, representation, protocol, classifier, estimators in _learners(config, specs)
        for task in config.tasks
        if representation != MIRRORED or task.mirrored
        for count, draw, classes in _draws(config, task, data)
    ]


#: Neural networks, and bytes, of one program at most.
PROGRAM = 300, 2**31


def programs(
    jobs: list[ClassificationJob], sizes: Mapping[str, int], pixels: int, config: ClassifiersConfig
) -> list[list[ClassificationJob]]:
    """The neural networks that a GPU fits in one program each: all draws of one encoder, data set and protocol.

    Who shares a program changes rounding: names decide, whatever has been measured already, and another encoder
    disturbs nobody.

    Args:
        sizes: images of a class in each data set.
        pixels: numbers in one image.
    """
    alike: dict[tuple[str, ...], list[ClassificationJob]] = defaultdict(list)
    for job in jobs:
        if job.classifier == "mlp":
            alike[job.source.trial, job.representation, job.dataset, job.protocol].append(job)
    found = []
    for group in alike.values():
        group.sort(key=lambda job: (-len(job.classes), job.draw))
        largest = group[0]
        vectors = sizes[largest.dataset] * len(largest.classes) * (2 if largest.representation == MIRRORED else 1)
        length = pixels if largest.representation == "raw" else largest.source.gaussian + largest.source.categorical
        each = memory(vectors, length, config.mlp.hidden, len(largest.classes))
        count = max(1, min(PROGRAM[0], PROGRAM[1] // each))
        found += [group[begin : begin + count] for begin in range(0, len(group), count)]
    return found


def _learners(config: StudyConfig, specs: list[TrialSpec]) -> Iterator[tuple[Source, str, str, str, tuple[int, ...]]]:
    """What learns from what: source of the vectors, representation, protocol, classifier, further estimators."""
    names = config.classifiers.names
    for spec in specs:
        for protocol, name in itertools.product(config.protocols, names):
            swept = spec == specs[0] and protocol == "paper" and name in ("random_forest", "adaboost")
            usual = getattr(getattr(config.classifiers, name, None), "estimators", 0)
            more = tuple(sorted({usual, *config.estimators})) if swept and config.estimators else ()
            yield source_of(spec, config), "masked", protocol, name, more
    if "shared" in config.protocols:
        # One-hot targets are there to explain the paper's numbers alone.
        judging = [name for name in names if name != "random_forest_onehot"]
        yield from ((source_of(spec, config), MIRRORED, "shared", name, ()) for spec in specs for name in judging)
        for source in attacked_sources(config.attacks, [source_of(spec, config) for spec in specs]):
            yield from ((source, defence, "shared", name, ()) for defence in config.attacks.defences for name in names)
        for source, control, _ in control_sources(config.controls, specs):
            yield from (
                (source, control, "shared", name, ()) for name in names if (control, name) != ("raw", "adaboost")
            )


def control_sources(
    controls: Iterable[Control], specs: list[TrialSpec]
) -> Iterator[tuple[Source, Control, AutoencoderConfig]]:
    """Controls beside the trials: raw pixels once, the others once for each pair of latent sizes."""
    sizes = {(s.config.latent.gaussian, s.config.latent.categorical): s.config for s in reversed(specs)}
    for control in controls:
        if control == "raw":
            yield Source(trial="raw", gaussian=0, categorical=0, batch_size=0, instance=0), control, specs[0].config
            continue
        for (gaussian, categorical), autoencoder in sorted(sizes.items(), key=lambda item: item[0]):
            yield _control(control, gaussian, categorical), control, autoencoder


def _control(name: str, gaussian: int, categorical: int) -> Source:
    trial = f"{name}-g{gaussian}-c{categorical}"
    return Source(trial=trial, gaussian=gaussian, categorical=categorical, batch_size=0, instance=0)


def _draws(config: StudyConfig, task: TaskConfig, data: Data) -> list[tuple[int, int, tuple[int, ...]]]:
    return [
        (count, index, classes)
        for count in task.classes
        for index, classes in enumerate(datasets.draws(data.tasks[task.data], count, config.draws, config.seed))
    ]


# --- attacks -----------------------------------------------------------------------------------------------------


def attack_jobs(config: StudyConfig, sources: list[Source], attacked: dict[str, AttackParts]) -> Iterator[AttackJob]:
    """Every attack of a study, with its yardsticks, on encoders and on controls of their sizes.

    The attacker's own autoencoder is another instance of the same latent sizes where there is one, else the one with
    the longest latent.
    """
    encoders = attacked_sources(config.attacks, sources)
    sizes = {s.gaussian + s.categorical: (s.gaussian, s.categorical) for s in reversed(encoders)}
    plain = dict.fromkeys(encoders, "masked")
    plain |= {_control(name, *size): name for name in config.attacks.controls for size in reversed(sizes.values())}
    for source, bare in plain.items():
        own = _attackers_own(source, sources) if bare == "masked" else None
        for dataset, parts in attacked.items():
            both = any(task.mirrored for task in config.tasks if task.data == dataset)
            for attack, k, draw, representation in _ladder(config, own, source, bare, parts, mirrored=both):
                yield AttackJob(
                    source=source,
                    dataset=dataset,
                    attack=attack,
                    k=k,
                    draw=draw,
                    representation=representation,
                    own=own.trial if own and (attack.startswith("stitch") or attack == "other_decoder") else "",
                    pairs_seed=derive(config.seed, "attack pairs", dataset, draw),
                    seed=derive(config.seed, "attack", dataset, attack, k, draw),
                )


def attacked_sources(settings: AttacksConfig, sources: list[Source]) -> list[Source]:
    """The first trained instance of each latent configuration, or every one, of as many configurations as asked."""
    if not settings.names:
        return []
    first = {source.point: source for source in reversed(sources)}
    points = list(dict.fromkeys(source.point for source in sources))[: settings.encoders]
    return [s for s in sources if s.point in points and (settings.every_instance or first[s.point] == s)]


def _attackers_own(source: Source, sources: list[Source]) -> Source | None:
    """The next instance of its configuration; else another, of the longest latent."""
    others = [s for s in sources if s.trial != source.trial]
    alike = [s for s in others if s.point == source.point]
    # Instances of one number share their seed, and began alike: their decoders may stand for each other.
    other = max(others, key=lambda s: (s.instance != source.instance, s.gaussian + s.categorical), default=None)
    return next((s for s in alike if s.instance > source.instance), next(iter(alike), other))


def _ladder(
    config: StudyConfig, own: Source | None, source: Source, bare: str, parts: AttackParts, *, mirrored: bool
) -> Iterator[tuple[str, int, int, str]]:
    settings = config.attacks
    if bare != "masked":
        yield from ((name, 0, 0, bare) for name in NEEDED)
        yield from _in_another_order(settings, bare)
        yield from _with_pairs(config, bare, parts)
        return
    for name in YARDSTICKS:
        yield name, 0, 0, bare
    if own and own.point == source.point:
        yield "other_decoder", 0, 0, "masked"
    yield from _in_another_order(settings, bare)
    others = min(settings.draws, max(1, len(parts.public) // settings.public))  # disjoint sets of public images
    for name in settings.names:
        if name not in attacks.WITH_PAIRS:  # those that are trained, or descend, cost too much to be repeated
            yield from ((name, 0, draw, "masked") for draw in range(others if name in attacks.WITHOUT_PAIRS else 1))
        else:
            yield from ((name, k, draw, "masked") for k in _counts(config, parts) for draw in range(settings.draws))
    for otherwise in (*([MIRRORED] if mirrored else []), *settings.defences):
        yield "key", 0, 0, otherwise
        yield from _with_pairs(config, otherwise, parts)


def _in_another_order(settings: AttacksConfig, bare: str) -> Iterator[tuple[str, int, int, str]]:
    if "transport" in settings.names:
        yield "known_plaintexts", 0, 0, bare


def _with_pairs(config: StudyConfig, representation: str, parts: AttackParts) -> Iterator[tuple[str, int, int, str]]:
    """Beside the encoders' own masked forms: ridge, and inversion, better and too slow to be repeated, once."""
    counts = _counts(config, parts)
    yield from (("ridge", k, draw, representation) for k in counts for draw in range(config.attacks.draws))
    if "inversion" in config.attacks.names and counts and representation != MIRRORED:
        yield "inversion", counts[-1], 0, representation


def _counts(config: StudyConfig, parts: AttackParts) -> list[int]:
    return [k for k in config.attacks.pairs if k <= len(parts.pairs)]
