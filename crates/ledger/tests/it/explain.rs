//! `ExplainCharge` on stored charges: rating, payment, debt, and who may ask.

use std::sync::Arc;

use drawdown_ledger::grpc::{Explain, WhatIf};
use drawdown_proto::ledger::v1::{
    Aggregation, AggregationPeriod, ChargeRating, ChargedTier, ContractKind, ExplainChargeRequest,
    ExplainChargeResponse, Line, LotVerdict, OwedPart, PriceMonthRequest, ReserveTokensRequest,
    explain_service_server::ExplainService, hold_service_server::HoldService, line, price_month_request,
    what_if_service_server::WhatIfService as _,
};
use drawdown_service::config::Count;
use drawdown_types::{AccountId, ChargeId};
use tonic::{Code, Request, Status};

use crate::{
    lots::charge_back,
    world::{
        Buyer, World, at, calls, calls_at, distinct, instead, largest, payer, price, proto, reason, refusal,
        request_id, sum, usage_at,
    },
};

const NOON: &str = "2026-03-10T12:00:00Z";

pub(crate) async fn explain(
    world: &World,
    buyer: Buyer,
    charge_id: &str,
    account_id: String,
) -> Result<ExplainChargeResponse, Status> {
    let request =
        ExplainChargeRequest { team_id: buyer.team.to_string(), charge_id: charge_id.to_owned(), account_id };
    let explain = Explain::new(world.ledger.clone());
    explain.explain_charge(Request::new(request)).await.map(tonic::Response::into_inner)
}

/// The explanation of each charge of a team, which says the same of it as the list does.
async fn explain_all(world: &World, buyer: Buyer) -> Vec<ExplainChargeResponse> {
    let mut told = Vec::new();
    for charge in world.charges(buyer).await {
        let answer = explain(world, buyer, &charge.charge_id, String::new()).await.unwrap();
        assert_eq!(answer.charge, Some(charge));
        told.push(answer);
    }
    told
}

/// Verdict and payment of each lot.
fn lots(told: &ExplainChargeResponse) -> Vec<(LotVerdict, i64, i64)> {
    told.lots.iter().map(|lot| (lot.verdict(), lot.paid_micros, lot.paid_of_hold_micros)).collect()
}

/// Where it lies, who paid how much of it, and what is open.
fn owed(part: &OwedPart) -> (i64, i64, Vec<(&str, i64)>, i64) {
    let netted = part.netted.iter().map(|part| (part.lot_id.as_str(), part.amount_micros)).collect();
    (part.debt_from_micros, part.debt_to_micros, netted, part.open_micros)
}

#[tokio::test]
async fn a_charge_is_explained_from_its_price_to_what_paid_its_debt() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let small = world.grant(buyer, 1_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 1)]).await;
    world.settle(producer, vec![calls(buyer, 5)]).await;
    let told = explain_all(&world, buyer).await;
    assert_eq!((lots(&told[0]), told[0].debts.len()), (vec![(LotVerdict::Paid, 500_000, 0)], 0), "one lot");
    let rating = told[1].rating.clone().unwrap();
    let price = rating.price.clone().unwrap();
    assert_eq!((price.meter.as_str(), price.micros, price.per_units), ("call", 500_000, 1));
    assert_eq!((rating.month_before, rating.month_after), (1, 6));
    assert_eq!((rating.cost_before_micros, rating.cost_after_micros), (500_000, 3_000_000));
    assert_eq!(lots(&told[1]), [(LotVerdict::Paid, 500_000, 0)], "a part is left uncharged");
    // The lot is told as it was then, not as it is now.
    assert_eq!(told[1].lots[0].lot.as_ref().unwrap().remaining_micros, 500_000);
    assert_eq!(owed(&told[1].debts[0]), (0, 2_000_000, vec![], 2_000_000));
    world.clock.set(at("2026-03-10T14:00:00Z"));
    let bought = world.purchase(buyer, 100, None).await.unwrap();
    // A tenant is told the same as an operator.
    let charge_id = told[1].charge.as_ref().unwrap().charge_id.clone();
    let told = explain(&world, buyer, &charge_id, buyer.account.to_string()).await.unwrap();
    assert_eq!(owed(&told.debts[0]), (0, 2_000_000, vec![(bought.lot_id.as_str(), 2_000_000)], 0));
    assert_eq!(told.lots[0].lot.as_ref().unwrap().lot_id, small.lot_id);
    assert_eq!(told.charge.unwrap().open_micros, 0);
}

