//! Files as their readers see them, by the libraries' own readers here and by others in
//! `cargo xtask export-check`.

use ::parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row, RowAccessor},
};
use bytes::Bytes;
use drawdown_types::AccountId;

use super::*;

fn account() -> AccountId {
    AccountId::from_uuid(uuid::Uuid::from_u128(7))
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn line(number: i64) -> UsageLine {
    UsageLine {
        day: at("2026-12-31T00:00:00Z"),
        corrected_in: None,
        team_id: "team_a".to_owned(),
        app_id: "app_a".to_owned(),
        client_id: format!("-client{number}"),
        meter: "web.call".to_owned(),
        unit: "call, \"each\"".to_owned(),
        failed: number % 2 == 1,
        dimensions: if number % 3 == 0 { "{}" } else { r#"{"region": "e\"u"}"# }.to_owned(),
        charges: 1,
        events: number,
        quantity: 3 * number,
        amount_micros: 1_500_000 * number,
        open_micros: number,
    }
}

/// A correction of that usage, in that month.
fn correction(number: i64, month: &str) -> UsageLine {
    let usage = line(number);
    UsageLine {
        corrected_in: Some(at(month)),
        events: -usage.events,
        quantity: -usage.quantity,
        amount_micros: -usage.amount_micros,
        open_micros: 0,
        ..usage
    }
}

fn focus() -> Format {
    Format::Focus(FocusSettings {
        billing_currency: "USD".to_owned(),
        token_price: "3.000001".parse().unwrap(),
        provider_name: "Acme, Inc.".to_owned(),
        service_name: "Acme API".to_owned(),
        account_name: "Buyer".to_owned(),
        team_names: [("team_a".to_owned(), "Maps".to_owned())].into(),
    })
}

/// A file written in parts of at least `least` bytes.
fn file_of(format: Format, lines: &[UsageLine], least: usize) -> (Vec<u8>, usize) {
    let mut encoder = Encoder::new(account(), format, 4).unwrap();
    let (mut file, mut parts) = (Vec::new(), 1);
    for line in lines {
        encoder.write(line).unwrap();
        if let Some(part) = encoder.take(least) {
            file.extend(part);
            parts += 1;
        }
    }
    file.extend(encoder.finish().unwrap());
    (file, parts)
}

fn lines(count: i64) -> Vec<UsageLine> {
    (0..count).map(line).collect()
}

fn rows(file: &[u8]) -> Vec<::csv::StringRecord> {
    let mut reader = ::csv::ReaderBuilder::new().has_headers(false).from_reader(file);
    reader.records().map(Result::unwrap).collect()
}

/// The cell of a row of a FOCUS file below its head.
fn cell<'a>(rows: &'a [::csv::StringRecord], row: usize, name: &str) -> &'a str {
    let place = rows[0].iter().position(|column| column == name).unwrap();
    &rows[row][place]
}

#[test]
fn csv_is_rfc_4180_with_every_text_as_it_is() {
    let (file, _) = file_of(Format::Csv, &[line(1), correction(1, "2027-02-01T00:00:00Z")], 1 << 20);
    let expected = "day,corrected_in,account_id,team_id,app_id,client_id,meter,unit,outcome,dimensions,charges,\
        events,quantity,amount_micros,charged_micros,uncharged_micros\r\n\
        2026-12-31,,acct_00000000000000000000000007,team_a,app_a,-client1,web.call,\"call, \"\"each\"\"\",failed,\
        \"{\"\"region\"\": \"\"e\\\"\"u\"\"}\",1,1,3,1500000,1499999,1\r\n\
        2026-12-31,2027-02-01,acct_00000000000000000000000007,team_a,app_a,-client1,web.call,\
        \"call, \"\"each\"\"\",failed,\"{\"\"region\"\": \"\"e\\\"\"u\"\"}\",1,-1,-3,-1500000,-1500000,0\r\n";
    assert_eq!(String::from_utf8(file).unwrap(), expected);
}

