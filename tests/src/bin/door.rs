//! The reads over HTTP, driven by programs that are not ours against `drawdown up`: curl asks all of them, grpcio and `buf curl` ask the
//! same by gRPC and must get the same, a validator of OpenAPI judges the contract and the answers, and a billing system in Python
//! reconciles what was charged.
#![expect(clippy::print_stdout, reason = "a check prints")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use drawdown_tests::{
    door::{Call, Scene, alike, calls, curl},
    foreign::verify,
    process::drawdown_binary,
    up::{Up, text},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Asked by buf as well, which reads the contracts by reflection: one of each service, and what has maps, enums and lists.
const BY_BUF: [&str; 6] = [
    "CatalogService_ListMeters",
    "HierarchyService_GetAccount",
    "PostingService_ListPostings",
    "TokenService_GetBalance",
    "TokenService_ListCharges",
    "UsageService_GetLiveUsage",
];
const RECONCILED: &str = "reconciled to the micro-token";

/// Runs programs of others.
#[derive(Debug, Parser)]
struct Args {
    /// The interpreter that has grpcio.
    #[arg(long)]
    python: PathBuf,
    /// The folder of the code that was generated for it.
    #[arg(long)]
    stubs: PathBuf,
    /// The interpreter that has a validator of OpenAPI.
    #[arg(long)]
    validator: PathBuf,
    /// buf.
    #[arg(long)]
    buf: PathBuf,
    /// The folder of the programs in Python.
    #[arg(long)]
    scripts: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let dir = TempDir::with_prefix("drawdown-door-")?;
    let up = Up::start(dir.path()).await?;
    let scene = Scene::set_up(&up, dir.path())?;

    let documents = documents(&up, &scene, dir.path())?;
    let calls = calls(&scene, &documents)?;
    for call in &calls {
        call.ask(dir.path())?;
    }
    println!("curl: {} reads answered", calls.len());
    refusals(&scene)?;

    let listed = dir.path().join("calls.json");
    let told: Vec<Value> = calls.iter().map(Call::told).collect();
    std::fs::write(&listed, serde_json::to_vec(&told)?)?;
    let mut compare = Command::new(&args.python);
    run(compare.arg(args.scripts.join("door_grpc.py")).arg(&args.stubs).arg(&listed).arg(dir.path()))?;
    let mut validate = Command::new(&args.validator);
    run(validate.arg(args.scripts.join("door_openapi.py")).arg(&listed).arg(dir.path()))?;
    by_buf(&args.buf, &calls, dir.path())?;
    reconcile(&args, &up, &scene, dir.path())?;
    verify(&up)?;
    up.stop().await?;
    secured(&args, &scene, dir.path()).await
}