#[tokio::test]
async fn several_lots_pay_in_order_and_a_lot_that_started_just_now_has_paid_in_the_answer() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.grant(buyer, 1_000_000, None, "2026-03-10T13:00:00Z").await.unwrap();
    world.grant(buyer, 2_000_000, None, "2026-03-10T14:00:00Z").await.unwrap();
    let starts =
        world.grant(buyer, 1_500_000, Some("2026-03-10T12:30:00Z"), "2026-03-10T15:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 10)]).await;
    let told = explain_all(&world, buyer).await.remove(0);
    let paid = |micros| (LotVerdict::Paid, micros, 0);
    assert_eq!(lots(&told), [paid(1_000_000), paid(2_000_000), (LotVerdict::Scheduled, 0, 0)]);
    assert_eq!((told.first_seq, told.last_seq), (4, 6));
    // No job runs here.
    world.clock.set(at("2026-03-10T12:30:00Z"));
    let told = explain_all(&world, buyer).await.remove(0);
    let (_, _, netted, open) = owed(&told.debts[0]);
    assert_eq!((netted, open), (vec![(starts.lot_id.as_str(), 1_500_000)], 500_000));
}

#[tokio::test]
async fn a_hold_pays_first_and_a_chargeback_makes_it_owed_again() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let bought = world.purchase(buyer, 100, None).await.unwrap();
    let request = ReserveTokensRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        micros: 1_000_000,
        lasts_ms: 60_000,
        note: "a job".to_owned(),
        request_id: request_id(),
        ..ReserveTokensRequest::default()
    };
    let hold = world.hold_service.reserve_tokens(Request::new(request)).await.unwrap().into_inner().hold;
    let hold_id = hold.unwrap().hold_id;
    world.settle(producer, vec![Line { hold_id: hold_id.clone(), ..calls(buyer, 3) }]).await;
    let told = explain_all(&world, buyer).await.remove(0);
    assert_eq!(
        (told.hold_id.as_str(), lots(&told)),
        (&*hold_id, vec![(LotVerdict::Paid, 1_500_000, 1_000_000)])
    );
    charge_back(&world, &bought, buyer).await.unwrap();
    let told = explain_all(&world, buyer).await.remove(0);
    let back: Vec<_> = told.debts.iter().map(|part| part.taken_back_lot_id.as_str()).collect();
    assert_eq!(back, [&*bought.lot_id, &*bought.lot_id], "one for each row that had paid");
    assert_eq!(told.charge.unwrap().open_micros, 1_500_000);
}

