//! What a process remembers of the teams it posted to: never anything else than a load would give, whatever happened
//! in between and whoever did it.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc, time::Duration};

use drawdown_ledger::{
    Options,
    config::DueConfig,
    grpc::Imports,
    jobs::due::Due,
    store::teams::{self, Wanted},
};
use drawdown_ledger_core::{UsageKey, UsageState};
use drawdown_proto::ledger::v1::{
    GrantTokensRequest, Holdings, Line, PoolKind, import_service_server::ImportService,
    token_service_server::TokenService,
};
use drawdown_types::{ProducerId, TeamId};
use tonic::Request;
use uuid::Uuid;

use crate::{
    holds::{capture, extend, release, reserve},
    imports, lots,
    world::{Buyer, DAY, SHARD, World, at, batch, calls, calls_at, proto, request_id, sum, usage_at},
};

const TOKEN: i64 = 1_000_000;
const HOUR_MS: i64 = 3_600_000;

/// Whether the team is remembered in the revision that it has; what is remembered is then what a load gives.
pub(crate) async fn is_known(world: &World, team: TeamId) -> bool {
    let Some((known, mut remembered, states)) = world.ledger.known_teams().look(team) else { return false };
    let keys: Vec<UsageKey> = states.iter().map(|(key, _)| *key).collect();
    let wanted = Wanted { keys: &keys, ..Wanted::default() };
    // Others may be posting: the revision and what is loaded have to be of one instant. Planned once, as postings do it:
    // this is asked after every step of the random sequences.
    let snapshot = "begin isolation level repeatable read; set local plan_cache_mode = force_generic_plan";
    let mut tx = world.database.pool().begin_with(snapshot).await.unwrap();
    let revision: Uuid = sqlx::query_scalar("select revision from ledger.balance where team_id = $1")
        .bind(team.as_uuid())
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    if known.as_uuid() != revision {
        return false;
    }
    let (mut loaded, mut loaded_states) = teams::load_wanted_in_tx(&mut tx, &[team], &wanted).await.unwrap();
    let mut loaded = loaded.remove(0);
    for stored in [&mut remembered, &mut loaded] {
        stored.team.lots.sort_unstable_by_key(|lot| lot.lot_id);
    }
    assert_eq!(remembered, loaded);
    loaded_states.sort_unstable_by_key(|state| state.key);
    let present: Vec<UsageState> = states.into_iter().filter_map(|(_, state)| state).collect();
    assert_eq!(present, loaded_states);
    true
}

/// What happens between two posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    Purchase,
    Grant,
    GrantForLater,
    GrantThatLeavesOlderDebts,
    Reserve,
    ReserveAndExtend,
    ReserveAndRelease,
    Capture,
    HoldTimesOut,
    LotExpires,
    BudgetSet,
    BudgetChanged,
    Import,
    Correction,
    Chargeback,
    Refund,
    Adjustment,
    MovesAway,
    MovesHere,
    AnotherProcessPosts,
    AnotherMonth,
    PricePublished,
}

/// A team that was posted to twice, with a lot that was bought and one that was granted.
struct Scene {
    world: World,
    buyer: Buyer,
    sibling: Buyer,
    producer: ProducerId,
    bought: drawdown_proto::ledger::v1::Lot,
    granted: drawdown_proto::ledger::v1::Lot,
}

fn lines(buyer: Buyer, events: u64, window: &str) -> Vec<Line> {
    vec![calls_at(buyer, events, window), usage_at(buyer, "byte", sum(1_500), window)]
}

const WINDOW: &str = "2026-03-10T12:00:00Z";

impl Scene {
    async fn new(teams_max: u32) -> Self {
        let world = World::with(|options| options.known.teams_max = teams_max).await;
        world.priced().await;
        let (buyer, producer) = (world.buyer(), world.producer().await);
        let sibling = world.sibling(buyer);
        let bought = world.purchase(buyer, 100, None).await.unwrap();
        let granted = world.grant(buyer, 5 * TOKEN, None, "2026-03-10T13:00:00Z").await.unwrap();
        let scene = Self { world, buyer, sibling, producer, bought, granted };
        scene.world.settle(producer, lines(buyer, 3, WINDOW)).await;
        scene.world.settle(producer, lines(buyer, 4, WINDOW)).await;
        scene
    }

