//! Compares what the ledger says with the recount and with the naive model of lots. Demo, crash tests
//! and drills all judge a run by [`differences`]; an empty list is the only pass.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{
    lot_model::pay_in_order,
    platform::{Channels, Platform},
    recount::Recount,
    report::{Summary, charges, lots, model_charge, model_lot, verify},
};

/// Every difference between the ledger, the recount and the model, each as a sentence.
///
/// # Errors
/// Where the ledger does not answer.
pub async fn differences(
    channels: &Channels,
    platform: &Platform,
    summary: &Summary,
    recount: &Recount,
) -> Result<Vec<String>> {
    let mut found = counts(summary, recount);
    found.extend(quantities(summary, recount));
    found.extend(amounts(summary, recount));
    for (name, team_id) in &platform.teams {
        found.extend(lots_against_model(&channels.of_team(name), name, team_id, summary).await?);
    }
    for cell in channels.cells() {
        found.extend(verify(&cell).await?.1);
    }
    Ok(found)
}

fn differ<T: PartialEq + std::fmt::Debug>(what: &str, ledger: T, other: T) -> Option<String> {
    (ledger != other).then(|| format!("{what}: ledger has {ledger:?}, recount has {other:?}"))
}

fn counts(summary: &Summary, recount: &Recount) -> Vec<String> {
    let settled = i64::try_from(recount.settled).unwrap_or(i64::MAX);
    let unattributed = i64::try_from(recount.unattributed).unwrap_or(i64::MAX);
    [
        differ("settled events", summary.settled_events, settled),
        differ("unattributed events", summary.unattributed_events, unattributed),
        differ("malformed lines", summary.malformed_lines, recount.malformed),
        differ("ignored lines", summary.ignored_lines, recount.ignored),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn quantities(summary: &Summary, recount: &Recount) -> Vec<String> {
    let mut ledger = BTreeMap::new();
    for team in &summary.teams {
        for app in &team.apps {
            ledger
                .insert((team.name.clone(), app.app.clone(), app.meter.clone()), (app.events, app.quantity));
        }
    }
    let other: BTreeMap<_, _> =
        recount.usage.iter().map(|(key, usage)| (key.clone(), (usage.events, usage.quantity))).collect();
    let keys = ledger.keys().chain(other.keys()).collect::<std::collections::BTreeSet<_>>();
    keys.into_iter()
        .filter_map(|key| differ(&format!("usage of {key:?}"), ledger.get(key), other.get(key)))
        .collect()
}

fn amounts(summary: &Summary, recount: &Recount) -> Vec<String> {
    let mut by_meter: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut found = Vec::new();
    for team in &summary.teams {
        for app in &team.apps {
            *by_meter.entry((team.name.clone(), app.meter.clone())).or_default() += app.amount_micros;
        }
        let apps: i64 = team.apps.iter().map(|app| app.amount_micros).sum();
        if apps != team.used_micros {
            found.push(format!("apps of {} add up to {apps}, the team used {}", team.name, team.used_micros));
        }
    }
    let keys = by_meter.keys().chain(recount.charged.keys()).collect::<std::collections::BTreeSet<_>>();
    let compared = keys.into_iter().filter_map(|key| {
        let of = |amounts: &BTreeMap<_, i64>| amounts.get(key).copied().unwrap_or_default();
        differ(&format!("charged and uncharged of {key:?}"), of(&by_meter), of(&recount.charged))
    });
    found.extend(compared);
    found
}

async fn lots_against_model(
    channels: &Channels,
    name: &str,
    team_id: &str,
    summary: &Summary,
) -> Result<Vec<String>> {
    let stored = lots(channels, team_id).await?;
    let mut model: Vec<_> = stored.iter().map(model_lot).collect();
    let recorded: Vec<_> = charges(channels, team_id).await?.iter().map(model_charge).collect();
    let owed = pay_in_order(&mut model, &recorded);
    let mut found = Vec::new();
    for lot in &stored {
        let paid = model.iter().find(|candidate| candidate.id == lot.lot_id).map_or(0, |lot| lot.paid);
        if paid != lot.consumed_micros {
            found.push(format!("lot {:?} paid {}, the model says {paid}", lot.note, lot.consumed_micros));
        }
    }
    let uncharged = summary.teams.iter().find(|team| team.name == name).map(|team| team.uncharged_micros);
    if uncharged != Some(owed) {
        found.push(format!("team {name} owes {uncharged:?}, the model says {owed}"));
    }
    Ok(found)
}
