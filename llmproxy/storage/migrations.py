"""Owns the schema: numbered migrations, applied only under the serving lock.

Every table is STRICT. The money tables defend themselves: CHECKs keep a wallet from going below
zero, triggers keep history from being rewritten. Money columns are nano-USD, multipliers are
millionths, times are milliseconds since 1970. Must not hold business logic beyond that.
"""

import contextlib
import sqlite3

from sqlite_utils import Database, Migrations

from llmproxy.storage.first_schema import STATEMENTS

SCHEMA_VERSION = 12

_migrations = Migrations("llmproxy")


@_migrations()
def m001_initial(db: Database) -> None:
    """Make all tables of the first version."""
    for statement in STATEMENTS:
        db.execute(statement)


@_migrations()
def m002_own_prices_and_expiry(db: Database) -> None:
    """Give the operator's own catalog entries a table, API keys an end, shortfalls an index."""
    db.execute(
        """
        CREATE TABLE catalog_overrides(
          provider TEXT NOT NULL,
          model TEXT NOT NULL,
          -- The whole entry, in the form of model_catalog.json.
          entry TEXT NOT NULL,
          actor TEXT NOT NULL,
          updated_at_ms INTEGER NOT NULL,
          PRIMARY KEY(provider, model)
        ) STRICT
        """
    )
    db.execute("ALTER TABLE api_keys ADD COLUMN expires_at_ms INTEGER")
    # Few holds have one: their sum must not cost a look at all of them.
    db.execute(
        """
        CREATE INDEX holds_shortfall ON holds(shortfall_nanousd) WHERE shortfall_nanousd > 0
        """
    )


@_migrations()
def m003_streams(db: Database) -> None:
    """Let a hold say whether its request is a stream; unknown of those that there are."""
    db.execute("ALTER TABLE holds ADD COLUMN is_stream INTEGER CHECK(is_stream IN(0, 1))")


_CHECKED_BY_LISTS = (
    ("holds", "state", ("open", "settled", "released", "expired")),
    ("holds", "basis", ("usage", "estimate", "hold", "none")),
    ("transfers", "kind", ("credit", "charge", "adjust")),
    ("requests", "state", ("settled", "released", "expired", "refused")),
    ("requests", "basis", ("usage", "estimate", "hold", "none")),
)


def _rewrite_checks(db: Database) -> None:
    db.execute("PRAGMA writable_schema = ON")
    for table, column, values in _CHECKED_BY_LISTS:
        quoted = [f"'{value}'" for value in values]
        old = f"CHECK({column} IN({', '.join(quoted)}))"
        new = f"CHECK({' OR '.join(f'{column} = {value}' for value in quoted)})"
        db.execute(
            """UPDATE sqlite_schema SET sql = replace(sql, :old, :new)
               WHERE type = 'table' AND name = :table AND instr(sql, :old)""",
            {"old": old, "new": new, "table": table},
        )
    db.execute("PRAGMA writable_schema = RESET")


@_migrations()
def m004_checks_that_compare(db: Database) -> None:
    """Let the checks of the money tables compare, where they looked into lists.

    SQLite makes a table for every list of three and more, each time a statement runs: a tenth of
    all that a request cost. Only the text of the checks changes, which SQLite allows in place
    (https://sqlite.org/lang_altertable.html, section 7).
    """
    with contextlib.suppress(sqlite3.OperationalError):
        _rewrite_checks(db)  # an SQLite in its defensive mode, such as Apple's, permits it not
    # Only credits and adjustments are listed by wallet. (A new index also makes all connections
    # read the schema again.)
    db.execute("DROP INDEX transfers_wallet")
    db.execute("CREATE INDEX transfers_wallet ON transfers(wallet_id, id) WHERE kind <> 'charge'")


_DAY_TABLES = (
    # The sums of all ended requests by day (UTC, of arrival, since 1970), kept when their rows in
    # `requests` are pruned. The user comes first: users ask for their own days.
    """
    CREATE TABLE requests_by_day(
      user_id INTEGER NOT NULL,
      day INTEGER NOT NULL,
      api_key_id INTEGER NOT NULL,
      provider TEXT NOT NULL,
      endpoint TEXT NOT NULL,
      -- Empty for what held nothing.
      model TEXT NOT NULL,
      requests INTEGER NOT NULL,
      refused INTEGER NOT NULL,
      input INTEGER NOT NULL,
      cache_read INTEGER NOT NULL,
      cache_write_5m INTEGER NOT NULL,
      cache_write_1h INTEGER NOT NULL,
      output INTEGER NOT NULL,
      reasoning INTEGER NOT NULL,
      web_searches INTEGER NOT NULL,
      cost_nanousd INTEGER NOT NULL,
      charged_nanousd INTEGER NOT NULL,
      shortfall_nanousd INTEGER NOT NULL,
      PRIMARY KEY(user_id, day, api_key_id, provider, endpoint, model)
    ) STRICT, WITHOUT ROWID
    """,
    # Each time that rows of `requests` were deleted: all that came before that day may be gone.
    """
    CREATE TABLE prunes(
      id INTEGER PRIMARY KEY,
      before_day INTEGER NOT NULL,
      actor TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL
    ) STRICT
    """,
)

