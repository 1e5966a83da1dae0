"""How a checkpoint is made: tokenizer, transformer, text encoder, safety model. Imports neither gRPC nor services.

`core`, `data`, `tokenizer`, `transformer`, `text`, `safety` and `checkpoint` train on any images with captions.
`recipes` holds data sets of our own with their captions, evaluation and export; nothing above imports it.
"""

from common.cpus import bound_spin

bound_spin()  # OpenMP reads it when torch is imported
