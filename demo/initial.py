"""The page's settings before it has read the cluster's description; tests compare them with the cluster's."""

MAX_IMAGES = 8
MAX_GUIDANCE = 20
IMAGES = 1
GUIDANCE = 4.5
TOP_P = 0
SMOOTH = True
