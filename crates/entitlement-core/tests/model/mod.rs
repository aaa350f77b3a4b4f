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
    Account {
        created_at: Option<i64>,
        enterprise: bool,
        commercial: bool,
    },
    Team {
        account: usize,
        created_at: Option<i64>,
    },
    App {
        account: usize,
    },
    Credential {
        app: usize,
        created_at: Option<i64>,
        settled: bool,
    },
    Assign {
        app: usize,
        team: usize,
        from: Option<i64>,
        settled: bool,
    },
    EndTrial {
        account: usize,
        from: Option<i64>,
        settled: bool,
    },
    Contract {
        account: usize,
        enterprise: bool,
        from: Option<i64>,
        settled: bool,
    },
    Revoke {
        credential: usize,
        at: Option<i64>,
    },
    /// The whole way to another owner, who may use the tokens of the team.
    Transfer {
        app: usize,
        team: usize,
    },
    Correct {
        app: usize,
        team: usize,
        from: i64,
        to: i64,
        settled: bool,
    },
}

/// What comes of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    /// It holds from this edge on.
    Assigned(i64),
    /// The secret stops, and the client id is unknown.
    Revoked(i64, i64),
    NoSuchThing,
    InFuture,
    InPast,
    BeforeAccount,
    BeforeTeam,
    TooMany,
    InTrial,
    Empty,
    Gap,
    FirstTold,
    NoTeam,
    SameTeam,
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

#[derive(Debug)]
struct Opened {
    at: i64,
    commercial_from: Option<i64>,
    contracts: Vec<(i64, bool)>,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    accounts: Vec<Opened>,
    teams: Vec<(usize, i64)>,
    apps: Vec<usize>,
    /// Transfers: from this instant on the app is this account's; the last one counts.
    owners: Vec<(usize, i64, usize)>,
    /// With the account whose the app was when it was made.
    credentials: Vec<(usize, i64, usize)>,
    /// Of credentials: when the secret stops and from when on nobody knows it; the last one counts.
    revocations: Vec<(usize, i64, i64)>,
    /// Of each app: the team of every window of a run, one by one; the last one stands for all that follow.
    lines: Vec<Line>,
}

/// The first window of a line, an hour before any run, and how many there are.
const FIRST: i64 = 1_769_902_200 * SECOND - 60 * WINDOW;
const WINDOWS: usize = 600;

#[derive(Debug)]
struct Line(Vec<Option<usize>>);

impl Line {
    fn index(edge: i64) -> usize {
        usize::try_from((edge - FIRST) / WINDOW).unwrap().min(WINDOWS - 1)
    }

    fn at(&self, window: i64) -> Option<usize> {
        if window < FIRST { None } else { self.0[Self::index(window)] }
    }

    fn fill(&mut self, team: usize, from: i64, to: Option<i64>) {
        let end = to.map_or(WINDOWS, Self::index);
        self.0[Self::index(from)..end].fill(Some(team));
    }

    /// The team that goes on, and since when.
    fn last(&self) -> Option<(usize, i64)> {
        let team = (*self.0.last().unwrap())?;
        let others = self.0.iter().rposition(|other| *other != Some(team));
        Some((team, FIRST + i64::try_from(others.map_or(0, |index| index + 1)).unwrap() * WINDOW))
    }

    fn first(&self) -> Option<i64> {
        self.0.iter().position(Option::is_some).map(|index| FIRST + i64::try_from(index).unwrap() * WINDOW)
    }
}

/// Where months begin around the instants of a run.
const MONTHS: [i64; 3] = [1_767_225_600 * SECOND, 1_769_904_000 * SECOND, 1_772_323_200 * SECOND];

fn down(micros: i64) -> i64 {
    micros - micros % WINDOW
}

fn up(micros: i64) -> i64 {
    down(micros + WINDOW - 1)
}