/// The same data behind TLS and with callers that have to be known: a reader of the account reconciles it, and nobody else.
async fn secured(args: &Args, scene: &Scene, dir: &Path) -> Result<()> {
    let certs = dir.join("certs");
    let file = |name: &str| certs.join(name).to_string_lossy().into_owned();
    let mut made = Command::new(drawdown_binary()?);
    run(made.args(["certs", "dev", "--client", "operator", "--out"]).arg(&certs))?;
    let on = ["METERING", "LEDGER", "ENTITLEMENT"].map(|of| format!("DRAWDOWN_{of}__SERVER__IDENTITY__MODE"));
    let on: Vec<_> = on.iter().map(|variable| (variable.as_str(), "on")).collect();
    let up = Up::start_secured(dir, &on).await?;
    let files = ["--tls-certificate", &file("operator.pem"), "--tls-key", &file("operator.key")];
    let key = |account: &str, path: &Path| -> Result<()> {
        let reader =
            ["principals", "create", "--name", "billing", "--role", "billing-reader", "--account", account];
        let reader = up.json(&[&reader[..], &files].concat())?;
        let made =
            up.json(&[&["keys", "create", text(&reader, "/principal/principal_id")?], &files[..]].concat())?;
        Ok(std::fs::write(path, text(&made, "/text")?)?)
    };
    let other = ["account", "create", "--name", "Other", "--contract", "flex"];
    let other = up.json(&[&other[..], &files].concat())?;
    let (mine, theirs) = (dir.join("mine.key"), dir.join("theirs.key"));
    key(&scene.account, &mine)?;
    key(text(&other, "/account/account_id")?, &theirs)?;
    let addresses = up.addresses()?;
    let ledger = text(&addresses, "/services/ledger/grpc")?;
    let reconciled = |key: Option<&Path>, ca: bool| -> Result<(bool, String)> {
        let mut command = Command::new(&args.python);
        command.arg(args.scripts.join("reconcile.py")).arg(ledger).arg(&scene.account);
        command.arg(&scene.period.0).arg(&scene.period.1).arg("--store").arg(dir.join("secured.jsonl"));
        command.args(["--certificate", &file("client.pem"), "--key", &file("client.key")]);
        command.args(ca.then(|| ["--ca".to_owned(), file("trust-bundle.pem")]).into_iter().flatten());
        if let Some(key) = key {
            command.arg("--api-key-file").arg(key);
        }
        let output = command.env_remove("DRAWDOWN_API_KEY").output().context("reconcile.py")?;
        let said = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.success(), said))
    };
    for (key, ca, refusal) in [
        (None, true, "ROLE_NEEDED"),
        (Some(theirs.as_path()), true, "NOT_IN_SCOPE"),
        (Some(mine.as_path()), false, "CERTIFICATE_VERIFY_FAILED"),
    ] {
        let (well, said) = reconciled(key, ca)?;
        ensure!(!well && said.contains(refusal), "{refusal} was expected: {said}");
    }
    let (well, said) = reconciled(Some(&mine), true)?;
    ensure!(well && said.contains(RECONCILED), "{said}");
    println!("reconcile.py: by TLS and with a key of the account, and refused without");
    up.stop().await
}

/// The contract of all services, as it is printed; what each of them serves is its part of it.
fn documents(up: &Up, scene: &Scene, dir: &Path) -> Result<Value> {
    let printed = |arguments: &[&str]| -> Result<Value> {
        let output = up.cli(arguments)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    };
    let all = printed(&["openapi"])?;
    for (service, url) in &scene.services {
        let served = curl(&["--fail", &format!("{url}/v1/openapi.json")])?;
        let served: Value = serde_json::from_slice(&served)?;
        ensure!(served == printed(&["openapi", "--service", service])?, "{service} serves another contract");
        std::fs::write(dir.join(format!("{service}.openapi.json")), serde_json::to_vec(&served)?)?;
    }
    std::fs::write(dir.join("all.openapi.json"), serde_json::to_vec(&all)?)?;
    Ok(all)
}

/// What is wrong is told by its name, under the code of HTTP that belongs to it.
fn refusals(scene: &Scene) -> Result<()> {
    let ledger = scene.url("ledger")?;
    for (target, code, reason, field) in [
        ("/v1/meters?limit=1", "400", "REQUEST_INVALID", "limit"),
        ("/v1/teams/team_1/balance", "400", "REQUEST_INVALID", "team_id"),
        ("/v1/nothing", "404", "PATH_UNKNOWN", ""),
        ("/drawdown.ledger.v1.TokenService/GetBalance", "404", "PATH_UNKNOWN", ""),
    ] {
        let answer = curl(&["--write-out", "\n%{http_code}", &format!("{ledger}{target}")])?;
        let answer = String::from_utf8(answer)?;
        let (body, told) = answer.rsplit_once('\n').context("no code")?;
        let status: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        ensure!(told == code, "{target} is answered with {told}: {status}");
        let details = status["details"].as_array().context("no details")?;
        ensure!(details.iter().any(|detail| detail["reason"] == reason), "{target}: {status}");
        let named = details.iter().filter_map(|detail| detail["fieldViolations"].as_array()).flatten();
        ensure!(
            field.is_empty() || named.into_iter().any(|named| named["field"] == field),
            "{target}: {status}"
        );
    }
    Ok(())
}

