"""Ray Serve: engines as replicas of deployments, which fronts call and route to."""
