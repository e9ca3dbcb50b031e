"""Which language a text is in, by a model that comes inside the package py3langid (Lui and Baldwin 2012)."""

from collections.abc import Sequence

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from distill.errors import UserError

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
