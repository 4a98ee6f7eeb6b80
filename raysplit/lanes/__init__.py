"""Lanes on Ray: joining a cluster, the broker, the Ray Train jobs of the lanes and what each of their ranks does."""
