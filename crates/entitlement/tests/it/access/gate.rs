//! A service that answers whether a client id may use a meter, and what tests ask it.

use std::{sync::Arc, time::Duration};

use drawdown_entitlement::{Access, AccessLimits, AccessPolicy, FollowConfig, Follower, Memory, Parts};
use drawdown_proto::{
    entitlement::v1::{
        AccessAnswer, AccessLevel, AccessQuestion, AccessReason, CheckAccessRequest, WatchAccessRequest,
        WatchAccessResponse, access_service_server::AccessService as _,
    },
    ledger::v1::MeterPricing,
    scalar::timestamp_from_proto,
};
use drawdown_service::Telemetry;
use drawdown_types::Timestamp;
use futures::{StreamExt as _, stream::BoxStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Status};

use crate::{
    standings::{FakeStandings, step},
    world::{Chain, World, access_policy, at, ok},
};

/// How long a test waits for what takes milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const TOKEN: i64 = 1_000_000;

pub(super) fn limits() -> AccessLimits {
    AccessLimits {
        questions_max: 3,
        watch_questions_max: 10,
        watchers_max: 2,
        check_streams_max: 2,
        watch_pause: Duration::from_millis(1),
        watch_heartbeat: Duration::from_millis(200),
    }
}

/// A service whose memory is loaded and follows a ledger.
pub(super) struct Gate {
    pub(super) world: World,
    pub(super) ledger: Arc<FakeStandings>,
    pub(super) access: Access,
    stop: CancellationToken,
    _guard: DropGuard,
}

impl Gate {
    pub(super) async fn new() -> Self {
        Self::with(World::new().await, access_policy()).await
    }

    pub(super) async fn with(world: World, policy: AccessPolicy) -> Self {
        let ledger = FakeStandings::new(world.clock.clone(), 0);
        for (meter, hard, pricing) in [
            ("tile", false, MeterPricing::Charged),
            ("tile.hard", true, MeterPricing::Charged),
            ("tile.free", false, MeterPricing::Free),
        ] {
            ledger.meter(meter, hard, pricing);
        }
        Box::pin(Self::following(world, policy, ledger)).await
    }

    /// One that follows this ledger, and has heard of it.
    pub(super) async fn following(
        mut world: World,
        policy: AccessPolicy,
        ledger: Arc<FakeStandings>,
    ) -> Self {
        let meter = Telemetry::detached("entitlement").unwrap().meter();
        let of_rules = (world.parts.rules, world.parts.limits.hub_mode);
        let memory = Memory::new(world.parts.pool.clone(), world.clock.clone(), of_rules, policy, &meter);
        world.use_memory(Arc::clone(&memory));
        memory.load().await.unwrap();
        let stop = CancellationToken::new();
        let access = Access::new(memory, limits(), stop.clone());
        let gate = Self { world, ledger, access, _guard: stop.clone().drop_guard(), stop };
        gate.follow(0, &gate.ledger);
        gate.until("", "tile", |answer| answer.ledger_age_ms.is_some()).await;
        gate
    }

    /// Has a ledger followed as that of a cell.
    pub(super) fn follow(&self, cell: u8, ledger: &Arc<FakeStandings>) {
        let config = FollowConfig { silence_max: PATIENCE, retry: Duration::from_millis(10) };
        let memory = Arc::clone(&self.world.parts.memory);
        let follower = Follower::new(memory, cell, Arc::clone(ledger) as _, config);
        tokio::spawn(follower.run(self.stop.clone()));
    }

    /// A commercial account with a team, an app without an owner and its client id.
    pub(super) async fn app(&self) -> (Chain, String) {
        let chain = self.world.chain().await;
        let client_id = self.world.credential(&chain.app_id, None).await.client_id;
        self.world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
        (chain, client_id)
    }

    pub(super) async fn ask(&self, client_id: &str, meter: &str) -> AccessAnswer {
        let request =
            CheckAccessRequest { question: Some(question(client_id, meter)), with_billed_to: false };
        ok(self.access.check_access(Request::new(request)).await).answer.unwrap()
    }

    pub(super) async fn told(&self, client_id: &str, meter: &str) -> (bool, AccessLevel, AccessReason) {
        told(&self.ask(client_id, meter).await)
    }

    pub(super) async fn watch(
        &self,
        questions: Vec<AccessQuestion>,
    ) -> BoxStream<'static, Result<WatchAccessResponse, Status>> {
        let request = WatchAccessRequest { questions, with_billed_to: false, with_amounts: true };
        self.access.watch_access(Request::new(request)).await.unwrap().into_inner()
    }

    /// Waits for an answer.
    pub(super) async fn until(
        &self,
        client_id: &str,
        meter: &str,
        holds: impl Fn(&AccessAnswer) -> bool,
    ) -> AccessAnswer {
        let mut messages = self.watch(vec![question(client_id, meter)]).await;
        let wait = async {
            loop {
                messages.next().await.unwrap().unwrap();
                let answer = self.ask(client_id, meter).await;
                if holds(&answer) {
                    return answer;
                }
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap()
    }

    /// What the ledger says from now on about a team, once it is known.
    pub(super) async fn balance(
        &self,
        chain: &Chain,
        client_id: &str,
        available: i64,
        owed: i64,
        deadline: Option<Timestamp>,
    ) {
        self.ledger.balance(&chain.account_id, &chain.team_id, step(available, owed, deadline));
        self.until(client_id, "tile", |answer| answer.balance_micros == Some(available - owed)).await;
    }

    /// A balance that the trial hides.
    pub(super) async fn balance_unseen(&self, chain: &Chain, available: i64) {
        self.ledger.balance(&chain.account_id, &chain.team_id, step(available, 0, None));
        self.ledger.alive();
    }

    /// Time passes, and the ledger is alive.
    pub(super) async fn pass_to(&self, now: &str) {
        self.world.clock.set(at(now));
        self.ledger.alive();
        self.until("", "tile", |answer| answer.ledger_age_ms == Some(0)).await;
        self.world.parts.memory.catch_up().await.unwrap();
    }
}

pub(super) fn question(client_id: &str, meter: &str) -> AccessQuestion {
    AccessQuestion { client_id: client_id.to_owned(), meter: meter.to_owned(), quantity: 1 }
}

pub(super) fn told(answer: &AccessAnswer) -> (bool, AccessLevel, AccessReason) {
    (answer.allowed, answer.level(), answer.reason())
}

pub(super) fn instant(at: Option<prost_types::Timestamp>) -> Option<Timestamp> {
    at.map(|at| timestamp_from_proto(&at).unwrap())
}

/// What the parts of the world answer by is the memory of the gate.
impl World {
    fn use_memory(&mut self, memory: Arc<Memory>) {
        self.parts = Parts { memory, ..self.parts.clone() };
        self.rebuild();
    }
}
