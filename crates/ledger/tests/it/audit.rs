//! The audit log: each act that people may do leaves a line with who, what, and what was there before and after.

use std::{collections::BTreeSet, sync::Arc};

use drawdown_ledger::grpc::Audit;
use drawdown_proto::{
    ledger::v1::{
        Aggregation, AuditLine, BeginResetRequest, ListAuditRequest, PoolKind, ResetAllShardsRequest,
        audit_service_server::AuditService as _, settlement_service_server::SettlementService,
    },
    scalar::timestamp_to_proto,
};
use drawdown_service::identity::{self, Caller, RULES, Role, Roles, Who};
use serde_json::{Value, json};
use tonic::Request;

use crate::{
    adoption, holds, imports, lots, review, statements,
    world::{Buyer, SHARD, World, at, calls, nobody, price, refusal},
};

const PACKAGE: &str = "drawdown.ledger.v1.";
/// How methods that change nothing begin. A method of any other name that people may call is an act.
const READS: [&str; 10] =
    ["Explain", "Export", "Get", "Has", "List", "PriceMonth", "Stream", "Summarize", "Verify", "Watch"];
const MINUTE_MS: i64 = 60_000;

/// Everything that changes something and that a role of people admits to, by the table of rights.
fn acts() -> BTreeSet<&'static str> {
    let people: Vec<Role> = Role::ALL.into_iter().filter(|role| *role != Role::Gateway).collect();
    let people = Roles::of(&people);
    let rules = RULES.iter().copied().flatten().filter(|rule| match rule.who {
        Who::Anyone | Who::Known => true,
        Who::Some(roles, _) => !roles.common(people).is_empty(),
    });
    let methods = rules.filter_map(|rule| rule.method.strip_prefix(PACKAGE)?.split_once('/'));
    methods
        .map(|(_, method)| method)
        .filter(|method| !READS.iter().any(|read| method.starts_with(read)))
        .collect()
}

/// A line of the log.
struct Line {
    entry: i64,
    action: String,
    subject: String,
    detail: Value,
}

impl Line {
    /// What was at a place before and what is there after; null where nothing is.
    #[track_caller]
    fn changes(&self, place: &str, before: impl Into<Value>, after: impl Into<Value>) {
        let read = |side: &str| self.detail.pointer(&format!("/{side}{place}")).cloned().unwrap_or_default();
        let (was, is) = (read("before"), read("after"));
        assert_eq!((was, is), (before.into(), after.into()), "{} {place}: {:#}", self.action, self.detail);
    }

    #[track_caller]
    fn says(&self, name: &str, value: impl Into<Value>) {
        assert_eq!(self.detail.get(name).cloned().unwrap_or_default(), value.into(), "{:#}", self.detail);
    }
}

/// A ledger with somebody at work.
struct Desk {
    world: World,
    caller: Arc<Caller>,
    done: BTreeSet<&'static str>,
    last: i64,
}

impl Desk {
    fn new(world: World) -> Self {
        let caller = Arc::new(Caller::certified("operator"));
        Self { world, caller, done: BTreeSet::new(), last: 0 }
    }

    /// Lines that a caller has left since the last look, in order.
    async fn lines_of(&mut self, caller: &Caller) -> Vec<Line> {
        let sql = "select entry, action, subject, detail::text from ledger.audit_log
                   where entry > $1 and caller = $2 order by entry";
        let rows: Vec<(i64, String, String, String)> = sqlx::query_as(sql)
            .bind(self.last)
            .bind(caller.to_string())
            .fetch_all(self.world.database.pool())
            .await
            .unwrap();
        let line = |(entry, action, subject, detail): (i64, String, String, String)| Line {
            entry,
            action,
            subject,
            detail: serde_json::from_str(&detail).unwrap(),
        };
        let lines: Vec<Line> = rows.into_iter().map(line).collect();
        self.last = lines.last().map_or(self.last, |line| line.entry);
        lines
    }

