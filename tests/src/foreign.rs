//! Programs of others against `drawdown up`: the platform that they send usage for, and whether the ledger has all of it.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::up::{Up, text};

/// What was entered.
#[derive(Debug)]
pub struct Platform {
    /// The account.
    pub account: String,
    /// The one team.
    pub team: String,
    /// Client ids of its app.
    pub clients: Vec<String>,
}

/// What was sent, by meter: events, and quantity as the meter counts it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sums(BTreeMap<String, (u64, u64)>);

impl Sums {
    /// One more event.
    pub fn add(&mut self, meter: &str, quantity: u64) {
        self.add_many(meter, 1, quantity);
    }

    fn add_many(&mut self, meter: &str, events: u64, quantity: u64) {
        let sum = self.0.entry(meter.to_owned()).or_default();
        *sum = (sum.0 + events, sum.1 + quantity);
    }

    /// A line for each meter.
    #[must_use]
    pub fn report(&self) -> String {
        let line = |(meter, (events, quantity)): (&String, &(u64, u64))| {
            format!("{meter}: {events} events, {quantity} in all, as sent")
        };
        self.0.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

impl Platform {
    /// A team whose app has so many client ids, with meters and their aggregations, priced since long ago.
    ///
    /// # Errors
    /// The first refusal.
    pub fn set_up(up: &Up, dir: &Path, clients: u64, meters: &[(&str, &str)]) -> Result<Self> {
        let since = ["--created-at", "2026-01-01T00:00:00Z"];
        let account = ["account", "create", "--name", "A", "--contract", "flex", "--commercial"];
        let account = up.json(&[&account[..], &since].concat())?;
        let account = text(&account, "/account/account_id")?.to_owned();
        let team =
            up.json(&[&["team", "create", "--account", &account, "--name", "T"][..], &since].concat())?;
        let team = text(&team, "/team/team_id")?.to_owned();
        let app = up.json(&["app", "create", "--account", &account, "--name", "tiles"])?;
        let app = text(&app, "/app/app_id")?.to_owned();
        let mut named = Vec::new();
        for _ in 0..clients {
            let credential = up.json(&[&["credential", "create", &app][..], &since].concat())?;
            named.push(text(&credential, "/client_id")?.to_owned());
        }
        let mut card =
            "name = \"foreign\"\ncontract = \"flex\"\neffective_from = \"2020-01-01T00:00:00Z\"\n".to_owned();
        for (meter, aggregation) in meters {
            up.json(&["meter", "create", meter, "--unit", "call", "--aggregation", aggregation])?;
            write!(card, "[[prices]]\nmeter = \"{meter}\"\ntokens = \"0.001\"\nper_units = 1\n")?;
        }
        let file = dir.join("card.toml");
        std::fs::write(&file, card)?;
        up.json(&["rate-card", "publish", &file.to_string_lossy(), "--set-up"])?;
        up.json(&["app", "assign", &app, "--team", &team, "--from", "2026-01-01T00:00:00Z"])?;
        Ok(Self { account, team, clients: named })
    }

    /// The ledger has charged what was sent, and left nothing.
    ///
    /// # Errors
    /// Where it has something else.
    pub fn judge(&self, up: &Up, sums: &Sums) -> Result<()> {
        let charges = up.json(&["charges", &self.team])?;
        let mut found = Sums::default();
        for charge in charges["charges"].as_array().context("no charges")? {
            let number = |name: &str| charge[name].as_u64().with_context(|| format!("no {name} in {charge}"));
            found.add_many(text(charge, "/meter")?, number("events")?, number("quantity")?);
        }
        ensure!(found == *sums, "the ledger has {found:?}, sent were {sums:?}");
        let open = up.json(&["unattributed", "list", "--state", "open"])?;
        ensure!(open["usage"].as_array().is_none_or(Vec::is_empty), "{open}");
        Ok(())
    }
}

/// The books hold.
///
/// # Errors
/// What does not.
pub fn verify(up: &Up) -> Result<()> {
    let verified = up.cli(&["ledger", "verify"])?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    Ok(())
}
