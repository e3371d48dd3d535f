"""Who explains and who answers: from a configuration's names to objects."""

from collections.abc import Sequence

from autointerp.config import RunConfig
from autointerp.controls import base
from autointerp.explain.llm import LlmExplainer
from autointerp.explain.lookup import LookupExplainer
from autointerp.llm.catalog import SLOT_PROVIDERS
from autointerp.pipeline import Judges
from autointerp.prompts import load_prompt
from autointerp.protocols.catalog import make_presets
from autointerp.protocols.preset import Preset
from autointerp.records.call import Reply, Request
from autointerp.records.explanation import Failure
from autointerp.records.trial import Question
from autointerp.seams import Explainer, Model, Simulator
from autointerp.simulate.judge import ITEMS_PER_CALL, LlmJudge
from autointerp.simulate.llm import LlmSimulator
from autointerp.simulate.logprob import SlotSimulator
from autointerp.simulate.lookup import LookupJudge, LookupSimulator
from sae.errors import UserError

LOOKUP = "lookup"
WINDOWS_PER_CALL = 5
"""Windows of many tokens in one call of a chat simulator."""


class Nobody:
    """Stands for the model where requests are only counted."""

    async def answer(self, request: Request) -> Reply | Failure:
        """Never called."""
        raise RuntimeError(f"Nobody is there to ask {request.model}.")

    def reject(self, request: Request) -> None:
        """Never called."""


def presets(config: RunConfig) -> tuple[Preset, ...]:
    """The protocols asked for, the headline first."""
    return make_presets(config.protocol, config.seed)


def language_models(config: RunConfig) -> list[str]:
    """The `provider/model` names that a run calls; empty where `lookup` does everything."""
    if reads_slots(config.explainer):
        raise UserError(
            f"{config.explainer} cannot explain.",
            "Models of slots/ and local/ write nothing: they only simulate.",
            "Give --explainer lookup or provider/model.",
            usage=True,
        )
    if config.batch and reads_slots(config.simulator):
        raise UserError(f"{config.simulator} has no batch API.", do="Leave --batch out.", usage=True)
    answers_only = [each.name for each in presets(config) if each.question not in ("levels", "levels-10")]
    if answers_only and reads_slots(config.simulator):
        raise UserError(
            f"{config.simulator} cannot answer the questions of {answers_only[0]}.",
            "Models of slots/ and local/ tell levels of tokens and nothing else.",
            "Give another --simulator or --protocol.",
            usage=True,
        )
    if config.explainer != LOOKUP and config.simulator == LOOKUP:
        raise UserError(
            f"The simulator {LOOKUP} reads token tables, which {config.explainer} does not write.",
            do="Give --simulator provider/model too.",
            usage=True,
        )
    return sorted({name for name in (config.explainer, config.simulator) if name != LOOKUP})


def reads_slots(name: str) -> bool:
    """Whether `name` is a simulator's model that gives its distribution at every level of an item at once."""
    return name.partition("/")[0] in SLOT_PROVIDERS


def judges(config: RunConfig, arms: Sequence[str], model: Model | None) -> dict[str, Judges]:
    """Per arm, who explains and who answers each protocol's question; the arm's label only reaches the ledger.

    What a control's explanations cost is the features', whose they are. Without a `model` language models can be
    counted, but not asked.
    """
    asked = model or Nobody()
    questions: list[Question] = list(dict.fromkeys(preset.question for preset in presets(config)))
    return {
        arm: Judges(
            explainer(config, base(arm), asked),
            {question: simulator(config, question, arm, asked) for question in questions},
        )
        for arm in arms
    }


def explainer(config: RunConfig, arm: str, model: Model) -> Explainer:
    """Who writes the explanations of `arm`."""
    if config.explainer == LOOKUP:
        return LookupExplainer()
    return LlmExplainer(model, config.explainer, load_prompt("explain", "v1"), config.draws, arm)


def simulator(config: RunConfig, question: Question, arm: str, model: Model) -> Simulator:
    """Who answers `question` for `arm`."""
    name, draws = config.simulator, config.draws
    match question:
        case "levels" | "levels-10":
            if name == LOOKUP:
                return LookupSimulator()
            if reads_slots(name):
                return SlotSimulator(model, name, load_prompt("slots", "v1"), draws, arm=arm)
            if question == "levels":
                return LlmSimulator(model, name, load_prompt("simulate", "v1"), draws, arm=arm)
            prompt = load_prompt("simulate-10", "v1")
            return LlmSimulator(model, name, prompt, draws, WINDOWS_PER_CALL, arm, top_level=10)
        case "detection" | "fuzzing" | "logits":
            if name == LOOKUP:
                return LookupJudge(question)
            return LlmJudge(
                model, name, load_prompt(question, "v1"), draws, ITEMS_PER_CALL[question], arm, question=question
            )
