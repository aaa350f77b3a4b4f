//! The whole system by mTLS only and with callers that have to be known, at the most talkative log level, with a secret
//! planted wherever one is given, those that the system gives out itself among them: an API key, a token, the secret of a
//! credential and the one that took its place. Usage flows from the producer into the ledger, nothing else gets in, and
//! afterwards none of the secrets is anywhere.

use std::{
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{ChannelOptions, TlsOptions, clients::entitlement, connect};
use drawdown_proto::entitlement::v1::VerifyCredentialRequest;
use drawdown_sandbox::Sandbox;
use drawdown_tests::{
    planted::Planted,
    process::drawdown_binary,
    scrape,
    up::{Up, text},
};
use drawdown_tls::{ALPN_HTTP1, Connector, Files};
use drawdown_types::ProducerId;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message as _;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::matrix::credentials::{AUDIENCE, ISSUER, Issuer};

/// What callers prove who they are by.
struct Proofs {
    /// Of an operator.
    key: String,
    /// Of the platform's operator, by an issuer outside.
    token: String,
    /// Nobody's.
    wrong: String,
}

const SERVICES: [&str; 3] = ["metering", "ledger", "entitlement"];
const RULES: &str = "[[rule]]\npath_prefix = \"/tiles\"\nclient_id = \"CLIENT\"\nmeter = \"tile\"\n";
const LINE: &str = "{\"time\":\"2026-01-01T00:00:00Z\",\"method\":\"GET\",\"path\":\"/tiles/1\",\"status\":200,\"bytes\":10}\n";
const CARD: &str = "name = \"tiles\"\ncontract = \"flex\"\neffective_from = \"2020-01-01T00:00:00Z\"\n\
    [[prices]]\nmeter = \"tile\"\ntokens = \"2.5\"\nper_units = 1\n";

/// Keeps everything that is exported as it came.
#[derive(Clone, Debug, Default)]
struct Traces(Arc<Mutex<Vec<u8>>>);

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let bytes = request.into_inner().encode_to_vec();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Traces {
    /// Serves until the process ends.
    async fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = format!("http://{}", listener.local_addr()?);
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(address)
    }
}

/// Private servers with a login that has a secret.
async fn servers(dir: &Path, planted: &mut Planted) -> Result<(Sandbox, [String; 2])> {
    let options = drawdown_sandbox::Options {
        data_dir: Some(dir.join("servers")),
        postgres_url: None,
        redis_url: None,
        synced: false,
        ..drawdown_sandbox::Options::from_env()?
    };
    let sandbox = tokio::task::spawn_blocking(move || Sandbox::start(options)).await??;
    let postgres = planted.secret("password of the database", "planted-password-of-postgres")?;
    let redis = planted.secret("password of Redis", "planted-password-of-redis")?;
    let mut session = PgConnection::connect(sandbox.postgres_url()).await?;
    let role = format!("create role planted superuser login password '{postgres}'");
    sqlx::query(AssertSqlSafe(role)).execute(&mut session).await?;
    session.close().await?;
    let mut connection = redis::Client::open(sandbox.redis_url())?.get_multiplexed_async_connection().await?;
    let user = ["SETUSER", "planted", "on", &format!(">{redis}"), "~*", "&*", "+@all"];
    redis::cmd("ACL").arg(&user).query_async::<()>(&mut connection).await?;
    let urls = [with_login(sandbox.postgres_url(), &postgres)?, with_login(sandbox.redis_url(), &redis)?];
    Ok((sandbox, urls))
}

fn with_login(url: &str, password: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("not a url")?;
    let place = rest.split_once('@').map_or(rest, |(_, place)| place);
    Ok(format!("{scheme}://planted:{password}@{place}"))
}

