"""What the processes of `tests.train.processes` are forked with: importing it takes longer than what they do."""

import warnings

warnings.simplefilter("ignore")

import transformers.models.llama.modeling_llama  # noqa: E402, F401

import tests.train.jobs  # noqa: E402, F401