_TOKENS = """
coalesce(CAST(CASE WHEN NOT json_valid(usage) THEN 0
                   WHEN json_array_length(usage, '$.legs') = 1
                     THEN json_extract(usage, '$.legs[0].CLASS')
                   ELSE (SELECT sum(json_extract(value, '$.CLASS'))
                         FROM json_each(usage, '$.legs') WHERE type = 'object')
              END AS INTEGER), 0),
"""
_TOKEN_CLASSES = (
    *("input", "cache_read", "cache_write_5m", "cache_write_1h"),
    *("output", "reasoning", "web_searches"),
)
_FILL_DAYS = "".join(
    (
        """
INSERT INTO requests_by_day
SELECT user_id, created_at_ms / 86400000, api_key_id, provider, endpoint,
  CASE WHEN EXISTS(SELECT 1 FROM holds WHERE holds.id = requests.id) THEN model ELSE '' END,
  state <> 'refused', state = 'refused',
""",
        *(_TOKENS.replace("CLASS", name) for name in _TOKEN_CLASSES),
        """
  cost_nanousd, charged_nanousd, shortfall_nanousd
FROM requests WHERE true
ON CONFLICT DO UPDATE SET
  requests = requests + excluded.requests,
  refused = refused + excluded.refused,
  input = input + excluded.input,
  cache_read = cache_read + excluded.cache_read,
  cache_write_5m = cache_write_5m + excluded.cache_write_5m,
  cache_write_1h = cache_write_1h + excluded.cache_write_1h,
  output = output + excluded.output,
  reasoning = reasoning + excluded.reasoning,
  web_searches = web_searches + excluded.web_searches,
  cost_nanousd = cost_nanousd + excluded.cost_nanousd,
  charged_nanousd = charged_nanousd + excluded.charged_nanousd,
  shortfall_nanousd = shortfall_nanousd + excluded.shortfall_nanousd
""",
    )
)


@_migrations()
def m005_days(db: Database) -> None:
    """Keep the sums of requests by day, from those that there are on; about 15 µs for each."""
    for statement in (*_DAY_TABLES, _FILL_DAYS):
        db.execute(statement)


@_migrations()
def m006_provider_states(db: Database) -> None:
    """Let a provider be paused for a while, and keep the history of providers and their keys."""
    db.execute("ALTER TABLE providers ADD COLUMN paused_until_ms INTEGER")
    db.execute("ALTER TABLE providers ADD COLUMN resumed_at_ms INTEGER")
    db.execute(
        """
        CREATE TABLE provider_events(
          id INTEGER PRIMARY KEY AUTOINCREMENT,
          -- By name: the history outlives what it tells of.
          provider TEXT NOT NULL,
          provider_key TEXT,
          state TEXT NOT NULL,
          reason TEXT,
          upstream_status INTEGER,
          until_ms INTEGER,
          actor TEXT NOT NULL,
          created_at_ms INTEGER NOT NULL
        ) STRICT
        """
    )
    db.execute("CREATE INDEX provider_events_provider ON provider_events(provider, id)")


@_migrations()
def m007_stored_responses(db: Database) -> None:
    """Know the responses that providers keep: whose each is, and which key made it."""
    db.execute(
        """
        CREATE TABLE stored_responses(
          -- Rises with time: the oldest are dropped first.
          id INTEGER PRIMARY KEY,
          user_id INTEGER NOT NULL,
          provider TEXT NOT NULL,
          response_hash BLOB NOT NULL CHECK(length(response_hash) = 32),
          provider_key_id INTEGER NOT NULL,
          model TEXT NOT NULL,
          tokens INTEGER NOT NULL CHECK(tokens >= 0),
          created_at_ms INTEGER NOT NULL,
          UNIQUE(user_id, provider, response_hash)
        ) STRICT
        """
    )


_LIMIT_TABLE = """
CREATE TABLE limits(
  -- Never given twice: what has been counted in memory for one must not count for its successor.
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- NULL is no limit.
  requests_per_minute INTEGER CHECK(requests_per_minute > 0),
  tokens_per_minute INTEGER CHECK(tokens_per_minute > 0),
  concurrent_max INTEGER CHECK(concurrent_max > 0),
  daily_budget_nanousd INTEGER CHECK(daily_budget_nanousd >= 0),
  monthly_budget_nanousd INTEGER CHECK(monthly_budget_nanousd >= 0),
  spend_per_hour_nanousd INTEGER CHECK(spend_per_hour_nanousd >= 0),
  -- Lists have commas between their members.
  models TEXT,
  providers TEXT,
  networks TEXT,
  suspended_at_ms INTEGER,
  suspended_reason TEXT,
  resumed_at_ms INTEGER NOT NULL DEFAULT 0,
  CHECK((suspended_at_ms IS NULL) = (suspended_reason IS NULL))
) STRICT
"""


