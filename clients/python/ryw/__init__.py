"""Read your own writes on PostgreSQL's replicas: the client of the extension ryw.

The adapters are modules of their own, and import their driver or framework:
ryw.psycopg, ryw.psycopg2, ryw.asyncpg, ryw.sqlalchemy, ryw.django; ryw.http is the cookie.
"""
from .keeper import Keeper, current, enter, session
from .routing import NotReached, Router, TokenLost

__all__ = ["Keeper", "NotReached", "Router", "TokenLost", "current", "enter", "session"]
__version__ = "1.1.0"
