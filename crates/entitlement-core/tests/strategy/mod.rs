//! Random acts. Instants lie around the present and are drawn relative to it, often on an edge or one
//! microsecond beside it, since that is where rules break.

use proptest::prelude::*;

use crate::model::{self, Act, SECOND, WINDOW};

/// An edge, half an hour before a month begins.
pub(crate) const START: i64 = 1_769_902_200 * SECOND;

/// A pause, then an act; the instants inside are relative to the present.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) pause: i64,
    pub(crate) act: Act,
}

impl Step {
    /// The act with its instants.
    pub(crate) fn act_at(self, now: i64) -> Act {
        let absolute = |offset: Option<i64>| offset.map(|offset| snapped(now, offset));
        match self.act {
            Act::Account { created_at, enterprise, commercial } => {
                Act::Account { created_at: absolute(created_at), enterprise, commercial }
            }
            Act::Team { account, created_at } => Act::Team { account, created_at: absolute(created_at) },
            Act::App { account } => Act::App { account },
            Act::Credential { app, created_at, settled } => {
                Act::Credential { app, created_at: absolute(created_at), settled }
            }
            Act::Assign { app, team, from, settled } => {
                Act::Assign { app, team, from: absolute(from), settled }
            }
            Act::EndTrial { account, from, settled } => {
                Act::EndTrial { account, from: absolute(from), settled }
            }
            Act::Contract { account, enterprise, from, settled } => {
                Act::Contract { account, enterprise, from: absolute(from), settled }
            }
            Act::Revoke { credential, at } => Act::Revoke { credential, at: absolute(at) },
            Act::Transfer { app, team } => Act::Transfer { app, team },
            Act::Correct { app, team, from, to, settled } => {
                Act::Correct { app, team, from: snapped(now, from), to: snapped(now, to), settled }
            }
        }
    }
}

/// One in four offsets is moved onto the next edge, one in four to just before it.
fn snapped(now: i64, offset: i64) -> i64 {
    let at = now + offset;
    let edge = at - at % WINDOW;
    match offset.rem_euclid(4) {
        0 => edge,
        1 => edge - 1,
        _ => at,
    }
}

fn past() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        1 => Just(None),
        4 => (-1200 * SECOND..0).prop_map(Some),
        1 => (0..2 * SECOND).prop_map(Some),
    ]
}

fn around() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![
        3 => Just(None),
        3 => (-600 * SECOND..0).prop_map(Some),
        1 => (0..10 * SECOND).prop_map(Some),
        2 => (0..model::AHEAD + 200 * SECOND).prop_map(Some),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let unsettled = || prop::bool::weighted(0.2);
    prop_oneof![
        1 => (past(), any::<bool>(), any::<bool>())
            .prop_map(|(created_at, enterprise, commercial)| Act::Account { created_at, enterprise, commercial }),
        2 => (0usize..3, past()).prop_map(|(account, created_at)| Act::Team { account, created_at }),
        2 => (0usize..3).prop_map(|account| Act::App { account }),
        3 => (0usize..5, past(), unsettled())
            .prop_map(|(app, created_at, settled)| Act::Credential { app, created_at, settled }),
        6 => (0usize..5, 0usize..4, around(), unsettled())
            .prop_map(|(app, team, from, settled)| Act::Assign { app, team, from, settled }),
        1 => (0usize..3, around(), unsettled())
            .prop_map(|(account, from, settled)| Act::EndTrial { account, from, settled }),
        1 => (0usize..3, any::<bool>(), around(), unsettled()).prop_map(|(account, enterprise, from, settled)| {
            Act::Contract { account, enterprise, from, settled }
        }),
        4 => (0usize..5, 0usize..4, -1500 * SECOND..90 * SECOND, -1200 * SECOND..1200 * SECOND, unsettled())
            .prop_map(|(app, team, from, to, settled)| Act::Correct { app, team, from, to, settled }),
        2 => (0usize..5, 0usize..4).prop_map(|(app, team)| Act::Transfer { app, team }),
        2 => (0usize..6, around()).prop_map(|(credential, at)| Act::Revoke { credential, at }),
    ]
}

/// A step.
pub(crate) fn step() -> impl Strategy<Value = Step> {
    let pause = prop_oneof![Just(0), 0..10 * SECOND, 0..150 * SECOND];
    (pause, act()).prop_map(|(pause, act)| Step { pause, act })
}

/// An instant that somebody asks about.
pub(crate) fn instant() -> impl Strategy<Value = i64> {
    (-1500 * SECOND..4000 * SECOND).prop_map(|offset| snapped(START, offset))
}