/// What the operator enters: a team that pays for an app, and a producer. The client id, its secret and the team.
fn enter(up: &Up, dir: &Path) -> Result<(String, String, String)> {
    let since = ["--created-at", "2026-01-01T00:00:00Z"];
    let account = ["account", "create", "--name", "Witness", "--contract", "flex", "--commercial"];
    let account = up.json(&[&account[..], &since].concat())?;
    let account = text(&account, "/account/account_id")?;
    let team = up.json(&[&["team", "create", "--account", account, "--name", "T"][..], &since].concat())?;
    let team = text(&team, "/team/team_id")?;
    let app = up.json(&["app", "create", "--account", account, "--name", "tiles"])?;
    let app = text(&app, "/app/app_id")?;
    up.json(&["app", "assign", app, "--team", team, "--from", "2026-01-01T00:00:00Z"])?;
    let credential = up.json(&[&["credential", "create", app][..], &since].concat())?;
    up.json(&["meter", "create", "tile", "--unit", "call", "--aggregation", "count"])?;
    std::fs::write(dir.join("card.toml"), CARD)?;
    up.json(&["rate-card", "publish", &dir.join("card.toml").to_string_lossy(), "--set-up"])?;
    up.json(&["tokens", "purchase", "100", "--account", account, "--team", team])?;
    let [client, secret] = ["/client_id", "/client_secret"].map(|field| text(&credential, field));
    Ok((client?.to_owned(), secret?.to_owned(), team.to_owned()))
}

/// Everything by TLS with identity on, which takes keys and the tokens of this issuer.
async fn start(dir: &Path, issuer: &Issuer, settings: &[(&str, &str)]) -> Result<Up> {
    let mut made = Command::new(drawdown_binary()?);
    made.args(["certs", "dev", "--client", "operator", "--out"]).arg(dir.join("certs"));
    ensure!(made.status()?.success(), "no certificates");
    let key_set = dir.join("jwks.json");
    std::fs::write(&key_set, issuer.key_set())?;
    let key_set = key_set.to_string_lossy();
    let identity = SERVICES.into_iter().flat_map(|service| {
        [
            ("MODE", "on"),
            ("TOKENS__JWKS_FILE", &key_set),
            ("TOKENS__ISSUER", ISSUER),
            ("TOKENS__AUDIENCE", AUDIENCE),
        ]
        .map(|(name, value)| {
            (format!("DRAWDOWN_{}__SERVER__IDENTITY__{name}", service.to_uppercase()), value)
        })
    });
    let identity: Vec<(String, &str)> = identity.collect();
    let identity = identity.iter().map(|(name, value)| (name.as_str(), *value));
    Up::start_secured(dir, &settings.iter().copied().chain(identity).collect::<Vec<_>>()).await
}

/// The first operator's key, made by the certificate of an operator: who it is of, and its text.
fn operator(up: &Up, certs: &Path) -> Result<(String, String)> {
    let file = |name: &str| certs.join(name).to_string_lossy().into_owned();
    let files = ["--tls-certificate", &file("operator.pem"), "--tls-key", &file("operator.key")];
    let principal = ["principals", "create", "--name", "admin", "--role", "operator"];
    let principal = up.json(&[&principal[..], &files].concat())?;
    let principal = text(&principal, "/principal/principal_id")?;
    let key = up.json(&[&["keys", "create", principal], &files[..]].concat())?;
    Ok((principal.to_owned(), text(&key, "/text")?.to_owned()))
}

/// Another credential in the place of a client id's: its client id and its secret.
fn rotate(up: &Up, client: &str) -> Result<(String, String)> {
    let apps = up.json(&["app", "list"])?;
    let apps = apps["apps"].as_array().context("no apps")?;
    let of_app =
        |app: &&Value| app["client_ids"].as_array().is_some_and(|ids| ids.iter().any(|id| id == client));
    let app = text(apps.iter().find(of_app).context("no app of the client id")?, "/app_id")?;
    let credentials = up.json(&["credential", "list", app])?;
    let credential = text(&credentials, "/credentials/0/credential_id")?;
    let rotated = up.json(&["credential", "rotate", credential])?;
    let [client, secret] = ["/credential/client_id", "/client_secret"].map(|field| text(&rotated, field));
    Ok((client?.to_owned(), secret?.to_owned()))
}

