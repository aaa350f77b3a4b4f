//! Writes the same usage as `usage.csv`, `usage.parquet` and `focus.csv` into a folder, for programs that are not
//! ours to read: `cargo xtask export-check` does.
//!
//!   cargo run --package drawdown-ledger --example usage_files -- FOLDER
#![expect(clippy::unwrap_used, reason = "an example, not a part of the service")]

use std::{fs, path::Path};

use drawdown_ledger::export::{Encoder, FocusSettings, Format, UsageLine};
use drawdown_types::{AccountId, Timestamp};

const LINES: i64 = 10_000;
/// So that a file has several groups.
const GROUP_ROWS: usize = 3_000;
const PART_BYTES: usize = 65_536;

/// Usage of two months with texts that need care, every eleventh line a correction of the month after.
fn line(number: i64) -> UsageLine {
    let at = |text: String| -> Timestamp { text.parse().unwrap() };
    let (month, day) = (11 + number % 2, 1 + number % 30);
    let corrected = number % 11 == 0;
    let sign = if corrected { -1 } else { 1 };
    UsageLine {
        day: at(format!("2026-{month:02}-{day:02}T00:00:00Z")),
        corrected_in: corrected.then(|| at("2026-12-01T00:00:00Z".to_owned())),
        team_id: format!("team_{}", number % 7),
        app_id: format!("app_{}", number % 70),
        client_id: format!("client-{}", number % 140),
        meter: ["web.call", "map.tile", "storage.byte"][usize::try_from(number % 3).unwrap()].to_owned(),
        unit: ["Calls", "Tiles", "B"][usize::try_from(number % 3).unwrap()].to_owned(),
        failed: number % 5 == 0,
        dimensions: match number % 4 {
            0 => "{}".to_owned(),
            1 => r#"{"region": "=1+1"}"#.to_owned(),
            2 => r#"{"region": "süd, \"west\"", "user": "a\nb"}"#.to_owned(),
            _ => r#"{"region": ""}"#.to_owned(),
        },
        charges: 1 + number % 9,
        events: sign * number,
        quantity: sign * (number * 37 + 1),
        // Beyond what a float of 64 bits holds, now and then.
        amount_micros: sign * (number * 1_234_567 + (number % 1000 / 999) * 9_007_199_254_740_993),
        open_micros: if corrected { 0 } else { number % 1000 },
    }
}

fn write(format: Format, path: &Path) {
    let account = AccountId::from_uuid(uuid::Uuid::from_u128(7));
    let mut encoder = Encoder::new(account, format, GROUP_ROWS).unwrap();
    let mut file = Vec::new();
    for number in 0..LINES {
        encoder.write(&line(number)).unwrap();
        file.extend(encoder.take(PART_BYTES).unwrap_or_default());
    }
    file.extend(encoder.finish().unwrap());
    fs::write(path, file).unwrap();
}

fn main() {
    let folder = std::env::args_os().nth(1).unwrap();
    let folder = Path::new(&folder);
    let focus = FocusSettings {
        billing_currency: "EUR".to_owned(),
        token_price: "1.5".parse().unwrap(),
        provider_name: "Acme, Inc.".to_owned(),
        service_name: "Acme API".to_owned(),
        account_name: "Buyer, Ltd.".to_owned(),
        team_names: (0..5).map(|number| (format!("team_{number}"), format!("Team {number}"))).collect(),
    };
    write(Format::Csv, &folder.join("usage.csv"));
    write(Format::Parquet, &folder.join("usage.parquet"));
    write(Format::Focus(focus), &folder.join("focus.csv"));
}
