"""Imported by Python at its start. Disables cuDNN, which calls the driver without the runtime."""

import torch

torch.backends.cudnn.enabled = False
torch.backends.cuda.enable_cudnn_sdp(False)
