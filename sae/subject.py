"""The model whose activations are explained."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from jaxtyping import Float, Int64
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from sae.corpus.windows import Windows
from sae.errors import UserError, nearest
from sae.quiet import no_progress_bar
from sae.sites import FAMILIES, Site, find_site, hook_sites, hooked, run_to_site
from sae.vocabulary import token_bytes

_LOGIT_ROWS = 256
"""Positions whose logits exist at one time."""
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A causal language model with its tokenizer."""

    model: PreTrainedModel
    """The Hugging Face model, in evaluation mode."""
    tokenizer: PreTrainedTokenizerBase
    """Its tokenizer."""
    name: str
    """Directory or hub id it was loaded from."""
    digest: str
    """SHA-256 over the bytes of its configuration and its weight files, hexadecimal."""
    device: torch.device
    """Where it computes."""

    @property
    def vocabulary(self) -> int:
        """Token ids that the model knows: rows of its embedding."""
        return int(self.model.config.vocab_size)

    def site(self, name: str) -> Site:
        """The site called `name`.

        `name` is a TransformerLens name (``blocks.0.mlp.hook_post``, ``blocks.0.hook_resid_pre``,
        ``hook_resid_post``, ``hook_mlp_out``) or the path of a module, which means its output
        (``transformer.h.0.mlp.act``). Raises `UserError` with the nearest valid name.
        """
        return find_site(self.model, name)

    def neurons_site(self, site: Site) -> Site:
        """The neurons of the block in which `site` lies. Raises `UserError` for a site outside all blocks."""
        if site.layer is None:
            raise UserError(f"{site.name} lies in no block, so it has no neurons to compare with.")
        return self.site(f"blocks.{site.layer}.mlp.hook_post")

    def suggest(self, width: int) -> list[str]:
        """Names of the sites whose width is `width`, block by block."""
        return [site.name for site in hook_sites(self.model).values() if site.width == width]

    def check_fits(self, site: Site, d_in: int, what: str) -> None:
        """Raise `UserError` unless `what` (a noun, such as ``SAE``), which expects `d_in` numbers, fits `site`."""
        if site.width == d_in:
            return
        fits = self.suggest(d_in)
        same_layer = [name for name in fits if name.startswith(f"blocks.{site.layer}.")]
        raise UserError(
            f"The {what} expects {d_in}, the site {site.name} gives {site.width}.",
            do=f"Sites that give {d_in}: {', '.join(same_layer or fits)}."
            if fits
            else f"No site of {self.name} gives {d_in}: the {what} belongs to another model.",
        )

    def activations(
        self, site: Site, tokens: Int64[Tensor, "window position"]
    ) -> Float[Tensor, "window position width"]:
        """The site's activations as float32 on the subject's device; the model is not run past the site.

        Raises `UserError` where tokens do not fit the model or an activation is not finite.
        """
        value = run_to_site(self.model, site, self._checked(tokens))
        if value is None:
            raise UserError(f"{site.name} is never reached in a forward pass.")
        value = value.float()
        # A finite sum shows that every term is finite, in one pass without a copy; the rest is for huge finite values.
        if not torch.isfinite(value.sum()) and not torch.isfinite(value).all():
            raise UserError(
                f"The activations at {site.name} hold NaN or infinite values.",
                f"The subject {self.name} computes in {self.model.dtype}.",
                "Use --dtype float32, or check the model's weights.",
            )
        return value

    def rows(self, site: Site, windows: Windows) -> Float[Tensor, "token width"]:
        """The site's activations at the positions that count, window by window; see `activations`."""
        value = self.activations(site, torch.from_numpy(windows.tokens.astype(np.int64)))
        counted = windows.counted()
        if counted.all():
            return value.flatten(0, 1)
        return value.flatten(0, 1).index_select(0, torch.from_numpy(np.flatnonzero(counted)).to(self.device))

    @torch.no_grad()
    def loss(
        self,
        windows: Windows,
        site: Site | None = None,
        replace: Callable[[Float[Tensor, "token width"]], Float[Tensor, "token width"]] | None = None,
        batch: int = 32,
    ) -> float:
        """Mean next-token loss in nats; padding is no target, and BOS predicts the first token.

        With `site` and `replace`, the site's activations at the positions that count become ``replace(activations)``;
        those at BOS and padding stay. Raises `UserError` where `windows` holds no target.
        """
        total, count = 0.0, 0
        for begin in range(0, len(windows), batch):
            part = windows.select(np.arange(begin, min(begin + batch, len(windows))))
            total += self._summed_loss(part, site, replace)
            count += int(part.length.sum()) - len(part)
        if not count:
            raise UserError("There is no token to predict.", do="Give a larger corpus.")
        return total / count

    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of every token id of the model; empty for ids that the tokenizer does not have.

        Exact for byte-level and for SentencePiece-style vocabularies; see `sae.vocabulary`.
        """
        return token_bytes(self.tokenizer, self.vocabulary)

    def _summed_loss(self, windows: Windows, site: Site | None, replace: Callable[[Tensor], Tensor] | None) -> float:
        tokens = self._checked(torch.from_numpy(windows.tokens.astype(np.int64)))
        counted = torch.from_numpy(windows.counted()).to(self.device)

        def splice(value: Tensor) -> Tensor:
            spliced = value.clone()
            spliced[counted] = cast(Callable[[Tensor], Tensor], replace)(value[counted].float()).to(value.dtype)
            return spliced

        if site is None or replace is None:
            output = self.model.base_model(tokens, use_cache=False)
        else:
            with hooked(self.model, site, splice):
                output = self.model.base_model(tokens, use_cache=False)
        is_target = np.arange(1, windows.context)[None, :] < windows.length[:, None]
        where = torch.from_numpy(is_target).to(self.device)
        hidden, targets = output.last_hidden_state[:, :-1][where], tokens[:, 1:][where]
        unembed = cast(torch.nn.Module, self.model.get_output_embeddings())
        losses = [
            torch.nn.functional.cross_entropy(unembed(rows).float(), target, reduction="sum").item()
            for rows, target in zip(hidden.split(_LOGIT_ROWS), targets.split(_LOGIT_ROWS), strict=True)
        ]
        return sum(losses)

    def _checked(self, tokens: Tensor) -> Tensor:
        longest = int(self.model.config.max_position_embeddings)
        if tokens.shape[1] > longest:
            raise UserError(
                f"Windows of {tokens.shape[1]} positions are too long: {self.name} has {longest}.",
                do=f"Use a context of {longest} or less.",
            )
        if tokens.numel() and int(tokens.max()) >= self.vocabulary:
            raise UserError(
                f"Token id {int(tokens.max())} is not in the vocabulary of {self.name} ({self.vocabulary} entries).",
                do="Tokenize with the model's own tokenizer.",
            )
        return tokens.to(self.device)


def load_subject(name: str, *, device: str = "cpu", dtype: str = "float32", revision: str | None = None) -> Subject:
    """Load a causal language model of a supported family from a directory, or from the hub by its id.

    Weights are read from safetensors only and converted to `dtype`. Raises `UserError` where files are missing or
    malformed, where the hub cannot be reached, and for other families.
    """
    folder = find_folder(name, revision)
    try:
        model_type = AutoConfig.from_pretrained(folder, local_files_only=True).model_type
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder / 'config.json'} is no model configuration.", str(error)) from error
    if model_type not in FAMILIES:
        raise UserError(f"{name} is a {model_type} model.", do=f"Supported: {', '.join(sorted(FAMILIES))}.")
    model, tokenizer = load_model(folder, device=device, dtype=dtype)
    return Subject(model, tokenizer, name, weights_digest(folder), torch.device(device))


def load_model(
    folder: Path, *, device: str = "cpu", dtype: str = "float32"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The causal language model in `folder`, of any family, in evaluation mode, and its tokenizer.

    Weights are read from safetensors only and converted to `dtype`. Raises `UserError` where files are malformed.
    """
    torch_dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(dtype)
    if torch_dtype is None:
        raise UserError(f"Unknown dtype {dtype}.", do=nearest(dtype, ("float32", "bfloat16", "float16")))
    try:
        with no_progress_bar():
            loaded = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch_dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
            )
            model, report = cast(tuple[PreTrainedModel, dict[str, Any]], loaded)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"The weights in {folder} cannot be read.", str(error)) from error
    if report["missing_keys"]:
        raise UserError(f"The weights in {folder} lack {', '.join(sorted(report['missing_keys'])[:5])}.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no tokenizer that can be read.", str(error)) from error
    cast(torch.nn.Module, model).eval().requires_grad_(requires_grad=False).to(device)
    return model, tokenizer


