//! A ledger that tells what a test says.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
};

use drawdown_entitlement::{StandingChanges, Standings};
use drawdown_proto::ledger::v1::{
    AccountStanding, BalanceStep, BudgetStanding, ContractKind, ListStandingsResponse, MeterPricing,
    MeterStanding, MeterStandings, MeterTerm, NoGrace, StandingRules, TeamStanding, WatchStandingsResponse,
};
use drawdown_testkit::ManualClock;
use drawdown_types::{Clock as _, Timestamp};
use futures::{StreamExt as _, future::BoxFuture};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::world::{at, wire};

/// Messages that a watcher may be behind.
const BEHIND_MAX: usize = 64;

#[derive(Default)]
struct Known {
    teams: BTreeMap<String, TeamStanding>,
    accounts: BTreeMap<String, AccountStanding>,
    meters: BTreeMap<String, MeterStanding>,
    debt_limit_micros: Option<i64>,
    watchers: Vec<mpsc::Sender<Result<WatchStandingsResponse, Status>>>,
}

/// The ledger.
pub(crate) struct FakeStandings {
    clock: Arc<ManualClock>,
    /// What it says that it is.
    cell: AtomicU32,
    known: Mutex<Known>,
    is_away: AtomicBool,
    /// A stream of changes says nothing until something changes.
    pub(crate) is_quiet: AtomicBool,
    /// How often everything was listed.
    pub(crate) lists: AtomicUsize,
}

/// A balance from the beginning of time on: what is left, what is owed, and when the grace ends.
pub(crate) fn step(available: i64, uncharged: i64, deadline: Option<Timestamp>) -> BalanceStep {
    BalanceStep {
        from: wire(at("2020-01-01T00:00:00Z")),
        available_micros: available,
        uncharged_micros: uncharged,
        held_micros: 0,
        negative_since: deadline.and_then(|_| wire(at("2026-01-01T00:00:00Z"))),
        grace_deadline: deadline.and_then(wire),
    }
}

/// A budget of this month.
pub(crate) fn budget(app_id: &str, cap: i64, used: i64) -> BudgetStanding {
    BudgetStanding {
        app_id: app_id.to_owned(),
        month: "2026-03".to_owned(),
        cap_micros: Some(cap),
        hard: true,
        used_micros: used,
        ..BudgetStanding::default()
    }
}

impl FakeStandings {
    pub(crate) fn new(clock: Arc<ManualClock>, cell: u8) -> Arc<Self> {
        let known = Known::default();
        Arc::new(Self {
            clock,
            cell: AtomicU32::new(cell.into()),
            known: Mutex::new(known),
            is_away: AtomicBool::new(false),
            is_quiet: AtomicBool::new(false),
            lists: AtomicUsize::new(0),
        })
    }

    /// The same price for everybody.
    pub(crate) fn meter(&self, meter: &str, hard: bool, pricing: MeterPricing) {
        let term = |kind: ContractKind| MeterTerm {
            contract_kind: kind.into(),
            from: wire(at("2020-01-01T00:00:00Z")),
            pricing: pricing.into(),
            ..MeterTerm::default()
        };
        let terms = [ContractKind::Flex, ContractKind::Enterprise].map(term).to_vec();
        let standing = MeterStanding { meter: meter.to_owned(), hard, terms };
        self.known.lock().unwrap().meters.insert(meter.to_owned(), standing);
        self.say(|known| WatchStandingsResponse { meters: Some(known.all_meters()), ..Default::default() });
    }

    pub(crate) fn debt_limit(&self, micros: i64) {
        self.known.lock().unwrap().debt_limit_micros = Some(micros);
        self.say(|known| WatchStandingsResponse { rules: Some(known.rules()), ..Default::default() });
    }

    pub(crate) fn team(&self, account_id: &str, team: TeamStanding) {
        let team = TeamStanding { account_id: account_id.to_owned(), ..team };
        self.known.lock().unwrap().teams.insert(team.team_id.clone(), team.clone());
        self.say(|_| WatchStandingsResponse { teams: vec![team], ..Default::default() });
    }

    pub(crate) fn balance(&self, account_id: &str, team_id: &str, step: BalanceStep) {
        let team = TeamStanding { team_id: team_id.to_owned(), steps: vec![step], ..TeamStanding::default() };
        self.team(account_id, team);
    }

