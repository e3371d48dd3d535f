"""What the measures of a trained dictionary or subject are called where people read them."""

from collections.abc import Mapping

WORDS: Mapping[str, str] = {
    "n_tokens": "tokens measured",
    "positions": "which tokens",
    "l0": "L0: features that fire, mean",
    "fvu": "FVU: variance unexplained, share",
    "dead": "dead features",
    "ultra_low": "features below density 1e-6",
    "loss": "model's loss, nats per token",
    "loss_zero_ablated": "  with the site at zero",
    "loss_mean_ablated": "  with the site at its mean",
    "loss_reconstructed": "  with the reconstruction",
    "loss_increase": "loss that the reconstruction adds",
    "recovered_zero": "loss recovered, against zero",
    "recovered_mean": "loss recovered, against the mean",
    "n_vectors": "vectors measured",
    "mmcs_planted": "nearest cosine, mean over planted",
    "mmcs_units": "nearest cosine, mean over living units",
    "mcc": "cosine, matched one to one",
    "matched_correlation": "correlation of activations, matched",
    "uniqueness": "distinct planted per living unit",
    "f1": "F1 of firing, matched",
    "l0_error": "L0 less the planted L0",
    "shrinkage": "norm of reconstruction over vector",
    "unseen": "planted that never fire here",
    "tokens": "tokens trained on",
    "train_loss": "training loss, nats per token",
    "validation_loss": "validation loss, nats per token",
    "token_share": "variance that the token explains, share",
    "seconds": "seconds",
}
"""By the names that the files have."""