/// Replays three lines of a log through a producer, whose id is the answer.
fn replay(up: &Up, dir: &Path, client: &str) -> Result<ProducerId> {
    let producer = up.json(&["producer", "create", "--name", "gateway"])?;
    let producer = text(&producer, "/producer_id")?;
    let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
    std::fs::write(dir.join("rules.toml"), RULES.replace("CLIENT", client))?;
    std::fs::write(dir.join("access.jsonl"), LINE.repeat(3))?;
    let (log, rules, kept) = (file("access.jsonl"), file("rules.toml"), file("producer"));
    let replay = ["replay", &log, "--rules", &rules, "--shift-end", "now", "--log-dir", &kept];
    let replayed = up.json(&[&replay[..], &["--producer", producer]].concat())?;
    ensure!(replayed["events"].as_u64() == Some(3), "{replayed}");
    Ok(producer.parse()?)
}

/// The files of a caller, as `drawdown up` wrote them down.
fn caller(addresses: &Value) -> Result<TlsOptions> {
    let file = |name: &str| text(addresses, &format!("/tls/{name}")).map(Into::into);
    Ok(TlsOptions {
        trust_bundle: file("trust_bundle")?,
        certificate: file("certificate")?,
        key: file("key")?,
        peer: String::new(),
    })
}

/// Neither without TLS nor without a certificate does anything get in.
async fn only_by_mtls(addresses: &Value, tls: &TlsOptions) -> Result<()> {
    for service in SERVICES {
        let endpoint = text(addresses, &format!("/services/{service}/grpc"))?;
        let nobody = TlsOptions { trust_bundle: tls.trust_bundle.clone(), ..TlsOptions::default() };
        let other = if service == "ledger" { "metering" } else { "ledger" };
        for (why, options) in [
            ("without TLS", ChannelOptions::to(endpoint.replace("https", "http"))),
            ("without a certificate", ChannelOptions { tls: nobody, ..ChannelOptions::to(endpoint) }),
            (
                "to somebody else",
                ChannelOptions {
                    tls: TlsOptions { peer: other.to_owned(), ..tls.clone() },
                    ..ChannelOptions::to(endpoint)
                },
            ),
        ] {
            let mut health = HealthClient::new(connect(&options)?.unary());
            let refused = health.check(HealthCheckRequest::default()).await;
            ensure!(refused.is_err(), "{service} was reached {why}");
        }
        let options = TlsOptions { peer: service.to_owned(), ..tls.clone() };
        let options = ChannelOptions { tls: options, ..ChannelOptions::to(endpoint) };
        HealthClient::new(connect(&options)?.unary()).check(HealthCheckRequest::default()).await?;
    }
    Ok(())
}