/// The soonest edge of a change, and the edge of one that is asked for.
fn edges(now: i64, from: Option<i64>) -> (i64, i64) {
    let soonest = up(now + LEAD);
    (soonest, from.map_or(soonest, |at| if at > now { up(at).max(soonest) } else { up(at) }))
}

impl Model {
    pub(crate) fn credentials(&self) -> usize {
        self.credentials.len()
    }

    fn credentials_of(&self, app: usize) -> usize {
        self.credentials.iter().filter(|(of, _, _)| *of == app).count()
    }

    fn credentials_of_account(&self, account: usize) -> usize {
        let ever = |app: usize| {
            self.apps[app] == account || self.owners.iter().any(|(of, _, to)| *of == app && *to == account)
        };
        self.credentials.iter().filter(|(app, _, _)| ever(*app)).count()
    }

    fn owner(&self, app: usize, at: i64) -> usize {
        let last = self.owners.iter().rfind(|(of, from, _)| *of == app && *from <= at);
        last.map_or(self.apps[app], |(_, _, account)| *account)
    }

    fn out_of_trial(&self, account: usize, now: i64) -> bool {
        let by_itself = self.first_credential(account).map(|first| up(first + TRIAL));
        let commercial = self.accounts[account].commercial_from;
        by_itself.into_iter().chain(commercial).any(|end| end <= now)
    }

    fn transfer(&mut self, now: i64, app: usize, team: usize) -> Verdict {
        if app >= self.apps.len() || team >= self.teams.len() {
            return Verdict::NoSuchThing;
        }
        let present = self.lines[app].at(down(now));
        if !self.out_of_trial(self.owner(app, now), now) {
            return Verdict::InTrial;
        }
        let Some(present) = present else { return Verdict::NoTeam };
        if present == team {
            return Verdict::SameTeam;
        }
        let account = self.teams[team].0;
        if !self.out_of_trial(account, now) {
            return Verdict::InTrial;
        }
        let edge = up(now + LEAD);
        if self.lines[app].last().is_some_and(|(_, since)| since >= edge) {
            return Verdict::Overlap;
        }
        self.lines[app].fill(team, edge, None);
        self.owners.push((app, edge, account));
        Verdict::Assigned(edge)
    }

    /// Credentials of an app whose secret did not stop.
    fn live(&self, app: usize, now: i64) -> usize {
        let all = self.credentials.iter().enumerate().filter(|(_, (of, _, _))| *of == app);
        all.filter(|(index, _)| self.revocation(*index).is_none_or(|(stops, _)| stops > now)).count()
    }

    fn revocation(&self, credential: usize) -> Option<(i64, i64)> {
        let last = self.revocations.iter().rfind(|(of, _, _)| *of == credential);
        last.map(|(_, stops, unknown)| (*stops, *unknown))
    }

    pub(crate) fn act(&mut self, now: i64, act: Act) -> Verdict {
        match act {
            Act::Account { created_at, enterprise, commercial } => {
                let at = created_at.unwrap_or(now);
                if at > now {
                    return Verdict::InFuture;
                }
                let opened = down(at);
                self.accounts.push(Opened {
                    at,
                    commercial_from: commercial.then_some(opened),
                    contracts: vec![(opened, enterprise)],
                });
                Verdict::Done
            }
            Act::Team { account, created_at } => {
                let at = created_at.unwrap_or(now);
                match self.accounts.get(account) {
                    None => Verdict::NoSuchThing,
                    _ if at > now => Verdict::InFuture,
                    Some(opened) if at < opened.at => Verdict::BeforeAccount,
                    Some(_) => {
                        self.teams.push((account, at));
                        Verdict::Done
                    }
                }
            }
            Act::App { account } if account < self.accounts.len() => {
                self.apps.push(account);
                self.lines.push(Line(vec![None; WINDOWS]));
                Verdict::Done
            }
            Act::App { .. } => Verdict::NoSuchThing,
            Act::Credential { app, created_at, settled } => self.credential(now, app, created_at, settled),
            Act::Assign { app, team, from, settled } => self.assign(now, app, team, from, settled),
            Act::EndTrial { account, from, settled } => self.end_trial(now, account, from, settled),
            Act::Contract { account, enterprise, from, settled } => {
                self.contract(now, account, enterprise, from, settled)
            }
            Act::Revoke { credential, at } => self.revoke(now, credential, at),
            Act::Transfer { app, team } => self.transfer(now, app, team),
            Act::Correct { app, team, from, to, settled } => {
                self.correct(now, (app, team), from, to, settled)
            }
        }
    }

