//! An account with everything that can be read, and a call for each read over HTTP, made from the OpenAPI document: a read that is
//! added there is asked too, and fails the check until it is known how.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use drawdown_types::{Clock as _, SystemClock};
use serde_json::{Map, Value, json};

use crate::{
    foreign::Platform,
    up::{Up, text},
};

const METERS: [(&str, &str); 2] = [("door.call", "count"), ("door.byte", "sum")];
/// A stream without an end is read for so many seconds.
const WATCHED_SECS: &str = "1";
/// curl's word for a time that is over.
const TIMED_OUT: i32 = 28;

/// What there is to read.
#[derive(Debug)]
pub struct Scene {
    /// The account.
    pub account: String,
    /// First instant of the period of its statements, and the first one after it.
    pub period: (String, String),
    /// Addresses by service.
    pub services: BTreeMap<String, String>,
    client: String,
    ids: BTreeMap<&'static str, String>,
}

/// One read.
#[derive(Debug)]
pub struct Call {
    /// As in OpenAPI.
    pub operation: String,
    /// `package.Service/Method`.
    pub method: String,
    /// Of its service.
    pub url: String,
    /// As proto3 JSON.
    pub request: Value,
    /// The file that its answer is in.
    pub answer: PathBuf,
    post: bool,
    target: String,
    path: String,
    is_stream: bool,
}

// === impl Scene ===

impl Scene {
    /// A team with usage that is paid, owed, netted and taken back, a hold, a budget, a moved lot, a statement; people and a transfer.
    ///
    /// # Errors
    /// The first refusal.
    pub fn set_up(up: &Up, dir: &Path) -> Result<Self> {
        let platform = Platform::set_up(up, dir, 1, &METERS)?;
        let addresses = up.addresses()?;
        let url = |name: &str| text(&addresses, &format!("/services/{name}/grpc")).map(str::to_owned);
        let services = ["entitlement", "ledger", "metering"].into_iter();
        let services = services.map(|name| Ok((name.to_owned(), url(name)?))).collect::<Result<_>>()?;
        let now = SystemClock.now().to_string();
        let month = format!("{}-01T00:00:00Z", now.get(..7).context("an instant")?);
        let client = platform.clients.first().context("a client")?.clone();
        let mut scene = Self {
            account: platform.account.clone(),
            period: (month, String::new()),
            services,
            client,
            ids: BTreeMap::new(),
        };
        // An app is given its team in the past before there is usage of it.
        scene.people(up, &platform)?;
        scene.post(up, &platform)?;
        Ok(scene)
    }

    /// Where a service is.
    ///
    /// # Errors
    /// Where there is no such service.
    pub fn url(&self, service: &str) -> Result<&str> {
        self.services.get(service).map(String::as_str).with_context(|| format!("no {service}"))
    }

    /// One more charge.
    ///
    /// # Errors
    /// Where it is not recorded.
    pub fn use_more(&self, up: &Up) -> Result<()> {
        self.record(up, "more", "door.byte", 7)
    }

    fn post(&mut self, up: &Up, platform: &Platform) -> Result<()> {
        let (account, team) = (platform.account.as_str(), platform.team.as_str());
        let whose = ["--account", account, "--team", team];
        let lots = ["--pool", "promotional", "--expires-at", "2030-01-01T00:00:00Z", "--note", "door"];
        let grant =
            |tokens: &'static str| up.json(&[&["tokens", "grant", tokens], &whose[..], &lots].concat());
        grant("3")?;
        self.record(up, "paid", "door.byte", 2_000)?;
        self.record(up, "owed", "door.byte", 4_000)?;
        let lot = grant("50")?;
        let charges = up.json(&["charges", team])?;
        let charge = text(&charges, "/charges/0/charge_id")?.to_owned();
        up.json(&[&["ledger", "correct", charge.as_str(), "--reason", "twice"], &whose[..]].concat())?;
        let hold = up.json(&[&["hold", "reserve", "0.5", "--lasts-ms", "3600000"], &whose[..]].concat())?;
        let budget = up.json(&[&["budget", "set", "--cap", "500", "--soft", "50"], &whose[..]].concat())?;
        let other = up.json(&["team", "create", "--account", account, "--name", "Other"])?;
        let other = text(&other, "/team/team_id")?;
        let movable = up.json(&[&["tokens", "grant", "5"], &whose[..], &lots].concat())?;
        let movable = text(&movable, "/lot/lot_id")?;
        let way = ["--from", team, "--to", other, "--reason", "door"];
        up.json(&[&["lot", "move", movable, "--account", account], &way[..]].concat())?;
        text(&lot, "/lot/lot_id")?;
        self.record(up, "calls", "door.call", 1)?;

        self.period.1 = SystemClock.now().to_string();
        let period = ["--from", self.period.0.as_str(), "--to", self.period.1.as_str()];
        let issued = up.json(&[&["statement", "issue", "--account", account], &period[..]].concat())?;
        let statement = text(&issued, "/statements/0/statement/statement_id")?.to_owned();
        self.ids.extend([
            ("accountId", account.to_owned()),
            ("teamId", team.to_owned()),
            ("chargeId", charge),
            ("holdId", text(&hold, "/hold/hold_id")?.to_owned()),
            ("budgetId", text(&budget, "/budget/budget_id")?.to_owned()),
            ("statementId", statement),
            ("clientId", self.client.clone()),
            ("query.clientId", self.client.clone()),
        ]);
        Ok(())
    }

