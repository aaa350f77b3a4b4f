//! private Postgres and Redis servers on free ports, for up, demo, tests, benches and drills