    /// The lines that an act of the caller left, which are all of this action and of the one shape.
    async fn left(&mut self, method: &'static str, action: &str) -> Vec<Line> {
        let caller = Arc::clone(&self.caller);
        let lines = self.lines_of(&caller).await;
        assert!(!lines.is_empty(), "{method} leaves no line");
        for line in &lines {
            let place = format!("{method}: {:#}", line.detail);
            assert_eq!(line.action, action, "{place}");
            assert!(!line.subject.is_empty(), "{place}");
            let after = line.detail["after"].as_object().unwrap_or_else(|| panic!("{place}"));
            assert!(!after.is_empty(), "{place}");
            if let Some(before) = line.detail.get("before") {
                let before = before.as_object().unwrap_or_else(|| panic!("{place}"));
                assert!(!before.is_empty() && before.keys().all(|name| after.contains_key(name)), "{place}");
                assert_ne!(before, after, "{place}");
            }
        }
        self.done.insert(method);
        lines
    }

    async fn one(&mut self, method: &'static str, action: &str) -> Line {
        let mut lines = self.left(method, action).await;
        assert_eq!(lines.len(), 1, "{method}");
        lines.remove(0)
    }
}

/// Does something as the caller at the desk.
macro_rules! act {
    ($desk:expr, $act:expr) => {{
        let caller = Arc::clone(&$desk.caller);
        identity::scope(caller, $act).await.unwrap()
    }};
}

async fn catalogue(desk: &mut Desk) {
    act!(desk, desk.world.meter("call", Aggregation::Count));
    let line = desk.one("CreateMeter", "meter.create").await;
    line.changes("/meter/aggregation", Value::Null, "count");
    assert!(line.detail.get("before").is_none(), "nothing was there");
    act!(desk, desk.world.publish("web", "2020-01-01T00:00:00Z", vec![price("call", 500_000, 1)], true));
    let line = desk.one("PublishRateCard", "rate_card.publish").await;
    assert!(line.detail.get("before").is_none(), "nothing was there");
    line.changes("/rate_card/prices/0/micros", Value::Null, 500_000);
    act!(desk, desk.world.publish("web", "2026-04-01T00:00:00Z", vec![price("call", 600_000, 1)], false));
    let line = desk.one("PublishRateCard", "rate_card.publish").await;
    line.changes("/rate_card/effective_from", "2020-01-01T00:00:00Z", "2026-04-01T00:00:00Z");
    line.changes("/rate_card/prices/0/micros", 500_000, 600_000);
}

async fn budgets(desk: &mut Desk, buyer: Buyer) {
    act!(desk, desk.world.budget(buyer, None, 7_000_000, &[80]));
    let line = desk.one("SetBudget", "budget.set").await;
    assert!(line.detail.get("before").is_none(), "nothing was there");
    act!(desk, desk.world.budget(buyer, None, 9_000_000, &[50, 80]));
    let line = desk.one("SetBudget", "budget.set").await;
    line.changes("/budget/terms/cap_micros", 7_000_000, 9_000_000);
    line.changes("/budget/terms/soft_percent", json!([80]), json!([50, 80]));
}

async fn held(desk: &mut Desk, buyer: Buyer) {
    let hold = act!(desk, holds::reserve(&desk.world, buyer, 10_000_000, 0, MINUTE_MS));
    let line = desk.one("ReserveTokens", "hold.reserve").await;
    line.changes("/hold/remaining_micros", Value::Null, 10_000_000);
    line.changes("/teams/0/held_micros", 0, 10_000_000);
    act!(desk, holds::extend(&desk.world, buyer, &hold, 2 * MINUTE_MS, 2_000_000));
    let line = desk.one("ExtendHold", "hold.extend").await;
    line.changes("/hold/remaining_micros", 10_000_000, 12_000_000);
    act!(desk, holds::capture(&desk.world, buyer, &hold, 4, false));
    let line = desk.one("CaptureHold", "hold.capture").await;
    line.changes("/hold/remaining_micros", 12_000_000, 10_000_000);
    line.changes("/teams/0/held_micros", 12_000_000, 10_000_000);
    act!(desk, holds::release(&desk.world, buyer, &hold));
    let line = desk.one("ReleaseHold", "hold.release").await;
    line.changes("/hold/ended", Value::Null, "released");
    line.changes("/teams/0/held_micros", 10_000_000, 0);
}

