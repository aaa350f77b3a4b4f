//! Lists come in pages; a command asks for pages until it has as many rows as it may print.

use std::future::Future;

use anyhow::Result;
use clap::Args;
use prost::Message;
use serde_json::{Value, json};
use tonic::{Response, Status};

use crate::output::json_of;

/// Rows asked for at once.
const PAGE_ROWS: u32 = 1000;

/// Which part of a list.
#[derive(Args, Debug)]
pub(crate) struct Pages {
    /// At most this many rows
    #[arg(long, value_name = "ROWS", default_value_t = 1000)]
    limit: u32,
    /// Goes on where an earlier answer ended (its next_page_token with --json)
    #[arg(long, value_name = "TOKEN", default_value = "")]
    page_token: String,
}

impl Pages {
    /// The rows of `list` as JSON, the token of what was left, and how far the data reaches where the first page says so.
    pub(crate) async fn collect<M, F, Fut>(self, name: &str, list: &str, mut call: F) -> Result<Value>
    where
        M: Message,
        F: FnMut(u32, String) -> Fut,
        Fut: Future<Output = Result<Response<M>, Status>>,
    {
        let mut rows: Vec<Value> = Vec::new();
        let mut token = self.page_token;
        let mut left = self.limit;
        let mut completeness = None;
        while left > 0 {
            let answer = call(left.min(PAGE_ROWS), token).await?.into_inner();
            let mut page = json_of(name, &answer)?;
            let found =
                page.get_mut(list).and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
            token = page.get("next_page_token").and_then(Value::as_str).unwrap_or_default().to_owned();
            completeness = completeness.or_else(|| page.get("completeness").cloned());
            left = left.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            rows.extend(found);
            if token.is_empty() {
                break;
            }
        }
        let mut answer = json!({ list: rows, "next_page_token": token });
        if let (Some(members), Some(completeness)) = (answer.as_object_mut(), completeness) {
            members.insert("completeness".to_owned(), completeness);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use drawdown_proto::entitlement::v1::{ListTeamsResponse, Team};

    use super::*;

    async fn collect(limit: u32) -> (usize, String, Vec<(u32, String)>) {
        let mut asked = Vec::new();
        let pages = Pages { limit, page_token: String::new() };
        let all = pages
            .collect("drawdown.entitlement.v1.ListTeamsResponse", "teams", |size, token| {
                let next = token.len() + 1;
                asked.push((size, token));
                let teams = vec![Team::default(); usize::try_from(size.min(2)).unwrap()];
                let next_page_token = if next < 3 { "x".repeat(next) } else { String::new() };
                async move { Ok(Response::new(ListTeamsResponse { teams, next_page_token })) }
            })
            .await
            .unwrap();
        let token = all["next_page_token"].as_str().unwrap().to_owned();
        (all["teams"].as_array().unwrap().len(), token, asked)
    }

    #[tokio::test]
    async fn pages_are_read_to_the_end_or_to_the_limit() {
        let asked =
            |pages: &[(u32, &str)]| pages.iter().map(|(n, t)| (*n, (*t).to_owned())).collect::<Vec<_>>();
        assert_eq!(collect(100).await, (6, String::new(), asked(&[(100, ""), (98, "x"), (96, "xx")])));
        assert_eq!(collect(3).await, (3, "xx".to_owned(), asked(&[(3, ""), (1, "x")])));
        assert_eq!(collect(0).await, (0, String::new(), Vec::new()));
    }
}
