//! D12, D13, D47: versions of rate cards and the names of prices.

use drawdown_ledger_core::{
    Aggregation, CardVersion, ContractKind, NewVersion, Period, PriceBook, PublishFault, TIERS_MAX, Terms,
    TermsDraft, TermsError, Tier,
};
use drawdown_types::{MeterSlug, PriceId, RateCardId, Slug, Timestamp, WindowSize};

use crate::world::{at, on};

fn meter(name: &str) -> MeterSlug {
    MeterSlug::new(name).unwrap()
}

fn version(name: &str, from: Timestamp, prices: &[(&str, i64)]) -> NewVersion {
    NewVersion {
        rate_card_id: RateCardId::generate(),
        name: Slug::new(name).unwrap(),
        contract_kind: ContractKind::Flex,
        effective_from: from,
        prices: prices
            .iter()
            .map(|(name, micros)| (meter(name), Terms::new(*micros, 1, false).unwrap()))
            .collect(),
    }
}

#[derive(Default)]
struct Cards(Vec<CardVersion>, std::collections::HashMap<MeterSlug, Aggregation>);

impl Cards {
    fn publish(&mut self, new: NewVersion, earliest: Option<Timestamp>) -> Result<(), Vec<PublishFault>> {
        let version = self.book().publish(new, earliest, WindowSize::MINUTE, PriceId::generate)?;
        self.0.push(version);
        Ok(())
    }

    fn book(&self) -> PriceBook {
        // The order in which versions are loaded means nothing.
        PriceBook::with_meters(self.0.iter().rev().cloned(), self.1.clone())
    }

    fn price(&self, name: &str, window: Timestamp) -> Option<(PriceId, i64)> {
        let book = self.book();
        let found = book.in_force(ContractKind::Flex, &meter(name), window);
        found.map(|found| (found.price_id, found.terms.micros()))
    }

    fn micros(&self, name: &str, window: Timestamp) -> Option<i64> {
        self.price(name, window).map(|(_, micros)| micros)
    }
}

#[test]
fn d12_a_version_is_in_force_from_its_edge_until_the_next() {
    let mut cards = Cards::default();
    cards.publish(version("a", on("12:00:00"), &[("call", 1)]), None).unwrap();
    cards.publish(version("a", on("12:29:30"), &[("call", 2)]), None).unwrap();
    assert_eq!(cards.0[1].effective_from, on("12:30:00"), "rounded up");
    let windows = ["11:59:00", "12:00:00", "12:29:00", "12:30:00", "23:59:00"];
    assert_eq!(windows.map(|at| cards.micros("call", on(at))), [None, Some(1), Some(1), Some(2), Some(2)]);
    assert_eq!(cards.book().in_force(ContractKind::Enterprise, &meter("call"), on("12:00:00")), None);
}

#[test]
fn d47_the_same_terms_keep_the_name_of_the_price() {
    let mut cards = Cards::default();
    for (from, prices) in [
        ("12:00:00", &[("call", 1), ("photo", 5), ("gone", 7)][..]),
        ("13:00:00", &[("call", 1), ("photo", 6)]),
        ("14:00:00", &[("call", 1), ("photo", 5), ("gone", 7)]),
    ] {
        cards.publish(version("a", on(from), prices), None).unwrap();
    }
    let price = |name, window| cards.price(name, on(window)).map(|(price_id, _)| price_id);
    assert_eq!(price("call", "12:00:00"), price("call", "14:00:00"));
    assert_ne!(price("photo", "12:00:00"), price("photo", "13:00:00"));
    assert_ne!(price("photo", "12:00:00"), price("photo", "14:00:00"), "the same terms after other terms");
    assert_eq!(price("gone", "13:00:00"), None, "a meter that is left out has no price");
    assert_ne!(price("gone", "12:00:00"), price("gone", "14:00:00"), "the same terms after a gap");
}