    fn end_trial(&mut self, now: i64, account: usize, from: Option<i64>, settled: bool) -> Verdict {
        if account >= self.accounts.len() {
            return Verdict::NoSuchThing;
        }
        // without credentials there is no usage that could be settled
        let settled = settled && self.credentials_of_account(account) > 0;
        let first = self.first_credential(account);
        let opened = &mut self.accounts[account];
        let (soonest, edge) = edges(now, from);
        if edge > soonest + AHEAD {
            return Verdict::TooFarAhead;
        }
        let by_itself = first.map(|first| up(first + TRIAL));
        let end = match opened.commercial_from {
            Some(commercial) => Some(by_itself.map_or(commercial, |own| own.min(commercial))),
            None => by_itself,
        };
        if let Some(end) = end.filter(|end| *end <= edge) {
            return Verdict::Assigned(end);
        }
        if edge < down(opened.at) {
            return Verdict::BeforeAccount;
        }
        if edge < soonest && settled {
            return Verdict::Settled;
        }
        opened.commercial_from = Some(edge);
        Verdict::Assigned(edge)
    }

    fn contract(
        &mut self,
        now: i64,
        account: usize,
        enterprise: bool,
        from: Option<i64>,
        settled: bool,
    ) -> Verdict {
        if account >= self.accounts.len() {
            return Verdict::NoSuchThing;
        }
        let settled = settled && self.credentials_of_account(account) > 0;
        let opened = &mut self.accounts[account];
        let (soonest, wanted) = edges(now, from);
        let edge = MONTHS.into_iter().find(|month| *month >= wanted).unwrap();
        if from.is_some() && edge > soonest + AHEAD {
            return Verdict::TooFarAhead;
        }
        let (since, present) = opened.contracts.iter().copied().max().unwrap();
        if present == enterprise && since <= edge {
            return Verdict::Assigned(since);
        }
        if since >= edge {
            return Verdict::Overlap;
        }
        if edge < soonest && settled {
            return Verdict::Settled;
        }
        opened.contracts.push((edge, enterprise));
        Verdict::Assigned(edge)
    }

    fn revoke(&mut self, now: i64, credential: usize, at: Option<i64>) -> Verdict {
        if credential >= self.credentials.len() {
            return Verdict::NoSuchThing;
        }
        let stops = at.unwrap_or(now);
        if stops < now {
            return Verdict::InPast;
        }
        let soonest = up(now + LEAD);
        if let Some((held, unknown)) = self.revocation(credential)
            && (held <= now || unknown < soonest)
        {
            return Verdict::Revoked(held, unknown);
        }
        let unknown = up(stops).max(soonest);
        if unknown > soonest + AHEAD {
            return Verdict::TooFarAhead;
        }
        self.revocations.push((credential, stops, unknown));
        Verdict::Revoked(stops, unknown)
    }

    fn credential(&mut self, now: i64, app: usize, created_at: Option<i64>, settled: bool) -> Verdict {
        let at = created_at.unwrap_or(now);
        if app >= self.apps.len() {
            return Verdict::NoSuchThing;
        }
        let account = self.owner(app, now);
        if at > now {
            return Verdict::InFuture;
        }
        if at < self.accounts[account].at {
            return Verdict::BeforeAccount;
        }
        if self.live(app, now) >= CREDENTIALS_MAX {
            return Verdict::TooMany;
        }
        let commercial = self.accounts[account].commercial_from;
        let first = self.first_credential(account);
        let had_trial = first.filter(|first| commercial.is_none_or(|from| from > down(*first)));
        let moves_trial = had_trial.is_some_and(|first| at < first);
        if moves_trial && settled {
            return Verdict::Settled;
        }
        self.credentials.push((app, at, account));
        Verdict::Done
    }

