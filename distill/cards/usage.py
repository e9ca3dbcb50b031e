"""Code that a model card shows to run its student."""

import json
import shlex
from collections.abc import Mapping, Sequence

Messages = Sequence[Mapping[str, str]]


def usage(messages: Messages, class_labels: Sequence[str] | None) -> str:
    """Code that runs the student on the messages: it writes a response, or chooses one of the class labels."""
    return text_usage(messages) if class_labels is None else label_usage(messages, class_labels)


def text_usage(messages: Messages) -> str:
    """Python that loads the student from a folder and generates a response, and a chat in a terminal.

    The chat has the system prompt of the messages if it is a single line.
    """
    system = next((message["content"] for message in messages if message["role"] == "system"), "")
    flag = f" --system-prompt {shlex.quote(system)}" if len(system.splitlines()) == 1 else ""
    return f"""```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # the folder of this file
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = {json.dumps(list(messages), ensure_ascii=False)}  # a prompt from the training data
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
output = model.generate(**prompt, max_new_tokens=64, do_sample=False)
print(tokenizer.decode(output[0, prompt["input_ids"].shape[1]:], skip_special_tokens=True))
```

```
transformers serve . --port 8000  # needs: pip install "transformers[serving]"
transformers chat . http://localhost:8000/v1 do_sample=False{flag}  # in another shell
```"""


def label_usage(messages: Messages, class_labels: Sequence[str]) -> str:
    """Python that loads the student from a folder and chooses a class label for the messages."""
    return f"""The student classifies: it scores each class label by its likelihood and writes no text.

```python
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # the folder of this file
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = {json.dumps(list(messages), ensure_ascii=False)}  # a prompt from the training data
labels = {json.dumps(list(class_labels), ensure_ascii=False)}
prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
prompt_ids = tokenizer(prompt, add_special_tokens=False).input_ids
scores = []
for label in labels:
    chat = tokenizer.apply_chat_template([*messages, {{"role": "assistant", "content": label}}], tokenize=False)
    label_ids = tokenizer(chat[len(prompt):].rstrip(), add_special_tokens=False).input_ids  # with the end of the turn
    with torch.inference_mode():
        logits = model(torch.tensor([prompt_ids + label_ids])).logits[0, len(prompt_ids) - 1 : -1]
    log_probs = logits.float().log_softmax(-1)
    scores.append(log_probs.gather(1, torch.tensor(label_ids)[:, None]).sum())
probabilities = dict(zip(labels, torch.stack(scores).softmax(0).tolist()))
print(probabilities)
```"""