def find_folder(name: str, revision: str | None = None) -> Path:
    """The directory `name`, or the hub's model of that id, fetched where it is not here yet.

    Raises `UserError` where there is neither, or where configuration or safetensors weights are missing.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        if path.is_file():
            raise UserError(f"{name} is a file.", do="Give the directory that holds config.json and the weights.")
        try:
            path = Path(snapshot_download(name, revision=revision, allow_patterns=list(_HUB_FILES)))
        except (OSError, HfHubHTTPError, HFValidationError) as error:
            raise UserError(
                f"There is no directory {name}, and the hub gives no model of that name.",
                str(error).splitlines()[0],
                "Check the path, or fetch the model once with a network connection.",
            ) from error
    missing = [
        what
        for what, there in (
            ("config.json", (path / "config.json").is_file()),
            ("*.safetensors weights", any(path.glob("*.safetensors"))),
        )
        if not there
    ]
    if missing:
        raise UserError(f"{path} lacks {' and '.join(missing)}.", do="Save the model with save_pretrained.")
    return path


def weights_digest(folder: Path) -> str:
    """SHA-256 over the bytes of the configuration and the weight files in `folder`, hexadecimal."""
    sha = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with path.open("rb") as file:
            sha.update(hashlib.file_digest(file, "sha256").digest())
    return sha.hexdigest()


def devices() -> tuple[str, ...]:
    """Devices that this machine has, the fastest last."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.append("mps")
    if torch.cuda.is_available():
        found.append("cuda")
    return tuple(found)
