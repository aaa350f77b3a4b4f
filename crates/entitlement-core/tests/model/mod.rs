//! The naive model: a list of everything that was ever accepted, in order, and answers by scanning it.
//!
//! It shares no code with what it checks: plain numbers (microseconds), indices instead of ids, edges
//! found by arithmetic of its own. Every act gives the verdict that the real thing must give.

pub(crate) const SECOND: i64 = 1_000_000;
pub(crate) const WINDOW: i64 = 60 * SECOND;
pub(crate) const LEAD: i64 = 5 * SECOND;
pub(crate) const TRIAL: i64 = 300 * SECOND;
pub(crate) const AHEAD: i64 = 900 * SECOND;
pub(crate) const CREDENTIALS_MAX: usize = 3;

/// One act, with what it names as indices and its instants as microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Account { created_at: Option<i64>, enterprise: bool, commercial: bool },
    Team { account: usize, created_at: Option<i64> },
    App { account: usize },
    Credential { app: usize, created_at: Option<i64>, settled: bool },
    Assign { app: usize, team: usize, from: Option<i64>, settled: bool },
}

/// What comes of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Assigned(i64),
    NoSuchThing,
    InFuture,
    BeforeAccount,
    BeforeTeam,
    TooMany,
    Differ,
    TooFarAhead,
    Overlap,
    Settled,
}

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Unknown,
    NoTeam,
    Billed { app: usize, team: usize, account: usize, enterprise: bool, in_trial: bool },
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    accounts: Vec<(i64, bool, bool)>,
    teams: Vec<(usize, i64)>,
    apps: Vec<usize>,
    credentials: Vec<(usize, i64)>,
    assignments: Vec<(usize, usize, i64)>,
}

fn down(micros: i64) -> i64 {
    micros - micros % WINDOW
}

fn up(micros: i64) -> i64 {
    down(micros + WINDOW - 1)
}

impl Model {
    pub(crate) fn credentials(&self) -> usize {
        self.credentials.len()
    }

    pub(crate) fn credentials_of(&self, app: usize) -> usize {
        self.credentials.iter().filter(|(of, _)| *of == app).count()
    }

    pub(crate) fn act(&mut self, now: i64, act: Act) -> Verdict {
        match act {
            Act::Account { created_at, enterprise, commercial } => {
                let at = created_at.unwrap_or(now);
                if at > now {
                    return Verdict::InFuture;
                }
                self.accounts.push((at, enterprise, commercial));
                Verdict::Done
            }
            Act::Team { account, created_at } => {
                let at = created_at.unwrap_or(now);
                match self.accounts.get(account) {
                    None => Verdict::NoSuchThing,
                    _ if at > now => Verdict::InFuture,
                    Some((opened, _, _)) if at < *opened => Verdict::BeforeAccount,
                    Some(_) => {
                        self.teams.push((account, at));
                        Verdict::Done
                    }
                }
            }
            Act::App { account } if account < self.accounts.len() => {
                self.apps.push(account);
                Verdict::Done
            }
            Act::App { .. } => Verdict::NoSuchThing,
            Act::Credential { app, created_at, settled } => self.credential(now, app, created_at, settled),
            Act::Assign { app, team, from, settled } => self.assign(now, app, team, from, settled),
        }
    }

    fn credential(&mut self, now: i64, app: usize, created_at: Option<i64>, settled: bool) -> Verdict {
        let at = created_at.unwrap_or(now);
        let Some(account) = self.apps.get(app).copied() else { return Verdict::NoSuchThing };
        if at > now {
            return Verdict::InFuture;
        }
        if at < self.accounts[account].0 {
            return Verdict::BeforeAccount;
        }
        if self.credentials_of(app) >= CREDENTIALS_MAX {
            return Verdict::TooMany;
        }
        let moves_trial =
            !self.accounts[account].2 && self.first_credential(account).is_some_and(|first| at < first);
        if moves_trial && settled {
            return Verdict::Settled;
        }
        self.credentials.push((app, at));
        Verdict::Done
    }

    fn assign(&mut self, now: i64, app: usize, team: usize, from: Option<i64>, settled: bool) -> Verdict {
        let (Some(app_account), Some((team_account, team_made))) =
            (self.apps.get(app).copied(), self.teams.get(team).copied())
        else {
            return Verdict::NoSuchThing;
        };
        if app_account != team_account {
            return Verdict::Differ;
        }
        let soonest = up(now + LEAD);
        let edge = from.map_or(soonest, |at| if at > now { up(at).max(soonest) } else { up(at) });
        if edge > soonest + AHEAD {
            return Verdict::TooFarAhead;
        }
        if edge < down(team_made) {
            return Verdict::BeforeTeam;
        }
        let of_app = || self.assignments.iter().filter(|(of, _, _)| *of == app);
        let newest = of_app().max_by_key(|(_, _, from)| *from).copied();
        match newest {
            Some((_, present, since)) if present == team && since <= edge => return Verdict::Assigned(since),
            Some((_, _, since)) if since >= edge => return Verdict::Overlap,
            _ => {}
        }
        if edge < soonest && settled {
            return Verdict::Settled;
        }
        self.assignments.push((app, team, edge));
        Verdict::Assigned(edge)
    }

    fn first_credential(&self, account: usize) -> Option<i64> {
        let of_account = self.credentials.iter().filter(|(app, _)| self.apps[*app] == account);
        of_account.map(|(_, at)| *at).min()
    }

    /// Who pays for usage of a credential at an instant: every assignment whose edge is not later
    /// than the window is tried, the latest edge wins.
    pub(crate) fn who_pays(&self, credential: usize, at: i64) -> Answer {
        let window = down(at);
        let Some((app, since)) = self.credentials.get(credential).copied() else { return Answer::Unknown };
        if window < down(since) {
            return Answer::Unknown;
        }
        let mut found: Option<(usize, i64)> = None;
        for (of, team, from) in self.assignments.iter().copied() {
            if of == app && from <= window && found.is_none_or(|(_, best)| from > best) {
                found = Some((team, from));
            }
        }
        let Some((team, _)) = found else { return Answer::NoTeam };
        let account = self.teams[team].0;
        let (_, enterprise, commercial) = self.accounts[account];
        let in_trial = !commercial
            && self
                .first_credential(account)
                .is_some_and(|first| down(first) <= window && window < up(first + TRIAL));
        Answer::Billed { app, team, account, enterprise, in_trial }
    }
}
