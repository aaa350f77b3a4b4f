//! Who pays: client id → app → team → billed account, at a window (D23).
//!
//! Shape: whoever loads a [`Directory`] hands out every link together with what it points at, so a
//! lookup can never dangle and [`Directory::resolve`] is total. Cost: one hash lookup and two
//! binary searches a question, no allocation.
//!
//! The window decides by its first instant: every link begins at an edge, so no window is cut.

use std::{collections::HashMap, sync::Arc};

use drawdown_types::{AccountId, AppId, ClientId, TeamId, Timestamp, Window};

use crate::{History, Rules, TrialTerms};

/// The kind of contract of an account (D57).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContractKind {
    /// Buys tokens as it goes.
    Flex,
    /// Enterprise agreement.
    Enterprise,
}

/// What resolution knows about an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Which account.
    pub account_id: AccountId,
    /// The kind it was opened with.
    pub opened_as: ContractKind,
    /// Its kinds of contract.
    pub contract: History<ContractKind>,
    /// What decides about its trial.
    pub trial: TrialTerms,
    /// The cell that it lives in: which ledger has its tokens and charges. Fixed when it is opened.
    pub cell: u8,
}

/// A team as the end of a link, with the account that is billed for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamLink {
    /// Which team.
    pub team_id: TeamId,
    /// Its account.
    pub account: Arc<Account>,
}

/// What resolution knows about an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// Which app.
    pub app_id: AppId,
    /// The teams it was, is and will be assigned to.
    pub teams: History<TeamLink>,
}

/// When a credential stops. What was before stays as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// From this instant on its secret is refused.
    pub revoked_at: Timestamp,
    /// The edge from which on its client id is unknown.
    pub unknown_from: Timestamp,
}

/// What resolution knows about a credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The edge from which on its client id is known.
    pub known_from: Timestamp,
    /// Its end, where it has one.
    pub revocation: Option<Revocation>,
    /// Its app.
    pub app: Arc<App>,
}

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BilledTo {
    /// The app that used.
    pub app_id: AppId,
    /// The team it was assigned to.
    pub team_id: TeamId,
    /// The billed account.
    pub account_id: AccountId,
    /// Its kind of contract at the window.
    pub contract_kind: ContractKind,
    /// The window lies in its trial.
    pub in_trial: bool,
    /// The cell of the account.
    pub cell: u8,
}

/// The answer to one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// These pay.
    BilledTo(BilledTo),
    /// No credential in force at the window has this client id.
    UnknownClient,
    /// The app had no team at the window.
    NoTeam,
}

/// The credentials asked about, with all that hangs on them.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    clients: HashMap<ClientId, Client>,
}

/// Whether usage in the window that starts at `edge` has an app, where its client id is known from `known_from` on.
#[must_use]
pub fn is_known_at(known_from: Timestamp, end: Option<&Revocation>, edge: Timestamp) -> bool {
    known_from <= edge && end.is_none_or(|end| edge < end.unknown_from)
}

impl Client {
    /// Whether usage in the window that starts at `edge` has an app.
    #[must_use]
    pub fn is_known_at(&self, edge: Timestamp) -> bool {
        is_known_at(self.known_from, self.revocation.as_ref(), edge)
    }
}

impl Account {
    /// Its kind of contract in the window that starts at `edge`.
    #[must_use]
    pub fn kind_at(&self, edge: Timestamp) -> ContractKind {
        self.contract.at(edge).copied().unwrap_or(self.opened_as)
    }
}

impl BilledTo {
    /// Who pays for an app in a window in which it has this team of this account.
    #[must_use]
    pub fn at(app_id: AppId, team_id: TeamId, account: &Account, window: Window, rules: &Rules) -> Self {
        Self {
            app_id,
            team_id,
            account_id: account.account_id,
            contract_kind: account.kind_at(window.start()),
            in_trial: account.trial.holds_at(window, rules),
            cell: account.cell,
        }
    }
}

impl FromIterator<(ClientId, Client)> for Directory {
    fn from_iter<I: IntoIterator<Item = (ClientId, Client)>>(clients: I) -> Self {
        Self { clients: clients.into_iter().collect() }
    }
}

