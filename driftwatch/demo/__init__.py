"""A story on a real cluster: things are broken by hand, and the daemon puts them back while one looks on.

Nothing on the screen is made up. The daemon is the program that runs in production, started as it is started there;
what is shown of it are lines of its own log; and a tick stands only where the API server was asked and answered that
the object is as the commit declares it.
"""
