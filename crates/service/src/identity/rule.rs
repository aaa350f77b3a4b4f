//! What a rule of the table says, and the judgement of a caller by it. Pure: no clock, no look-up.

use super::{Caller, Peers, Roles, Scope};

/// Who may call one method, and about what.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// `package.Service/Method`.
    pub method: &'static str,
    /// Who.
    pub who: Who,
    /// About what.
    pub reach: Reach,
    /// The field that names the person who acts, where the method asks for one.
    pub actor: Option<&'static str>,
}

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everybody, also without a credential.
    Anyone,
    /// Everybody who is known, whatever the role.
    Known,
    /// Who has one of the roles, or is one of the services.
    Some(Roles, Peers),
}

/// What a method is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nobody's in particular: who may call it sees the same as everybody.
    Shared,
    /// The whole platform: a caller of one account or team is refused.
    Platform,
    /// What these fields name: all of it has to be the caller's own.
    Named(&'static [Field]),
}

/// A field that names something of somebody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its path in the request, such as `filter.account_id`.
    pub path: &'static str,
    /// What it names.
    pub kind: Kind,
}

/// What a field names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `acct_…`.
    Account,
    /// `team_…`.
    Team,
    /// `app_…`.
    App,
    /// `cred_…`.
    Credential,
    /// A client id.
    Client,
    /// `xfer_…`.
    Transfer,
    /// `hub_…`.
    Hub,
    /// A scheduled change.
    Change,
    /// `budget_…`.
    Budget,
}

/// Why a caller is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// No credential came with the call.
    Unknown,
    /// No role of the caller admits to the method.
    Role,
    /// The method is about the whole platform, or about what is not the caller's own.
    Scope,
}

impl Rule {
    /// Whether a caller may call the method at all. What the request names is looked at later, where
    /// [`Self::looks_at_names`].
    ///
    /// # Errors
    /// [`Denied`].
    pub fn judge(&self, caller: &Caller) -> Result<(), Denied> {
        let admitted = match self.who {
            Who::Anyone => return Ok(()),
            Who::Known => !caller.is_anonymous(),
            Who::Some(roles, peers) => {
                !roles.common(caller.roles).is_empty() || caller.peer.is_some_and(|peer| peers.has(peer))
            }
        };
        match (admitted, self.reach) {
            (false, _) if caller.is_anonymous() => Err(Denied::Unknown),
            (false, _) => Err(Denied::Role),
            (true, Reach::Platform) if caller.scope != Scope::Platform => Err(Denied::Scope),
            (true, _) => Ok(()),
        }
    }

    /// Whether the request has to be read to know if this caller may send it.
    #[must_use]
    pub fn looks_at_names(&self, caller: &Caller) -> bool {
        let own = matches!(self.reach, Reach::Named(_)) && caller.scope != Scope::Platform;
        own || (self.actor.is_some() && (caller.user_id.is_some() || caller.scope != Scope::Platform))
    }
}
