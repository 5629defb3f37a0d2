"""Engine support: runs of jobs, loaded tiny models, a simulated GPU."""
