"""Refusals in English, told from answers by what they say rather than by their first words.

A refusal says in its opening that an assistant speaks, or is sorry, and that it does not do what it was told to do.
An answer that is sorry ("I'm sorry for your loss") or that speaks of machines alone is none.
"""

import regex

from distill.core.text import normalise

OPENING = 400  # characters of a response in which it says that it refuses
SORRY = r"(?:(?:so|very|truly|really|terribly|deeply) )?(?:sorry|afraid)\b"
APOLOGY = (
    r"(?:(?:oh|well|hi|hello|hey|no|thank you|thanks)[,.! ]+)?(?:(?:i'm|i am|we're|we are) " + SORRY + r"|sorry\b"
    r"|(?:i |we )?apologi[sz]e\b|my apologies\b)"
)
MACHINE = (
    r"(?:ai|a\.i\.|artificial intelligence|chatbot|bot|(?:large |small )?language model|llm|machine learning model"
    r"|(?:virtual|digital|automated|online) assistant|computer program)"
    # "as an AI researcher" is a person
    r"(?!['\w-])(?! (?!language|model|assistant|system|chatbot|bot|program|tool|developed|designed|created|trained"
    r"|built|made|named|called|by|from|and|i\b|i'|my|it|here|without|with|that|who|which))"
)
KIND = r"(?:just |only |merely )?(?:an?|your) (?:(?!of\b|about\b|in\b|for\b)[\w-]+ ){0,3}?" + MACHINE
SPEAKER, SELF = r"\bas " + KIND, r"\b(?:i'm|i am) " + KIND
NEGATION = (
    r"\b(?:i|we)(?:'m| am|'re| are)? "
    r"(?:do not|don't|did not|didn't|not|cannot|can't|can not|have no|lack|won't|unable)\b"
)
UNABLE = (
    r"(?:(?:i|we) (?:just |simply |really )?(?:cannot|can't|can not|will not|won't|must decline to"
    r"|have to decline to|do not have (?:the |any )?(?:ability|capability|capacity|means|permission)"
    r"|don't have (?:the |any )?(?:ability|capability|capacity|means|permission))"
    r"|(?:i'm|i am|we're|we are) (?:currently |just |simply )?(?:unable to|not (?:able|allowed|permitted|programmed"
    r"|designed|equipped|authori[sz]ed|comfortable|capable|willing)(?: to| of| with)?|not here to))"
)
DEED = (
    r"(?:to )?(?:(?:directly|really|actually|currently|personally|further) )?"
    r"(?:help(?:ing)?(?! but\b| it\b| myself\b| feeling\b| wondering\b| thinking\b)|assist\w*|provide|providing"
    r"|fulfil\w*|comply\w*|answer\w*|respond\w*|generate|generating|creat(?:e|ing)|writ(?:e|ing)|produc(?:e|ing)|shar(?:e|ing)"
    r"|offer\w*|access\w*|support\w*|engag(?:e|ing)|discuss\w*|recommend\w*|predict\w*|complete|completing|process\w*"
    r"|perform\w*|brows(?:e|ing)|view\w*|display\w*|translat(?:e|ing)|verify\w*|continue\b|participat(?:e|ing)"
    r"|(?:do|doing) (?:that|this|so|it|what)\b"
    r"|give (?:you )?(?:any |an |a |the )?\w*\s?(?:advice|information|opinion|answer|instructions))"
)
HELPLESS = UNABLE + r"\s+" + DEED
REFUSALS = tuple(
    regex.compile(pattern)
    for pattern in (
        rf"^[^.!?]*{SPEAKER}.*?{NEGATION}",  # as a chatbot designed to ..., I don't have ...
        rf"^(?:{APOLOGY}|{SELF}).*?{HELPLESS}",  # I'm sorry to inform you that I'm unable to assist with ...
        rf"^{APOLOGY}.*?{SELF}.*?{NEGATION}",
        rf"^{SELF}[^.!?]*(?:{UNABLE}|,? (?:and|but|so) (?:cannot|can't)\b)",
        rf"^{APOLOGY}[, ]+but (?:no\b|(?:i'm|i am) not )",
        rf"^{APOLOGY}[^.!?]*[,;.:] (?:but |however,? )?{UNABLE}(?: to)?(?:[.!]|$)",  # I'm sorry, but I can't.
        rf"^(?:no[,.]? |yes[,.]? but |unfortunately,? |i regret that )?{HELPLESS}",  # I can't help with that
        rf"^(?:no[,.]? )?{UNABLE}(?: to)?[.!]?$",  # I cannot.
    )
)


def refusal(text: str) -> str | None:
    """The words of a refusal from its beginning to what it does not do, or None for another response."""
    opening = normalise(text)[:OPENING].lstrip("*_#>\"' ")
    return next((match[0] for pattern in REFUSALS if (match := pattern.search(opening))), None)
