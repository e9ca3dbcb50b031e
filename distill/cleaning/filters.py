"""Filters of single rows: failures, refusals, length, repetition, language."""

from collections.abc import Sequence

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from distill.cleaning.refusals import refusal
from distill.core.errors import UserError
from distill.core.files import Row
from distill.core.text import opens_with, repetition, words
from distill.params.clean import Clean

DropReason = tuple[str, str]  # reason, detail
MIN_ODDS = 10  # a language outside the list must be this many times as probable as all in the list together


def has_class_label(row: Row) -> bool:
    """Whether the response is one of a closed set of class labels."""
    return "label_log_probs" in row


class LanguageFilter:
    """Detection of responses in languages outside a list."""

    def __init__(self, languages: Sequence[str]) -> None:
        """Take ISO 639 codes such as `en`. Raises UserError for codes that the model does not know."""
        self.languages = frozenset(languages)
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if unknown := sorted(self.languages - set(self._identifier.labels)):
            raise UserError(
                f"clean.languages has unknown codes: {', '.join(unknown)}. Known are "
                f"{', '.join(sorted(self._identifier.labels))}."
            )

    def other_language(self, text: str) -> str | None:
        """The language of a text if it is surely outside the list, else None.

        Code, numbers, names and texts of a few words could be of any language, hence MIN_ODDS. Of 7,960 English
        responses of the default teacher none was taken for another language.
        """
        ranked = self._identifier.rank(text)
        best, probability = ranked[0]
        listed = sum(mass for language, mass in ranked if language in self.languages)
        return best if listed * MIN_ODDS < probability else None


def quality_filter(row: Row, clean: Clean) -> DropReason | None:
    """The first reason to drop a row for its own quality, or None.

    Class labels pass whatever their length and words.
    """
    text, finish = row["response"], row["finish_reason"]
    if row["error"] is not None or finish == "error":
        return "failed", ": ".join((row["error"]["class"], row["error"]["message"])) if row["error"] else ""
    if finish == "content_filter":
        return "filtered", ""
    if has_class_label(row):
        return None
    num_words = len(words(text))
    if finish == "length" and clean.drop_truncated:
        return "truncated", f"after {num_words} words"
    if not text.strip():
        return "empty", ""
    if said := refusal(text) or next((prefix for prefix in clean.refusal_prefixes if opens_with(text, prefix)), None):
        return "refused", said
    if num_words < clean.min_words:
        return "too_short", f"{num_words} words"
    if num_words > clean.max_words:
        return "too_long", f"{num_words} words"
    if (fraction := repetition(text)) > clean.max_repetition:
        return "repetitive", f"{fraction:.2f}"
    return None


def filter_row(row: Row, clean: Clean, languages: LanguageFilter | None) -> DropReason | None:
    """The reason to drop a row whatever the other rows are, or None."""
    if reason := quality_filter(row, clean):
        return reason
    other = languages.other_language(row["response"]) if languages and not has_class_label(row) else None
    return ("language", other) if other else None
