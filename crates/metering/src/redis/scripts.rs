//! The function library, compiled in, and the names of its functions.
//!
//! MULTI/EXEC would not do: a transaction can not look at what it has read before it writes, and every
//! write here depends on checks of the same instant.

/// The text that is loaded into the server.
pub(super) const LIBRARY: &str = include_str!("../../lua/drawdown.lua");
/// `REVISION` of that text: a server with a higher one keeps its own.
pub(super) const REVISION: u64 = 7;

/// The layout of the head that this text writes.
pub(super) const LAYOUT: u64 = 1;

pub(super) const REVISION_OF: &str = "drawdown_v1_revision";
pub(super) const APPLY: &str = "drawdown_v1_apply";
pub(super) const ATTACH: &str = "drawdown_v1_attach";
pub(super) const RETIRE_LANES: &str = "drawdown_v1_retire_lanes";
pub(super) const KEEP_LANES: &str = "drawdown_v1_keep_lanes";
pub(super) const SEAL: &str = "drawdown_v1_seal";
pub(super) const RETIRE: &str = "drawdown_v1_retire";
pub(super) const INSTALL: &str = "drawdown_v1_install";
pub(super) const LOOK: &str = "drawdown_v1_look";
pub(super) const SWEEP: &str = "drawdown_v1_sweep";
pub(super) const LEASE: &str = "drawdown_v1_lease";
pub(super) const WORKERS: &str = "drawdown_v1_workers";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_says_the_same_revision_and_names() {
        assert!(LIBRARY.contains(&format!("local REVISION = {REVISION}\n")));
        let lanes = [ATTACH, RETIRE_LANES, KEEP_LANES];
        let all = [REVISION_OF, APPLY, SEAL, RETIRE, INSTALL, LOOK, SWEEP, LEASE, WORKERS];
        for name in all.into_iter().chain(lanes) {
            assert!(LIBRARY.contains(&format!("'{name}'")), "{name}");
        }
    }
}
