"""From a sample to text and tokens, through the model directory's own chat template."""
import numpy as np
from transformers.utils.chat_template_utils import _compile_jinja_template

import generate


class Renderer:
    def __init__(self, model):
        self.template = _compile_jinja_template((model / "chat_template.jinja").read_text())

    def sample(self, sample, mode):
        return self.template.render(messages=sample.prompt() + sample.replies(mode), tools=sample.tools or None,
                                    **generate.kwargs_of(mode))

    def prompt(self, messages, tools, kwargs):
        return self.template.render(messages=messages, tools=tools or None, add_generation_prompt=True, **kwargs)


class Encoder:
    """Tokens of a conversation, and which of them the model learns to write: the assistant's turns
    after the last question, their mode tokens included."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.start, self.end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
        self.head = tokenizer.encode("assistant\n").ids

    def encode(self, text, replies):
        ids = np.array(self.tokenizer.encode(text).ids, dtype=np.int64)
        learned = np.zeros(len(ids), dtype=bool)
        for start in np.flatnonzero(ids == self.start)[::-1]:
            begin = start + 1 + len(self.head)
            if list(ids[start + 1:begin]) != self.head:
                continue
            learned[begin:begin + np.flatnonzero(ids[begin:] == self.end)[0] + 1] = True
            replies -= 1
            if replies == 0:
                break
        return ids, learned
