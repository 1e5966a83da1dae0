"""Writing parts in the released layout and putting them into one folder. Trains nothing."""
