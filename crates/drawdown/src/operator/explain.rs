//! A charge in words: how it was rated, which lots paid it and why these, what became debt and what paid that.

use std::fmt::Write as _;

use drawdown_proto::{
    ledger::v1::{
        AggregationPeriod, Charge, ChargeRating, ConsideredLot, ExplainChargeResponse, LotVerdict, OwedPart,
        Price, TakenBack,
    },
    scalar::timestamp_from_proto,
};
use drawdown_types::{MicroTokens, Timestamp};

/// The whole story, one fact a line.
pub(super) fn story(answer: &ExplainChargeResponse) -> String {
    let mut story = String::new();
    for line in lines(answer) {
        let _infallible = writeln!(story, "{line}");
    }
    story
}

fn lines(answer: &ExplainChargeResponse) -> Vec<String> {
    let Some(charge) = &answer.charge else { return vec!["the answer holds no charge".to_owned()] };
    let mut lines = vec![
        format!("{} of {}: {} tokens", charge.charge_id, charge.team_id, tokens(charge.amount_micros)),
        format!(
            "  usage of {} by {}: {} events, quantity {}, window {}{}",
            charge.meter,
            charge.client_id,
            charge.events,
            charge.quantity,
            instant(charge.window_start.as_ref()),
            if charge.failed { ", failed" } else { "" }
        ),
        format!("  posted {}{}", instant(charge.posted_at.as_ref()), rows(answer)),
        String::new(),
        "Price".to_owned(),
    ];
    lines.extend(free(charge));
    lines.extend(answer.rating.iter().flat_map(rating));
    if charge.quantity < 0 {
        lines.extend([String::new(), format!("It corrects {} (D43)", charge.corrects)]);
        lines.extend(answer.taken_back.iter().map(taken_back));
        if answer.taken_back.is_empty() {
            lines.push("  nothing had been paid or owed for what it takes back".to_owned());
        }
    }
    if charge.amount_micros > 0 {
        lines.extend([String::new(), "Lots, in the order of the draw (D4)".to_owned()]);
        if !answer.hold_id.is_empty() {
            lines.push(format!("  first what {} had set aside (D41)", answer.hold_id));
        }
        if answer.charged_again {
            lines.push("  a correction charged it: first what that gave back (D43)".to_owned());
        }
        lines.extend(answer.lots.iter().map(|lot| format!("  {}", considered(lot))));
        if answer.lots.is_empty() {
            lines.push("  the team had none".to_owned());
        }
        lines.extend([String::new(), "Debt".to_owned()]);
        lines.extend(answer.debts.iter().flat_map(owed));
        lines.push(match (answer.debts.is_empty(), charge.open_micros) {
            (true, _) => "  none: lots paid all of it".to_owned(),
            (false, 0) => "  nothing of it is owed any more".to_owned(),
            (false, open) => format!("  {} tokens of it are owed still", tokens(open)),
        });
        if !answer.taken_back.is_empty() {
            lines.extend([String::new(), "Corrections (D43)".to_owned()]);
            lines.extend(answer.taken_back.iter().map(taken_back));
        }
    }
    lines
}

fn rows(answer: &ExplainChargeResponse) -> String {
    match (answer.first_seq, answer.last_seq) {
        (0, _) => ", no journal row".to_owned(),
        (first, last) if first == last => format!(", journal row {first}"),
        (first, last) => format!(", journal rows {first} to {last}"),
    }
}

/// Why a rule makes it free.
fn free(charge: &Charge) -> Option<String> {
    Some(match charge.zero_rated.as_str() {
        "" => return None,
        "trial" => "  nothing: the account was in its trial at the window (D20)".to_owned(),
        "failed" => "  nothing: the job failed, and the card lets failed jobs go free (D18)".to_owned(),
        "unpriced" => "  nothing: no price was in force at the window".to_owned(),
        "over_quota" => {
            "  nothing: the meter is free only; some of it lies above the month's quota (D16)".to_owned()
        }
        other => format!("  nothing: {other}"),
    })
}