async fn of_lots(desk: &mut Desk, buyer: Buyer, sibling: Buyer) {
    let bought = act!(desk, desk.world.purchase(buyer, 100, None));
    let line = desk.one("PurchaseTokens", "purchase").await;
    line.changes("/teams/0/lot_micros", 0, 100_000_000);
    line.changes("/lots/0/lot", Value::Null, bought.lot_id.as_str());
    let granted = act!(desk, desk.world.grant(buyer, 5_000_000, None, "2026-04-01T00:00:00Z"));
    let line = desk.one("GrantTokens", "grant").await;
    line.changes("/teams/0/lot_micros", 100_000_000, 105_000_000);
    line.changes("/lots/0/remaining_micros", Value::Null, 5_000_000);
    act!(desk, lots::adjust(&desk.world, &granted, buyer, 2_000_000));
    let line = desk.one("AdjustLot", "lot.adjust").await;
    line.changes("/lots/0/granted_micros", 5_000_000, 7_000_000);
    line.changes("/lots/0/remaining_micros", 5_000_000, 7_000_000);
    line.says("reason", "a gesture");
    act!(desk, lots::refund(&desk.world, &bought, buyer, 30_000_000));
    let line = desk.one("RefundLot", "lot.refund").await;
    line.changes("/lots/0/remaining_micros", 100_000_000, 70_000_000);
    line.changes("/lots/0/void_micros", 0, 30_000_000);
    act!(desk, lots::move_lot(&desk.world, &granted, buyer, sibling));
    let line = desk.one("MoveLot", "lot.move").await;
    line.changes("/lots/0/team", buyer.team.to_string(), buyer.team.to_string());
    line.changes("/lots/0/moved_to", Value::Null, sibling.team.to_string());
    line.changes("/lots/0/remaining_micros", 7_000_000, 0);
    line.changes("/lots/1/team", Value::Null, sibling.team.to_string());
    line.changes("/lots/1/remaining_micros", Value::Null, 7_000_000);
    line.changes("/teams/1/lot_micros", 0, 7_000_000);
    act!(desk, lots::charge_back(&desk.world, &bought, buyer));
    let line = desk.one("ChargeBackLot", "lot.charge_back").await;
    line.changes("/lots/0/remaining_micros", 70_000_000, 0);
    line.changes("/lots/0/void_micros", 30_000_000, 100_000_000);
}

async fn usage(desk: &mut Desk, buyer: Buyer) {
    let producer = act!(desk, async { Ok::<_, ()>(desk.world.producer().await) });
    let line = desk.one("CreateProducer", "producer.create").await;
    line.changes("/producer/producer", Value::Null, producer.to_string());
    let lines = vec![
        calls(buyer, 6),
        nobody(calls(desk.world.sibling(buyer), 2), "no_team"),
        nobody(calls(desk.world.sibling(buyer), 3), "no_team"),
    ];
    desk.world.settle(producer, lines).await;
    let charge = desk.world.charges(buyer).await.pop().unwrap();
    act!(desk, desk.world.correct(buyer, &charge.charge_id, 2, None));
    let line = desk.one("CorrectCharge", "charge.correct").await;
    line.changes("/charge/quantity", 6, 4);
    line.changes("/charge/amount_micros", 3_000_000, 2_000_000);
    act!(desk, desk.world.correct(buyer, &charge.charge_id, 0, None));
    let line = desk.one("CorrectCharge", "charge.correct").await;
    line.changes("/charge/quantity", 4, 0);
    line.changes("/charge/amount_micros", 2_000_000, 0);
    line.says("refund_micros", 2_000_000);

    let entries: Vec<i64> = desk.world.unattributed().await.iter().map(|usage| usage.entry).collect();
    let [first, second] = entries[..] else { panic!("{entries:?}") };
    act!(desk, desk.world.decide(review::charge(buyer, &[first])));
    let line = desk.one("ChargeUnattributed", "unattributed.charge").await;
    line.changes("/entries/0/entry", first, first);
    line.changes("/entries/0/state", "open", "charged");
    let opened = |side: &str| line.detail[side]["teams"][0]["journal_seq"].as_i64().unwrap();
    assert!(opened("before") < opened("after"), "{:#}", line.detail);
    line.says("by", "ann");
    act!(desk, desk.world.dismiss(review::dismiss(&[second])));
    let line = desk.one("DismissUnattributed", "unattributed.dismiss").await;
    line.changes(
        "/entries",
        json!([{ "entry": second, "state": "open" }]),
        json!([{ "entry": second, "state": "dismissed" }]),
    );
    act!(desk, desk.world.adopted(adoption::adopt(buyer, "2026-01-01T00:00:00Z")));
    let line = desk.one("AdoptUsage", "adoption.register").await;
    line.changes("/adoption/team", Value::Null, buyer.team.to_string());
}

