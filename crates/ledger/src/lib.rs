//! owns token lots, expiry, charges, debts and the journal in Postgres
