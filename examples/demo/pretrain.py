"""Make the demo's backbone: a tokenizer and `xlmr-tiny`, from generated text, on one thread.

    python examples/demo/data.py && python examples/demo/pretrain.py

The result in `build/xlmr-tiny` is an ordinary transformers checkpoint. Swahili is in no sentence
that the model is trained on. The tokenizer has seen Swahili text, so that Swahili words are not
cut into letters; the vectors of those pieces stay untrained.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD = Path(__file__).parent / "build"
PRETRAINED = ("en", "id", "de")
LANGUAGES = (*PRETRAINED, "sw")
SPECIAL = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
MAX_TOKENS = 64


def texts(lang: str, part: str) -> list[str]:
    """The raw sentences that data.py wrote."""
    lines = (BUILD / "text" / f"{lang}.{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def make_tokenizer(corpus: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer with XLM-R's special tokens, at the same ids as XLM-R's.

    Punctuation is set apart first, so that text and ready-split words give the same pieces.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    apart = [normalizers.Replace(mark, f" {mark} ") for mark in (".", ",", "(", ")")]
    spaces = normalizers.Replace(Regex(" +"), " ")
    tokenizer.normalizer = normalizers.Sequence([*apart, spaces, normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    letters = [chr(c) for c in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=letters,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        cls_token="<s>",
        sep_token="</s>",
        **SPECIAL,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, layers: int) -> XLMRobertaForMaskedLM:
    """XLM-R's shape, made small."""
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=256,
        # XLM-R counts positions from pad + 1 = 2.
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    return XLMRobertaForMaskedLM(config)


def grown(model: XLMRobertaForMaskedLM) -> XLMRobertaForMaskedLM:
    """A model of twice the layers that starts from the weights of this one, used twice.

    A shallow model finds the way out of the first plateau in a quarter of the time.
    """
    config = model.config
    half = config.num_hidden_layers
    bigger = XLMRobertaForMaskedLM(
        XLMRobertaConfig.from_dict({**config.to_dict(), "num_hidden_layers": 2 * half})
    )
    bigger.load_state_dict(model.state_dict(), strict=False)
    layers = bigger.roberta.encoder.layer
    for below, above in zip(layers[:half], layers[half:], strict=True):
        above.load_state_dict(below.state_dict())
    return bigger


def padded(ids: list[list[int]]) -> torch.Tensor:
    width = max(map(len, ids))
    return torch.tensor([row + [1] * (width - len(row)) for row in ids])


def masked(ids: torch.Tensor, vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One fifth of the pieces hidden: 8 of 10 by <mask>, 1 by another piece, 1 left as it is."""
    chosen = (torch.rand(ids.shape) < 0.2) & (ids > 3)
    dice = torch.rand(ids.shape)
    shown = torch.where(chosen & (dice < 0.8), vocab_size - 1, ids)
    other = torch.randint(4, vocab_size - 1, ids.shape)
    return torch.where(chosen & (dice > 0.9), other, shown), chosen


def batches(ids: list[list[int]], size: int) -> Iterator[torch.Tensor]:
    """Endless batches of sentences of like length, in random order."""
    while True:
        order = random.sample(range(len(ids)), len(ids))
        for start in range(0, len(order) - size + 1, size * 32):
            chunk = sorted(order[start : start + size * 32], key=lambda i: len(ids[i]))
            groups = [chunk[i : i + size] for i in range(0, len(chunk), size)]
            random.shuffle(groups)
            yield from (padded([ids[i] for i in group]) for group in groups)


def predictions(
    model: XLMRobertaForMaskedLM, ids: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and right answers at the hidden places only."""
    shown, chosen = masked(ids, model.config.vocab_size)
    hidden = model.roberta(shown, attention_mask=(ids != 1).long()).last_hidden_state
    return model.lm_head(hidden[chosen]), ids[chosen]


@torch.no_grad()
def accuracy(model: XLMRobertaForMaskedLM, ids: list[list[int]]) -> float:
    """Share of hidden pieces that the model guesses."""
    torch.manual_seed(1)
    hits, total = 0, 0
    for start in range(0, len(ids), 64):
        logits, answers = predictions(model, padded(ids[start : start + 64]))
        hits += int((logits.argmax(-1) == answers).sum())
        total += len(answers)
    return round(hits / total, 4)


def train(model: XLMRobertaForMaskedLM, ids: list[list[int]], steps: int, lr: float) -> None:
    """AdamW, 8 % warm-up, cosine down to a hundredth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    warm = max(1, int(steps * 0.08))
    started, mean = time.time(), 0.0
    for step, batch in zip(range(steps), batches(ids, 64), strict=False):
        share = max(0.01, 0.5 + 0.5 * math.cos(math.pi * (step - warm) / (steps - warm)))
        optimizer.param_groups[0]["lr"] = lr * (share if step >= warm else (step + 1) / warm)
        logits, answers = predictions(model, batch)
        loss = torch.nn.functional.cross_entropy(logits, answers)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        mean += 0.02 * (loss.item() - mean) if step else loss.item()
        if step % 100 == 0:
            print(f"step {step} loss {mean:.3f} {time.time() - started:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--shallow-steps", type=int, default=3600)
    parser.add_argument("--chat-steps", type=int, default=2600)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--vocab", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=BUILD / "xlmr-tiny")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    corpus = {lang: texts(lang, "train") for lang in LANGUAGES}
    tokenizer = make_tokenizer([t[i] for t in corpus.values() for i in range(5000)], args.vocab)
    ids = {lang: tokenizer(corpus[lang])["input_ids"] for lang in PRETRAINED}
    ids = {lang: [row for row in rows if len(row) <= MAX_TOKENS] for lang, rows in ids.items()}
    model = make_model(tokenizer, args.layers // 2)
    started = time.time()
    rows = [row for lang in PRETRAINED for row in ids[lang]]
    train(model, rows, args.shallow_steps, args.lr)
    model = grown(model)
    train(model, rows, args.steps, args.lr)
    chat = [row for lang in PRETRAINED for row in tokenizer(texts(lang, "chat"))["input_ids"]]
    train(model, [row for row in chat if len(row) <= MAX_TOKENS], args.chat_steps, args.lr)
    model.eval()
    scores = {}
    for lang in LANGUAGES:
        held_out = tokenizer(texts(lang, "validation"), truncation=True)["input_ids"]
        scores[lang] = accuracy(model, held_out)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    record = {
        "shallow_steps": args.shallow_steps,
        "steps": args.steps,
        "chat_steps": args.chat_steps,
        "lr": args.lr,
        "seed": args.seed,
        "parameters": model.num_parameters(),
        "seconds": round(time.time() - started),
        "mlm_accuracy": scores,
    }
    (args.out / "pretraining.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