async fn shards(desk: &mut Desk) {
    let before = desk.world.shard(SHARD).await;
    let (expected_generation, cause) = (before.generation, "found damage".to_owned());
    let reset = BeginResetRequest { shard: SHARD, expected_generation, cause };
    act!(desk, desk.world.settlement.begin_reset(Request::new(reset)));
    let line = desk.one("BeginReset", "shard.reset").await;
    let name = |generation: u64| format!("{generation:016x}");
    let after = desk.world.shard(SHARD).await;
    line.changes("/shard/generation", name(before.generation), name(after.generation));
    line.changes("/shard/last_batch", before.last_batch, after.last_batch);
    desk.world.shard(SHARD + 1).await;
    let all = ResetAllShardsRequest { cause: "restored".to_owned() };
    act!(desk, desk.world.settlement.reset_all_shards(Request::new(all)));
    let lines = desk.left("ResetAllShards", "shard.reset").await;
    let shards: Vec<&str> = lines.iter().map(|line| line.subject.as_str()).collect();
    assert_eq!(shards, [SHARD.to_string(), (SHARD + 1).to_string()]);
    lines[0].changes(
        "/shard/generation",
        name(after.generation),
        name(desk.world.shard(SHARD).await.generation),
    );
}

async fn set_up_and_statements(desk: &mut Desk, buyer: Buyer) {
    let newcomer = desk.world.buyer();
    let lot = imports::lot(PoolKind::Flex, 120, 40, "2025-09-01T08:00:10Z", "2026-09-01T08:00:10Z");
    let team = imports::team(newcomer, vec![lot], Vec::new(), imports::holdings(40, 0, 0, 0));
    let request = imports::request(vec![team]);
    act!(desk, imports::import(&desk.world, &request));
    let line = desk.one("ImportTeams", "team.import").await;
    line.changes("/teams/0/lot_micros", 0, 40_000_000);
    line.changes("/lots/0/remaining_micros", Value::Null, 40_000_000);
    desk.world.clock.set(at("2026-03-12T00:00:00Z"));
    let issued = act!(desk, statements::issue(&desk.world, statements::asked(buyer, statements::TENTH)));
    let line = desk.one("IssueStatements", "statement.issue").await;
    let name = issued[0].statement.as_ref().unwrap().statement_id.as_str();
    line.changes("/statement/statement", Value::Null, name);
}

#[tokio::test]
async fn every_act_of_people_leaves_who_what_before_and_after() {
    let mut desk = Desk::new(World::new().await);
    let (buyer, sibling) = (desk.world.buyer(), desk.world.buyer());
    let sibling = Buyer { account: buyer.account, ..sibling };
    desk.world.know(sibling, None, None);
    catalogue(&mut desk).await;
    of_lots(&mut desk, buyer, sibling).await;
    budgets(&mut desk, buyer).await;
    desk.world.purchase(buyer, 100, None).await.unwrap();
    held(&mut desk, buyer).await;
    usage(&mut desk, buyer).await;
    shards(&mut desk).await;
    set_up_and_statements(&mut desk, buyer).await;
    assert_eq!(desk.done, acts(), "acts that people may do");
    desk.world.assert_clean().await;
}

#[tokio::test]
async fn holds_of_a_gateway_are_traffic() {
    let mut desk = Desk::new(World::new().await);
    desk.world.priced().await;
    let buyer = desk.world.buyer();
    desk.world.purchase(buyer, 100, None).await.unwrap();
    for caller in [Caller::certified("gateway"), Caller::local()] {
        desk.caller = Arc::new(caller.clone());
        let hold = act!(desk, holds::reserve(&desk.world, buyer, 10_000_000, 0, MINUTE_MS));
        act!(desk, holds::capture(&desk.world, buyer, &hold, 4, true));
        assert_eq!(desk.lines_of(&caller).await.len(), 0);
    }
}