#[tokio::test]
async fn prices_of_every_shape_are_told_as_they_were_charged() {
    let world = World::new().await;
    let shapes = world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, Some("2026-02-01T00:00:00Z")).await.unwrap();
    for window in ["2026-03-10T11:59:00Z", NOON, NOON, "2026-03-09T23:59:00Z"] {
        let lines = shapes.iter().map(|(meter, state)| usage_at(buyer, meter, state.clone(), window));
        world.settle(producer, lines.collect()).await;
    }
    // The next month goes on with the unfinished unit alone.
    world.clock.set(at("2026-04-01T00:10:00Z"));
    let lines =
        shapes.iter().map(|(meter, state)| usage_at(buyer, meter, state.clone(), "2026-04-01T00:00:00Z"));
    world.settle(producer, lines.collect()).await;
    let later = vec![
        usage_at(buyer, "peak", largest(9), NOON),
        usage_at(buyer, "seat", distinct(&["bob", "cid"]), NOON),
    ];
    world.clock.set(at("2026-03-10T12:00:30Z"));
    world.settle(producer, later).await;
    // Each answer was checked against its charge by the service itself.
    let told = explain_all(&world, buyer).await;
    assert_eq!(told.len(), 37);
    let of = |meter: &str| -> Vec<ChargeRating> {
        let mine =
            told.iter().filter(|told| told.charge.as_ref().is_some_and(|charge| charge.meter == meter));
        mine.map(|told| told.rating.clone().unwrap()).collect()
    };
    let priced = |rating: &ChargeRating| (rating.month_before, rating.priced_before, rating.priced_after);
    let automation = of("automation");
    assert_eq!(
        automation.iter().map(priced).collect::<Vec<_>>()[3..],
        [(4_500, 4_500, 6_000), (0, 6_000, 7_500)]
    );
    let whole = |rating: &ChargeRating| (rating.cost_before_micros, rating.cost_after_micros);
    assert_eq!(whole(&automation[4]), (5_000_000, 6_000_000), "five units of 20 minutes, then six");
    assert_eq!(automation[4].price.as_ref().unwrap().charged_unit, Some(1_200));
    let tier = |above, micros, units| ChargedTier { above, micros, units };
    let graduated = of("graduated");
    assert_eq!(graduated[0].tiers, [tier(0, 100, 10), tier(10, 50, 5)]);
    assert_eq!(graduated[1].tiers, [tier(10, 50, 5), tier(20, 10, 10)]);
    let allowance: Vec<_> = of("allowance").iter().map(priced).collect();
    assert_eq!(allowance[..2], [(0, 0, 0), (80, 0, 60)], "the quota of 100 comes off first");
    let peak = of("peak");
    let day = |rating: &ChargeRating| (rating.period_before, rating.period_after, rating.month_after);
    assert_eq!(
        peak.iter().map(day).collect::<Vec<_>>(),
        [(0, 5, 5), (5, 5, 5), (5, 5, 5), (0, 5, 10), (0, 5, 5), (5, 9, 14)]
    );
    assert_eq!(peak[0].period(), AggregationPeriod::Day);
    let seat = of("seat");
    assert_eq!(day(&seat[5]), (2, 3, 5), "cid is new on that day");
}

#[tokio::test]
async fn usage_that_costs_nothing_has_its_reason_and_no_lots() {
    let world = World::new().await;
    world.priced().await;
    world.shapes().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    let trial =
        line::Attribution::Payer(drawdown_proto::ledger::v1::Payer { in_trial: true, ..payer(buyer) });
    let lines = vec![
        Line { failed: true, ..calls_at(buyer, 2, NOON) },
        Line { attribution: Some(trial), ..usage_at(buyer, "byte", sum(5_000), NOON) },
        usage_at(buyer, "unheard-of", sum(5), NOON),
        usage_at(buyer, "preview", sum(11), NOON),
    ];
    world.settle(producer, lines).await;
    let told = explain_all(&world, buyer).await;
    let mut free: Vec<_> = told
        .iter()
        .map(|told| (told.charge.as_ref().unwrap().zero_rated.as_str(), told.rating.is_some()))
        .collect();
    free.sort_unstable();
    assert_eq!(free, [("failed", false), ("over_quota", true), ("trial", false), ("unpriced", false)]);
    assert!(told.iter().all(|told| told.lots.is_empty() && told.first_seq == 0 && told.debts.is_empty()));
}

#[tokio::test]
async fn charges_that_are_not_there_or_not_yours_are_refused() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, other, producer) = (world.buyer(), world.buyer(), world.producer().await);
    world.settle(producer, vec![calls(buyer, 1)]).await;
    let charge_id = world.charges(buyer).await.remove(0).charge_id;
    let unknown = ChargeId::generate().to_string();
    assert_eq!(reason(explain(&world, buyer, &unknown, String::new()).await), "CHARGE_UNKNOWN");
    assert_eq!(reason(explain(&world, other, &charge_id, String::new()).await), "CHARGE_UNKNOWN");
    for account in [other.account, AccountId::generate()] {
        assert_eq!(reason(explain(&world, buyer, &charge_id, account.to_string()).await), "TEAM_UNKNOWN");
    }
    assert_eq!(reason(explain(&world, buyer, "nonsense", String::new()).await), "REQUEST_INVALID");
}

