//! The directory in memory keeps up with the database: with acts of others, in whatever order they commit.

use std::{sync::Arc, time::Duration};

use drawdown_client::{Channel, ChannelOptions, connect};
use drawdown_entitlement::{Memory, Parts, Resolutions};
use drawdown_proto::entitlement::v1::{
    AccessQuestion, AccessReason, StreamCheckAccessRequest, SuspendRequest, WatchAccessRequest,
};
use drawdown_service::Telemetry;
use drawdown_testkit::Database;
use drawdown_types::AccountId;
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use crate::{
    wire::{context, options},
    world::{Chain, World, access_policy},
};

/// How long a test waits for what takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

impl World {
    /// The memory of another instance on the same database, loaded.
    pub(crate) async fn other_memory(&self) -> Arc<Memory> {
        let meter = Telemetry::detached("entitlement").unwrap().meter();
        let of_rules = (self.parts.rules, false);
        let memory =
            Memory::new(self.parts.pool.clone(), self.clock.clone(), of_rules, access_policy(), &meter);
        memory.load().await.unwrap();
        memory
    }

    /// Answers who pays from this memory from now on.
    pub(crate) fn resolve_by(&mut self, memory: Arc<Memory>) {
        self.resolutions = Resolutions::new(&Parts { memory, ..self.parts.clone() });
    }

    async fn knows(&self, client_id: &str) -> bool {
        self.who_pays(client_id, &[self.now()]).await.remove(0).is_ok()
    }
}

#[tokio::test]
async fn a_line_that_commits_after_later_ones_is_not_missed() {
    let mut world = World::new().await;
    let (slow, quick) = (world.chain().await, world.chain().await);
    for chain in [&slow, &quick] {
        world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    }
    let memory = world.other_memory().await;
    world.resolve_by(Arc::clone(&memory));
    // an act that takes its number in the audit log and does not commit
    let mut act = world.database.pool().begin().await.unwrap();
    let app_id = slow.app_id.parse::<drawdown_types::AppId>().unwrap();
    sqlx::query(
        "INSERT INTO entitlement.credential (credential_id, app_id, client_id, secret_hmac, created_at, known_from,
            made_at, made_by, made_through)
         VALUES (gen_random_uuid(), $1, 'client_slow', decode(repeat('00', 32), 'hex'), '2026-02-01', '2026-02-01',
            now(), 'test', 'CreateCredential')",
    )
    .bind(app_id.as_uuid())
    .execute(&mut *act)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO entitlement.audit_log (at, actor, caller, method, subject, after)
         VALUES (now(), 'test', 'test', 'Test', $1, '{}')",
    )
    .bind(&slow.app_id)
    .execute(&mut *act)
    .await
    .unwrap();
    let later = world.credential(&quick.app_id, None).await.client_id;
    assert!(world.knows(&later).await && !world.knows("client_slow").await);
    act.commit().await.unwrap();
    assert!(world.knows("client_slow").await, "its number is lower than one that was read");
    assert_eq!(memory.size().client_ids, 2);
}

#[tokio::test]
async fn an_act_that_is_not_known_here_makes_all_of_its_account_be_read() {
    let mut world = World::new().await;
    let chain = world.chain().await;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    let client_id = world.credential(&chain.app_id, None).await.client_id;
    let memory = world.other_memory().await;
    world.resolve_by(memory);
    world.many_credentials(&chain, 5).await;
    assert!(!world.knows("client_1").await, "rows that no line tells of");
    let account_id = chain.account_id.parse::<AccountId>().unwrap();
    sqlx::query(
        "INSERT INTO entitlement.audit_log (at, actor, caller, method, subject, account_id, after)
         VALUES (now(), 'test', 'test', 'ImportHierarchy', $1, $2, '{}')",
    )
    .bind(&chain.account_id)
    .bind(account_id.as_uuid())
    .execute(world.database.pool())
    .await
    .unwrap();
    assert!(world.knows("client_1").await && world.knows(&client_id).await);
}

#[tokio::test]
async fn many_changes_are_read_in_pages_and_many_client_ids_have_their_place() {
    let mut world = World::new().await;
    let chain = world.chain().await;
    world.many_credentials(&chain, 3_000).await;
    let memory = world.other_memory().await;
    let before = memory.size();
    assert_eq!((before.client_ids, before.teams, before.accounts), (3_000, 1, 1));
    world.resolve_by(Arc::clone(&memory));
    let mut answers = Vec::new();
    for number in [1, 2, 10, 2_999, 3_000] {
        answers.push(world.knows(&format!("client_{number}")).await);
    }
    assert_eq!(answers, [true, true, false, true, false], "each tenth app has no team");
    // seven lines, three a page
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(world.credential(&chain.app_id, None).await.client_id);
    }
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    for client_id in &made {
        assert!(world.knows(client_id).await);
    }
    assert_eq!(memory.size().client_ids, 3_007);
}

/// A service as it runs, on ports of its own.
struct Running {
    channel: Channel,
    telemetry: Telemetry,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Running {
    async fn start(database: &Database) -> Self {
        Self::with(database, |_| {}).await
    }

    async fn with(database: &Database, change: impl FnOnce(&mut drawdown_entitlement::Options)) -> Self {
        let telemetry = Telemetry::detached("entitlement").unwrap();
        let stop = CancellationToken::new();
        let (context, mut bound) = context(&telemetry, &stop);
        let mut options = options(database);
        // without the database's word a change would take a minute
        options.access.feed_interval_ms = drawdown_service::config::Millis::from_millis(60_000);
        options.ledger = ChannelOptions::to("http://127.0.0.1:1");
        change(&mut options);
        let ended = tokio::spawn(drawdown_entitlement::run(options.validate().unwrap(), context));
        let address = bound.wait().await.unwrap().grpc;
        let channel = connect(&ChannelOptions::to(format!("http://{address}"))).unwrap();
        Self { channel, telemetry, stop, ended }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.ended).await.unwrap().unwrap().unwrap();
    }
}