fn rating(rating: &ChargeRating) -> Vec<String> {
    let price = rating.price.clone().unwrap_or_default();
    let mut lines = shape(&rating.price_id, &price);
    let month = instant(rating.month_start.as_ref());
    let period = match rating.period() {
        AggregationPeriod::Unspecified => None,
        AggregationPeriod::Day => Some("day"),
        AggregationPeriod::Month => Some("month"),
    };
    if let Some(period) = period {
        lines.push(format!(
            "  the meter has one value for each {period} ({}, D19): {} before, {} after",
            instant(rating.period_start.as_ref()),
            rating.period_before,
            rating.period_after
        ));
    }
    let (before, after) = (rating.month_before, rating.month_after);
    lines.push(format!("  units of the month from {month}: {before} before, {after} after"));
    let (from, to) = (rating.priced_before, rating.priced_after);
    if price.charged_unit.is_some() {
        lines.push(format!(
            "  above the quotas of all months together, since the unfinished unit runs on: {from} before, {to} after"
        ));
    } else if price.free_quota > 0 {
        lines.push(format!("  of these above the quota: {from} before, {to} after"));
    }
    if let Some(unit) = price.charged_unit {
        let whole = |units: i64| units.checked_div(unit).unwrap_or_default();
        lines.push(format!("  whole units of {unit}: {} before, {} after", whole(from), whole(to)));
    }
    lines.extend(rating.tiers.iter().map(|tier| {
        let (units, above, micros) = (tier.units, tier.above, tokens(tier.micros));
        format!("  {units} units in the tier above {above}, at {micros} tokens for {}", price.per_units)
    }));
    lines.push(format!(
        "  what that costs: {} before, {} after; the difference is the charge (D14)",
        tokens(rating.cost_before_micros),
        tokens(rating.cost_after_micros)
    ));
    lines
}

/// The price and what its shape means.
fn shape(price_id: &str, price: &Price) -> Vec<String> {
    let first = if price.tiers.is_empty() { "" } else { " in the first tier" };
    let mut lines =
        vec![format!("  {price_id}: {} tokens for {} units{first}", tokens(price.micros), price.per_units)];
    if price.free_quota > 0 {
        lines.push(format!("  {} units of each month are free (D16)", price.free_quota));
    }
    lines.extend(price.tiers.iter().map(|tier| {
        let (micros, per_units, above) = (tokens(tier.micros), price.per_units, tier.above);
        format!("  {micros} tokens for {per_units} units above {above} of the month (D17)")
    }));
    if let Some(unit) = price.charged_unit {
        lines.push(format!("  only whole units of {unit} are charged (D15)"));
    }
    lines
}

fn considered(considered: &ConsideredLot) -> String {
    let Some(lot) = &considered.lot else { return "a lot that is not told".to_owned() };
    let pool = lot.pool_kind().as_str_name().trim_start_matches("POOL_KIND_").to_ascii_lowercase();
    let (paid, held, left) =
        (considered.paid_micros, considered.paid_of_hold_micros, tokens(lot.remaining_micros));
    let why = match considered.verdict() {
        LotVerdict::Paid if held == paid => format!("paid {}, set aside by the hold", tokens(paid)),
        LotVerdict::Paid if held > 0 => {
            format!("paid {}, {} of it set aside by the hold", tokens(paid), tokens(held))
        }
        LotVerdict::Paid if paid == lot.remaining_micros => {
            format!("paid {}, all that it had", tokens(paid))
        }
        LotVerdict::Paid => format!("paid {} of {left}", tokens(paid)),
        LotVerdict::Closed => "passed over: closed".to_owned(),
        LotVerdict::Moved => "passed over: it had moved to another team".to_owned(),
        LotVerdict::Scheduled => {
            format!("passed over: it starts {} only, after the posting", instant(lot.starts_at.as_ref()))
        }
        LotVerdict::StartsLater => {
            format!("passed over: it starts {}, after the window", instant(lot.starts_at.as_ref()))
        }
        LotVerdict::CameLater => format!(
            "passed over: it came to the team later, and pays usage from {} on (D9)",
            instant(lot.valid_from.as_ref())
        ),
        LotVerdict::Expired => {
            format!("passed over: it expired {}, not after the window", instant(lot.expires_at.as_ref()))
        }
        LotVerdict::Empty if lot.held_micros > 0 => {
            format!("passed over: holds had set aside all that was left, {}", tokens(lot.held_micros))
        }
        LotVerdict::Empty => "passed over: nothing was left in it".to_owned(),
        LotVerdict::NotNeeded => format!("not needed: the lots before it covered everything; it had {left}"),
        LotVerdict::Unspecified => "no reason is told".to_owned(),
    };
    format!("{} ({pool}, expires {}): {why}", lot.lot_id, instant(lot.expires_at.as_ref()))
}

