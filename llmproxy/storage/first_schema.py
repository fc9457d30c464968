"""Owns the text of the first schema; what has changed since stands in migrations.py.

Not to be edited: every database was made by it, and each later migration builds upon it.
"""

ACCOUNT_TABLES = (
    """
    CREATE TABLE users(
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL UNIQUE,
      rate_multiplier_micro INTEGER NOT NULL CHECK(rate_multiplier_micro >= 0),
      disabled_at_ms INTEGER,
      created_at_ms INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE wallets(
      id INTEGER PRIMARY KEY,
      user_id INTEGER NOT NULL UNIQUE REFERENCES users(id),
      balance_nanousd INTEGER NOT NULL DEFAULT 0,
      held_nanousd INTEGER NOT NULL DEFAULT 0,
      CHECK(held_nanousd >= 0 AND balance_nanousd >= held_nanousd)
    ) STRICT
    """,
    """
    CREATE TABLE api_keys(
      id INTEGER PRIMARY KEY,
      user_id INTEGER NOT NULL REFERENCES users(id),
      name TEXT NOT NULL,
      hash BLOB NOT NULL UNIQUE CHECK(length(hash) = 32),
      masked TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      revoked_at_ms INTEGER
    ) STRICT
    """,
    # A revoked key keeps its row for the history; its name may be used again.
    "CREATE UNIQUE INDEX api_keys_name ON api_keys(user_id, name) WHERE revoked_at_ms IS NULL",
)

PROVIDER_TABLES = (
    """
    CREATE TABLE providers(
      id INTEGER PRIMARY KEY,
      name TEXT NOT NULL UNIQUE,
      dialect TEXT NOT NULL CHECK(dialect IN('openai', 'anthropic')),
      base_url TEXT NOT NULL,
      injects_usage INTEGER NOT NULL CHECK(injects_usage IN(0, 1)),
      paused_at_ms INTEGER,
      paused_reason TEXT,
      paused_by TEXT,
      created_at_ms INTEGER NOT NULL,
      CHECK((paused_at_ms IS NULL) = (paused_reason IS NULL))
    ) STRICT
    """,
    """
    CREATE TABLE provider_keys(
      -- Never given twice: requests that run while a key is removed must not act on its successor.
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      provider_id INTEGER NOT NULL REFERENCES providers(id),
      name TEXT NOT NULL,
      sealed BLOB NOT NULL,
      masked TEXT NOT NULL,
      state TEXT NOT NULL DEFAULT 'active'
        CHECK(state IN('active', 'out_of_quota', 'dead', 'disabled')),
      state_reason TEXT,
      state_since_ms INTEGER NOT NULL,
      state_until_ms INTEGER,
      state_by TEXT NOT NULL,
      created_at_ms INTEGER NOT NULL,
      UNIQUE(provider_id, name)
    ) STRICT
    """,
)

