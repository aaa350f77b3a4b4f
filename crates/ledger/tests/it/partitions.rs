//! Charges and journal by month of posting: made ahead by the service, missed by nobody, read through keys.

use drawdown_ledger::store::pool::SERVICE_ROLE;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::world::{Buyer, World, at, calls, calls_at};

pub(crate) async fn texts(world: &World, sql: &str) -> Vec<String> {
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(world.database.pool()).await.unwrap()
}

/// The partitions that hold rows.
async fn filled(world: &World) -> Vec<String> {
    let sql = "select distinct tableoid::regclass::text from ledger.charge
               union select distinct tableoid::regclass::text from ledger.journal order by 1";
    texts(world, sql).await
}

async fn spent(world: &World) -> Buyer {
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 3)]).await;
    buyer
}

#[tokio::test]
async fn months_are_made_ahead_once_and_take_the_rows() {
    let world = World::new().await;
    spent(&world).await;
    let made = "select name from ledger.partitions() where month is not null order by 1";
    let months = ["2026_03", "2026_04", "2026_05", "2026_06"];
    let expected =
        ["charge", "journal"].iter().flat_map(|table| months.map(|month| format!("{table}_{month}")));
    assert_eq!(texts(&world, made).await, expected.collect::<Vec<_>>());
    assert_eq!(world.months.look().await.unwrap(), 0);
    assert_eq!(filled(&world).await, ["ledger.charge_2026_03", "ledger.journal_2026_03"]);
    // The month changes at its UTC end.
    world.clock.set(at("2026-03-31T23:59:59.999999Z"));
    assert_eq!(world.months.look().await.unwrap(), 0);
    world.clock.set(at("2026-04-01T00:00:00Z"));
    assert_eq!(world.months.look().await.unwrap(), 2);
    world.assert_clean().await;
}

#[tokio::test]
async fn a_posting_never_waits_for_a_month_to_be_made() {
    let world = World::new().await;
    let buyer = spent(&world).await;
    let producer = world.producer().await;
    // Nobody made months for half a year, and two of them have usage.
    for day in ["2026-07-20", "2026-09-02"] {
        world.clock.set(at(&format!("{day}T10:00:30Z")));
        world.grant(buyer, 1_000_000, None, "2026-12-01T00:00:00Z").await.unwrap();
        let batch = world.batch(4, producer, vec![calls_at(buyer, 2, &format!("{day}T10:00:00Z"))]).await;
        world.post(&batch).await.unwrap();
    }
    let default = ["ledger.charge_default", "ledger.journal_default"];
    assert_eq!(filled(&world).await.iter().filter(|name| default.contains(&name.as_str())).count(), 2);
    world.assert_clean().await;
    let before = (world.charges(buyer).await, world.journal(buyer).await);
    // The month under way can not be made over its rows, the others can.
    assert_eq!(world.months.look().await.unwrap(), 6);
    let made: i32 =
        sqlx::query_scalar("select ledger.cut_default()").fetch_one(world.database.pool()).await.unwrap();
    assert_eq!(made, 4);
    assert_eq!(
        filled(&world).await,
        [
            "charge_2026_03",
            "charge_2026_07",
            "charge_2026_09",
            "journal_2026_03",
            "journal_2026_07",
            "journal_2026_09"
        ]
        .map(|name| format!("ledger.{name}"))
    );
    assert_eq!((world.charges(buyer).await, world.journal(buyer).await), before);
    world.assert_clean().await;
    assert_eq!(world.months.look().await.unwrap(), 0);
}

#[tokio::test]
async fn making_months_holds_up_nobody() {
    let world = World::new().await;
    let buyer = spent(&world).await;
    let producer = world.producer().await;
    // Somebody reads all months for long.
    let mut reader = world.database.pool().begin().await.unwrap();
    sqlx::query("select count(*) from ledger.journal, ledger.charge").execute(&mut *reader).await.unwrap();
    world.clock.set(at("2026-04-02T10:00:30Z"));
    let (made, posted) = tokio::join!(
        world.months.look(),
        world.settle(producer, vec![calls_at(buyer, 2, "2026-04-02T10:00:00Z")])
    );
    assert!(made.unwrap_err().is_transient());
    assert_eq!(posted.charges, 1);
    reader.rollback().await.unwrap();
    assert_eq!(world.months.look().await.unwrap(), 2);
}