    pub(crate) fn account(
        &self,
        account_id: &str,
        no_grace_from: Option<Timestamp>,
        budgets: Vec<BudgetStanding>,
    ) {
        let no_grace = no_grace_from.map(|from| NoGrace { from: wire(from), to: None }).into_iter().collect();
        let account = AccountStanding { account_id: account_id.to_owned(), no_grace, budgets };
        self.known.lock().unwrap().accounts.insert(account_id.to_owned(), account.clone());
        self.say(|_| WatchStandingsResponse { accounts: vec![account], ..Default::default() });
    }

    /// A sign of life.
    pub(crate) fn alive(&self) {
        self.say(|_| WatchStandingsResponse::default());
    }

    /// All streams end, and nobody is answered.
    pub(crate) fn dies(&self) {
        self.is_away.store(true, Ordering::SeqCst);
        self.known.lock().unwrap().watchers.clear();
    }

    pub(crate) fn comes_back(&self) {
        self.is_away.store(false, Ordering::SeqCst);
    }

    fn say(&self, message: impl FnOnce(&Known) -> WatchStandingsResponse) {
        let mut known = self.known.lock().unwrap();
        let message = WatchStandingsResponse {
            as_of: wire(self.clock.now()),
            cursor: "next".to_owned(),
            cell: self.cell(),
            ..message(&known)
        };
        known.watchers.retain(|watcher| watcher.try_send(Ok(message.clone())).is_ok());
    }

    /// It says that it is another one.
    pub(crate) fn becomes(&self, cell: u32) {
        self.cell.store(cell, Ordering::SeqCst);
    }

    fn cell(&self) -> u32 {
        self.cell.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), Status> {
        if self.is_away.load(Ordering::SeqCst) { Err(Status::unavailable("away")) } else { Ok(()) }
    }
}

impl Known {
    fn all_meters(&self) -> MeterStandings {
        MeterStandings { meters: self.meters.values().cloned().collect(), version: 1 }
    }

    fn rules(&self) -> StandingRules {
        StandingRules { debt_limit_micros: self.debt_limit_micros }
    }

    fn accounts_of<'a>(&self, teams: impl Iterator<Item = &'a TeamStanding>) -> Vec<AccountStanding> {
        teams.filter_map(|team| self.accounts.get(&team.account_id).cloned()).collect()
    }
}

impl Standings for FakeStandings {
    /// One team a page, so that pages are put together.
    fn list(
        &self,
        team_ids: Vec<String>,
        page_token: String,
    ) -> BoxFuture<'_, Result<ListStandingsResponse, Status>> {
        Box::pin(async move {
            self.check()?;
            let known = self.known.lock().unwrap();
            let as_of = wire(self.clock.now());
            if !team_ids.is_empty() {
                let teams: Vec<_> = team_ids.iter().filter_map(|id| known.teams.get(id).cloned()).collect();
                return Ok(ListStandingsResponse { teams, as_of, cell: self.cell(), ..Default::default() });
            }
            let mut after = known.teams.iter().skip_while(|(id, _)| **id <= page_token);
            let teams: Vec<_> = after.next().map(|(_, team)| team.clone()).into_iter().collect();
            let more = after.next().is_some();
            let first = page_token.is_empty();
            self.lists.fetch_add(usize::from(first), Ordering::SeqCst);
            Ok(ListStandingsResponse {
                accounts: known.accounts_of(teams.iter()),
                meters: first.then(|| known.all_meters()),
                rules: first.then(|| known.rules()),
                next_page_token: teams
                    .first()
                    .filter(|_| more)
                    .map(|team| team.team_id.clone())
                    .unwrap_or_default(),
                teams,
                cursor: "begin".to_owned(),
                as_of,
                cell: self.cell(),
                ..Default::default()
            })
        })
    }

    /// Everything once more, as if it had all changed since the cursor, then what changes.
    fn watch(&self, _: String) -> BoxFuture<'_, Result<StandingChanges, Status>> {
        Box::pin(async move {
            self.check()?;
            let (sender, receiver) = mpsc::channel(BEHIND_MAX);
            let mut known = self.known.lock().unwrap();
            let first = WatchStandingsResponse {
                teams: known.teams.values().cloned().collect(),
                accounts: known.accounts_of(known.teams.values()),
                meters: Some(known.all_meters()),
                rules: Some(known.rules()),
                cursor: "next".to_owned(),
                as_of: wire(self.clock.now()),
                cell: self.cell(),
                ..Default::default()
            };
            if !self.is_quiet.load(Ordering::SeqCst) {
                sender.try_send(Ok(first)).unwrap();
            }
            known.watchers.push(sender);
            Ok(ReceiverStream::new(receiver).boxed())
        })
    }
}