fn question(client_id: &str, quantity: u64) -> AccessQuestion {
    AccessQuestion { client_id: client_id.to_owned(), meter: "tile".to_owned(), quantity }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_at_one_instance_is_known_at_another_within_a_second() {
    let world = World::new().await;
    let chain = world.chain().await;
    world.assign(&chain.app_id, &chain.team_id, Some("2026-02-01T00:00:00Z")).await;
    let client_id = world.credential(&chain.app_id, None).await.client_id;
    let (one, other) = (Running::start(&world.database).await, Running::start(&world.database).await);
    let mut watcher = drawdown_client::entitlement::access_streams(&other.channel);
    let request = WatchAccessRequest { questions: vec![question(&client_id, 1)], ..Default::default() };
    let mut messages = watcher.watch_access(request).await.unwrap().into_inner();
    let first = messages.message().await.unwrap().unwrap();
    let reason = |message: &drawdown_proto::entitlement::v1::WatchAccessResponse| {
        message.answers.first().and_then(|watched| watched.answer.as_ref()).map(|answer| answer.reason())
    };
    assert_eq!((reason(&first), first.complete), (Some(AccessReason::RefusedWhileStale), true));
    let mut slowest = Duration::ZERO;
    for _ in 0..3 {
        for suspended in [true, false] {
            let acted = tokio::time::Instant::now();
            one.suspend(&chain, suspended).await;
            loop {
                let message =
                    tokio::time::timeout(PATIENCE, messages.message()).await.unwrap().unwrap().unwrap();
                let told =
                    if suspended { AccessReason::TeamSuspended } else { AccessReason::RefusedWhileStale };
                if reason(&message) == Some(told) {
                    break;
                }
            }
            slowest = slowest.max(acted.elapsed());
        }
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let page = other.telemetry.scrape().unwrap();
    for line in [
        "entitlement_access_known{kind=\"client_id\"} 1",
        "entitlement_access_age_seconds{source=\"directory\"}",
        "entitlement_access_invalidation_duration_seconds_count{source=\"directory\"}",
        "entitlement_access_answers_total{reason=\"TEAM_SUSPENDED\"}",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    one.stop().await;
    other.stop().await;
}

impl Running {
    async fn suspend(&self, chain: &Chain, suspended: bool) {
        let mut accounts = drawdown_client::entitlement::accounts(&self.channel);
        let (team_id, note) = (chain.team_id.clone(), "a test".to_owned());
        if suspended {
            let request = SuspendRequest { team_id, note, ..SuspendRequest::default() };
            accounts.suspend(request).await.unwrap();
        } else {
            let request = drawdown_proto::entitlement::v1::LiftSuspensionRequest {
                team_id,
                note,
                ..Default::default()
            };
            accounts.lift_suspension(request).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_answers_message_by_message_in_order_and_has_its_limit() {
    let world = World::new().await;
    let chain = world.chain().await;
    let client_id = world.credential(&chain.app_id, None).await.client_id;
    let running = Running::start(&world.database).await;
    let mut streams = drawdown_client::entitlement::access_streams(&running.channel);
    let message = |count: usize| {
        // one in three is known
        let id = |index: usize| {
            if index.is_multiple_of(3) { client_id.clone() } else { format!("client_{index}") }
        };
        let questions = (0..count).map(|index| question(&id(index), 0)).collect();
        StreamCheckAccessRequest { questions, with_billed_to: false }
    };
    let sizes = [1, 0, 32, 1_000, 7, 1_001, 1];
    let messages = futures::stream::iter(sizes.map(message)).chain(futures::stream::pending());
    let mut answers = streams.stream_check_access(messages).await.unwrap().into_inner();
    for size in &sizes[..5] {
        let answered = answers.message().await.unwrap().unwrap().answers;
        assert_eq!(answered.len(), *size);
        for (index, answer) in answered.iter().enumerate() {
            let expected = match index % 3 {
                0 => AccessReason::TeamMissing,
                _ => AccessReason::ClientUnknown,
            };
            assert_eq!(answer.reason(), expected, "{index} of {size}");
        }
    }
    let status = answers.message().await.unwrap_err();
    assert_eq!(drawdown_client::reason_of(&status).as_deref(), Some("BATCH_TOO_LARGE"));
    running.stop().await;
}

#[tokio::test]
async fn streams_of_questions_are_bounded_and_a_place_is_free_when_one_ends() {
    let database = Database::create_with("entitlement", drawdown_entitlement::migrate).await.unwrap();
    let running = Running::with(&database, |options| {
        options.access.check_streams_max = drawdown_service::config::Count::of(2);
    })
    .await;
    // a stream is over when its caller says no more
    let open = async || {
        let (caller, questions) = tokio::sync::mpsc::channel::<StreamCheckAccessRequest>(1);
        let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
        let mut streams = drawdown_client::entitlement::access_streams(&running.channel);
        let answers = streams.stream_check_access(questions).await?;
        Ok::<_, tonic::Status>((caller, answers))
    };
    let (first, _second) = (open().await.unwrap(), open().await.unwrap());
    let refused = open().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!(drawdown_client::reason_of(&refused).as_deref(), Some("STREAMS_EXHAUSTED"));
    drop(first);
    let again = async { while open().await.is_err() {} };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    running.stop().await;
}
