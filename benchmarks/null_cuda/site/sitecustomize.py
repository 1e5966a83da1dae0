"""Read by Python as it starts: cuDNN talks to the driver behind the runtime's back, so it is left out."""

import torch

torch.backends.cudnn.enabled = False
torch.backends.cuda.enable_cudnn_sdp(False)