#[tokio::test]
async fn d43_a_corrected_charge_its_correction_and_what_came_instead_are_explained() {
    let world = World::new().await;
    let day = AggregationPeriod::Day;
    world.priced().await;
    world.meter_by("seats", Aggregation::Max, day, "").await.unwrap();
    world.publish("seats", "2020-01-01T00:00:00Z", vec![price("seats", 1_000_000, 1)], true).await.unwrap();
    let (buyer, producer) = (world.buyer(), world.producer().await);
    let lot = world.grant(buyer, 2_000_000, None, "2026-04-10T13:00:00Z").await.unwrap();
    world.settle(producer, vec![calls(buyer, 6)]).await;
    for value in [4, 9] {
        world.settle(producer, vec![usage_at(buyer, "seats", largest(value), NOON)]).await;
    }
    let charges = world.charges(buyer).await;
    world.correct(buyer, &charges[0].charge_id, 4, Some(instead(3))).await.unwrap();
    world.correct(buyer, &charges[2].charge_id, 0, None).await.unwrap();
    world.settle(producer, vec![usage_at(buyer, "seats", largest(6), NOON)]).await;
    let told = explain_all(&world, buyer).await;
    let back = |told: &ExplainChargeResponse| -> Vec<(String, i64)> {
        told.taken_back.iter().map(|part| (part.lot_id.clone(), part.amount_micros)).collect()
    };
    // Six calls cost three tokens: two of the lot, one owed. Four are taken back, and three charged instead.
    let gone = [(String::new(), 1_000_000), (lot.lot_id.clone(), 1_000_000)];
    assert_eq!((back(&told[0]), back(&told[3])), (gone.to_vec(), gone.to_vec()));
    assert_eq!((told[3].lots.len(), told[3].rating.as_ref().unwrap().month_after), (0, 2));
    assert!(told[4].charged_again && !told[0].charged_again);
    // 9 seats went: 4 are the largest that is left, and 6 after them cost 2.
    let seats =
        |which: usize| told[which].rating.as_ref().map(|rating| (rating.period_before, rating.period_after));
    assert_eq!((seats(2), seats(5), seats(6)), (Some((4, 9)), Some((9, 4)), Some((4, 6))));
}

/// Somebody waits for a lock.
const WAITING: &str = "select exists (select from pg_stat_activity
    where datname = current_database() and wait_event_type = 'Lock')";

#[tokio::test]
async fn what_is_read_from_its_beginning_has_few_places_and_a_limit() {
    let world = World::with(|options| {
        options.reports.whole_reads_max = Count::of(1);
        options.reports.explain_rows_max = Count::of(2);
    })
    .await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 4)]).await;
    let charge = world.charges(buyer).await.remove(0).charge_id;
    // A what-if has the only place, and waits for somebody who locks a table.
    let mut tx = world.database.pool().begin().await.unwrap();
    sqlx::raw_sql("lock table ledger.meter in access exclusive mode").execute(&mut *tx).await.unwrap();
    let what_if = WhatIf::new(Arc::clone(&world.ledger));
    let month = PriceMonthRequest {
        scope: Some(price_month_request::Scope::TeamId(buyer.team.to_string())),
        month: proto(at(NOON)),
        by: Some(price_month_request::By::InForce(ContractKind::Flex.into())),
    };
    let waiting = tokio::spawn(async move { what_if.price_month(Request::new(month)).await });
    while !sqlx::query_scalar::<_, bool>(WAITING).fetch_one(world.database.pool()).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let refused = refusal(&explain(&world, buyer, &charge, String::new()).await.unwrap_err());
    assert_eq!((refused.0, refused.1.as_str()), (Code::ResourceExhausted, "WHOLE_READS_EXHAUSTED"));
    tx.rollback().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().into_inner().cost_micros, 2_000_000);
    explain(&world, buyer, &charge, String::new()).await.unwrap();
    // One row more than is replayed.
    world.settle(producer, vec![calls(buyer, 1)]).await;
    let refused = refusal(&explain(&world, buyer, &charge, String::new()).await.unwrap_err());
    assert_eq!((refused.0, refused.1.as_str()), (Code::FailedPrecondition, "JOURNAL_TOO_LONG"));
}