/// buf knows nothing of the contracts but what reflection tells.
fn by_buf(buf: &Path, calls: &[Call], dir: &Path) -> Result<()> {
    for operation in BY_BUF {
        let call = calls.iter().find(|call| call.operation == operation);
        let call = call.with_context(|| format!("{operation} is not asked"))?;
        let mut command = Command::new(buf);
        command.args(["curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data"]);
        command.arg(call.request.to_string()).arg(format!("{}/{}", call.url, call.method));
        let output = command.output().context("buf")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "buf curl {} failed: {errors}", call.method);
        let theirs: Value = serde_json::from_slice(&output.stdout).with_context(|| operation.to_owned())?;
        let ours: Value = serde_json::from_slice(&std::fs::read(dir.join(&call.answer))?)?;
        ensure!(alike(&ours) == alike(&theirs), "{operation}: curl got {ours}, buf {theirs}");
    }
    println!("buf curl: {} reads are the same by reflection", BY_BUF.len());
    Ok(())
}

/// A month is reconciled, and again after more usage; with a row altered it is not.
fn reconcile(args: &Args, up: &Up, scene: &Scene, dir: &Path) -> Result<()> {
    let store = dir.join("postings.jsonl");
    let told = reconciled(args, scene, &store, false)?;
    ensure!(told.0 && told.1.contains(RECONCILED), "{}", told.1);
    scene.use_more(up)?;
    let told = reconciled(args, scene, &store, false)?;
    ensure!(told.0 && told.1.contains("pulled 1 postings"), "{}", told.1);
    print!("reconcile.py:\n{}", told.1);

    let kept = std::fs::read_to_string(&store)?;
    let lines: Vec<&str> = kept.lines().collect();
    let paid =
        lines.iter().position(|line| line.contains("\"kind\": \"charge\"")).context("nothing was paid")?;
    let altered = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    let one_more = |lines: &mut Vec<String>| {
        if let Some(line) = lines.get_mut(paid)
            && let Ok(mut row) = serde_json::from_str::<Value>(line)
            && let Some(amount) = row.pointer("/charge/rows/0/amountMicros").and_then(Value::as_str)
            && let Ok(amount) = amount.parse::<i64>()
        {
            row["charge"]["rows"][0]["amountMicros"] = json!((amount + 1).to_string());
            *line = row.to_string();
        }
    };
    let doubled = |lines: &mut Vec<String>| lines.extend(lines.get(paid).cloned());
    let missing = |lines: &mut Vec<String>| drop(lines.remove(paid));
    let changes: [(&str, String, &str); 3] = [
        ("one micro-token more", altered(&one_more), "by the balance"),
        ("a row twice", altered(&doubled), "some missing or doubled"),
        ("a row less", altered(&missing), "by the statement"),
    ];
    for (what, content, difference) in changes {
        ensure!(content != kept, "{what}: nothing was altered");
        std::fs::write(&store, content)?;
        let (well, said) = reconciled(args, scene, &store, true)?;
        ensure!(!well && said.contains(difference), "{what} was not found: {said}");
    }
    println!("reconcile.py: an altered, a doubled and a missing row are each found");
    Ok(())
}

fn reconciled(args: &Args, scene: &Scene, store: &Path, offline: bool) -> Result<(bool, String)> {
    let mut command = Command::new(&args.python);
    command.arg(args.scripts.join("reconcile.py")).arg(scene.url("ledger")?).arg(&scene.account);
    command.arg(&scene.period.0).arg(&scene.period.1).arg("--store").arg(store);
    command.args(offline.then_some("--offline"));
    let output = command.output().context("reconcile.py")?;
    let said = String::from_utf8(output.stdout)? + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.success(), said))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("{command:?} ended with {}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    print!("{said}");
    Ok(())
}
