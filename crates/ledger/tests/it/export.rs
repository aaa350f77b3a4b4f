//! Files of usage: their sums are those of the report, and a reader that goes away takes nothing along.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use drawdown_ledger::grpc::Reports;
use drawdown_proto::ledger::v1::{
    ChargeFilter, ExportFormat, ExportSummary, ExportUsageRequest, FocusSettings, InsteadUsage,
    SummarizeUsageRequest, UsageSums, report_service_server::ReportService,
};
use drawdown_service::config::Count;
use drawdown_types::MicroTokens;
use futures::StreamExt as _;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor as _,
};
use sha2::{Digest as _, Sha256};
use tonic::{Code, Request, Status};

use crate::{
    reports::owing,
    world::{Buyer, World, at, calls, instead, proto, reason, refusal},
};

pub(crate) fn days() -> ChargeFilter {
    ChargeFilter {
        from: proto(at("2026-03-01T00:00:00Z")),
        to: proto(at("2026-04-01T00:00:00Z")),
        ..ChargeFilter::default()
    }
}

pub(crate) fn asked(buyer: Buyer, filter: ChargeFilter, format: ExportFormat) -> ExportUsageRequest {
    let focus = FocusSettings {
        billing_currency: "EUR".to_owned(),
        token_price: "2".to_owned(),
        provider_name: "Acme".to_owned(),
        service_name: "Acme API".to_owned(),
        account_name: "Buyer".to_owned(),
        team_names: HashMap::from([(buyer.team.to_string(), "Maps".to_owned())]),
    };
    ExportUsageRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        filter: Some(filter),
        format: format.into(),
        focus: Some(focus),
    }
}

/// A whole file as its reader sees it.
#[derive(Debug)]
struct File {
    bytes: Vec<u8>,
    content_type: String,
    summary: ExportSummary,
    /// In how many parts it came, and the largest of them in bytes.
    parts: (usize, usize),
}

async fn file(world: &World, request: ExportUsageRequest) -> Result<File, Status> {
    file_of(&world.reports, request).await
}

async fn file_of(reports: &Reports, request: ExportUsageRequest) -> Result<File, Status> {
    let mut stream = reports.export_usage(Request::new(request)).await?.into_inner();
    let (mut bytes, mut parts, mut summary) = (Vec::new(), (0, 0), None);
    let mut content_type = String::new();
    while let Some(message) = stream.next().await {
        let message = message?;
        assert!(summary.is_none(), "nothing follows the summary");
        assert_eq!(message.content_type.is_empty(), parts.0 > 0, "the first part says what the file is");
        content_type.push_str(&message.content_type);
        summary = message.summary;
        if summary.is_none() {
            parts = (parts.0 + 1, parts.1.max(message.part.len()));
        }
        bytes.extend(message.part);
    }
    let summary = summary.expect("the summary comes last");
    assert_eq!(summary.size_bytes, i64::try_from(bytes.len()).unwrap());
    assert_eq!(summary.sha256, Sha256::digest(&bytes).as_slice());
    Ok(File { bytes, content_type, summary, parts })
}

async fn totals(world: &World, buyer: Buyer, filter: ChargeFilter) -> UsageSums {
    let request = SummarizeUsageRequest {
        account_id: buyer.account.to_string(),
        team_id: buyer.team.to_string(),
        filter: Some(filter),
        ..SummarizeUsageRequest::default()
    };
    world.reports.summarize_usage(Request::new(request)).await.unwrap().into_inner().totals.unwrap()
}

/// The cells of a CSV file, its head first.
fn cells(file: &[u8]) -> Vec<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(file);
    reader.records().map(Result::unwrap).collect()
}

fn column<'a>(rows: &'a [csv::StringRecord], name: &str) -> impl Iterator<Item = &'a str> {
    let place = rows[0].iter().position(|column| column == name).unwrap();
    rows[1..].iter().map(move |row| &row[place])
}

fn sum(rows: &[csv::StringRecord], name: &str) -> i64 {
    column(rows, name).map(|cell| cell.parse::<i64>().unwrap()).sum()
}