    async fn job(&self) {
        let config = DueConfig { interval: DAY, teams_max: 10, rounds_max: 9 };
        Due::new(Arc::clone(&self.world.ledger), config).look().await.unwrap();
    }

    async fn change(&self, change: Change) {
        let (world, buyer) = (&self.world, self.buyer);
        match change {
            Change::Nothing => {}
            Change::Purchase => drop(world.purchase(buyer, 100, None).await.unwrap()),
            Change::Grant => drop(world.grant(buyer, 3 * TOKEN, None, "2026-03-10T12:30:00Z").await.unwrap()),
            Change::GrantForLater => {
                let starts = Some("2026-03-10T12:02:00Z");
                world.grant(buyer, 3 * TOKEN, starts, "2026-03-11T00:00:00Z").await.unwrap();
            }
            Change::GrantThatLeavesOlderDebts => {
                let request = GrantTokensRequest {
                    account_id: buyer.account.to_string(),
                    team_id: buyer.team.to_string(),
                    micros: 2 * TOKEN,
                    pool_kind: PoolKind::Promotional.into(),
                    expires_at: proto(at("2026-03-10T12:20:00Z")),
                    leaves_older_debts: true,
                    note: "a trial".to_owned(),
                    request_id: request_id(),
                    ..GrantTokensRequest::default()
                };
                world.tokens.grant_tokens(Request::new(request)).await.unwrap();
            }
            Change::Reserve => drop(reserve(world, buyer, 90 * TOKEN, 0, HOUR_MS).await.unwrap()),
            Change::ReserveAndExtend => {
                let hold = reserve(world, buyer, 50 * TOKEN, 0, HOUR_MS).await.unwrap();
                extend(world, buyer, &hold, 2 * HOUR_MS, 10 * TOKEN).await.unwrap();
            }
            Change::ReserveAndRelease => {
                let hold = reserve(world, buyer, 50 * TOKEN, 0, HOUR_MS).await.unwrap();
                release(world, buyer, &hold).await.unwrap();
            }
            Change::Capture => {
                let hold = reserve(world, buyer, 50 * TOKEN, 0, HOUR_MS).await.unwrap();
                capture(world, buyer, &hold, 7, true).await.unwrap();
            }
            Change::HoldTimesOut => {
                reserve(world, buyer, 50 * TOKEN, 0, 60_000).await.unwrap();
                world.clock.advance(Duration::from_secs(90));
                self.job().await;
            }
            Change::LotExpires => {
                world.clock.advance(DAY + DAY);
                self.job().await;
            }
            more => self.change_more(more).await,
        }
    }

