"""What is wrong with a response by itself, whatever the others are."""

from collections.abc import Sequence
from typing import Any

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from distill.core.errors import UserError
from distill.core.text import opens_with, repetition, words
from distill.params.clean import Clean

Fault = tuple[str, str]  # reason, detail


def is_label(row: dict[str, Any]) -> bool:
    """Whether the response is one of a closed set of labels."""
    return "label_log_probs" in row


def quality(row: dict[str, Any], clean: Clean) -> Fault | None:
    """Why the response is bad by itself, or None. A label is as good as its set, whatever its length and words."""
    text, finish = row["response"], row["finish_reason"]
    if row["error"] is not None or finish == "error":
        return "failed", ": ".join((row["error"]["class"], row["error"]["message"])) if row["error"] else ""
    if finish == "content_filter":
        return "filtered", ""
    if is_label(row):
        return None
    count = len(words(text))
    if finish == "length" and clean.drop_truncated:
        return "truncated", f"after {count} words"
    if not text.strip():
        return "empty", ""
    for opening in clean.refusal_prefixes:
        if opens_with(text, opening):
            return "refused", opening
    if count < clean.min_words:
        return "too_short", f"{count} words"
    if count > clean.max_words:
        return "too_long", f"{count} words"
    if (share := repetition(text)) > clean.max_repetition:
        return "repetitive", f"{share:.2f}"
    return None


SURE = 10  # how many times as probable another language must be


class Languages:
    """Tells texts that are in none of the wanted languages."""

    def __init__(self, wanted: Sequence[str]) -> None:
        """Takes ISO 639 codes such as `en`. Raises UserError for those that the model does not know."""
        self.wanted = frozenset(wanted)
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if unknown := sorted(self.wanted - set(self._identifier.labels)):
            raise UserError(
                f"clean.languages has unknown codes: {', '.join(unknown)}. Known are "
                f"{', '.join(sorted(self._identifier.labels))}."
            )

    def other(self, text: str) -> str | None:
        """The language of a text that is in no wanted one, else None.

        Another language must be SURE times as probable as all wanted ones together: code, numbers, names and
        texts of a few words, which could be of any language, are no reason to drop a row. Of 7,960 English
        answers of the default teacher none was taken for another language.
        """
        ranked = self._identifier.rank(text)
        best, probability = ranked[0]
        own = sum(part for language, part in ranked if language in self.wanted)
        return best if own * SURE < probability else None
