"""Deployments: what their hosts are like, what should run on them, and bringing that about."""
