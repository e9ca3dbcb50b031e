"""Tokenizers beside the tiny teacher's: trimmed ones, and ones of other families."""

import json

import tiny
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from distill.modeling import few_shot
from distill.students.vocabulary import select_tokens, trim_tokenizer

TEACHER = tiny.tokenizer()
LLAMA = (  # a template as Llama 2's, which writes a space between the prompt and the response
    "{% for message in messages %}{% if message.role == 'assistant' %} {{ message.content }}</s>"
    "{% else %}<s>[INST] {{ message.content }} [/INST]{% endif %}{% endfor %}"
)
TEXT = "the quick brown fox, ants and honey 😀 naïve\n\t<|im_end|> Ω"


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """The ids of a text without special tokens around it."""
    return tokenizer(text, add_special_tokens=False).input_ids


def trimmed(size: int, counts: dict[int, int] | None = None) -> PreTrainedTokenizerFast:
    """The teacher's tokenizer with `size` tokens."""
    return trim_tokenizer(TEACHER, select_tokens(TEACHER, counts or {}, size))


def byte_level(corpus: list[str], size: int, end: str = "<|im_end|>", **parts: object) -> PreTrainedTokenizerFast:
    """Another byte-level BPE tokenizer, with other merges and another end of turn."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    for name, part in parts.items():
        setattr(backend, name, part)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    template = tiny.TEMPLATE.replace("<|im_end|>", end)
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, eos_token=end, pad_token=end)


def sentencepiece(size: int = 500) -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's: a space before the text, `▁` for spaces, single bytes for what it does not know."""
    single = [f"<0x{byte:02X}>" for byte in range(256)]
    backend = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<unk>", "<s>", "</s>", *single], show_progress=False
    )
    backend.train_from_iterator(tiny.CORPUS, trainer)
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] not in single]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        chat_template=LLAMA,
        eos_token="</s>",
    )


OTHER = byte_level(["honey bees 😀😀 make honeycomb", "what people like so much"] * 3, 330, "<|end|>")


PIECES = sentencepiece()


def without_chat_template(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer of a base model, as `loading.load_tokenizer` returns it with chat_template few_shot."""
    result = tokenizer.__class__(tokenizer_object=tokenizer.backend_tokenizer, **tokenizer.special_tokens_map)
    result.chat_template = few_shot.TEMPLATE
    return result


FEW_SHOT = {
    "byte-level": without_chat_template(OTHER),
    "sentencepiece": without_chat_template(PIECES),
    "the student's": without_chat_template(tiny.tokenizer()),
}
