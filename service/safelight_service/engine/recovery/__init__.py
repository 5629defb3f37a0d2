"""Recovery: logs of forwards, from which another engine continues a run."""
