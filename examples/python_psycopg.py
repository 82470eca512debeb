"""Read your own write with Python and psycopg 3.

    python3 python_psycopg.py "$PRIMARY" "$REPLICA"

Run with Python 3.11 and psycopg 3.1.7.
"""
import sys

import psycopg

primary = psycopg.connect(sys.argv[1])
replica = psycopg.connect(sys.argv[2], autocommit=True)

written = primary.execute(
    "UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version"
).fetchone()[0]
primary.commit()

# No round trip: it came with the reply to the commit.  Take it before the
# connection goes back to its pool.
token = primary.info.parameter_status("ryw.token")

seen = replica.execute(
    "SELECT version FROM profiles WHERE id = 1 AND ryw_require(%s, %s)",
    (token, 5000),
).fetchone()[0]

print(f"written {written}, token {token}, seen {seen}")