#[test]
fn versions_that_go_back_or_clash_are_refused_with_every_fault() {
    let mut cards = Cards::default();
    cards.publish(version("a", on("12:00:00"), &[("call", 1)]), None).unwrap();
    let again = version("a", on("11:59:01"), &[("call", 1), ("call", 2)]);
    let (at, latest) = (on("12:00:00"), on("12:00:00"));
    assert_eq!(
        cards.publish(again, Some(on("12:01:00"))),
        Err(vec![
            PublishFault::TooEarly { at, earliest: on("12:01:00") },
            PublishFault::NotAfterLatest { at, latest },
            PublishFault::DuplicateMeter(meter("call")),
        ])
    );
    let other = |from| version("b", on(from), &[("call", 9)]);
    let clash = PublishFault::PricedElsewhere { meter: meter("call"), name: Slug::new("a").unwrap() };
    assert_eq!(cards.publish(other("13:00:00"), None), Err(vec![clash.clone()]));
    assert_eq!(
        cards.publish(other("11:00:00"), None),
        Err(vec![clash]),
        "it would run into the later version"
    );
    let mut enterprise = other("13:00:00");
    enterprise.contract_kind = ContractKind::Enterprise;
    assert_eq!(cards.publish(enterprise, None), Ok(()));
}

#[test]
fn a_meter_passes_from_card_to_card_at_one_edge_whatever_their_names() {
    for (from, to) in [("a", "b"), ("b", "a")] {
        let mut cards = Cards::default();
        cards.publish(version(from, on("12:00:00"), &[("call", 1), ("kept", 3)]), None).unwrap();
        cards.publish(version(from, on("13:00:00"), &[("kept", 3)]), None).unwrap();
        cards.publish(version(to, on("13:00:00"), &[("call", 2)]), None).unwrap();
        assert_eq!(cards.micros("call", on("12:59:00")), Some(1));
        assert_eq!(cards.micros("call", on("13:00:00")), Some(2), "{from} to {to}");
        assert_eq!(cards.micros("kept", on("13:00:00")), Some(3));
    }
}

fn one(name: &str, from: Timestamp, prices: Vec<(&str, Terms)>) -> NewVersion {
    let prices = prices.into_iter().map(|(name, terms)| (meter(name), terms)).collect();
    NewVersion { prices, ..version(name, from, &[]) }
}

fn draft() -> TermsDraft {
    TermsDraft { micros: 1, per_units: 1, ..TermsDraft::default() }
}

#[test]
fn d47_what_counts_by_the_month_changes_only_where_a_month_begins() {
    let tier = Tier { above: 10, micros: 1 };
    let shapes = [
        TermsDraft { free_quota: 10, ..draft() },
        TermsDraft { charged_unit: Some(60), ..draft() },
        TermsDraft { tiers: vec![tier], ..draft() },
        TermsDraft { micros: 0, free_quota: 10, free_only: true, ..draft() },
    ];
    let (june, inside, july) = (at("2026-06-01T00:00:00Z"), on("12:00:00"), at("2026-07-01T00:00:00Z"));
    for shape in shapes {
        let shape = shape.check().unwrap();
        let flat = Terms::new(5, 1, false).unwrap();
        let fault = || PublishFault::InsideMonth { meter: meter("m"), at: inside, next: july };
        for (was, will) in [
            (vec![("m", flat.clone())], vec![("m", shape.clone())]),
            (vec![("m", shape.clone())], vec![("m", flat.clone())]),
            (vec![("m", shape.clone())], Vec::new()),
            (Vec::new(), vec![("m", shape.clone())]),
        ] {
            let mut cards = Cards::default();
            cards.publish(one("a", june, was), None).unwrap();
            assert_eq!(cards.publish(one("a", inside, will.clone()), None), Err(vec![fault()]));
            assert_eq!(cards.publish(one("a", july, will), None), Ok(()));
        }
        // What stays as it is may be in a version of any edge.
        let mut cards = Cards::default();
        cards.publish(one("a", june, vec![("m", shape.clone()), ("n", flat.clone())]), None).unwrap();
        let other = Terms::new(6, 1, false).unwrap();
        assert_eq!(cards.publish(one("a", inside, vec![("m", shape), ("n", other)]), None), Ok(()));
        assert_eq!(cards.price("m", june), cards.price("m", july));
    }
}