impl Directory {
    /// Who pays for usage of `client_id` in `window`.
    #[must_use]
    pub fn resolve(&self, client_id: &ClientId, window: Window, rules: &Rules) -> Resolution {
        let at = window.start();
        let Some(client) = self.clients.get(client_id).filter(|client| client.is_known_at(at)) else {
            return Resolution::UnknownClient;
        };
        let Some(link) = client.app.teams.at(at) else { return Resolution::NoTeam };
        Resolution::BilledTo(BilledTo::at(client.app.app_id, link.team_id, &link.account, window, rules))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Trial};

    const EDGE: i64 = 1_800_000_000_000_000;
    const WINDOW: i64 = 60_000_000;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn account(kinds: &[(i64, ContractKind)], trial: TrialTerms) -> Arc<Account> {
        let changes = kinds.iter().map(|(from, value)| Change { from: at(*from), value: *value });
        Arc::new(Account {
            account_id: AccountId::generate(),
            opened_as: kinds[0].1,
            contract: History::from_changes(changes).unwrap(),
            trial,
            cell: 3,
        })
    }

    fn directory(teams: &[(i64, &TeamLink)]) -> (Directory, ClientId, AppId) {
        let client_id = ClientId::new("client_x").unwrap();
        let links = teams.iter().map(|(from, link)| Change { from: at(*from), value: (*link).clone() });
        let app = App { app_id: AppId::generate(), teams: History::from_changes(links).unwrap() };
        let app_id = app.app_id;
        let revocation =
            Some(Revocation { revoked_at: at(EDGE + 5 * WINDOW - 7), unknown_from: at(EDGE + 6 * WINDOW) });
        let client = Client { known_from: at(EDGE), revocation, app: Arc::new(app) };
        ([(client_id.clone(), client)].into_iter().collect(), client_id, app_id)
    }

    #[test]
    fn each_window_has_its_own_answer() {
        let rules = Rules::default();
        let first = TeamLink {
            team_id: TeamId::generate(),
            account: account(
                &[(EDGE, ContractKind::Flex), (EDGE + 3 * WINDOW, ContractKind::Enterprise)],
                TrialTerms {
                    trial: Some(Trial { started_at: at(EDGE + 1), ends_at: at(EDGE + 2 * WINDOW) }),
                    commercial_from: None,
                },
            ),
        };
        let second = TeamLink { team_id: TeamId::generate(), account: first.account.clone() };
        let (directory, client_id, app_id) =
            directory(&[(EDGE + WINDOW, &first), (EDGE + 4 * WINDOW, &second)]);
        let billed = |link: &TeamLink, contract_kind, in_trial| {
            Resolution::BilledTo(BilledTo {
                app_id,
                team_id: link.team_id,
                account_id: link.account.account_id,
                contract_kind,
                in_trial,
                cell: 3,
            })
        };
        for (instant, answer) in [
            (EDGE - 1, Resolution::UnknownClient),
            (EDGE, Resolution::NoTeam),
            (EDGE + WINDOW - 1, Resolution::NoTeam),
            (EDGE + WINDOW, billed(&first, ContractKind::Flex, true)),
            (EDGE + 2 * WINDOW, billed(&first, ContractKind::Flex, false)),
            (EDGE + 3 * WINDOW, billed(&first, ContractKind::Enterprise, false)),
            (EDGE + 4 * WINDOW - 1, billed(&first, ContractKind::Enterprise, false)),
            (EDGE + 4 * WINDOW, billed(&second, ContractKind::Enterprise, false)),
            (EDGE + 6 * WINDOW - 1, billed(&second, ContractKind::Enterprise, false)),
            (EDGE + 6 * WINDOW, Resolution::UnknownClient),
        ] {
            let window = rules.window.window_of(at(instant));
            assert_eq!(directory.resolve(&client_id, window, &rules), answer, "{}", instant - EDGE);
        }
        let window = rules.window.window_of(at(EDGE + WINDOW));
        let stranger = ClientId::new("client_y").unwrap();
        assert_eq!(directory.resolve(&stranger, window, &rules), Resolution::UnknownClient);
    }
}
