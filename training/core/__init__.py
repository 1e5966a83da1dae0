"""What every training shares: the loop, optimisers, devices, options, logs. Imports no data and no networks of ours."""