/// Of a column of decimal numbers with at most six places.
fn micros(rows: &[csv::StringRecord], name: &str) -> i64 {
    column(rows, name).map(|cell| cell.parse::<MicroTokens>().unwrap().as_micros()).sum()
}

/// The sums of a Parquet file.
fn parquet_sums(bytes: Vec<u8>) -> UsageSums {
    let reader = SerializedFileReader::new(Bytes::from(bytes)).unwrap();
    let groups = reader.metadata().row_groups();
    assert!(groups.iter().all(|group| group.num_rows() <= 5), "no group is larger than the limit");
    let mut sums = [0; 6];
    for row in reader.get_row_iter(None).unwrap() {
        let row = row.unwrap();
        for (place, sum) in sums.iter_mut().enumerate() {
            *sum += row.get_long(10 + place).unwrap();
        }
    }
    let [charges, events, quantity, amount_micros, charged_micros, open_micros] = sums;
    UsageSums { charges, events, quantity, amount_micros, charged_micros, open_micros }
}

#[tokio::test]
async fn d31_a_file_follows_the_filters_and_its_sums_are_those_of_the_report() {
    let world = World::with(|options| {
        options.reports.export_part_bytes = Count::of(100);
        options.reports.export_group_rows = Count::of(5);
    })
    .await;
    world.priced().await;
    let buyer = world.buyer();
    let apps = owing(&world, buyer).await;
    let byte = ChargeFilter { meters: vec!["byte".to_owned()], ..days() };
    let app = ChargeFilter { app_ids: vec![apps[1].to_string()], ..days() };
    let day = ChargeFilter { to: proto(at("2026-03-10T00:00:00Z")), ..days() };
    let nothing = ChargeFilter { client_ids: vec!["nobody".to_owned()], ..days() };
    for filter in [days(), byte, app, day, nothing] {
        let expected = totals(&world, buyer, filter.clone()).await;
        let csv = file(&world, asked(buyer, filter.clone(), ExportFormat::Csv)).await.unwrap();
        let rows = cells(&csv.bytes);
        let sums = UsageSums {
            charges: sum(&rows, "charges"),
            events: sum(&rows, "events"),
            quantity: sum(&rows, "quantity"),
            amount_micros: sum(&rows, "amount_micros"),
            charged_micros: sum(&rows, "charged_micros"),
            open_micros: sum(&rows, "uncharged_micros"),
        };
        assert_eq!((sums, csv.summary.sums), (expected, Some(expected)), "{filter:?}");
        assert_eq!(i64::try_from(rows.len()).unwrap() - 1, csv.summary.lines);
        assert_eq!(csv.content_type, "text/csv; charset=utf-8; header=present");
        assert!(csv.summary.lines < 5 || csv.parts.0 > 3, "{:?} parts", csv.parts);
        let parquet = file(&world, asked(buyer, filter.clone(), ExportFormat::Parquet)).await.unwrap();
        assert_eq!((parquet.summary.sums, parquet_sums(parquet.bytes)), (Some(expected), expected));
        assert_eq!(parquet.content_type, "application/vnd.apache.parquet");
        let focus = file(&world, asked(buyer, filter, ExportFormat::Focus)).await.unwrap();
        assert_eq!(focus.summary.sums, Some(expected));
        assert!([csv.parts, parquet.parts, focus.parts].iter().all(|(_, largest)| *largest <= 100));
        let rows = cells(&focus.bytes);
        assert_eq!(micros(&rows, "PricingCurrencyEffectiveCost"), expected.amount_micros);
        assert_eq!(micros(&rows, "x_UnchargedTokens"), expected.open_micros);
        assert_eq!(micros(&rows, "ConsumedQuantity"), 1_000_000 * expected.quantity);
        assert!(column(&rows, "SubAccountName").all(|name| name == "Maps"));
        // Two euros a token.
        assert_eq!(micros(&rows, "EffectiveCost"), 2 * expected.amount_micros);
    }
}

