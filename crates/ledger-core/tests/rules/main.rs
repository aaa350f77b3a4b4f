//! The rules one by one: boundaries, the examples of the domain, and the cases that broke other
//! systems.
#![expect(clippy::unwrap_used, reason = "tests and their helpers fail by panicking")]

mod cases;
mod lots;
mod prices;
mod rating;
mod tampered;
mod world;