    fn people(&mut self, up: &Up, platform: &Platform) -> Result<()> {
        let user = |mail: &str| -> Result<String> {
            let made = up.json(&["user", "create", "--email", mail, "--name", "Ada"])?;
            Ok(text(&made, "/user/user_id")?.to_owned())
        };
        let (ada, bob) = (user("ada@example.com")?, user("bob@example.com")?);
        up.json(&["role", "set", &ada, "primary-admin", "--team", &platform.team])?;
        let app =
            ["app", "create", "--account", platform.account.as_str(), "--name", "B", "--owner", ada.as_str()];
        let app = up.json(&app)?;
        let app = text(&app, "/app/app_id")?.to_owned();
        let from = "2026-01-01T00:00:00Z";
        up.json(&["app", "assign", &app, "--team", &platform.team, "--from", from])?;
        let transfer = up.json(&["transfer", "invite", &app, "--to", &bob])?;
        let transfer = text(&transfer, "/transfer/transfer_id")?.to_owned();
        self.ids.extend([("userId", ada), ("appId", app), ("transferId", transfer)]);
        Ok(())
    }

    /// Usage by an event over HTTP, which is answered when it is charged.
    fn record(&self, up: &Up, id: &str, meter: &str, quantity: u64) -> Result<()> {
        let addresses = up.addresses()?;
        let metering = text(&addresses, "/services/metering/grpc")?;
        let event = json!({
            "specversion": "1.0", "source": "/door", "id": id, "type": meter, "subject": self.client,
            "time": SystemClock.now().to_string(), "data": { "quantity": quantity },
        });
        let kind = "content-type: application/cloudevents+json";
        curl(&[
            "--fail-with-body",
            "--header",
            kind,
            "--data",
            &event.to_string(),
            &format!("{metering}/v1/events"),
        ])
        .map(drop)
    }

    fn id(&self, name: &str) -> Result<&str> {
        self.ids.get(name).map(String::as_str).with_context(|| format!("it is not known what {name} is"))
    }

    /// What a read is asked besides what is in its path.
    fn parameters(&self, operation: &str) -> Result<Vec<(&'static str, Value)>> {
        let account = json!(self.account);
        let team = json!(self.id("teamId")?);
        Ok(match operation {
            "TokenService_GetBalance"
            | "TokenService_ListLots"
            | "TokenService_ListCharges"
            | "TokenService_ListJournal"
            | "ExplainService_ExplainCharge"
            | "HistoryService_ListAudit"
            | "TransferService_ListTransfers" => vec![("accountId", account)],
            "MemberService_ListRoles" | "MemberService_ListProductAssignments" => vec![("teamId", team)],
            "NoticeService_ListNotices" | "NoticeService_WatchNotices" => vec![("filter.accountId", account)],
            "ReportService_SummarizeUsage" => vec![("groupBy", json!(["USAGE_KEY_TEAM", "USAGE_KEY_METER"]))],
            "ReportService_ExportUsage" => vec![
                ("format", json!("EXPORT_FORMAT_CSV")),
                ("filter.from", json!(self.period.0)),
                ("filter.to", json!("2030-01-01T00:00:00Z")),
            ],
            "WhatIfService_PriceMonth_post" => vec![
                ("teamId", team),
                ("month", json!(self.period.0)),
                ("inForce", json!("CONTRACT_KIND_FLEX")),
            ],
            "ResolutionService_BatchResolve_post" => {
                vec![("queries", json!([{ "clientId": self.client, "at": self.period.1 }]))]
            }
            "ResolutionService_Resolve" => vec![("query.at", json!(self.period.1))],
            "HistoryService_ExplainResolution" => vec![("at", json!(self.period.1))],
            "UsageService_GetLiveUsage"
            | "UsageService_WatchLiveUsage"
            | "UsageService_GetLiveUsage_post"
            | "UsageService_WatchLiveUsage_post" => {
                vec![("clientIds", json!([self.client]))]
            }
            _ => Vec::new(),
        })
    }
}