fn taken_back(part: &TakenBack) -> String {
    let (amount, at) = (tokens(part.amount_micros), instant(part.posted_at.as_ref()));
    let to =
        if part.lot_id.is_empty() { "which was owed still" } else { &*format!("back to {}", part.lot_id) };
    format!("  {amount} taken back {at} by {}, {to} (journal row {})", part.correction_id, part.seq)
}

fn owed(part: &OwedPart) -> Vec<String> {
    let owed = tokens(part.debt_to_micros.saturating_sub(part.debt_from_micros));
    let place = format!(
        "the team's running debt from {} to {} (D7)",
        tokens(part.debt_from_micros),
        tokens(part.debt_to_micros)
    );
    let mut lines = vec![if part.taken_back_lot_id.is_empty() {
        format!("  {owed} tokens that no lot covered: {place}")
    } else {
        let (lot, at) = (&part.taken_back_lot_id, instant(part.posted_at.as_ref()));
        format!("  {owed} tokens that {lot} had paid, owed again by its chargeback {at} (D44): {place}")
    }];
    lines.extend(part.netted.iter().map(|part| {
        let (amount, at) = (tokens(part.amount_micros), instant(part.posted_at.as_ref()));
        format!("    {amount} paid {at} by {} (journal row {})", part.lot_id, part.seq)
    }));
    lines
}

fn tokens(micros: i64) -> MicroTokens {
    MicroTokens::from_micros(micros)
}

fn instant(at: Option<&prost_types::Timestamp>) -> String {
    at.and_then(|at| timestamp_from_proto(at).ok())
        .map_or_else(|| "?".to_owned(), |at: Timestamp| at.to_string())
}

#[cfg(test)]
mod tests {
    use drawdown_proto::ledger::v1::{ChargedTier, Lot, LotState, NettedPart, PoolKind, PriceTier};

    use super::*;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn lot(number: u32, verdict: LotVerdict, paid_micros: i64, remaining_micros: i64) -> ConsideredLot {
        let at = |hours: i64| at(1_781_000_000 / 3600 * 3600 + hours * 3600);
        ConsideredLot {
            lot: Some(Lot {
                lot_id: format!("lot_{number:026}"),
                pool_kind: PoolKind::Promotional.into(),
                remaining_micros,
                starts_at: at(1),
                expires_at: at(24),
                valid_from: at(2),
                state: LotState::Open.into(),
                ..Lot::default()
            }),
            verdict: verdict.into(),
            paid_micros,
            paid_of_hold_micros: 0,
        }
    }

    fn charge(amount_micros: i64) -> Charge {
        Charge {
            charge_id: "chg_00000000000000000000000001".to_owned(),
            team_id: "team_00000000000000000000000001".to_owned(),
            client_id: "client".to_owned(),
            meter: "call".to_owned(),
            window_start: at(1_781_000_040),
            posted_at: at(1_781_000_101),
            events: 9,
            quantity: 9,
            amount_micros,
            ..Charge::default()
        }
    }

    fn flat() -> ChargeRating {
        ChargeRating {
            price_id: "price_00000000000000000000000001".to_owned(),
            price: Some(Price { micros: 500_000, per_units: 1, ..Price::default() }),
            month_start: at(1_780_272_000),
            month_before: 11,
            month_after: 20,
            priced_before: 11,
            priced_after: 20,
            cost_before_micros: 5_500_000,
            cost_after_micros: 10_000_000,
            ..ChargeRating::default()
        }
    }

    fn netted(seq: i64, amount_micros: i64) -> NettedPart {
        let lot_id = "lot_00000000000000000000000010".to_owned();
        NettedPart { seq, posted_at: at(1_781_100_000), lot_id, amount_micros }
    }