/// Calls that carry secrets in headers and in messages, some of which fail.
async fn talk(
    addresses: &Value,
    tls: &TlsOptions,
    proofs: &Proofs,
    (client, secret): (&str, &str),
) -> Result<()> {
    let endpoint = text(addresses, "/services/entitlement/grpc")?;
    let options = ChannelOptions { tls: tls.clone(), ..ChannelOptions::to(endpoint) };
    let channel = connect(&options)?;
    let ask = async |proof: &str, client_id: &str| {
        let mut request = Request::new(VerifyCredentialRequest {
            client_id: client_id.to_owned(),
            client_secret: secret.to_owned(),
        });
        for (header, value) in
            [("authorization", proof), ("x-api-key", &proofs.wrong), ("cookie", &proofs.wrong)]
        {
            request.metadata_mut().insert(header, format!("Bearer {value}").parse()?);
        }
        anyhow::Ok(entitlement::hierarchy(&channel).verify_credential(request).await)
    };
    for proof in [&proofs.key, &proofs.token] {
        for (client_id, valid) in [(client, true), ("nobody", false)] {
            ensure!(ask(proof, client_id).await??.into_inner().valid == valid, "{client_id}");
        }
        // whatever the service says of it
        drop(ask(proof, "not an id, at all").await?);
    }
    let refused = ask(&proofs.wrong, client).await?;
    ensure!(refused.is_err_and(|status| status.code() == tonic::Code::Unauthenticated), "anybody is let in");
    let door = text(addresses, "/services/metering/grpc")?.replace("https://", "");
    let files = Files {
        trust_bundle: Some(tls.trust_bundle.clone()),
        certificate: Some(tls.certificate.clone()),
        key: Some(tls.key.clone()),
    };
    let connector = Connector::new(files, "127.0.0.1".try_into()?, None, &[ALPN_HTTP1])?;
    for (proof, body, code) in
        [(&proofs.key, "{}", "400"), (&proofs.token, "not json at all", "400"), (&proofs.wrong, "{}", "401")]
    {
        let mut stream = connector.connect(TcpStream::connect(&door).await?).await?;
        let request = format!(
            "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {proof}\r\ncookie: s={proof}\r\n\
             content-type: application/cloudevents+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {code}")), "{answer}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn usage_flows_by_mtls_only_and_no_secret_is_left_anywhere() -> Result<()> {
    let dir = TempDir::with_prefix("drawdown-secured-")?;
    let mut planted = Planted::new();
    let (sandbox, [postgres_url, redis_url]) = servers(dir.path(), &mut planted).await?;
    let traces = Traces::default();
    let collector = traces.serve().await?;
    let pepper = planted.secret("pepper", "c0ffee".repeat(11))?;
    let issuer = Issuer::new()?;
    let certs = dir.path().join("certs");
    let mut up = start(
        dir.path(),
        &issuer,
        &[
            ("DRAWDOWN_SANDBOX_POSTGRES_URL", &postgres_url),
            ("DRAWDOWN_SANDBOX_REDIS_URL", &redis_url),
            ("DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER", &pepper),
            ("DRAWDOWN_TELEMETRY__LOG_FILTER", "trace"),
            ("DRAWDOWN_TELEMETRY__OTLP_ENDPOINT", &collector),
        ],
    )
    .await?;
    for name in [&SERVICES[..], &["client", "operator", "authority"]].concat() {
        planted.key(&certs.join(format!("{name}.key")))?;
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", up.pid()))?;
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
    ensure!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");

    let (principal, key) = operator(&up, &certs)?;
    planted.secret("secret of an API key", key.split('_').nth(2).context("no secret in a key")?)?;
    up.call_with(&key);
    let token = issuer.good();
    planted.secret("signature of a token", token.rsplit('.').next().context("no signature")?)?;
    let wrong = planted.secret("a token in a header", "planted.token-in.a-header")?;
    let proofs =
        Proofs { key: planted.secret("API key", key)?, token: planted.secret("token", token)?, wrong };

    let (client, secret, team) = enter(&up, dir.path())?;
    planted.secret("secret of a credential", secret)?;
    let (rotated, secret) = rotate(&up, &client)?;
    let secret = planted.secret("secret of the credential in its place", secret)?;
    let addresses = up.addresses()?;
    let tls = caller(&addresses)?;
    only_by_mtls(&addresses, &tls).await?;
    let producer = replay(&up, dir.path(), &client)?;
    let charges = up.json(&["charges", &team])?;
    let events =
        charges["charges"].as_array().into_iter().flatten().filter_map(|line| line["events"].as_i64());
    ensure!(events.sum::<i64>() == 3, "{charges}");
    talk(&addresses, &tls, &proofs, (&rotated, &secret)).await?;

    let mut search = planted.search(&[
        ("up.log", "drawdown.entitlement.v1.HierarchyService/VerifyCredential"),
        ("table entitlement.", &client),
        ("table entitlement.audit_log", &format!("key {principal}/")),
        ("redis key", &producer.as_uuid().simple().to_string()),
        (".segment", &client),
        ("page of entitlement", "drawdown_rpc_server_identity_total"),
        ("page of ledger", "drawdown_tls_handshake_duration_seconds_count"),
        ("traces", "drawdown.entitlement.v1.HierarchyService/VerifyCredential"),
    ])?;
    for service in SERVICES {
        let page = scrape::page(text(&addresses, &format!("/services/{service}/metrics"))?).await?;
        search.bytes(&format!("page of {service}"), page.as_bytes());
    }
    search.redis(&redis_url).await?;
    up.stop().await?;
    search.database(&postgres_url).await?;
    search.bytes("traces", &traces.0.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::task::spawn_blocking(move || sandbox.stop()).await??;
    // the certificates' own folder, and the file in which tools find the address of the database
    search.files(dir.path(), &[dir.path().join("certs"), dir.path().join("addresses.json")])?;
    search.finish()
}
