"""Thinking inside a response's text, which is no part of the response."""

# written by the models or servers of DeepSeek and Qwen, Gemini, Mistral, Seed, Kimi, and others
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
    ("<|channel|>analysis", "<|channel|>final<|message|>"),
)


def response_start(text: str) -> int:
    """The place in a text where the response begins, after the thinking; the end of the text if it never does.

    Some templates write the opening tag into the prompt, so that the text has the closing tag only.
    """
    start = len(text) - len(text.lstrip())
    for opening, closing in TAGS:
        end = text.find(closing)
        if end >= 0 and (text.startswith(opening, start) or opening not in text[:end]):
            rest = end + len(closing)
            return rest + len(text[rest:]) - len(text[rest:].lstrip())
        if end < 0 and text.startswith(opening, start):
            return len(text)
    return 0