    fn everything() -> ExplainChargeResponse {
        let mut of_hold = lot(3, LotVerdict::Paid, 500_000, 100_000);
        of_hold.paid_of_hold_micros = 400_000;
        let mut set_aside = lot(7, LotVerdict::Empty, 0, 0);
        set_aside.lot.as_mut().unwrap().held_micros = 2_500_000;
        ExplainChargeResponse {
            charge: Some(Charge { open_micros: 1_000_000, ..charge(4_500_000) }),
            rating: Some(flat()),
            lots: vec![
                lot(1, LotVerdict::Closed, 0, 0),
                lot(2, LotVerdict::Expired, 0, 3_000_000),
                of_hold,
                lot(4, LotVerdict::CameLater, 0, 1),
                lot(5, LotVerdict::StartsLater, 0, 1),
                lot(6, LotVerdict::Scheduled, 0, 1),
                set_aside,
                lot(8, LotVerdict::Paid, 1_000_000, 3_000_000),
                lot(9, LotVerdict::NotNeeded, 0, 7_250_000),
                lot(11, LotVerdict::Moved, 0, 0),
                lot(12, LotVerdict::Empty, 0, 0),
            ],
            first_seq: 7,
            last_seq: 9,
            hold_id: "hold_00000000000000000000000001".to_owned(),
            debts: vec![
                OwedPart {
                    seq: 9,
                    debt_from_micros: 20_000_000,
                    debt_to_micros: 23_000_000,
                    netted: vec![netted(12, 2_000_000), netted(13, 1_000_000)],
                    ..OwedPart::default()
                },
                OwedPart {
                    seq: 14,
                    posted_at: at(1_781_200_000),
                    taken_back_lot_id: "lot_00000000000000000000000008".to_owned(),
                    debt_from_micros: 23_000_000,
                    debt_to_micros: 24_000_000,
                    open_micros: 1_000_000,
                    ..OwedPart::default()
                },
            ],
            at: at(1_781_300_000),
            charged_again: true,
            taken_back: ["", "lot_00000000000000000000000008"]
                .map(|lot| TakenBack {
                    seq: 17,
                    posted_at: at(1_781_250_000),
                    correction_id: "chg_00000000000000000000000002".to_owned(),
                    lot_id: lot.to_owned(),
                    amount_micros: 250_000,
                })
                .into(),
        }
    }

    #[test]
    fn a_charge_with_everything() {
        insta::assert_snapshot!("everything", story(&everything()));
        let paid = ExplainChargeResponse {
            charge: Some(charge(4_500_000)),
            debts: Vec::new(),
            hold_id: String::new(),
            ..everything()
        };
        assert!(story(&paid).contains("Debt\n  none: lots paid all of it\n"));
        assert!(!story(&paid).contains("had set aside (D41)"));
    }

    #[test]
    fn prices_of_every_shape() {
        let shaped = |price: Price, change: fn(&mut ChargeRating)| {
            let mut rating = ChargeRating { price: Some(price), ..flat() };
            change(&mut rating);
            let said = super::rating(&rating);
            said.join("\n")
        };
        let tiers = vec![PriceTier { above: 10, micros: 200_000 }, PriceTier { above: 15, micros: 0 }];
        let flat = Price { micros: 500_000, per_units: 3, ..Price::default() };
        let told = [
            shaped(Price { tiers, free_quota: 5, ..flat.clone() }, |rating| {
                (rating.priced_before, rating.priced_after) = (6, 15);
                rating.tiers = vec![
                    ChargedTier { above: 0, micros: 500_000, units: 4 },
                    ChargedTier { above: 10, micros: 200_000, units: 5 },
                ];
            }),
            shaped(Price { charged_unit: Some(20), ..flat.clone() }, |rating| {
                (rating.priced_before, rating.priced_after) = (31, 40);
            }),
            shaped(flat, |rating| {
                rating.period = AggregationPeriod::Day.into();
                rating.period_start = at(1_780_963_200);
                (rating.period_before, rating.period_after) = (3, 12);
            }),
        ];
        insta::assert_snapshot!("shapes", told.join("\n\n"));
    }

    #[test]
    fn usage_that_costs_nothing() {
        for (zero_rated, says) in [
            ("trial", "in its trial"),
            ("failed", "the job failed"),
            ("unpriced", "no price was in force"),
            ("over_quota", "free only"),
        ] {
            let charge = Charge { zero_rated: zero_rated.to_owned(), ..charge(0) };
            let answer = ExplainChargeResponse { charge: Some(charge), ..ExplainChargeResponse::default() };
            let story = story(&answer);
            assert!(story.contains(says) && !story.contains("Lots"), "{story}");
        }
    }
}
