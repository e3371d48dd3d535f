"""Whether a dictionary belongs to the subject and site that it is laid over, as far as its files say."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from sae.dictionary import Dictionary, DictionaryInfo, as_tensor
from sae.errors import UserError
from sae.metrics import reconstruct
from sae.sites import Site
from sae.subject import Subject

_TOLERANCE = 0.1
"""Difference in explained variance that another text may well make; the normalisations differ by more."""
_ALIASES = {"gpt2-small": "gpt2"}
"""TransformerLens's names that do not hold the hub's."""


def check_belongs(subject: Subject, site: Site, info: DictionaryInfo) -> None:
    """Raise `UserError` unless a dictionary's width, site and subject, where its files name them, are those given.

    Subjects are told apart by their hub ids only; a local directory may hold any.
    """
    if info.site is not None:
        _check_site(subject, site, info.site)
    subject.check_fits(site, info.d_in, "SAE")
    if info.subject is not None and _is_hub_id(info.subject) and _is_hub_id(subject.name):
        mine, its = _plain(subject.name), _plain(info.subject)
        if mine not in its and its not in mine:
            raise UserError(
                f"The SAE was trained on {info.subject}, the subject is {subject.name}.",
                "On another model its features mean nothing.",
                f"Use --subject {info.subject}, or an SAE of {subject.name}.",
            )


def doubt(
    dictionary: Dictionary, info: DictionaryInfo, sample: Float32[np.ndarray, "token d_in"], device: str | torch.device
) -> str | None:
    """What to say where the reconstruction of `sample`, vectors of the site, is not what it should be; None else.

    It should explain the share of variance that the dictionary's files state, or at least some. `device` is the
    dictionary's.
    """
    x = as_tensor(sample, device)
    variance = float((x - x.mean(0)).double().square().sum())
    if variance == 0:
        return None
    explained = 1 - float((reconstruct(dictionary, x) - x).double().square().sum()) / variance
    reasons = "Likely reasons: another site or model, or a normalisation that is not folded into the weights."
    stated = info.explained_variance
    if stated is not None and abs(explained - stated) > _TOLERANCE:
        return (
            f"The SAE explains {explained:.2f} of the variance of {len(x):,} vectors of the site; "
            f"its files say {stated:.2f}. {reasons}"
        )
    if explained < 0:
        return f"The SAE reconstructs {len(x):,} vectors of the site worse than their mean does. {reasons}"
    return None


def _check_site(subject: Subject, site: Site, stated: str) -> None:
    names = (stated, f"{subject.model.base_model_prefix}.{stated}")
    found: list[Site] = []
    for name in names:
        try:
            found.append(subject.site(name))
            break
        except UserError:
            continue
    if not found:
        raise UserError(
            f"The SAE was trained at {stated}, which {subject.name} does not have.",
            f"The site is {site.name}.",
            "Use an SAE of this site, or the model that it was trained on.",
        )
    if _place(found[0]) != _place(site):
        raise UserError(
            f"The SAE was trained at {found[0].name}, the site is {site.name}.", do=f"Use --site {found[0].name}."
        )


def _place(site: Site) -> tuple[str, str] | tuple[str, int]:
    """Equal for two names of one place: what enters a block is what left the one before."""
    if site.kind == "resid" and site.layer is not None:
        return "resid", site.layer + (site.side == "output")
    return site.module, site.side


def _is_hub_id(name: str) -> bool:
    return name.count("/") <= 1 and " " not in name and not name.startswith((".", "~", "/")) and not Path(name).exists()


def _plain(name: str) -> str:
    last = name.rpartition("/")[2].lower()
    return _ALIASES.get(last, last)
