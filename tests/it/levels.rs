//! Levels of access through time against a model: the real ledger and the real entitlement, which hear of each other over
//! the wire, by one clock that the test moves over months. What happens to a team is random: purchases, grants that expire,
//! usage, usage that is late, and nothing; after each step, and after time alone, the gate's answer is the model's.
//!
//! The model knows no code of either service: lots, a debt, the instant of the first posting below zero.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{Channel, ChannelOptions, clients::entitlement, clients::ledger, connect};
use drawdown_entitlement::{Options as EntitlementOptions, migrate as migrate_entitlement};
use drawdown_ledger::{Options as LedgerOptions, migrate as migrate_ledger};
use drawdown_proto::{
    entitlement::v1::{
        AccessAnswer, AccessLevel, AccessQuestion, AssignAppRequest, CheckAccessRequest, ContractKind,
        CreateAccountRequest, CreateAppRequest, CreateCredentialRequest, CreateTeamRequest,
    },
    ledger::v1::{self as led, event_service_client::EventServiceClient, line},
    scalar::{timestamp_from_proto, timestamp_to_proto},
};
use drawdown_service::{
    Context, Telemetry,
    config::{ListenAddress, Millis},
};
use drawdown_testkit::{Database, ManualClock};
use drawdown_tests::{
    load::Bits,
    process::{free_ports, wait_until},
    up::UP_LIMIT,
};
use drawdown_types::{EventName, Timestamp};
use tokio_util::sync::{CancellationToken, DropGuard};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const TOKEN: i64 = 1_000_000;
const TRIAL: i64 = 5 * DAY;
const GRACE: i64 = 3 * DAY;
const STEPS: usize = 60;
const METER: &str = "tile";

fn at(micros: i64) -> Result<Timestamp> {
    Ok(Timestamp::from_micros(micros)?)
}

fn wire(micros: i64) -> Result<Option<prost_types::Timestamp>> {
    Ok(Some(timestamp_to_proto(at(micros)?)))
}

/// The edge at or before an instant, and the one at or after it.
const fn floor(micros: i64) -> i64 {
    micros - micros.rem_euclid(MINUTE)
}

const fn ceil(micros: i64) -> i64 {
    floor(micros + MINUTE - 1)
}

// === the model ===

/// A lot: granted lots are drawn before purchased ones (D4).
#[derive(Clone, Copy, Debug)]
struct Lot {
    purchased: bool,
    expiry: i64,
    size: i64,
    from: i64,
    left: i64,
}

/// What the rules say of the team.
#[derive(Debug, Default)]
struct Model {
    trial_ends: i64,
    lots: Vec<Lot>,
    owed: i64,
    /// D48: the first posting that ended below zero after the last one that did not.
    since: Option<i64>,
    /// How often a lot that had expired paid for late usage (D3).
    closing_paid: usize,
}

impl Model {
    fn available(&self, now: i64) -> i64 {
        self.lots.iter().filter(|lot| now < lot.expiry).map(|lot| lot.left).sum()
    }

    fn balance(&self, now: i64) -> i64 {
        self.available(now) - self.owed
    }

    fn draw(&mut self, mut amount: i64, pays: impl Fn(&Lot) -> bool) -> i64 {
        for lot in self.lots.iter_mut().filter(|lot| pays(lot)) {
            let part = amount.min(lot.left);
            lot.left -= part;
            amount -= part;
        }
        amount
    }

    /// A transaction ends: open lots pay what is owed (D42), and the clock of grace starts, stops or goes on.
    fn ends(&mut self, now: i64) {
        self.owed = self.draw(self.owed, |lot| now < lot.expiry);
        self.since = (self.balance(now) < 0).then_some(self.since.unwrap_or(now));
    }

    fn comes(&mut self, now: i64, lot: Lot) {
        self.lots.push(lot);
        self.lots.sort_by_key(|lot| (lot.purchased, lot.expiry, lot.size, lot.from));
        self.ends(now);
    }

    /// D9, D41: lots that are valid at the window pay, also those that expired since; the rest is owed.
    fn used(&mut self, now: i64, window: i64, amount: i64) {
        if window >= self.trial_ends {
            let open = self.available(now);
            let rest = self.draw(amount, |lot| lot.from <= window && window < lot.expiry);
            self.closing_paid += usize::from(amount - rest > open - self.available(now));
            self.owed += rest;
        }
        self.ends(now);
    }