#[tokio::test]
async fn an_act_that_is_only_tried_leaves_nothing() {
    let mut desk = Desk::new(World::new().await);
    desk.world.priced().await;
    let buyer = desk.world.buyer();
    let producer = desk.world.producer().await;
    desk.world.settle(producer, vec![nobody(calls(buyer, 2), "no_team")]).await;
    let entry = desk.world.unattributed().await[0].entry;
    let tried = |validate_only| {
        let request = review::charge(buyer, &[entry]);
        drawdown_proto::ledger::v1::ChargeUnattributedRequest { validate_only, ..request }
    };
    act!(desk, desk.world.decide(tried(true)));
    let caller = Arc::clone(&desk.caller);
    assert_eq!(desk.lines_of(&caller).await.len(), 0);
    act!(desk, desk.world.decide(tried(false)));
    desk.one("ChargeUnattributed", "unattributed.charge").await;
}

async fn listed(audit: &Audit, mut request: ListAuditRequest) -> Vec<AuditLine> {
    let mut lines = Vec::new();
    loop {
        let page = audit.list_audit(Request::new(request.clone())).await.unwrap().into_inner();
        assert!(request.page_size == 0 || page.lines.len() <= request.page_size as usize);
        lines.extend(page.lines);
        if page.next_page_token.is_empty() {
            return lines;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn the_log_is_read_oldest_first_by_instant_and_by_what_was_done_to() {
    let world = World::new().await;
    let audit = Audit::new(Arc::clone(&world.ledger));
    let (first, second) = (world.buyer(), world.buyer());
    world.purchase(first, 100, None).await.unwrap();
    let between = at(crate::world::NOW).checked_add(crate::world::DAY).unwrap();
    world.clock.set(between);
    for (buyer, tokens) in [(second, 200), (first, 300), (second, 400)] {
        world.purchase(buyer, tokens, None).await.unwrap();
    }
    let all = listed(&audit, ListAuditRequest::default()).await;
    let mut desk = Desk::new(world);
    let written = desk.lines_of(&Caller::process()).await;
    assert_eq!(written.len(), 4);
    for (read, line) in all.iter().zip(&written) {
        assert_eq!((&read.action, &read.subject), (&line.action, &line.subject));
        let mut detail: Value = serde_json::from_str(&read.detail_json).unwrap();
        detail["after"] = serde_json::from_str(&read.after_json).unwrap();
        if !read.before_json.is_empty() {
            detail["before"] = serde_json::from_str(&read.before_json).unwrap();
        }
        assert_eq!(detail, line.detail);
        assert_eq!(read.caller, "process");
    }
    assert_eq!(all.len(), 4);
    let instant = Some(timestamp_to_proto(between));
    let ask = |subject: &str, from, to| {
        let subject = subject.to_owned();
        listed(&audit, ListAuditRequest { subject, from, to, page_size: 1, ..ListAuditRequest::default() })
    };
    assert_eq!(ask("", None, None).await, all);
    assert_eq!(ask("", None, instant).await, all[..1]);
    assert_eq!(ask("", instant, None).await, all[1..]);
    let of = |line: &&AuditLine| line.subject == all[2].subject;
    let of: Vec<AuditLine> = all.iter().filter(of).cloned().collect();
    assert!((2..4).contains(&of.len()));
    assert_eq!(ask(&all[2].subject, None, None).await, of);
    assert_eq!(ask("team_nobody", None, None).await, []);
    let upside_down = ListAuditRequest { from: instant, to: instant, ..ListAuditRequest::default() };
    let refused = audit.list_audit(Request::new(upside_down)).await.unwrap_err();
    assert_eq!(refusal(&refused).2, ["to"]);
    let mut foreign = ListAuditRequest { page_size: 1, ..ListAuditRequest::default() };
    foreign.page_token =
        audit.list_audit(Request::new(foreign.clone())).await.unwrap().into_inner().next_page_token;
    foreign.subject = all[2].subject.clone();
    let refused = audit.list_audit(Request::new(foreign)).await.unwrap_err();
    assert_eq!(refusal(&refused).1, "PAGE_TOKEN_INVALID");
}