#[tokio::test]
async fn d11_corrections_are_lines_of_their_own_below_zero_or_instead() {
    let world = World::new().await;
    world.priced().await;
    let (buyer, producer) = (world.buyer(), world.producer().await);
    world.purchase(buyer, 100, None).await.unwrap();
    world.settle(producer, vec![calls(buyer, 40)]).await;
    let charge = world.charges(buyer).await.remove(0).charge_id;
    // Ten in the month of the usage, and all others in the next one, thirteen of another client id instead.
    world.correct(buyer, &charge, 10, None).await.unwrap();
    world.clock.set(at("2026-04-02T00:00:00Z"));
    let usage = InsteadUsage { client_id: "client-right".to_owned(), ..instead(13) };
    world.correct(buyer, &charge, 0, Some(usage)).await.unwrap();
    let expected = totals(&world, buyer, days()).await;
    assert_eq!((expected.quantity, expected.amount_micros), (13, 6_500_000));
    let csv = file(&world, asked(buyer, days(), ExportFormat::Csv)).await.unwrap();
    let rows = cells(&csv.bytes);
    let lines =
        ["corrected_in", "quantity", "amount_micros"].map(|name| column(&rows, name).collect::<Vec<_>>());
    assert_eq!(lines[0], ["", "2026-03-01", "2026-04-01", "2026-04-01"]);
    assert_eq!(lines[1], ["40", "-10", "-30", "13"]);
    assert_eq!(lines[2], ["20000000", "-5000000", "-15000000", "6500000"]);
    assert_eq!(csv.summary.sums, Some(expected));
    let parquet = file(&world, asked(buyer, days(), ExportFormat::Parquet)).await.unwrap();
    assert_eq!(parquet_sums(parquet.bytes), expected);
    let focus = file(&world, asked(buyer, days(), ExportFormat::Focus)).await.unwrap();
    let rows = cells(&focus.bytes);
    let months = ["2026-03-01T00:00:00Z", "2026-04-01T00:00:00Z"];
    assert!(column(&rows, "ChargeClass").eq(["", "", "Correction", "Correction"]));
    assert!(column(&rows, "BillingPeriodStart").eq([months[0], months[0], months[1], months[1]]));
    assert!(column(&rows, "EffectiveCost").eq(["40.0", "-10.0", "-30.0", "13.0"]));
    world.assert_clean().await;
}

#[tokio::test]
async fn the_same_bytes_come_in_whatever_parts() {
    let world = World::new().await;
    world.priced().await;
    let buyer = world.buyer();
    owing(&world, buyer).await;
    for format in [ExportFormat::Csv, ExportFormat::Parquet, ExportFormat::Focus] {
        let whole = file(&world, asked(buyer, days(), format)).await.unwrap();
        assert_eq!(whole.parts.0, 1);
        for part_bytes in [1, 7, 1000] {
            let other = world.other_reports(|options| {
                options.reports.export_part_bytes = Count::of(part_bytes);
            });
            let cut = file_of(&other, asked(buyer, days(), format)).await.unwrap();
            assert!(cut.parts.0 > whole.bytes.len() / 1001 && cut.parts.1 <= part_bytes);
            assert!(cut.bytes == whole.bytes, "{format:?} in parts of {part_bytes}");
            assert_eq!(cut.summary, whole.summary);
        }
    }
}

#[tokio::test]
async fn an_account_is_one_file_of_all_its_teams() {
    let world = World::new().await;
    world.priced().await;
    let one = world.buyer();
    let two = world.sibling(one);
    for buyer in [one, two, world.buyer()] {
        owing(&world, buyer).await;
    }
    let request = ExportUsageRequest { team_id: String::new(), ..asked(one, days(), ExportFormat::Csv) };
    let File { bytes, summary, .. } = file(&world, request).await.unwrap();
    let rows = cells(&bytes);
    let teams: BTreeSet<_> = column(&rows, "team_id").map(str::to_owned).collect();
    assert_eq!(teams, [one.team, two.team].map(|team| team.to_string()).into());
    let expected =
        totals(&world, one, days()).await.amount_micros + totals(&world, two, days()).await.amount_micros;
    assert_eq!(summary.sums.unwrap().amount_micros, expected);
}

