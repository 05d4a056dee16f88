"""The text models of data2vec have RoBERTa's shape."""

from __future__ import annotations

from dataclasses import replace

from adaptcompose.backbones.bert import BERT

LAYOUT = replace(BERT, base_attributes={"data2vec-text": "data2vec_text"}, adapterhub={})
