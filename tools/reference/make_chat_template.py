"""Writes tests/golden/chat_template/*.json: conversations rendered by transformers' own machinery.

A case holds `context`: every variable the template saw (messages after transformers dropped nulls
and filled the names of the reasoning, tools, special tokens, switches), and `rendered`, or `error`:
the text given to raise_exception. continue_final_message marks a case where the last message is
left open: what follows its content in the template's output is cut off again.
"""
import copy
import json
import pathlib
from unittest import mock

import jinja2
from transformers import PreTrainedTokenizerFast

import template_conversations

OUT = pathlib.Path("tests/golden/chat_template")
TINY = pathlib.Path("tests/fixtures/bottega-tiny")
CONTINUE_TAG = "CONTINUE_FINAL_MESSAGE_TAG "


def without_tag(value):
    if isinstance(value, str):
        return value.replace(CONTINUE_TAG, "")
    if isinstance(value, list):
        return [without_tag(item) for item in value]
    if isinstance(value, dict):
        return {key: without_tag(item) for key, item in value.items()}
    return value


def run(tokenizer, arguments):
    """Returns a case, or None where the template failed by itself: Jinja's words are not ours."""
    arguments = copy.deepcopy(arguments)
    seen = {}
    render = jinja2.Template.render

    def spy(template, **context):
        seen.update(copy.deepcopy(context))
        return render(template, **context)

    outcome = {}
    try:
        with mock.patch.object(jinja2.Template, "render", spy):
            messages = arguments.pop("messages")
            outcome["rendered"] = tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
    except jinja2.exceptions.TemplateError as error:
        if type(error) is not jinja2.exceptions.TemplateError:
            return None
        outcome["error"] = str(error)
    except (TypeError, ValueError, AttributeError):
        return None
    case = {"context": without_tag(seen)}
    if arguments.get("continue_final_message"):
        case["continue_final_message"] = True
    return case | outcome


def write(name, path, tokenizer, conversations):
    cases, failed = [], []
    for title, arguments in conversations:
        case = run(tokenizer, arguments)
        if case is None:
            failed.append(title)
            continue
        cases.append({"name": title} | case)
    lines = ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases)
    (OUT / f"{name}.json").write_text(f'{{"template": "{path}", "cases": [\n{lines}\n]}}\n')
    errors = sum("error" in c for c in cases)
    print(f"{name}: {len(cases)} cases, {errors} of them refused; left out: {', '.join(failed) or 'none'}")


def main():
    for path in sorted(OUT.glob("*.jinja")):
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file="tests/golden/tokenizer/letter-case.tokenizer.json",
            bos_token="<s>",
            eos_token="</s>",
            chat_template=path.read_text(),
        )
        write(path.stem, path, tokenizer, template_conversations.conversations())
    path = TINY / "chat_template.jinja"
    if (TINY / "tokenizer_config.json").exists() and path.exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(TINY)
        cases = [*template_conversations.conversations(), *template_conversations.modes()]
        write("bottega-tiny", path, tokenizer, cases)
    else:
        print("bottega-tiny has no tokenizer: left out")


main()
