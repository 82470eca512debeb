"""Read your own write with Python and psycopg2 (2.8 or later).

    python3 python_psycopg2.py "$PRIMARY" "$REPLICA"

Run with Python 3.11 and psycopg2 2.9.5.
"""
import sys

import psycopg2

primary = psycopg2.connect(sys.argv[1])
replica = psycopg2.connect(sys.argv[2])
replica.autocommit = True

cursor = primary.cursor()
cursor.execute(
    "UPDATE profiles SET version = version + 1 WHERE id = 1 RETURNING version"
)
written = cursor.fetchone()[0]
primary.commit()

# No round trip: it came with the reply to the commit.  Take it before the
# connection goes back to its pool.
token = primary.info.parameter_status("ryw.token")

cursor = replica.cursor()
cursor.execute(
    "SELECT version FROM profiles WHERE id = 1 AND ryw_require(%s, %s)",
    (token, 5000),
)
seen = cursor.fetchone()[0]

print(f"written {written}, token {token}, seen {seen}")