@_migrations()
def m008_limits(db: Database) -> None:
    """Give users and API keys limits; a key and the one that replaces it share a row."""
    db.execute(_LIMIT_TABLE)
    db.execute("ALTER TABLE users ADD COLUMN limits_id INTEGER REFERENCES limits(id)")
    db.execute("ALTER TABLE api_keys ADD COLUMN limits_id INTEGER REFERENCES limits(id)")
    db.execute("CREATE INDEX api_keys_limits ON api_keys(limits_id) WHERE limits_id IS NOT NULL")


_SIGN_IN_TABLES = (
    # Of secrets only the SHA-256 is kept. A link is deleted when used, a session when it ends.
    """
    CREATE TABLE login_links(
      hash BLOB PRIMARY KEY CHECK(length(hash) = 32),
      user_id INTEGER NOT NULL REFERENCES users(id),
      created_at_ms INTEGER NOT NULL,
      expires_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE sessions(
      hash BLOB PRIMARY KEY CHECK(length(hash) = 32),
      user_id INTEGER NOT NULL REFERENCES users(id),
      created_at_ms INTEGER NOT NULL,
      expires_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX sessions_user ON sessions(user_id, created_at_ms)",
)


@_migrations()
def m009_sign_in(db: Database) -> None:
    """Let users sign in to the dashboard: links that work once, and sessions."""
    for statement in _SIGN_IN_TABLES:
        db.execute(statement)


_OPERATOR_TABLES = (
    # Every administrative act, from the command line and from pages: written with what it changed.
    """
    CREATE TABLE audit_log(
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      actor TEXT NOT NULL,
      act TEXT NOT NULL,
      details TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TRIGGER audit_log_stays_as_written BEFORE UPDATE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'the audit log is never changed'); END
    """,
    """
    CREATE TRIGGER audit_log_stays BEFORE DELETE ON audit_log
    BEGIN SELECT RAISE(ABORT, 'the audit log is never deleted from'); END
    """,
    # What the operator holds at a provider, as they have told; the newest row of each counts.
    """
    CREATE TABLE provider_funds(
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      provider TEXT NOT NULL,
      amount_nanousd INTEGER NOT NULL CHECK(amount_nanousd >= 0),
      actor TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX provider_funds_provider ON provider_funds(provider, id)",
)


@_migrations()
def m010_operators(db: Database) -> None:
    """Let users be operators and have passwords, and keep what operators do."""
    db.execute(
        "ALTER TABLE users ADD COLUMN is_admin INTEGER NOT NULL DEFAULT 0 CHECK(is_admin IN(0, 1))"
    )
    # In the PHC format, which names the algorithm and its costs. NULL: links alone sign in.
    db.execute("ALTER TABLE users ADD COLUMN password_hash TEXT")
    for statement in _OPERATOR_TABLES:
        db.execute(statement)


@_migrations()
def m011_dialects(db: Database) -> None:
    """Let a provider speak any dialect that the program knows, and gemini Google's own.

    Its base URL stays as it is, since its keys are sealed for it; one that points elsewhere than to
    the OpenAI-compatible face of such a server goes on speaking OpenAI's dialect alone, until
    `providers set --dialect`.
    """
    db.execute("ALTER TABLE providers ADD COLUMN speaks TEXT NOT NULL DEFAULT ''")
    db.execute("UPDATE providers SET speaks = dialect")
    db.execute("ALTER TABLE providers DROP COLUMN dialect")
    db.execute("ALTER TABLE providers RENAME COLUMN speaks TO dialect")
    db.execute(
        """UPDATE providers SET dialect = 'gemini'
           WHERE name = 'gemini' AND dialect = 'openai' AND base_url GLOB '*/v1beta/openai'"""
    )


@_migrations()
def m012_keys_by_user(db: Database) -> None:
    """Find a user's API keys among those of all: the newest, those that work, those that ended.

    A key's end is the earlier of the two that it may have; one without any ends after all times.
    """
    db.execute(
        """
        ALTER TABLE api_keys ADD COLUMN ends_at_ms INTEGER NOT NULL AS (
          min(coalesce(expires_at_ms, 9223372036854775807),
              coalesce(revoked_at_ms, 9223372036854775807))
        ) VIRTUAL
        """
    )
    db.execute("CREATE INDEX api_keys_user ON api_keys(user_id, id)")
    db.execute("CREATE INDEX api_keys_end ON api_keys(user_id, ends_at_ms, id)")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to SCHEMA_VERSION; the caller holds the serving lock."""
    db = Database(connection, execute_plugins=False)
    _migrations.apply(db)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION:d}")
