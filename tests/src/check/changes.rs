//! How soon an answer is another one: acts of entitlement and of the ledger, one after the other, each waited for at an instance
//! of entitlement that was told nothing.
//!
//! The clock starts with the answer to the act and stops with the first answer that tells of it. The instance that
//! answers is not the one that acted: that one knows before it answers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    Channel,
    clients::{entitlement, ledger},
};
use drawdown_proto::{
    entitlement::v1::{
        AccessAnswer, AccessQuestion, AccessReason, CheckAccessRequest, LiftSuspensionRequest,
        RevokeCredentialRequest, SuspendRequest,
    },
    ledger::v1 as led,
    scalar::timestamp_to_proto,
};
use drawdown_types::{
    Clock as _, EventId, EventName, EventSource, MICROS_PER_TOKEN, SystemClock, WindowSize,
};

use super::{
    directory::{Client, Directory, Team},
    money::HARD_METER,
};

/// How long a change may take before the run is given up.
const LIMIT: Duration = Duration::from_secs(30);
/// What is bought again, in whole tokens.
const BOUGHT: i64 = 100;

/// What is changed, in this order, team by team.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SuspendTeam,
    LiftTeam,
    /// Usage that takes all that is left.
    UseUp,
    Buy,
    SuspendAccount,
    LiftAccount,
    Revoke,
}

const KINDS: [Kind; 7] = [
    Kind::SuspendTeam,
    Kind::LiftTeam,
    Kind::UseUp,
    Kind::Buy,
    Kind::SuspendAccount,
    Kind::LiftAccount,
    Kind::Revoke,
];

/// Whom to tell and whom to ask.
pub(super) struct Channels {
    /// To the instance of entitlement that acts, as the operator.
    pub(super) acts: Channel,
    /// To the other one, with a key.
    pub(super) asks: Channel,
    /// To the ledger, as the operator.
    pub(super) ledger: Channel,
    /// To the ledger, as metering.
    pub(super) posts: Channel,
}

/// Times in milliseconds, of acts of entitlement and of the ledger.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) directory: Vec<f64>,
    pub(super) ledger: Vec<f64>,
}

/// What the next answer has to be.
struct Expected {
    reason: AccessReason,
    balance: Option<i64>,
}

struct Changes<'a> {
    channels: &'a Channels,
    directory: &'a Directory,
    /// What the present team has, in whole tokens.
    left: i64,
}

/// Makes so many changes and waits for each.
pub(super) async fn run(channels: &Channels, directory: &Directory, count: usize) -> Result<Known> {
    let teams = directory.teams.len();
    ensure!(count <= teams * KINDS.len(), "{teams} teams are too few for {count} changes");
    let mut changes = Changes { channels, directory, left: 0 };
    let mut known = Known::default();
    for number in 0..count {
        let (team, kind) = (number / KINDS.len(), KINDS[number % KINDS.len()]);
        let took = changes.change(team, kind).await.with_context(|| format!("{kind:?} of team {team}"))?;
        let times = match kind {
            Kind::UseUp | Kind::Buy => &mut known.ledger,
            _ => &mut known.directory,
        };
        times.push(took.as_secs_f64() * 1e3);
    }
    Ok(known)
}