    fn level(&self, now: i64) -> AccessLevel {
        match self.since {
            _ if now < self.trial_ends => AccessLevel::Trial,
            None => AccessLevel::Full,
            Some(since) if now < ceil(since + GRACE) => AccessLevel::Grace,
            Some(_) => AccessLevel::Limited,
        }
    }

    fn check(&self, now: i64, answer: &AccessAnswer) -> Result<()> {
        let level = self.level(now);
        let trial = level == AccessLevel::Trial;
        let expected = (
            level,
            level != AccessLevel::Limited,
            (!trial).then(|| self.balance(now)),
            self.since.filter(|_| !trial).map(|since| ceil(since + GRACE)),
        );
        let deadline = answer.grace_deadline.as_ref().map(timestamp_from_proto).transpose()?;
        let deadline = deadline.map(Timestamp::as_micros);
        let told = (answer.level(), answer.allowed, answer.balance_micros, deadline);
        ensure!(told == expected, "at {}: {told:?}, the model says {expected:?}: {self:?}", at(now)?);
        Ok(())
    }
}

// === the services ===

struct Services {
    clock: Arc<ManualClock>,
    ledger: Channel,
    entitlement: Channel,
    account_id: String,
    team_id: String,
    app_id: String,
    client_id: String,
    events: usize,
    _database: Database,
    _stop: DropGuard,
}

impl Services {
    async fn start(now: i64) -> Result<Self> {
        let database = Database::create().await?;
        migrate_ledger(database.pool()).await?;
        migrate_entitlement(database.pool()).await?;
        let [ledger_port, entitlement_port] = free_ports::<2>()?;
        let address = |port: u16| format!("http://127.0.0.1:{port}");
        let listen = |port: u16| ListenAddress::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        let (clock, stop) = (Arc::new(ManualClock::new(at(now)?)), CancellationToken::new());

        let mut of_ledger = LedgerOptions::default();
        of_ledger.database.url = database.url().into();
        (of_ledger.server.listen, of_ledger.server.metrics_listen) =
            (listen(ledger_port), ListenAddress::ANY_LOOPBACK);
        of_ledger.entitlement = ChannelOptions::to(address(entitlement_port));
        of_ledger.notices.grace_secs = u64::try_from(GRACE / SECOND)?;
        of_ledger.standings.poll_interval_ms = Millis::from_millis(10);
        of_ledger.standings.heartbeat_ms = Millis::from_millis(20);
        let (context, _) = Context::new(Telemetry::detached("ledger")?, clock.clone(), stop.clone());
        let checked = of_ledger.validate().map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        tokio::spawn(drawdown_ledger::run(checked, context));

        let mut of_entitlement = EntitlementOptions {
            credential_pepper: "5a".repeat(32).as_str().into(),
            trial_secs: u64::try_from(TRIAL / SECOND)?,
            ..EntitlementOptions::default()
        };
        of_entitlement.database.url = database.url().into();
        (of_entitlement.server.listen, of_entitlement.server.metrics_listen) =
            (listen(entitlement_port), ListenAddress::ANY_LOOPBACK);
        of_entitlement.ledger = ChannelOptions::to(address(ledger_port));
        of_entitlement.access.feed_interval_ms = Millis::from_millis(20);
        let (context, _) = Context::new(Telemetry::detached("entitlement")?, clock.clone(), stop.clone());
        let checked = of_entitlement.validate().map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        tokio::spawn(drawdown_entitlement::run(checked, context));

        let mut services = Self {
            clock,
            ledger: connect(&ChannelOptions::to(address(ledger_port)))?,
            entitlement: connect(&ChannelOptions::to(address(entitlement_port)))?,
            account_id: String::new(),
            team_id: String::new(),
            app_id: String::new(),
            client_id: String::new(),
            events: 0,
            _database: database,
            _stop: stop.drop_guard(),
        };
        services.heard(now).await?;
        services.set_up(now).await?;
        Ok(services)
    }