MONEY_TABLES = (
    """
    CREATE TABLE boots(
      id INTEGER PRIMARY KEY,
      pid INTEGER NOT NULL,
      version TEXT NOT NULL,
      started_at_ms INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE price_versions(
      id INTEGER PRIMARY KEY,
      provider TEXT NOT NULL,
      model TEXT NOT NULL,
      prices TEXT NOT NULL,
      sha256 BLOB NOT NULL CHECK(length(sha256) = 32),
      created_at_ms INTEGER NOT NULL,
      UNIQUE(provider, model, sha256)
    ) STRICT
    """,
    # Slim and kept for ever: with transfers this is the ledger; reporting columns are in requests.
    """
    CREATE TABLE holds(
      id BLOB PRIMARY KEY CHECK(length(id) = 16),
      wallet_id INTEGER NOT NULL REFERENCES wallets(id),
      api_key_id INTEGER NOT NULL REFERENCES api_keys(id),
      price_version_id INTEGER NOT NULL REFERENCES price_versions(id),
      boot_id INTEGER NOT NULL REFERENCES boots(id),
      endpoint TEXT NOT NULL,
      user_multiplier_micro INTEGER NOT NULL,
      model_multiplier_micro INTEGER NOT NULL,
      amount_nanousd INTEGER NOT NULL CHECK(amount_nanousd >= 0),
      seen_cost_nanousd INTEGER NOT NULL DEFAULT 0 CHECK(seen_cost_nanousd >= 0),
      idempotency_hash BLOB CHECK(length(idempotency_hash) = 32),
      body_hash BLOB CHECK(length(body_hash) = 32),
      state TEXT NOT NULL DEFAULT 'open'
        CHECK(state IN('open', 'settled', 'released', 'expired')),
      basis TEXT CHECK(basis IN('usage', 'estimate', 'hold', 'none')),
      cost_nanousd INTEGER CHECK(cost_nanousd >= 0),
      charged_nanousd INTEGER CHECK(charged_nanousd >= 0),
      shortfall_nanousd INTEGER CHECK(shortfall_nanousd >= 0),
      created_at_ms INTEGER NOT NULL,
      ended_at_ms INTEGER,
      CHECK((state = 'open') = (ended_at_ms IS NULL)),
      CHECK(state = 'open' OR (basis IS NOT NULL
                               AND cost_nanousd = charged_nanousd + shortfall_nanousd)),
      CHECK(state <> 'released' OR charged_nanousd = 0)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX holds_open ON holds(wallet_id) WHERE state = 'open'",
    """
    CREATE UNIQUE INDEX holds_idempotency ON holds(wallet_id, idempotency_hash)
    WHERE idempotency_hash IS NOT NULL AND state <> 'released'
    """,
    """
    CREATE TABLE transfers(
      id INTEGER PRIMARY KEY AUTOINCREMENT,
      wallet_id INTEGER NOT NULL REFERENCES wallets(id),
      kind TEXT NOT NULL CHECK(kind IN('credit', 'charge', 'adjust')),
      amount_nanousd INTEGER NOT NULL,
      hold_id BLOB REFERENCES holds(id),
      idempotency_key TEXT,
      actor TEXT NOT NULL,
      reason TEXT,
      created_at_ms INTEGER NOT NULL,
      CHECK(CASE kind WHEN 'credit' THEN amount_nanousd > 0
                      WHEN 'charge' THEN amount_nanousd < 0 ELSE amount_nanousd <> 0 END),
      CHECK((kind = 'charge') = (hold_id IS NOT NULL)),
      CHECK(kind <> 'adjust' OR reason IS NOT NULL)
    ) STRICT
    """,
    "CREATE UNIQUE INDEX transfers_hold ON transfers(hold_id) WHERE hold_id IS NOT NULL",
    """
    CREATE UNIQUE INDEX transfers_idempotency ON transfers(idempotency_key)
    WHERE idempotency_key IS NOT NULL
    """,
    "CREATE INDEX transfers_wallet ON transfers(wallet_id, id)",
    # The wide reporting row, written once when a request ends; may be pruned.
    """
    CREATE TABLE requests(
      id BLOB PRIMARY KEY CHECK(length(id) = 16),
      user_id INTEGER NOT NULL,
      api_key_id INTEGER NOT NULL,
      provider TEXT NOT NULL,
      endpoint TEXT NOT NULL,
      model TEXT NOT NULL,
      model_served TEXT,
      is_stream INTEGER NOT NULL,
      status INTEGER NOT NULL,
      state TEXT NOT NULL CHECK(state IN('settled', 'released', 'expired', 'refused')),
      basis TEXT NOT NULL CHECK(basis IN('usage', 'estimate', 'hold', 'none')),
      reason TEXT,
      usage TEXT,
      raw_usage TEXT,
      receipt TEXT,
      hold_nanousd INTEGER NOT NULL,
      cost_nanousd INTEGER NOT NULL,
      charged_nanousd INTEGER NOT NULL,
      shortfall_nanousd INTEGER NOT NULL,
      upstream_status INTEGER,
      provider_key_id INTEGER,
      attempts INTEGER NOT NULL,
      ttfb_ms INTEGER,
      duration_ms INTEGER NOT NULL,
      created_at_ms INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX requests_user ON requests(user_id, id)",
)

MONEY_TRIGGERS = (
    """
    CREATE TRIGGER holds_end_once BEFORE UPDATE ON holds WHEN OLD.state <> 'open'
    BEGIN SELECT RAISE(ABORT, 'this hold has ended'); END
    """,
    """
    CREATE TRIGGER holds_only_grow BEFORE UPDATE OF id, wallet_id, api_key_id, price_version_id,
      user_multiplier_micro, model_multiplier_micro, created_at_ms, amount_nanousd ON holds
    WHEN NEW.id <> OLD.id OR NEW.wallet_id <> OLD.wallet_id OR NEW.api_key_id <> OLD.api_key_id
      OR NEW.price_version_id <> OLD.price_version_id OR NEW.created_at_ms <> OLD.created_at_ms
      OR NEW.user_multiplier_micro <> OLD.user_multiplier_micro
      OR NEW.model_multiplier_micro <> OLD.model_multiplier_micro
      OR NEW.amount_nanousd < OLD.amount_nanousd
    BEGIN SELECT RAISE(ABORT, 'a hold may only grow'); END
    """,
    """
    CREATE TRIGGER holds_stay BEFORE DELETE ON holds
    BEGIN SELECT RAISE(ABORT, 'holds are never deleted'); END
    """,
    """
    CREATE TRIGGER transfers_stay_as_written BEFORE UPDATE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are never changed'); END
    """,
    """
    CREATE TRIGGER transfers_stay BEFORE DELETE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are never deleted'); END
    """,
    """
    CREATE TRIGGER price_versions_stay_as_written BEFORE UPDATE ON price_versions
    BEGIN SELECT RAISE(ABORT, 'price versions are never changed'); END
    """,
    """
    CREATE TRIGGER price_versions_stay BEFORE DELETE ON price_versions
    BEGIN SELECT RAISE(ABORT, 'price versions are never deleted'); END
    """,
)

STATEMENTS = (*ACCOUNT_TABLES, *PROVIDER_TABLES, *MONEY_TABLES, *MONEY_TRIGGERS)