impl Changes<'_> {
    async fn change(&mut self, number: usize, kind: Kind) -> Result<Duration> {
        let team = &self.directory.teams[number];
        // the credential with the number of a team is one of the team's
        let client = &self.directory.clients[number];
        if kind == Kind::SuspendTeam {
            self.left = team.tokens;
        }
        let before = self.ask(client).await?;
        let expected = self.act(team, client, kind).await?;
        let began = Instant::now();
        ensure!(!expected.is_told_by(&before), "the answer was the same before: {before:?}");
        loop {
            let answer = self.ask(client).await?;
            let took = began.elapsed();
            if expected.is_told_by(&answer) {
                return Ok(took);
            }
            ensure!(took < LIMIT, "it is not known after {LIMIT:?}: {answer:?}");
        }
    }

    async fn act(&mut self, team: &Team, client: &Client, kind: Kind) -> Result<Expected> {
        let channels = self.channels;
        let mut accounts = entitlement::accounts(&channels.acts);
        let (of_account, of_team) = (team.account_id.to_string(), team.team_id.to_string());
        let note = || "check".to_owned();
        let suspend = |account_id, team_id| SuspendRequest {
            account_id,
            team_id,
            note: note(),
            request_id: String::new(),
        };
        let lift = |account_id, team_id| LiftSuspensionRequest {
            account_id,
            team_id,
            note: note(),
            request_id: String::new(),
        };
        let reason = match kind {
            Kind::SuspendTeam => {
                accounts.suspend(suspend(String::new(), of_team)).await?;
                AccessReason::TeamSuspended
            }
            Kind::LiftTeam => {
                accounts.lift_suspension(lift(String::new(), of_team)).await?;
                AccessReason::InFull
            }
            Kind::SuspendAccount => {
                accounts.suspend(suspend(of_account, String::new())).await?;
                AccessReason::AccountSuspended
            }
            Kind::LiftAccount => {
                accounts.lift_suspension(lift(of_account, String::new())).await?;
                AccessReason::InFull
            }
            Kind::Revoke => {
                let credential_id = client.credential_id.to_string();
                let request = RevokeCredentialRequest { credential_id, ..RevokeCredentialRequest::default() };
                entitlement::credentials(&channels.acts).revoke_credential(request).await?;
                return Ok(Expected { reason: AccessReason::ClientRevoked, balance: None });
            }
            Kind::UseUp => {
                self.post(team, client).await?;
                self.left = 0;
                AccessReason::BalanceTooLow
            }
            Kind::Buy => {
                let request = led::PurchaseTokensRequest {
                    account_id: of_account,
                    team_id: of_team,
                    tokens: BOUGHT,
                    request_id: format!("check-again-{}", team.team_id),
                    note: note(),
                    ..led::PurchaseTokensRequest::default()
                };
                ledger::token(&channels.ledger).purchase_tokens(request).await?;
                self.left = BOUGHT;
                AccessReason::InFull
            }
        };
        Ok(Expected { reason, balance: Some(self.left * MICROS_PER_TOKEN) })
    }

    /// One event that costs all that the team has, as metering posts one of a caller without a log.
    async fn post(&self, team: &Team, client: &Client) -> Result<()> {
        let now = SystemClock.now();
        let window = Some(timestamp_to_proto(WindowSize::MINUTE.floor(now)));
        let name =
            EventName { source: EventSource::new("check")?, id: EventId::new(&client.app_id.to_string())? };
        let payer = led::Payer {
            account_id: team.account_id.to_string(),
            team_id: team.team_id.to_string(),
            app_id: client.app_id.to_string(),
            contract_kind: led::ContractKind::Flex.into(),
            in_trial: false,
        };
        let usage = led::Line {
            client_id: client.client_id(),
            meter: HARD_METER.to_owned(),
            window_start: window,
            received_window_start: window,
            events: 1,
            state: Some(led::line::State::Sum(led::SumState { quantity: self.left })),
            attribution: Some(led::line::Attribution::Payer(payer)),
            ..led::Line::default()
        };
        let event = led::NamedUsage {
            source: name.source.to_string(),
            id: name.id.to_string(),
            content_digest: vec![0; 32],
            time: Some(timestamp_to_proto(now)),
            usage: Some(usage),
            cell: 0,
        };
        let request = led::RecordEventsRequest { slot: name.slot(), events: vec![event] };
        let answers = ledger::events(&self.channels.posts).record_events(request).await?.into_inner().answers;
        let outcomes: Vec<_> = answers.iter().map(led::EventAnswer::outcome).collect();
        ensure!(outcomes == [led::EventOutcome::Recorded], "{answers:?}");
        Ok(())
    }

    async fn ask(&self, client: &Client) -> Result<AccessAnswer> {
        let question =
            AccessQuestion { client_id: client.client_id(), meter: HARD_METER.to_owned(), quantity: 1 };
        let request = CheckAccessRequest { question: Some(question), with_billed_to: false };
        let answer = entitlement::access(&self.channels.asks).check_access(request).await?;
        answer.into_inner().answer.context("no answer")
    }
}

impl Expected {
    fn is_told_by(&self, answer: &AccessAnswer) -> bool {
        let allowed = self.reason == AccessReason::InFull;
        answer.allowed == allowed && answer.reason() == self.reason && answer.balance_micros == self.balance
    }
}