    async fn change_more(&self, change: Change) {
        let Self { world, buyer, sibling, producer, bought, granted } = self;
        let buyer = *buyer;
        match change {
            Change::BudgetSet => drop(world.budget(buyer, None, 6 * TOKEN, &[50]).await.unwrap()),
            Change::BudgetChanged => {
                world.budget(buyer, None, 100 * TOKEN, &[50]).await.unwrap();
                world.settle(*producer, lines(buyer, 1, WINDOW)).await;
                world.budget(buyer, None, 8 * TOKEN, &[90]).await.unwrap();
            }
            Change::Import => {
                // After the windows that are settled (D61).
                world.clock.set(at("2026-03-10T12:05:00Z"));
                let (from, to) = ("2026-03-10T12:02:00Z", "2026-03-10T15:00:00Z");
                let lot = imports::lot(PoolKind::Promotional, 9, 4, from, to);
                let balance = world.balance(buyer).await;
                let expected = Holdings {
                    available_micros: balance.available_micros + 4 * TOKEN,
                    balance_micros: balance.balance_micros + 4 * TOKEN,
                    ..Holdings::default()
                };
                let team = imports::team(buyer, vec![lot], Vec::new(), Some(expected));
                let service = Imports::new(Arc::clone(&world.ledger));
                service.import_teams(Request::new(imports::request(vec![team]))).await.unwrap();
            }
            Change::Correction => {
                let charge = world.charges(buyer).await.remove(0);
                world.correct(buyer, &charge.charge_id, 1, None).await.unwrap();
            }
            Change::Chargeback => drop(lots::charge_back(world, bought, buyer).await.unwrap()),
            Change::Refund => drop(lots::refund(world, bought, buyer, 0).await.unwrap()),
            Change::Adjustment => drop(lots::adjust(world, granted, buyer, 2 * TOKEN).await.unwrap()),
            Change::MovesAway => drop(lots::move_lot(world, bought, buyer, *sibling).await.unwrap()),
            Change::MovesHere => {
                let other = world.grant(*sibling, 3 * TOKEN, None, "2026-03-10T14:00:00Z").await.unwrap();
                lots::move_lot(world, &other, *sibling, buyer).await.unwrap();
            }
            Change::AnotherProcessPosts => {
                let other = world.beside(|_| {});
                let batch = batch(&other.shard(SHARD + 1).await, *producer, lines(buyer, 5, WINDOW));
                other.post(&batch).await.unwrap();
            }
            Change::AnotherMonth => {
                world.clock.set(at("2026-04-01T00:00:30Z"));
                world.settle(*producer, lines(buyer, 5, "2026-04-01T00:00:00Z")).await;
            }
            Change::PricePublished => {
                world.meter("else", drawdown_proto::ledger::v1::Aggregation::Count).await.unwrap();
                let prices =
                    vec![crate::world::price("call", 700_000, 1), crate::world::price("byte", TOKEN, 1000)];
                world.publish("web", "2026-03-10T12:01:00Z", prices, false).await.unwrap();
                world.clock.set(at("2026-03-10T12:01:30Z"));
            }
            other => unreachable!("{other:?}"),
        }
    }

    /// Everything visible that has no name of its own.
    async fn facts(&self) -> String {
        let Self { world, buyer, .. } = self;
        let mut facts = Vec::new();
        for buyer in [*buyer, self.sibling] {
            let lots = world.lots(buyer).await;
            let place = |id: &String| lots.iter().position(|lot| lot.lot_id == *id);
            let balance = world.balance(buyer).await;
            facts.push(format!(
                "{:?}",
                (
                    balance.available_micros,
                    balance.uncharged_micros,
                    balance.held_micros,
                    balance.used_micros
                )
            ));
            facts.push(format!("{:?}", (balance.version, balance.expired_micros, balance.negative_since)));
            facts.extend(lots.iter().map(|lot| {
                let of = (lot.remaining_micros, lot.held_micros, lot.granted_micros, lot.void_micros);
                format!("lot {:?} {:?}", lot.state(), of)
            }));
            facts.extend(world.journal(buyer).await.iter().map(|row| {
                format!("{} {} {} {:?}", row.seq, row.kind, row.amount_micros, place(&row.lot_id))
            }));
            facts.extend(world.charges(buyer).await.iter().map(|charge| {
                format!("{} {} {}", charge.quantity, charge.amount_micros, charge.uncharged_micros)
            }));
        }
        let told = world.told(None).await;
        facts.extend(told.iter().map(|notice| format!("{:?} {:?}", notice.kind(), notice.occurred_at)));
        facts.join("\n")
    }
}

async fn outcome(change: Change, teams_max: u32) -> String {
    let scene = Scene::new(teams_max).await;
    let (world, buyer) = (&scene.world, scene.buyer);
    assert_eq!(is_known(world, buyer.team).await, teams_max > 0);
    scene.change(change).await;
    let still =
        teams_max > 0 && matches!(change, Change::Nothing | Change::AnotherMonth | Change::PricePublished);
    assert_eq!(is_known(world, buyer.team).await, still, "{change:?}");
    // More than is left, then a little, then the same on another instant.
    world.settle(scene.producer, lines(buyer, 190, WINDOW)).await;
    is_known(world, buyer.team).await;
    world.settle(scene.producer, lines(buyer, 2, WINDOW)).await;
    is_known(world, buyer.team).await;
    world.clock.advance(Duration::from_secs(7_200));
    world.settle(scene.producer, lines(buyer, 6, "2026-03-10T12:01:00Z")).await;
    is_known(world, buyer.team).await;
    world.assert_clean().await;
    scene.facts().await
}

