"""Trains two small tokenizers of different make-up and writes tests/golden/tokenizer/*.json.

Per case: ids (no special tokens added), ids_with_special (the file's post-processor applied),
decoded and decoded_skip_special (both of ids).
"""
import json
import pathlib

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

import tokenizer_texts
import training_text

OUT = pathlib.Path("tests/golden/tokenizer")
TINY = pathlib.Path("tests/fixtures/bottega-tiny/tokenizer.json")

# English contractions in any case, up to three digits at once, line ends kept with punctuation.
CONTRACTIONS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# A word breaks where lower case meets upper case; one digit at once; no contractions.
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LETTER_CASE = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train(regex, normalizer, vocab, special):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(training_text.documents(), trainer)
    return tokenizer


def contractions():
    """Added tokens after the vocabulary, normaliser NFC, tokens that swallow white space."""
    tokenizer = train(CONTRACTIONS, normalizers.NFC(), vocab=600, special=[])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.add_tokens([
        AddedToken("<think>", normalized=False),
        AddedToken("</think>", normalized=False),
        AddedToken("<tool>", rstrip=True, normalized=False),
        AddedToken("parola", single_word=True, normalized=True),
    ])
    return tokenizer


def letter_case():
    """Control tokens first in the vocabulary, begin-of-text added, whole words before merges."""
    special = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>"]
    tokenizer = train(LETTER_CASE, None, vocab=640, special=special)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<s> $A",
            pair="<s> $A <s>:1 $B:1",
            special_tokens=[("<s>", tokenizer.token_to_id("<s>"))],
        ),
    ])
    document = json.loads(tokenizer.to_str())
    document["model"]["ignore_merges"] = True
    # Words that no merge reaches: only the look-up of whole words finds them.
    vocab = document["model"]["vocab"]
    for word in ("Buongiorno", "\u0120quick", "\u0120supercalifragilistichespiralidoso"):
        vocab.setdefault(word, len(vocab))
    return Tokenizer.from_str(json.dumps(document))


def write_tokenizer(name, tokenizer, merges_as_text):
    """merges_as_text: the older form of the file, "a b" where the newer one has ["a", "b"]."""
    path = OUT / f"{name}.tokenizer.json"
    # Saved compactly by us: the library's own file has a line for every token.
    document = json.loads(tokenizer.to_str())
    if merges_as_text:
        document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
    return path


def write_cases(name, path):
    tokenizer = Tokenizer.from_file(str(path))
    cases = []
    for text in tokenizer_texts.texts():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        cases.append({
            "text": text,
            "ids": ids,
            "ids_with_special": tokenizer.encode(text, add_special_tokens=True).ids,
            "decoded": tokenizer.decode(ids, skip_special_tokens=False),
            "decoded_skip_special": tokenizer.decode(ids, skip_special_tokens=True),
        })
    lines = ",\n".join(json.dumps(c, ensure_ascii=False, separators=(",", ":")) for c in cases)
    target = OUT / f"{name}.json"
    target.write_text(f'{{"tokenizer": "{path}", "cases": [\n{lines}\n]}}\n')
    changed = sum(c["decoded"] != c["text"] for c in cases)
    print(f"{target}: {tokenizer.get_vocab_size()} tokens, {len(cases)} cases, "
          f"{changed} do not come back as they were")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    write_cases("contractions", write_tokenizer("contractions", contractions(), True))
    write_cases("letter-case", write_tokenizer("letter-case", letter_case(), False))
    if TINY.exists():
        write_cases("bottega-tiny", TINY)
    else:
        print("bottega-tiny has no tokenizer: left out")


main()