#[test]
fn focus_costs_are_exact_on_every_line() {
    let (file, _) = file_of(focus(), &lines(3), 1 << 20);
    let rows = rows(&file);
    // 3 tokens of 3.000001 each.
    assert_eq!((cell(&rows, 3, "EffectiveCost"), cell(&rows, 3, "BilledCost")), ("9.000003", "0.0"));
    assert_eq!((cell(&rows, 3, "PricingQuantity"), cell(&rows, 3, "ListUnitPrice")), ("3.0", "3.000001"));
    assert_eq!((cell(&rows, 2, "ContractedCost"), cell(&rows, 2, "PricingQuantity")), ("4.5000015", "1.5"));
    assert_eq!((cell(&rows, 3, "x_UnchargedTokens"), cell(&rows, 1, "ListCost")), ("0.000002", "0.0"));
    assert_eq!(
        (cell(&rows, 1, "BillingPeriodStart"), cell(&rows, 1, "BillingPeriodEnd")),
        ("2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z")
    );
    assert_eq!(
        (cell(&rows, 1, "ChargePeriodStart"), cell(&rows, 1, "ChargePeriodEnd")),
        ("2026-12-31T00:00:00Z", "2027-01-01T00:00:00Z")
    );
    assert_eq!((cell(&rows, 1, "PricingCurrency"), cell(&rows, 1, "BillingCurrency")), ("Tokens", "USD"));
    assert_eq!((cell(&rows, 1, "BillingAccountName"), cell(&rows, 1, "SubAccountName")), ("Buyer", "Maps"));
    assert_eq!((cell(&rows, 1, "Tags"), cell(&rows, 2, "Tags")), ("", r#"{"dimension/region":"e\"u"}"#));
    assert!("-1".parse::<TokenPrice>().is_err() && "1.0000001".parse::<TokenPrice>().is_err());
}

#[test]
fn d11_a_correction_of_a_month_before_says_so_and_is_of_its_own_month() {
    let (early, late) = (correction(3, "2026-12-01T00:00:00Z"), correction(3, "2027-01-01T00:00:00Z"));
    let (file, _) = file_of(focus(), &[line(3), early, late], 1 << 20);
    let rows = rows(&file);
    let seen: Vec<_> = (1..=3)
        .map(|row| {
            ["ChargeClass", "BillingPeriodStart", "ChargePeriodStart", "ConsumedQuantity", "EffectiveCost"]
                .map(|name| cell(&rows, row, name))
        })
        .collect();
    let december = ["2026-12-01T00:00:00Z", "2026-12-31T00:00:00Z"];
    assert_eq!(
        seen,
        [
            ["", december[0], december[1], "9.0", "13.5000045"],
            ["", december[0], december[1], "-9.0", "-13.5000045"],
            ["Correction", "2027-01-01T00:00:00Z", december[1], "-9.0", "-13.5000045"],
        ]
    );
    assert_eq!(cell(&rows, 3, "BillingPeriodEnd"), "2027-02-01T00:00:00Z");
    assert_eq!(cell(&rows, 3, "PricingQuantity"), "-4.5");
}

/// The columns of the published specification: id, feature level, may be null, data type.
fn published() -> Vec<[&'static str; 4]> {
    let table = include_str!("../../../../tests/fixtures/focus-1.2.tsv");
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| line.split('\t').collect::<Vec<_>>().try_into().unwrap()).collect()
}

/// As the specification writes numbers.
fn is_decimal(cell: &str) -> bool {
    let digits = cell.strip_prefix('-').unwrap_or(cell);
    digits.split_once('.').is_some_and(|(whole, rest)| {
        [whole, rest].iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

#[test]
fn focus_has_the_columns_of_the_published_specification() {
    let published = published();
    assert_eq!(published.len(), 57);
    let ours = super::focus::head();
    for [column, level, ..] in &published {
        assert!(*level != "Mandatory" || ours.contains(column), "{column} is mandatory");
    }
    let file = file_of(focus(), &[line(1), correction(2, "2027-01-01T00:00:00Z")], 1 << 20).0;
    let rows = rows(&file);
    assert!(rows[0].iter().eq(ours));
    let mut custom = false;
    for (place, column) in ours.iter().enumerate() {
        let Some([_, _, nulls, kind]) = published.iter().find(|row| row[0] == *column) else {
            assert!(column.starts_with("x_"), "{column} is not one of the specification");
            custom = true;
            continue;
        };
        assert!(!custom, "{column} stands behind a column of our own");
        for cell in rows[1..].iter().map(|row| &row[place]) {
            assert!(*nulls == "True" || !cell.is_empty(), "{column} must not be null");
            let fits = match *kind {
                _ if cell.is_empty() => true,
                "Decimal" => is_decimal(cell),
                "Date/Time" => cell.len() == 20 && cell.parse::<Timestamp>().is_ok(),
                "JSON" => serde_json::from_str::<serde_json::Map<String, _>>(cell).is_ok(),
                "String" => !cell.trim().is_empty(),
                other => panic!("{column} has the unknown type {other}"),
            };
            assert!(fits, "{column}: {cell} is no {kind}");
        }
    }
    // What the specification asks of usage beside types.
    for name in [
        "PricingCategory",
        "PricingQuantity",
        "PricingUnit",
        "ConsumedQuantity",
        "ConsumedUnit",
        "SkuId",
        "BillingAccountName",
        "SubAccountName",
    ] {
        assert!(!cell(&rows, 1, name).is_empty(), "{name} of usage must not be null");
    }
}

fn field(row: &Row, place: usize) -> &Field {
    row.get_column_iter().nth(place).unwrap().1
}

#[test]
fn parquet_is_read_as_it_was_written_in_groups() {
    let mut written = lines(9);
    written.push(correction(4, "2027-01-01T00:00:00Z"));
    let (file, _) = file_of(Format::Parquet, &written, 1 << 20);
    let reader = SerializedFileReader::new(Bytes::from(file)).unwrap();
    assert_eq!(reader.metadata().num_row_groups(), 3);
    let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 10);
    for (line, row) in written.iter().zip(&rows) {
        let day = i32::try_from(line.day.as_micros() / 86_400_000_000).unwrap();
        // The first of January 2027.
        let month = line.corrected_in.map_or(Field::Null, |_| Field::Date(20_819));
        assert_eq!((field(row, 0), field(row, 1)), (&Field::Date(day), &month));
        assert_eq!(row.get_string(2).unwrap(), &account().to_string());
        assert_eq!(row.get_string(5).unwrap(), &line.client_id);
        assert_eq!(row.get_string(7).unwrap(), &line.unit);
        assert_eq!(row.get_string(8).unwrap(), line.outcome());
        assert_eq!(row.get_string(9).unwrap(), &line.dimensions);
        let numbers: Vec<_> = (10..16).map(|column| row.get_long(column).unwrap()).collect();
        let (amount, open) = (line.amount_micros, line.open_micros);
        assert_eq!(numbers, [1, line.events, line.quantity, amount, amount - open, open]);
    }
}

#[test]
fn how_a_file_is_cut_into_parts_is_of_no_matter() {
    let lines = lines(30);
    for format in [Format::Csv, Format::Parquet, focus()] {
        let (whole, one) = file_of(format.clone(), &lines, usize::MAX);
        for least in [1, 2, 100, 1000, 3000] {
            let (cut, parts) = file_of(format.clone(), &lines, least);
            assert!(one == 1 && (parts > 5 || least > 100), "{format:?} in {parts} parts");
            assert!(whole == cut, "{format:?} in {parts} parts");
        }
    }
    let (empty, _) = file_of(Format::Parquet, &[], 1);
    assert_eq!(
        SerializedFileReader::new(Bytes::from(empty)).unwrap().metadata().file_metadata().num_rows(),
        0
    );
}
