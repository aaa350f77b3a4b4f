//! What was posted to the teams of an account, from a cursor on.

use std::future::Future;

use anyhow::Result;
use clap::Args;
use drawdown_client::ledger::postings;
use drawdown_proto::ledger::v1::{ListPostingsRequest, ListPostingsResponse};
use serde_json::{Value, json};
use tonic::{Response, Status};

use super::Connection;
use crate::output::{Column, json_of, number, text, tokens};

/// Postings asked for at once.
const PAGE_ROWS: u32 = 1000;

/// Whose postings, and which of them.
#[derive(Args, Debug)]
pub(crate) struct Postings {
    /// The account
    #[arg(long, value_name = "ACCOUNT_ID")]
    account: String,
    /// One team of it; a cursor goes on only with the same choice [default: all of them]
    #[arg(long, value_name = "TEAM_ID", default_value = "")]
    team: String,
    /// Goes on behind what an earlier answer told (its cursor) [default: the beginning]
    #[arg(long, value_name = "CURSOR", default_value = "")]
    cursor: String,
    /// Only up to this cursor of an earlier answer
    #[arg(long, value_name = "CURSOR", default_value = "")]
    until: String,
    /// Tells nothing but the cursor behind everything that is posted by now
    #[arg(long, conflicts_with_all = ["cursor", "until"])]
    new_only: bool,
    /// At most this many postings
    #[arg(long, value_name = "POSTINGS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    #[command(flatten)]
    connection: Connection,
}

const POSTING: [Column; 9] = [
    text("posted", "posted.at"),
    text("team", "team_id"),
    text("what", "posted.what"),
    number("seq", "posted.seq"),
    text("charge or lot", "posted.of"),
    text("meter", "charge.meter"),
    number("quantity", "charge.quantity"),
    tokens("tokens", "posted.amount_micros"),
    tokens("uncharged", "charge.uncharged_micros"),
];

impl Postings {
    pub(crate) async fn run(self) -> Result<()> {
        let session = self.connection.open()?;
        let client = postings(&session.ledger);
        let begin = ListPostingsRequest {
            account_id: self.account,
            team_id: self.team,
            cursor: self.cursor,
            until: self.until,
            new_only: self.new_only,
            page_size: 0,
        };
        let answer = collect(begin, self.limit, |request| {
            let mut client = client.clone();
            async move { client.list_postings(request).await }
        });
        let mut answer = answer.await?;
        if !session.json
            && let Some(rows) = answer.get_mut("postings").and_then(Value::as_array_mut)
        {
            rows.iter_mut().for_each(describe);
        }
        session.output.table(&answer, "postings", &POSTING)?;
        session.output.line(&way_on(&answer))
    }
}

/// Asks from cursor to cursor, until there is nothing more by now or as many are told as may be.
async fn collect<F, Fut>(mut request: ListPostingsRequest, limit: u32, mut call: F) -> Result<Value>
where
    F: FnMut(ListPostingsRequest) -> Fut,
    Fut: Future<Output = Result<Response<ListPostingsResponse>, Status>>,
{
    let mut left = limit;
    let mut all = ListPostingsResponse::default();
    loop {
        request.page_size = left.min(PAGE_ROWS);
        let page = call(request.clone()).await?.into_inner();
        left = left.saturating_sub(u32::try_from(page.postings.len()).unwrap_or(u32::MAX));
        all.postings.extend(page.postings);
        (all.cursor, all.more) = (page.cursor, page.more);
        if !all.more || left == 0 {
            return json_of("drawdown.ledger.v1.ListPostingsResponse", &all);
        }
        request.cursor.clone_from(&all.cursor);
    }
}

/// What a table shows of charges and of other rows alike, as values of its own.
fn describe(posting: &mut Value) {
    let of = |fact: &str, field: &str| posting.pointer(&format!("/{fact}/{field}")).cloned();
    let posted = if posting.get("charge").is_some_and(Value::is_object) {
        let is_correction = of("charge", "corrects").is_some_and(|id| id != "");
        json!({
            "what": if is_correction { "correction" } else { "usage" },
            "of": of("charge", "charge_id"),
            "seq": of("charge", "seq"),
            "at": of("charge", "posted_at"),
            "amount_micros": of("charge", "amount_micros"),
        })
    } else {
        json!({
            "what": of("row", "kind"),
            "of": of("row", "lot_id"),
            "seq": of("row", "seq"),
            "at": of("row", "posted_at"),
            "amount_micros": of("row", "amount_micros"),
        })
    };
    if let Some(posting) = posting.as_object_mut() {
        posting.insert("posted".to_owned(), posted);
    }
}