/// Posts after the change end as those of a process that remembers nothing.
async fn ends_alike(change: Change) {
    // One after the other: whoever ends drops its database, which waits for every session that is being made. The other
    // one's would be, on this very thread.
    let remembering = outcome(change, 100).await;
    let forgetting = outcome(change, 0).await;
    assert_eq!(remembering, forgetting);
}

/// A test for each change.
macro_rules! whatever_happens_between_two_posts {
    ($($name:ident: $change:ident,)*) => {
        mod whatever_happens_between_two_posts {
            use super::{Change, ends_alike};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    ends_alike(Change::$change).await;
                }
            )*
        }
    };
}

whatever_happens_between_two_posts! {
    nothing: Nothing,
    purchase: Purchase,
    grant: Grant,
    grant_for_later: GrantForLater,
    grant_that_leaves_older_debts: GrantThatLeavesOlderDebts,
    reserve: Reserve,
    reserve_and_extend: ReserveAndExtend,
    reserve_and_release: ReserveAndRelease,
    capture: Capture,
    hold_times_out: HoldTimesOut,
    lot_expires: LotExpires,
    budget_set: BudgetSet,
    budget_changed: BudgetChanged,
    import: Import,
    correction: Correction,
    chargeback: Chargeback,
    refund: Refund,
    adjustment: Adjustment,
    moves_away: MovesAway,
    moves_here: MovesHere,
    another_process_posts: AnotherProcessPosts,
    another_month: AnotherMonth,
    price_published: PricePublished,
}

#[tokio::test]
async fn a_team_in_its_revision_is_not_read_again_and_in_another_one_it_is() {
    let scene = Scene::new(100).await;
    let (world, buyer) = (&scene.world, scene.buyer);
    let tamper = async |revision: &str| {
        let sql = format!("update ledger.balance set charges = charges + 10 {revision} where team_id = $1");
        let done = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(buyer.team.as_uuid());
        done.execute(world.database.pool()).await.unwrap();
    };
    let last = async || -> i64 {
        let sql = "select max(seq) from ledger.charge where team_id = $1";
        sqlx::query_scalar(sql).bind(buyer.team.as_uuid()).fetch_one(world.database.pool()).await.unwrap()
    };
    tamper("").await;
    world.settle(scene.producer, lines(buyer, 1, WINDOW)).await;
    assert_eq!(last().await, 6);
    // A key that is not known is asked for with its team, whatever its revision.
    tamper(", revision = gen_random_uuid()").await;
    world.settle(scene.producer, lines(buyer, 1, WINDOW)).await;
    assert_eq!(last().await, 18);
}