/// A call for each operation of the document.
///
/// # Errors
/// Where it is not known what a path asks for.
pub fn calls(scene: &Scene, document: &Value) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    for (path, operations) in document["paths"].as_object().context("no paths")? {
        for (http_method, operation) in operations.as_object().context("no operations")? {
            calls.push(call(scene, path, http_method == "post", operation)?);
        }
    }
    ensure!(calls.len() > 40, "{} reads are few", calls.len());
    Ok(calls)
}

fn call(scene: &Scene, path: &str, post: bool, description: &Value) -> Result<Call> {
    let operation = text(description, "/operationId")?.to_owned();
    let method = text(description, "/x-grpc-method")?.to_owned();
    let service = method.split('.').nth(1).context("a package")?;
    let (mut target, mut request) = (path.to_owned(), Map::new());
    while let Some((before, rest)) = target.split_once('{') {
        let (name, after) = rest.split_once('}').context("a name")?;
        let id = scene.id(name).with_context(|| path.to_owned())?;
        insert(&mut request, name, json!(id))?;
        target = format!("{before}{id}{after}");
    }
    let mut query = Vec::new();
    for (name, value) in scene.parameters(&operation)? {
        insert(&mut request, name, value.clone())?;
        let values = if let Value::Array(values) = value { values } else { vec![value] };
        query.extend(values.iter().filter_map(Value::as_str).map(|value| format!("{name}={value}")));
    }
    if !post && !query.is_empty() {
        target = format!("{target}?{}", query.join("&"));
    }
    Ok(Call {
        answer: PathBuf::from(format!("{operation}.answer")),
        is_stream: description.pointer("/responses/200/content/application~1x-ndjson").is_some(),
        url: scene.url(service)?.to_owned(),
        path: path.to_owned(),
        request: Value::Object(request),
        operation,
        method,
        post,
        target,
    })
}

/// A value at a dotted name.
fn insert(object: &mut Map<String, Value>, name: &str, value: Value) -> Result<()> {
    match name.split_once('.') {
        None => drop(object.insert(name.to_owned(), value)),
        Some((outer, inner)) => {
            let inside = object.entry(outer).or_insert_with(|| json!({}));
            insert(inside.as_object_mut().context("an object")?, inner, value)?;
        }
    }
    Ok(())
}

// === impl Call ===

impl Call {
    /// By curl, the answer into its file.
    ///
    /// # Errors
    /// Where it is not 200.
    pub fn ask(&self, dir: &Path) -> Result<()> {
        let (file, url) = (dir.join(&self.answer), format!("{}{}", self.url, self.target));
        let watches = self.target.contains(":watch");
        let body = self.request.to_string();
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--globoff",
            "--write-out",
            "%{http_code} %{content_type}",
        ]);
        command.args(["--max-time", if watches { WATCHED_SECS } else { "30" }]).arg("--output").arg(&file);
        if self.post {
            command.args(["--header", "content-type: application/json", "--data", &body]);
        }
        let output = command.arg(&url).output().context("curl")?;
        let told = String::from_utf8_lossy(&output.stdout);
        let expected = if self.is_stream { "200 application/x-ndjson" } else { "200 application/json" };
        let ended = output.status.success() || (watches && output.status.code() == Some(TIMED_OUT));
        if !ended || told != expected {
            let answer = std::fs::read_to_string(&file).unwrap_or_default();
            bail!("{url}: {told} {answer} {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// For the other programs.
    #[must_use]
    pub fn told(&self) -> Value {
        json!({
            "operation": self.operation, "method": self.method, "address": self.url.trim_start_matches("http://"),
            "request": self.request, "answer": self.answer, "is_stream": self.is_stream, "path": self.path,
            "http_method": if self.post { "post" } else { "get" },
        })
    }
}

/// Runs curl, and gives what it printed.
///
/// # Errors
/// Where it fails.
pub fn curl(arguments: &[&str]) -> Result<Vec<u8>> {
    let always = ["--silent", "--show-error", "--globoff", "--max-time", "30"];
    let output = Command::new("curl").args(always).args(arguments).output().context("curl")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "curl {arguments:?}: {errors} {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(output.stdout)
}

/// An answer without what is 0 or empty, which proto3 JSON may leave out, and without what is only of the instant of the answer.
#[must_use]
pub fn alike(value: &Value) -> Value {
    const OF_THE_INSTANT: [&str; 3] = ["at", "completeUpTo", "finalUpTo"];
    let is_default = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0" || text.ends_with("_UNSPECIFIED"),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(true) => false,
    };
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name.clone(), alike(value)));
            members
                .filter(|(name, value)| !is_default(value) && !OF_THE_INSTANT.contains(&name.as_str()))
                .collect()
        }
        Value::Array(items) => items.iter().map(alike).collect(),
        other => other.clone(),
    }
}
