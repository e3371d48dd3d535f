"""From a configuration to the harvested store of a run, or to the one that is there already."""

import dataclasses
from contextlib import closing
from functools import cache
from pathlib import Path

import numpy as np

from autointerp.activations.harvest import harvest as harvest_arms
from autointerp.activations.logit_test import SHOWN, distractors
from autointerp.activations.plan import ArmUnits, LogitTest, LogitTokens
from autointerp.activations.replay import Replay
from autointerp.activations.source import StoreSource
from autointerp.activations.store import Store
from autointerp.arms import Arm, explain_windows
from autointerp.config import RunConfig
from autointerp.controls import arm_infos, controlled
from autointerp.manifest import environment, read_manifest, run_key, timed, update_manifest
from autointerp.notation import display
from autointerp.prompts import prompt_digests
from autointerp.report import terminal
from autointerp.seams import Source
from autointerp.spending import fixed
from autointerp.wiring import Setting, harvest_sizes, load_setting
from sae.errors import UserError
from sae.features import stream_units
from sae.logits import top_logits

HARVEST = "harvest"
"""Folder of the store within a results directory."""


def harvested(config: RunConfig, directory: Path) -> Source:
    """The store of the run, harvested where it is not there yet; the directory is made when all is loaded."""
    with timed(directory, "load"):
        setting = load_setting(config, directory, terminal.say)
        save(config, directory)
    store = directory / HARVEST
    if read_manifest(directory).get("harvest") not in (None, setting.key) and store.exists():
        raise UserError(
            f"{directory} was harvested from another subject, dictionary or corpus.",
            "Their contents have changed since.",
            "Give another --out.",
        )
    update_manifest(
        directory,
        {
            **environment(),
            "configuration": config.model_dump(mode="json"),
            "content": {
                "subject": setting.subject.digest,
                "corpus": setting.corpus.digest,
                "prompts": dict(prompt_digests()),
                "dictionaries": {arm.info.label: arm.digest for arm in setting.arms},
            },
            "arms": [dataclasses.asdict(info) for info in arm_infos(config, [arm.info for arm in setting.arms])],
            "harvest": setting.key,
        },
    )
    if not Store.is_complete(store, setting.key):
        try:
            with timed(directory, HARVEST):
                _harvest(setting, store)
        except KeyboardInterrupt:
            terminal.say("The harvest was interrupted and will start over; answers already paid for are kept.")
            terminal.say(f"Go on with: autointerp resume {directory}")
            raise
    return controlled(config, StoreSource(_sound(Store.open(store)), setting.recompute))


def save(config: RunConfig, directory: Path) -> None:
    """Write the configuration beside the results; a dry run leaves one that is there as it is."""
    saved = directory / "config.toml"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not (config.dry_run and saved.exists()):
            saved.write_text(fixed(config, directory, run_key(config)).to_toml(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write into {directory}.", str(error), "Give another --out.", usage=True) from error


def _harvest(setting: Setting, out: Path) -> None:
    windows, splits = setting.corpus.windows, setting.corpus.splits
    places = {arm.info.label: (arm.site, arm.dictionary) for arm in setting.arms}
    units = {arm.info.label: arm.units for arm in setting.arms}
    subjects = {arm.info.label: arm.subject for arm in setting.arms}
    replay = Replay(
        lambda: stream_units(
            setting.subject, places, windows, units=units, subjects=subjects, batch=setting.config.windows_per_pass
        )
    )
    with closing(replay), terminal.stage(HARVEST, 2 * len(windows), "windows") as advance:

        def progress(stage: str, done: int, total: int) -> None:
            advance(done if stage == "statistics" else total + done)

        harvest_arms(
            {arm.info.label: _arm_units(setting, arm) for arm in setting.arms},
            windows,
            splits.code,
            splits.cluster,
            [display(token) for token in setting.subject.token_bytes()],
            replay,
            out,
            sizes=harvest_sizes(setting.config),
            seed=setting.config.seed,
            key=setting.key,
            progress=progress,
        )


def _arm_units(setting: Setting, arm: Arm) -> ArmUnits:
    names = arm.dictionary.names()
    asked = harvest_sizes(setting.config).logit_tokens
    top = top_logits(arm.subject, arm.site, arm.dictionary, SHOWN + asked)
    logits, test = None, None
    if top is not None:
        ends = (top.promoted, top.promoted_weights, top.suppressed, top.suppressed_weights)
        logits = LogitTokens(*(end[arm.units, :SHOWN] for end in ends))
        if asked:
            ids = explain_windows(setting.corpus)
            counts = np.bincount(ids.tokens[ids.counted()], minlength=len(setting.subject.token_bytes()))
            promoted = top.promoted[arm.units]
            random, matched = distractors(promoted, counts, np.random.default_rng(setting.config.seed))
            test = LogitTest(promoted[:, SHOWN:], random, matched)
    return ArmUnits(arm.units, tuple(names[i] for i in arm.units), arm.thresholds, logits, test)


def stored(config: RunConfig, directory: Path) -> Source:
    """The harvested store of a run with its controls; its subject is loaded when activations are first recomputed.

    That raises `UserError` where subject, dictionaries or corpus are no longer what was harvested.
    """
    store = _sound(Store.open(directory / HARVEST))

    @cache
    def setting() -> Setting:
        with timed(directory, "load"):
            loaded = load_setting(config, directory, terminal.say)
        if loaded.key != store.manifest["key"]:
            raise UserError(
                f"{directory} was harvested from another subject, dictionary or corpus.",
                "Their contents have changed since, so activations cannot be recomputed.",
                "Give another --out.",
            )
        return loaded

    source = StoreSource(store, lambda unit, windows: setting().recompute(unit, windows))
    return controlled(config, source)


def _sound(store: Store) -> Store:
    """`store`, in which nothing that is scored was seen by an explainer; a leak is a `UserError`."""
    store.check_no_leak()
    return store
