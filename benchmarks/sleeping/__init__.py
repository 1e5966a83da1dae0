"""The four stages as real processes whose engines sleep: servers, queues, schedulers and batches are the product's own.

    SLEEPING_PROFILE=FILE python -m benchmarks.sleeping.decoder

FILE is JSON: by stage, the seconds of a batch of each size. Results are constant; only times are meaningful.
"""
