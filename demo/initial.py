"""Initial values of the page's settings, until Describe returns. A test compares them with the cluster's."""

MAX_IMAGES = 8
MAX_GUIDANCE = 20
IMAGES = 1
GUIDANCE = 4.5
TOP_P = 0
SMOOTH = True
