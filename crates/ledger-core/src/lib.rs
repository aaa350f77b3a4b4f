//! the pure half of the ledger: rating, draw order, expiry, debts