fn way_on(answer: &Value) -> String {
    let cursor = answer.get("cursor").and_then(Value::as_str).unwrap_or_default();
    let more = answer.get("more").and_then(Value::as_bool).unwrap_or_default();
    let what = if more { "more follows already" } else { "this is everything by now" };
    format!("{what}; go on with --cursor {cursor}")
}

#[cfg(test)]
mod tests {
    use drawdown_proto::ledger::v1::{JournalRow, PostedCharge, Posting, posting::Fact};

    use super::*;

    /// A ledger with five postings, at most two a page, whose cursor is the number of those that were told.
    async fn of_five(cursor: &str, limit: u32) -> (Value, Vec<(String, u32)>) {
        let mut asked = Vec::new();
        let begin = ListPostingsRequest { cursor: cursor.to_owned(), ..ListPostingsRequest::default() };
        let answer = collect(begin, limit, |request| {
            let told: u32 = if request.cursor.is_empty() { 0 } else { request.cursor.parse().unwrap() };
            let next = (told + request.page_size.min(2)).min(5);
            asked.push((request.cursor, request.page_size));
            let postings = (told..next).map(|_| Posting::default()).collect();
            let answer = ListPostingsResponse { postings, cursor: next.to_string(), more: next < 5 };
            async move { Ok(Response::new(answer)) }
        });
        (answer.await.unwrap(), asked)
    }

    #[tokio::test]
    async fn postings_are_read_from_cursor_to_cursor() {
        for (cursor, limit, told, next, more, asked) in [
            ("", 1000, 5, "5", false, &[("", 1000), ("2", 998), ("4", 996)][..]),
            ("", 3, 3, "3", true, &[("", 3), ("2", 1)]),
            ("3", 1000, 2, "5", false, &[("3", 1000)]),
            ("5", 1000, 0, "5", false, &[("5", 1000)]),
            ("", 5000, 5, "5", false, &[("", 1000), ("2", 1000), ("4", 1000)]),
        ] {
            let (answer, pages) = of_five(cursor, limit).await;
            let pages: Vec<_> = pages.iter().map(|(cursor, size)| (cursor.as_str(), *size)).collect();
            assert_eq!(pages, asked, "{cursor} {limit}");
            assert_eq!(answer["postings"].as_array().unwrap().len(), told, "{cursor} {limit}");
            assert_eq!((&answer["cursor"], &answer["more"]), (&next.into(), &more.into()));
        }
        let words = way_on(&of_five("", 3).await.0);
        assert_eq!(words, "more follows already; go on with --cursor 3");
        assert_eq!(way_on(&of_five("", 9).await.0), "this is everything by now; go on with --cursor 5");
    }

    #[test]
    fn charges_and_other_rows_are_told_in_the_same_columns() {
        let of = |fact| {
            let posting = Posting { fact: Some(fact), ..Posting::default() };
            let mut row = json_of("drawdown.ledger.v1.Posting", &posting).unwrap();
            describe(&mut row);
            let posted = &row["posted"];
            (
                posted["what"].clone(),
                posted["of"].clone(),
                posted["seq"].clone(),
                posted["amount_micros"].clone(),
            )
        };
        let charge = |corrects: &str, amount_micros| {
            let corrects = corrects.to_owned();
            let charge_id = "chg_1".to_owned();
            Fact::Charge(PostedCharge {
                charge_id,
                seq: 7,
                corrects,
                amount_micros,
                ..PostedCharge::default()
            })
        };
        let row = JournalRow {
            kind: "purchase".to_owned(),
            lot_id: "lot_1".to_owned(),
            seq: 1,
            amount_micros: 100,
            ..JournalRow::default()
        };
        let told =
            |what: &str, of: &str, seq: i64, micros: i64| (json!(what), json!(of), json!(seq), json!(micros));
        assert_eq!(of(charge("", 50)), told("usage", "chg_1", 7, 50));
        assert_eq!(of(charge("chg_0", -50)), told("correction", "chg_1", 7, -50));
        assert_eq!(of(Fact::Row(row)), told("purchase", "lot_1", 1, 100));
    }
}