#[tokio::test]
async fn a_reader_that_goes_away_frees_its_place_and_its_connection() {
    let world = World::with(|options| {
        options.reports.exports_max = Count::of(1);
        options.reports.export_part_bytes = Count::of(1);
        options.reports.stream_messages_max = Count::of(1);
        options.database.connections_max = Count::of(2);
    })
    .await;
    world.priced().await;
    let buyer = world.buyer();
    owing(&world, buyer).await;
    let request = || asked(buyer, days(), ExportFormat::Csv);
    for _ in 0..5 {
        let mut stream = world.reports.export_usage(Request::new(request())).await.unwrap().into_inner();
        assert!(!stream.next().await.unwrap().unwrap().part.is_empty());
        // The rest waits for this reader: it has the only place.
        let status = world.reports.export_usage(Request::new(request())).await.unwrap_err();
        assert_eq!(
            (status.code(), refusal(&status).1.as_str()),
            (Code::ResourceExhausted, "EXPORTS_EXHAUSTED")
        );
        drop(stream);
        while let Err(status) = world.reports.export_usage(Request::new(request())).await.map(drop) {
            assert_eq!(refusal(&status).1, "EXPORTS_EXHAUSTED");
            tokio::task::yield_now().await;
        }
        while reason_of_export(&world, request()).await == Some("EXPORTS_EXHAUSTED".to_owned()) {
            tokio::task::yield_now().await;
        }
    }
    assert!(world.balance(buyer).await.used_micros > 0);
}

/// Reads a file to its end; the reason where it was refused.
pub(crate) async fn reason_of_export(world: &World, request: ExportUsageRequest) -> Option<String> {
    file(world, request).await.err().map(|status| refusal(&status).1)
}

#[tokio::test]
async fn what_can_not_be_exported_is_refused() {
    let world = World::new().await;
    let (buyer, other) = (world.buyer(), world.buyer());
    let request = ExportUsageRequest {
        format: 9,
        filter: Some(ChargeFilter { from: proto(at("2026-03-01T01:00:00Z")), ..ChargeFilter::default() }),
        ..asked(buyer, days(), ExportFormat::Csv)
    };
    let (_, why, fields) = refusal(&file(&world, request).await.unwrap_err());
    assert_eq!(
        (why.as_str(), fields),
        ("REQUEST_INVALID", ["filter.from", "filter.to", "format"].map(str::to_owned).to_vec())
    );
    let none = ExportUsageRequest { focus: None, filter: None, ..asked(buyer, days(), ExportFormat::Focus) };
    let (_, _, fields) = refusal(&file(&world, none).await.unwrap_err());
    assert_eq!(fields, ["filter.from", "filter.to", "focus"]);
    let focus = FocusSettings {
        billing_currency: "eur".to_owned(),
        token_price: "-1".to_owned(),
        provider_name: String::new(),
        service_name: "x".repeat(201),
        account_name: String::new(),
        team_names: HashMap::from([
            ("team".to_owned(), "x".to_owned()),
            (buyer.team.to_string(), String::new()),
        ]),
    };
    let wrong = ExportUsageRequest { focus: Some(focus), ..asked(buyer, days(), ExportFormat::Focus) };
    let (_, _, fields) = refusal(&file(&world, wrong).await.unwrap_err());
    let named = format!("team_names[{}]", buyer.team);
    let expected = [
        "billing_currency",
        "token_price",
        "provider_name",
        "service_name",
        "account_name",
        "team_names[team]",
        &named,
    ];
    assert_eq!(fields, expected.map(|name| format!("focus.{name}")));
    let foreign = asked(Buyer { account: other.account, ..buyer }, days(), ExportFormat::Csv);
    assert_eq!(reason(file(&world, foreign).await), "TEAM_UNKNOWN");
}