#[tokio::test]
async fn only_few_months_near_now_are_made() {
    let world = World::new().await;
    for (instant, months) in [("2026-03-10", 61), ("2026-03-10", -1), ("1990-01-01", 1), ("2200-01-01", 1)] {
        let sql = format!("select ledger.make_months('{instant}', {months})");
        let refused =
            sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(world.database.pool()).await.unwrap_err();
        assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "22023", "{sql}");
    }
}

/// The plan of a statement for any parameters, where a scan of a whole table is taken only if there is no other way.
async fn plan(world: &World, sql: &str, parameters: &str) -> String {
    let mut session = PgConnection::connect(world.database.url()).await.unwrap();
    let setup = format!(
        "set role {SERVICE_ROLE}; set plan_cache_mode = force_generic_plan; set enable_seqscan = off;
         set timezone = 'UTC'; prepare asked as {sql}"
    );
    sqlx::raw_sql(AssertSqlSafe(setup)).execute(&mut session).await.unwrap();
    let explain = format!("explain (costs off) execute asked({parameters})");
    let lines: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut session).await.unwrap();
    lines.join("\n")
}

/// The partitions of a table that a plan looks at.
fn touched(plan: &str, table: &str) -> Vec<String> {
    let named = plan.split_whitespace().filter_map(|word| word.strip_prefix(&format!("{table}_")));
    let months = named.filter(|rest| rest.starts_with("20") || rest.starts_with("default"));
    let mut months: Vec<String> = months.map(|rest| rest.chars().take(7).collect()).collect();
    months.sort();
    months.dedup();
    months
}

#[tokio::test]
async fn reads_of_a_team_go_by_its_key_in_every_month_and_skip_months_before_an_instant() {
    let world = World::new().await;
    let buyer = spent(&world).await;
    let many = "select ledger.make_months('2023-03-01', 35); analyze";
    sqlx::raw_sql(many).execute(world.database.pool()).await.unwrap();
    let (account, team) = (buyer.account.as_uuid(), buyer.team.as_uuid());
    let list = |from: &str| {
        format!(
            "'{account}', '{team}', 0, 100, 0, null, null, null, null, null, null, null, 100, '{{}}', '{{}}', 0, '{from}', null"
        )
    };
    let charges = include_str!("../../sql/reads/charges.sql");
    let nulls =
        |sql: &str| vec!["null"; (1..).take_while(|n| sql.contains(&format!("${n}"))).count()].join(", ");
    let load = include_str!("../../sql/load_teams.sql");
    let journal = include_str!("../../sql/reads/journal.sql");
    let sums = include_str!("../../sql/reads/movement_sums.sql");
    for (name, sql, parameters) in [
        ("charges", charges, list("0001-01-01")),
        ("load_teams", load, nulls(load)),
        ("journal", journal, nulls(journal)),
        ("movement_sums", sums, nulls(sums)),
    ] {
        let plan = plan(&world, sql, &parameters).await;
        for table in ["charge", "journal"] {
            let scanned = plan.lines().find(|line| line.contains(&format!("Seq Scan on {table}_")));
            assert_eq!(scanned, None, "{name}:\n{plan}");
        }
        assert!(touched(&plan, "journal").len() > 40, "{name}:\n{plan}");
    }
    let recent = plan(&world, charges, &list("2026-02-27")).await;
    let months = touched(&recent, "charge");
    assert!(months.first().is_some_and(|month| month == "2026_02"), "{months:?}\n{recent}");
    assert!(months.iter().filter(|month| *month != "default").count() < 16, "{months:?}");
    // A place in the order is found in one month, beside one probe of each other one.
    let place = format!("select ledger.charge_seq_before('{account}', '{team}', '2026-03-10')");
    let mut session = PgConnection::connect(world.database.url()).await.unwrap();
    let mut hits = u32::MAX;
    // The first calls plan the statements inside.
    for _ in 0..8 {
        let explain = format!("explain (analyze, buffers, timing off, summary off, costs off) {place}");
        let lines: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(explain)).fetch_all(&mut session).await.unwrap();
        let lines = lines.join("\n");
        let hit =
            lines.split("hit=").nth(1).unwrap_or("0").split(|c: char| !c.is_ascii_digit()).next().unwrap();
        hits = hits.min(hit.parse().unwrap());
    }
    assert!(hits < 200, "{hits} buffers");
}