#[tokio::test]
async fn no_more_teams_are_remembered_than_the_limit_says() {
    let world = World::with(|options| options.known.teams_max = 2).await;
    world.priced().await;
    let producer = world.producer().await;
    let buyers: Vec<Buyer> = (0..5).map(|_| world.buyer()).collect();
    for _ in 0..2 {
        world.settle(producer, buyers.iter().map(|buyer| calls(*buyer, 1)).collect()).await;
        assert_eq!(world.ledger.known_teams().len(), 2);
    }
    world.settle(producer, vec![calls(buyers[0], 1)]).await;
    assert!(is_known(&world, buyers[0].team).await);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_commit_that_fails_makes_a_process_forget_its_teams() {
    let scene = Scene::new(100).await;
    let (world, buyer) = (&scene.world, scene.buyer);
    let refuse = "
        create function public.refuse() returns trigger language plpgsql as
            $$ begin raise exception 'not now' using errcode = 'serialization_failure'; end $$;
        create constraint trigger refuse after insert on ledger.settlement_batch
            deferrable initially deferred for each row execute function public.refuse()";
    sqlx::raw_sql(refuse).execute(world.database.pool()).await.unwrap();
    let next = world.batch(SHARD, scene.producer, lines(buyer, 5, WINDOW)).await;
    world.post(&next).await.unwrap_err();
    assert!(world.ledger.known_teams().look(buyer.team).is_none());
    sqlx::raw_sql("drop trigger refuse on ledger.settlement_batch")
        .execute(world.database.pool())
        .await
        .unwrap();
    world.post(&next).await.unwrap();
    assert!(is_known(world, buyer.team).await);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_post_to_the_same_teams_at_the_same_time_agree() {
    const PROCESSES: u32 = 3;
    let world = Arc::new(World::new().await);
    world.priced().await;
    let buyers: Vec<Buyer> = (0..4).map(|_| world.buyer()).collect();
    for buyer in &buyers {
        world.purchase(*buyer, 100, None).await.unwrap();
    }
    let mut processes = tokio::task::JoinSet::new();
    for process in 0..PROCESSES {
        let (other, buyers) = (world.beside(|_: &mut Options| {}), buyers.clone());
        processes.spawn(async move {
            let producer = other.producer().await;
            for round in 1..=8 {
                let lines = buyers.iter().map(|buyer| calls(*buyer, round)).collect();
                let batch = batch(&other.shard(process).await, producer, lines);
                other.post(&batch).await.unwrap();
            }
            for buyer in buyers {
                is_known(&other, buyer.team).await;
            }
        });
    }
    while let Some(done) = processes.join_next().await {
        done.unwrap();
    }
    let used = i64::from(PROCESSES) * (1..=8).sum::<i64>() * 500_000;
    for buyer in buyers {
        assert_eq!(world.balance(buyer).await.used_micros, used);
    }
    world.assert_clean().await;
}

/// Tables of which a post remembers rows.
const REMEMBERED: [&str; 9] = [
    "balance",
    "budget",
    "budget_month",
    "budget_terms",
    "hold",
    "hold_lot",
    "journal",
    "lot",
    "usage_state",
];

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Whether a text has a statement that changes rows of a table.
fn writes(text: &str, table: &str) -> bool {
    ["insert into", "update", "update only", "delete from", "truncate", "merge into", "copy"].iter().any(
        |verb| {
            let statement = format!("{verb} ledger.{table}");
            let ends = |end: usize| !text[end..].starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            text.match_indices(&statement).any(|(start, _)| ends(start + statement.len()))
        },
    )
}

/// Every file with a statement that changes one of these tables, and which.
fn writers() -> BTreeSet<(String, &'static str)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    ["src", "sql", "migrations"].iter().for_each(|folder| files(&root.join(folder), &mut found));
    let mut writers = BTreeSet::new();
    for path in found {
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let file = path.strip_prefix(root).unwrap().to_str().unwrap();
        let changed = REMEMBERED.into_iter().filter(|table| writes(&text, table));
        writers.extend(changed.map(|table| (file.to_owned(), table)));
    }
    writers
}

/// Each of these statements gives the teams whose rows it changes another revision, or goes with one that does. A new
/// one belongs here when it does so too.
#[test]
fn every_statement_that_changes_what_a_post_remembers_is_known_to_change_the_revision() {
    let known = [
        // Makes balances, without anything to remember; and locks them.
        ("migrations/0008_revisions.sql", "balance"),
        ("src/store/teams.rs", "balance"),
        // Of balances that it makes.
        ("src/store/teams.rs", "budget"),
        ("src/store/teams.rs", "budget_terms"),
        // The one place that writes what the core planned.
        ("sql/write_plan.sql", "balance"),
        ("sql/write_plan.sql", "budget_month"),
        ("sql/write_plan.sql", "journal"),
        ("sql/write_plan.sql", "lot"),
        ("sql/write_plan.sql", "usage_state"),
        // Only ever after it, in `write_in_tx`.
        ("sql/write_holds.sql", "hold"),
        ("sql/write_holds.sql", "hold_lot"),
        // With the revision in the same statement.
        ("src/store/account_budgets.rs", "balance"),
        ("src/store/account_budgets.rs", "budget"),
        ("src/store/account_budgets.rs", "budget_month"),
        ("src/store/account_budgets.rs", "budget_terms"),
        ("src/store/budgets.rs", "balance"),
        ("src/store/budgets.rs", "budget"),
        ("src/store/budgets.rs", "budget_month"),
        ("src/store/budgets.rs", "budget_terms"),
    ];
    let known = known.map(|(file, table)| (file.to_owned(), table));
    assert_eq!(writers(), BTreeSet::from(known));
}
