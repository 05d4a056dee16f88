"""A row is the row alone, whatever method another row of the batch has."""

from __future__ import annotations

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor

from tests.dropout import with_dropout
from tests.runtime.test_families import refused
from tests.runtime.test_methods import CALLS
from tests.sampling import sampled
from tests.tiny import ENCODER_DECODERS, OTHERS, SPECIAL, backbone, batch, composed

FAMILIES = (*SPECIAL, *OTHERS)
texts = st.sampled_from([*map(with_dropout, CALLS)])


def states(model: torch.nn.Module, given: dict[str, Tensor], **more: object) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**given, **more).last_hidden_state
    return found


@sampled(
    20,
    family=st.sampled_from(FAMILIES),
    pair=st.tuples(texts, texts),
    left=st.booleans(),
    optimise=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_row_is_the_row_alone(
    family: str, pair: tuple[str, str], left: bool, optimise: bool, seed: int
) -> None:
    assume(not any(refused(family, text) for text in pair))
    text = f"route(one={pair[0]}, two={pair[1]})"
    model = composed(text, backbone(family), seed, optimise=optimise)
    rows = ["two", "one", None, "two"]
    given = batch(rows=len(rows), seed=seed)
    if left:
        given = {name: value.flip(1) for name, value in given.items()}
    read = given["attention_mask"].bool()
    if family in ENCODER_DECODERS:
        given["decoder_input_ids"] = given["input_ids"]
        read = torch.ones_like(read)
    together = states(model, given, rows=rows)
    for number, name in enumerate(rows):
        one = {key: value[number : number + 1] for key, value in given.items()}
        alone = states(backbone(family) if name is None else model.branch(name), one)[0]
        mask = read[number]
        gap = (together[number] - alone)[mask].abs().max() / alone[mask].abs().max()
        assert gap <= 1e-9, name
