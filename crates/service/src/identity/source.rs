//! Where a service learns what a key is and whose a thing is: from entitlement, which answers for all services.

use drawdown_types::{AccountId, TeamId, Timestamp, UserId};
use futures::future::BoxFuture;

use super::{Caller, Kind, key::KeyDigest};

/// A key that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodKey {
    /// Who calls with it.
    pub caller: Caller,
    /// When it stops to be good, where that is known.
    pub until: Option<Timestamp>,
}

/// Who owns something. A transfer has several owners: both sides, and the person invited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// An account as a whole.
    Account(AccountId),
    /// A team.
    Team {
        /// Its account.
        account_id: AccountId,
        /// The team.
        team_id: TeamId,
    },
    /// A person.
    User(UserId),
}

/// Something that a request names.
pub type Named = (Kind, String);

/// Who knows the keys.
pub trait Keys: Send + Sync + 'static {
    /// What a key is; `None` where there is none, or it is revoked, or expired, or of a principal that ended.
    ///
    /// # Errors
    /// Where it can not be known at the moment.
    fn look_up(&self, key: KeyDigest) -> BoxFuture<'_, anyhow::Result<Option<GoodKey>>>;
}

/// Who knows whose everything is.
pub trait Owners: Send + Sync + 'static {
    /// The owners of each thing, in the order asked; none where it is nobody's or does not exist.
    ///
    /// # Errors
    /// Where they can not be known at the moment.
    fn owners(&self, things: Vec<Named>) -> BoxFuture<'_, anyhow::Result<Vec<Vec<Owner>>>>;
}
