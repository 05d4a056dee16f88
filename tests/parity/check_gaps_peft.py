"""Whether gaps.py is still right: `.venv-peft/bin/python tests/parity/check_gaps_peft.py`."""

from __future__ import annotations

import sys
import warnings

import peft
import torch
from gaps import PEFT_GAPS, Form, Gap, report
from generate_peft import batch_of, load, run
from transformers.utils import logging


def still(gap: Gap, family: str, form: Form) -> bool:
    """Whether a form is refused as the row says."""
    ((config, options),) = form
    torch.manual_seed(0)
    try:
        settings = getattr(peft, config)(**options)
        model = peft.get_peft_model(load(family, None), settings).eval()
        run(model, batch_of(family), None)
    except Exception as error:
        return str(gap.error) in str(error)
    return False


def main() -> int:
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    return report(PEFT_GAPS, still)


if __name__ == "__main__":
    sys.exit(main())
