//! for tests only: a database per test, a manual clock, typed actors