#[test]
fn d47_meters_with_periods_change_their_price_only_where_a_month_begins() {
    for aggregation in [Aggregation::Max(Period::Day), Aggregation::Unique(Period::Month)] {
        let mut cards = Cards::default();
        cards.1.insert(meter("seat"), aggregation);
        let refused = cards.publish(version("a", on("12:00:00"), &[("call", 1), ("seat", 1)]), None);
        let next = at("2026-07-01T00:00:00Z");
        let fault = PublishFault::InsideMonth { meter: meter("seat"), at: on("12:00:00"), next };
        assert_eq!(refused, Err(vec![fault]));
        assert_eq!(cards.publish(version("a", next, &[("call", 1), ("seat", 1)]), None), Ok(()));
        let book = cards.book();
        let seat = book.in_force(ContractKind::Flex, &meter("seat"), next).unwrap();
        assert_eq!(seat.period, aggregation.period());
    }
}

#[test]
fn terms_are_checked() {
    assert_eq!(Terms::new(-1, 1, false), Err(TermsError::NegativeMicros(-1)));
    assert_eq!(Terms::new(1, 0, false), Err(TermsError::NoUnits(0)));
    assert!(Terms::new(0, 1, false).is_ok(), "a meter may be free");
    let tier = |above, micros| Tier { above, micros };
    let cases = [
        (TermsDraft { tiers: vec![tier(0, 1)], ..draft() }, TermsError::EmptyTier { index: 0, above: 0 }),
        (
            TermsDraft { tiers: vec![tier(5, 1), tier(5, 2)], ..draft() },
            TermsError::EmptyTier { index: 1, above: 5 },
        ),
        (
            TermsDraft { tiers: vec![tier(5, 1), tier(4, 2)], ..draft() },
            TermsError::TierNotAscending { index: 1, above: 4, before: 5 },
        ),
        (
            TermsDraft { tiers: vec![tier(-5, 1)], ..draft() },
            TermsError::TierNotAscending { index: 0, above: -5, before: 0 },
        ),
        (
            TermsDraft { tiers: vec![tier(5, -1)], ..draft() },
            TermsError::NegativeTier { index: 0, micros: -1 },
        ),
        (TermsDraft { charged_unit: Some(0), ..draft() }, TermsError::UnitTooSmall(0)),
        (
            TermsDraft { charged_unit: Some(60), tiers: vec![tier(5, 1)], ..draft() },
            TermsError::UnitWithTiers,
        ),
        (TermsDraft { free_quota: -1, ..draft() }, TermsError::NegativeQuota(-1)),
        (TermsDraft { micros: 0, free_only: true, ..draft() }, TermsError::FreeOnlyWithoutQuota),
        (TermsDraft { free_only: true, free_quota: 1, ..draft() }, TermsError::FreeOnlyWithPrice),
    ];
    for (draft, fault) in cases {
        assert_eq!(draft.check(), Err(vec![fault]));
    }
    let many = |len: usize| TermsDraft {
        tiers: (1..=len).map(|above| tier(above.try_into().unwrap(), 1)).collect(),
        ..draft()
    };
    assert!(many(TIERS_MAX).check().is_ok());
    assert_eq!(many(TIERS_MAX + 1).check(), Err(vec![TermsError::TooManyTiers(TIERS_MAX + 1)]));
}

#[test]
fn every_fault_of_terms_is_told_at_once_by_its_field() {
    let draft = TermsDraft {
        micros: -1,
        per_units: 0,
        tiers: vec![Tier { above: 3, micros: -1 }, Tier { above: 3, micros: 1 }],
        charged_unit: Some(0),
        free_quota: -1,
        free_only: true,
        failed_is_free: false,
    };
    let fields: Vec<_> = draft.check().unwrap_err().iter().map(TermsError::field).collect();
    let expected = [
        "micros",
        "per_units",
        "tiers[0].micros",
        "tiers[1].above",
        "charged_unit",
        "charged_unit",
        "free_quota",
        "free_only",
    ];
    assert_eq!(fields, expected);
}
