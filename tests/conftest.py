"""Shared by all tests: determinism, and no way out of this machine."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # two workers on two cores: more threads only wait for each other
for name in [name for name in os.environ if name.startswith(("AUTOINTERP_", "ANTHROPIC_", "OPENAI_"))]:
    del os.environ[name]

from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "fast", max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fast")
