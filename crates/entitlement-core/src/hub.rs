//! Hub mode (D29): while it is on, an app outside of the hubs of its account is archived, and its calls are refused.
//!
//! A hub belongs to an account. An app that changes its account is outside from then on, whatever hub it was in, so
//! a transfer has nothing to write here.

use drawdown_types::AccountId;

/// Whether an app of `app_account` is archived, where it is in a hub of `hub_account`, or in none.
#[must_use]
pub fn is_archived(hub_mode: bool, hub_account: Option<AccountId>, app_account: AccountId) -> bool {
    hub_mode && hub_account != Some(app_account)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d29_an_app_outside_of_the_hubs_of_its_account_is_archived() {
        let (own, other) = (AccountId::generate(), AccountId::generate());
        for (hub_mode, hub, archived) in [
            (true, None, true),
            (true, Some(other), true),
            (true, Some(own), false),
            (false, None, false),
            (false, Some(other), false),
        ] {
            assert_eq!(is_archived(hub_mode, hub, own), archived, "{hub_mode} {hub:?}");
        }
    }
}
