//! The one binary of Drawdown.

fn main() {}