    fn assign(&mut self, now: i64, app: usize, team: usize, from: Option<i64>, settled: bool) -> Verdict {
        let Some((team_account, team_made)) = self.teams.get(team).copied() else {
            return Verdict::NoSuchThing;
        };
        if app >= self.apps.len() {
            return Verdict::NoSuchThing;
        }
        let (soonest, edge) = edges(now, from);
        if self.owner(app, edge) != team_account {
            return Verdict::Differ;
        }
        if edge > soonest + AHEAD {
            return Verdict::TooFarAhead;
        }
        if edge < down(team_made) {
            return Verdict::BeforeTeam;
        }
        match self.lines[app].last() {
            Some((present, since)) if present == team && since <= edge => return Verdict::Assigned(since),
            Some((_, since)) if since >= edge => return Verdict::Overlap,
            _ => {}
        }
        if edge < soonest && settled && self.credentials_of(app) > 0 {
            return Verdict::Settled;
        }
        self.lines[app].fill(team, edge, None);
        Verdict::Assigned(edge)
    }

    fn correct(
        &mut self,
        now: i64,
        (app, team): (usize, usize),
        from: i64,
        to: i64,
        settled: bool,
    ) -> Verdict {
        let Some((team_account, team_made)) = self.teams.get(team).copied() else {
            return Verdict::NoSuchThing;
        };
        if app >= self.apps.len() {
            return Verdict::NoSuchThing;
        }
        let (from, to) = (up(from), up(to));
        if from >= up(now + LEAD) {
            return Verdict::InFuture;
        }
        if to <= from {
            return Verdict::Empty;
        }
        let windows = || (0..(to - from) / WINDOW).map(|n| from + n * WINDOW);
        if windows().any(|window| self.owner(app, window) != team_account) {
            return Verdict::Differ;
        }
        if from < down(team_made) {
            return Verdict::BeforeTeam;
        }
        if self.lines[app].at(to).is_none() {
            return Verdict::Gap;
        }
        if windows().all(|window| self.lines[app].at(window) == Some(team)) {
            return Verdict::Done;
        }
        let first = self.lines[app].first();
        if first.is_some_and(|first| from <= first && first <= now && self.lines[app].at(from) != Some(team))
        {
            return Verdict::FirstTold;
        }
        if settled && self.credentials_of(app) > 0 {
            return Verdict::Settled;
        }
        self.lines[app].fill(team, from, Some(to));
        Verdict::Done
    }

    fn first_credential(&self, account: usize) -> Option<i64> {
        let of_account = self.credentials.iter().filter(|(_, _, of)| *of == account);
        of_account.map(|(_, at, _)| *at).min()
    }

    /// Who pays for usage of a credential at an instant.
    pub(crate) fn who_pays(&self, credential: usize, at: i64) -> Answer {
        let window = down(at);
        let Some((app, since, _)) = self.credentials.get(credential).copied() else { return Answer::Unknown };
        if window < down(since) || self.revocation(credential).is_some_and(|(_, unknown)| window >= unknown) {
            return Answer::Unknown;
        }
        let Some(team) = self.lines[app].at(window) else { return Answer::NoTeam };
        let account = self.teams[team].0;
        let opened = &self.accounts[account];
        let begun = opened.contracts.iter().filter(|(from, _)| *from <= window).max();
        let enterprise = begun.unwrap_or(&opened.contracts[0]).1;
        let in_trial = opened.commercial_from.is_none_or(|from| window < from)
            && self
                .first_credential(account)
                .is_some_and(|first| down(first) <= window && window < up(first + TRIAL));
        Answer::Billed { app, team, account, enterprise, in_trial }
    }
}