    /// An account as old as yesterday, whose trial begins now.
    async fn set_up(&mut self, now: i64) -> Result<()> {
        let mut hierarchy = entitlement::hierarchy(&self.entitlement);
        let account = CreateAccountRequest {
            name: "A".to_owned(),
            contract_kind: ContractKind::Flex.into(),
            created_at: wire(now - DAY)?,
            ..CreateAccountRequest::default()
        };
        let account = hierarchy.create_account(account).await?.into_inner().account.context("no account")?;
        self.account_id = account.account_id;
        let account_id = self.account_id.clone();
        let team = CreateTeamRequest {
            account_id: account_id.clone(),
            name: "T".to_owned(),
            created_at: wire(now - DAY)?,
            ..CreateTeamRequest::default()
        };
        self.team_id = hierarchy.create_team(team).await?.into_inner().team.context("no team")?.team_id;
        let app = CreateAppRequest { account_id, name: "X".to_owned(), ..CreateAppRequest::default() };
        self.app_id = hierarchy.create_app(app).await?.into_inner().app.context("no app")?.app_id;
        let assignment = AssignAppRequest {
            app_id: self.app_id.clone(),
            team_id: self.team_id.clone(),
            from: wire(now - DAY)?,
            request_id: String::new(),
        };
        hierarchy.assign_app(assignment).await?;
        let credential = CreateCredentialRequest { app_id: self.app_id.clone(), ..Default::default() };
        self.client_id = hierarchy.create_credential(credential).await?.into_inner().client_id;

        let mut catalog = ledger::catalog(&self.ledger);
        let meter = led::Meter {
            slug: METER.to_owned(),
            unit: "call".to_owned(),
            aggregation: led::Aggregation::Sum.into(),
            ..led::Meter::default()
        };
        let meter = led::CreateMeterRequest { meter: Some(meter), request_id: "meter".to_owned() };
        catalog.create_meter(meter).await?;
        let price = led::Price { meter: METER.to_owned(), micros: 1, per_units: 1, ..led::Price::default() };
        let rate_card = led::RateCard {
            name: "tiles".to_owned(),
            contract_kind: led::ContractKind::Flex.into(),
            effective_from: wire(floor(now - 60 * DAY))?,
            prices: vec![price],
            ..led::RateCard::default()
        };
        let publish = led::PublishRateCardRequest {
            rate_card: Some(rate_card),
            set_up: true,
            request_id: "card".to_owned(),
        };
        catalog.publish_rate_card(publish).await?;
        Ok(())
    }

    /// The present answer, as soon as everything that was committed by now is known.
    async fn heard(&self, now: i64) -> Result<AccessAnswer> {
        self.clock.set(at(now)?);
        let ask = || async {
            let question =
                AccessQuestion { client_id: self.client_id.clone(), meter: METER.to_owned(), quantity: 1 };
            let request = CheckAccessRequest { question: Some(question), with_billed_to: false };
            let answer = entitlement::access(&self.entitlement).check_access(request).await;
            Ok(answer.ok().and_then(|answer| answer.into_inner().answer))
        };
        let fresh = || async {
            let answer: Result<Option<AccessAnswer>> = ask().await;
            Ok(answer?.is_some_and(|answer| answer.ledger_age_ms == Some(0) && !answer.stale))
        };
        wait_until("the ledger to be heard", UP_LIMIT, fresh).await?;
        ask().await?.context("no answer")
    }

    fn owner(&self) -> (String, String) {
        (self.account_id.clone(), self.team_id.clone())
    }

    /// A deed's number, for its request id.
    fn next(&mut self) -> String {
        self.events += 1;
        format!("deed-{}", self.events)
    }

    async fn purchase(&mut self, tokens: i64) -> Result<i64> {
        let (account_id, team_id) = self.owner();
        let request = led::PurchaseTokensRequest {
            account_id,
            team_id,
            tokens,
            request_id: self.next(),
            ..Default::default()
        };
        let bought = ledger::token(&self.ledger).purchase_tokens(request).await?.into_inner().lot;
        let expiry = bought.and_then(|lot| lot.expires_at).context("no expiry")?;
        Ok(timestamp_from_proto(&expiry)?.as_micros())
    }

    async fn grant(&mut self, micros: i64, expires_at: i64) -> Result<()> {
        let (account_id, team_id) = self.owner();
        let request = led::GrantTokensRequest {
            account_id,
            team_id,
            micros,
            pool_kind: led::PoolKind::Promotional.into(),
            expires_at: wire(expires_at)?,
            note: "n".to_owned(),
            request_id: self.next(),
            ..Default::default()
        };
        ledger::token(&self.ledger).grant_tokens(request).await?;
        Ok(())
    }

