//! D12, D13, D47: versions of rate cards and the names of prices.

use drawdown_ledger_core::{
    CardVersion, ContractKind, NewVersion, PriceBook, PublishFault, Terms, TermsError,
};
use drawdown_types::{MeterSlug, PriceId, RateCardId, Slug, Timestamp, WindowSize};

use crate::world::on;

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
struct Cards(Vec<CardVersion>);

impl Cards {
    fn publish(&mut self, new: NewVersion, earliest: Option<Timestamp>) -> Result<(), Vec<PublishFault>> {
        let version = self.book().publish(new, earliest, WindowSize::MINUTE, PriceId::generate)?;
        self.0.push(version);
        Ok(())
    }

    fn book(&self) -> PriceBook {
        // The order in which versions are loaded means nothing.
        PriceBook::new(self.0.iter().rev().cloned())
    }

    fn price(&self, name: &str, window: Timestamp) -> Option<(PriceId, i64)> {
        let found = self.book().in_force(ContractKind::Flex, &meter(name), window);
        found.map(|(price_id, terms)| (price_id, terms.micros()))
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

#[test]
fn terms_are_checked() {
    assert_eq!(Terms::new(-1, 1, false), Err(TermsError::NegativeMicros(-1)));
    assert_eq!(Terms::new(1, 0, false), Err(TermsError::NoUnits(0)));
    assert!(Terms::new(0, 1, false).is_ok(), "a meter may be free");
}
