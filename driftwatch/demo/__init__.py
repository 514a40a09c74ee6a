"""The demo: breaks objects on a real cluster by hand, and shows how the daemon heals them.

Nothing on the screen is simulated. The daemon is the production program, started as in production. Its output is lines
of its own log. A tick appears only after the API server confirmed that the object matches the commit.
"""