    /// Usage of a window, received now: what metering would post.
    async fn record(&mut self, now: i64, window: i64, micros: i64, in_trial: bool) -> Result<()> {
        let (account_id, team_id) = self.owner();
        let payer = led::Payer {
            account_id,
            team_id,
            app_id: self.app_id.clone(),
            contract_kind: led::ContractKind::Flex.into(),
            in_trial,
        };
        let usage = led::Line {
            client_id: self.client_id.clone(),
            meter: METER.to_owned(),
            window_start: wire(window)?,
            received_window_start: wire(floor(now))?,
            events: 1,
            state: Some(line::State::Sum(led::SumState { quantity: micros })),
            attribution: Some(line::Attribution::Payer(payer)),
            ..led::Line::default()
        };
        let (source, id) = ("/test".to_owned(), self.next());
        let slot = EventName { source: source.parse()?, id: id.parse()? }.slot();
        let content_digest = vec![1; 32];
        let event = led::NamedUsage {
            source,
            id,
            content_digest,
            time: usage.window_start,
            usage: Some(usage),
            cell: 0,
        };
        let mut events = EventServiceClient::new(self.ledger.unary());
        let answers = events.record_events(led::RecordEventsRequest { slot, events: vec![event] }).await?;
        let answers = answers.into_inner().answers;
        ensure!(answers.iter().all(|answer| !answer.charge_id.is_empty()), "{answers:?}");
        Ok(())
    }
}

/// What was seen on the way.
#[derive(Debug, Default)]
struct Seen {
    levels: std::collections::BTreeSet<&'static str>,
    late: usize,
    closing_paid: usize,
    restored: usize,
}

/// One walk.
async fn walk(seed: u64, seen: &mut Seen) -> Result<()> {
    let begin = at_noon()?;
    let mut services = Services::start(begin).await?;
    let mut model = Model { trial_ends: ceil(begin + TRIAL), ..Model::default() };
    let mut bits = Bits(seed);
    let mut draw = |below: i64| i64::try_from(bits.draw() >> 1).unwrap_or_default() % below;
    let mut now = begin;
    for step in 0..STEPS {
        now += match draw(4) {
            0 => 1 + draw(HOUR),
            1 | 2 => 1 + draw(DAY),
            _ => 1 + draw(9 * DAY),
        };
        // by time alone: expiries, the end of the trial, deadlines
        model
            .check(now, &services.heard(now).await?)
            .with_context(|| format!("seed {seed} before step {step}"))?;
        let before = model.level(now);
        let trial = now < model.trial_ends;
        match draw(8) {
            // who may do nothing any more buys what is owed, and some more
            turn if !trial && (turn == 0 || turn == 7 && before == AccessLevel::Limited) => {
                let owed = if before == AccessLevel::Limited { model.owed / TOKEN } else { 0 };
                let tokens = 100 + owed;
                let (expiry, size) = (services.purchase(tokens).await?, tokens * TOKEN);
                model.comes(now, Lot { purchased: true, expiry, size, from: floor(now), left: size });
            }
            0 | 1 => {
                let (size, expiry) = ((1 + draw(60)) * TOKEN, ceil(now + HOUR + draw(6 * DAY)));
                services.grant(size, expiry).await?;
                model.comes(now, Lot { purchased: false, expiry, size, from: floor(now), left: size });
            }
            2..=6 => {
                let late = draw(3) == 0;
                let window = if late { floor(now - draw(20 * HOUR)).max(floor(begin)) } else { floor(now) };
                let amount = (1 + draw(50)) * TOKEN;
                let in_trial = window < model.trial_ends;
                services.record(now, window, amount, in_trial).await?;
                model.used(now, window, amount);
                seen.late += usize::from(late && !in_trial);
            }
            _ => {}
        }
        now += 1_000;
        let answer = services.heard(now).await?;
        model.check(now, &answer).with_context(|| format!("seed {seed} after step {step}"))?;
        let after = model.level(now);
        seen.restored += usize::from(before == AccessLevel::Limited && after == AccessLevel::Full);
        seen.levels.insert(after.as_str_name());
    }
    seen.closing_paid += model.closing_paid;
    Ok(())
}

/// An instant of this test's own: nothing in it depends on the day.
fn at_noon() -> Result<i64> {
    Ok("2026-03-01T12:00:10Z".parse::<Timestamp>()?.as_micros())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn levels_are_those_of_the_model_whatever_happens_to_a_team() -> Result<()> {
    let mut seen = Seen::default();
    for seed in [1, 2, 3] {
        walk(seed, &mut seen).await?;
    }
    // a walk that goes nowhere shows nothing
    ensure!(
        seen.levels.len() == 4 && seen.late > 5 && seen.closing_paid > 0 && seen.restored > 0,
        "{seen:?}"
    );
    Ok(())
}
