"""How explanations are worded is measured as it reads."""

from autointerp.records.explanation import Evidence, EvidenceExcerpt
from autointerp.wording import literal_overlap, n_words


def test_words_that_were_shown_are_counted() -> None:
    """Words of firing tokens count in any case, those of silent tokens do not."""
    excerpt = EvidenceExcerpt((" Paris", " is", " big"), (9, 0, 3), "top")
    evidence = Evidence((excerpt,), (), (), 9)
    assert literal_overlap("The word 'paris' is BIG", evidence) == 2 / 5
    assert literal_overlap("...", evidence) == 0
    assert n_words("fires on 'Paris', in French text") == 6
