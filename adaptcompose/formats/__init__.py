"""Adapter files of AdapterHub and PEFT, read without trusting them, and written."""
