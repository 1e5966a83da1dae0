"""What the page's settings show until the cluster has described itself; tests compare it with the cluster's own."""

MAX_IMAGES = 8
MAX_GUIDANCE = 20
IMAGES = 1
GUIDANCE = 4.5
TOP_P = 0
SMOOTH = True
