//! The settings of `deploy/compose.yaml` as they are written, with real processes in the place of its containers: the
//! services find each other by TLS, know who calls, and refuse whoever has no right.
//!
//! What is not shown is what only Docker does: the image, its user, its read-only file system, its network and its volumes.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use drawdown_client::{
    Channel, ChannelOptions, TlsOptions,
    clients::{entitlement, ledger, metering},
    connect,
};
use drawdown_proto::{
    entitlement::v1::{ContractKind, CreateAccountRequest, CreateTeamRequest},
    ledger::v1::GrantTokensRequest,
    metering::v1::{GetMeteringStatusRequest, OpenProducerRequest},
    scalar::timestamp_to_proto,
};
use drawdown_sandbox::Sandbox;
use drawdown_service::reason;
use drawdown_tests::{
    process::{Program, drawdown_binary, free_ports, wait_until},
    up::UP_LIMIT,
};
use drawdown_types::{Clock as _, SystemClock, Timestamp};
use tempfile::TempDir;
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_types::StatusExt as _;

const COMPOSE: &str = include_str!("../../deploy/compose.yaml");
/// In the order in which they need each other.
const SERVICES: [(&str, &str); 3] = [("entitlement", "7403"), ("ledger", "7402"), ("metering", "7401")];

/// What compose.yaml says of one container: the lines from its name to the next one's.
fn container(name: &str) -> Result<Vec<&'static str>> {
    let (_, services) = COMPOSE.split_once("\nservices:\n").context("no services")?;
    let mut lines = services.lines().skip_while(|line| *line != format!("  {name}:"));
    lines.next().with_context(|| format!("no container {name}"))?;
    Ok(lines.take_while(|line| line.is_empty() || line.starts_with("    ")).collect())
}

/// Everything that compose.yaml sets for a container of ours.
fn settings(container: &[&str]) -> Result<BTreeMap<String, String>> {
    let lines = container.iter().filter_map(|line| line.strip_prefix("      DRAWDOWN_"));
    let setting = |line: &str| {
        let (name, value) = line.split_once(": ").with_context(|| format!("{line} is no setting"))?;
        Ok((format!("DRAWDOWN_{name}"), value.trim_matches('"').to_owned()))
    };
    lines.map(setting).collect()
}

/// A container gets the keys, passwords and settings that it needs, and none of another one.
fn nobody_has_what_is_not_its_own() -> Result<()> {
    for (service, _) in SERVICES {
        let lines = container(service)?;
        let own = format!("DRAWDOWN_{}__", service.to_uppercase());
        let others: Vec<_> = settings(&lines)?.into_keys().filter(|name| !name.starts_with(&own)).collect();
        ensure!(others.is_empty(), "{service} gets {others:?}");
        let volumes: Vec<_> = lines.iter().filter(|line| line.contains("volumes:")).collect();
        let expected = format!("    volumes: [\"certs-{service}:/certs:ro\"]");
        ensure!(matches!(&volumes[..], [only] if ***only == expected), "{service} has {volumes:?}");
        let secrets = lines.iter().filter(|line| line.contains("PASSWORD") || line.contains("PEPPER"));
        let allowed = if service == "entitlement" { 2 } else { 1 };
        ensure!(secrets.count() == allowed, "{service} has a secret of somebody else");
    }
    let users = COMPOSE.lines().filter(|line| line.trim_start().starts_with("- authority:")).count();
    ensure!(
        users == 1 && container("certs")?.contains(&"      - authority:/authority"),
        "who has the authority?"
    );
    let (common, _) = COMPOSE.split_once("\nservices:\n").context("no services")?;
    let shared = common.lines().filter(|line| !line.starts_with('#'));
    ensure!(
        shared.clone().all(|line| !line.contains("DRAWDOWN_") && !line.contains("volumes")),
        "shared by all"
    );
    Ok(())
}

/// The arguments of the container that makes the certificates.
fn certs_arguments() -> Result<Vec<&'static str>> {
    let (_, rest) = COMPOSE.split_once("command: [certs, ").context("nothing makes certificates")?;
    let (arguments, _) = rest.split_once(']').context("a list without its end")?;
    Ok(["certs"].into_iter().chain(arguments.split(", ").map(|word| word.trim_matches('"'))).collect())
}

/// Where things are here, instead of in containers.
struct Here {
    /// What is `/authority` there: all keys.
    certs: String,
    /// What is `/places` there: a folder for each service, which is `/certs` in its container.
    places: String,
    /// Free ports by those of compose.yaml.
    ports: BTreeMap<&'static str, u16>,
}

impl Here {
    /// A value of a container with everything in it that is elsewhere here.
    fn place(&self, container: &str, value: &str) -> String {
        let mut placed = match container {
            "certs" => value.replace("/authority", &self.certs).replace("/places", &self.places),
            service => value.replace("/certs", &format!("{}/{service}", self.places)),
        };
        for (there, port) in &self.ports {
            placed = placed.replace(&format!(":{there}"), &format!(":{port}"));
        }
        for (service, _) in SERVICES {
            placed = placed.replace(&format!("https://{service}:"), "https://localhost:");
        }
        placed
    }

    /// A channel to a service with the certificate of this name, or with none.
    fn channel(&self, service: &str, name: Option<&str>) -> Result<Channel> {
        let (_, there) = SERVICES.iter().find(|(of, _)| *of == service).context("no such service")?;
        let file = |file: String| Path::new(&self.certs).join(file);
        let tls = TlsOptions {
            trust_bundle: file("trust-bundle.pem".to_owned()),
            certificate: name.map(|name| file(format!("{name}.pem"))).unwrap_or_default(),
            key: name.map(|name| file(format!("{name}.key"))).unwrap_or_default(),
            peer: service.to_owned(),
        };
        let endpoint = format!("https://localhost:{}", self.ports[there]);
        Ok(connect(&ChannelOptions { tls, ..ChannelOptions::to(endpoint) })?)
    }
}

fn account(name: &str) -> CreateAccountRequest {
    let contract_kind = ContractKind::Flex.into();
    CreateAccountRequest { name: name.to_owned(), contract_kind, commercial: true, ..Default::default() }
}

fn in_a_day() -> Option<prost_types::Timestamp> {
    let micros = SystemClock.now().as_micros() + 86_400_000_000;
    Timestamp::from_micros(micros).ok().map(timestamp_to_proto)
}

fn is_refused<T>(answer: Result<T, Status>) -> bool {
    answer.is_err_and(|status| {
        let told = status.get_error_details().error_info().map(|info| info.reason.clone());
        status.code() == Code::PermissionDenied && told.as_deref() == Some(reason::ROLE_NEEDED)
    })
}

/// Who is known by which certificate, and what each may do.
async fn everybody_is_known(here: &Here) -> Result<()> {
    let at = |service: &str, name: &str| here.channel(service, Some(name));
    let mut hierarchy = entitlement::hierarchy(&at("entitlement", "operator")?);
    let opened = hierarchy.create_account(account("A")).await?.into_inner().account.context("no account")?;
    let team = CreateTeamRequest {
        account_id: opened.account_id.clone(),
        name: "T".to_owned(),
        ..Default::default()
    };
    let team = hierarchy.create_team(team).await?.into_inner().team.context("no team")?;
    // the ledger asks entitlement whose team it is, by its own certificate
    let grant = GrantTokensRequest {
        account_id: opened.account_id,
        team_id: team.team_id,
        micros: 1_000_000,
        pool_kind: drawdown_proto::ledger::v1::PoolKind::Promotional.into(),
        expires_at: in_a_day(),
        note: "welcome".to_owned(),
        request_id: "welcome".to_owned(),
        ..GrantTokensRequest::default()
    };
    ledger::token(&at("ledger", "operator")?).grant_tokens(grant).await?;
    let status = GetMeteringStatusRequest {};
    metering::usage(&at("metering", "operator")?).get_metering_status(status).await?;
    for (name, admitted) in [("gateway", true), ("client", false), ("ledger", false)] {
        let mut hierarchy = entitlement::hierarchy(&at("entitlement", name)?);
        ensure!(is_refused(hierarchy.create_account(account(name)).await), "{name} opened an account");
        let mut producers = metering::producers(&at("metering", name)?);
        let opened = producers.open_producer(OpenProducerRequest::default()).await;
        ensure!(is_refused(opened) != admitted, "{name}: a producer is opened by a gateway");
    }
    for (service, _) in SERVICES {
        let nobody = here.channel(service, None)?;
        let refused = HealthClient::new(nobody.unary()).check(HealthCheckRequest::default()).await;
        ensure!(refused.is_err(), "{service} was reached without a certificate");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_compose_sets_starts_and_lets_nobody_in_without_a_right() -> Result<()> {
    nobody_has_what_is_not_its_own()?;
    let sandbox =
        tokio::task::spawn_blocking(|| Sandbox::start(drawdown_sandbox::Options::from_env()?)).await??;
    let dir = TempDir::with_prefix("drawdown-composed-")?;
    let free = free_ports::<6>()?;
    let ports = ["7401", "7402", "7403", "7411", "7412", "7413"].into_iter().zip(free).collect();
    let folder = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let here = Here { certs: folder("authority"), places: folder("places"), ports };
    let mut made = Command::new(drawdown_binary()?);
    made.args(certs_arguments()?.into_iter().map(|word| here.place("certs", word)));
    ensure!(made.status()?.success(), "no certificates");

    let drawdown = |name: &str, roles: bool| {
        let mut command = Command::new(drawdown_binary()?);
        command.arg(name);
        for (variable, value) in settings(&container(name)?)? {
            let value = match variable.as_str() {
                "DRAWDOWN_LEDGER__DATABASE__URL" | "DRAWDOWN_ENTITLEMENT__DATABASE__URL" => {
                    sandbox.postgres_url().to_owned()
                }
                "DRAWDOWN_METERING__REDIS__URL" => sandbox.redis_url().to_owned(),
                "DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER" => "5a".repeat(32),
                _ => here.place(name, &value),
            };
            command.env(variable, value);
        }
        if roles {
            // the users of compose.yaml are members of these
            command.env("DRAWDOWN_LEDGER__DATABASE__ROLE", "drawdown_ledger_service");
            command.env("DRAWDOWN_ENTITLEMENT__DATABASE__ROLE", "drawdown_entitlement_service");
        }
        anyhow::Ok(command)
    };
    let migrated = drawdown("migrate", false)?.output()?;
    ensure!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let mut programs = Vec::new();
    for (service, _) in SERVICES {
        programs.push(Program::start(service, drawdown(service, true)?, dir.path())?);
    }
    let logs = |programs: &[Program]| programs.iter().map(Program::log_tail).collect::<Vec<_>>().join("\n\n");
    for (service, _) in SERVICES {
        let health = HealthClient::new(here.channel(service, Some("client"))?.unary());
        let serves = || {
            let mut health = health.clone();
            async move { Ok(health.check(HealthCheckRequest::default()).await?.into_inner().status == 1) }
        };
        wait_until(service, UP_LIMIT, serves).await.with_context(|| logs(&programs))?;
    }
    everybody_is_known(&here).await.with_context(|| logs(&programs))?;
    for mut program in programs.into_iter().rev() {
        let status = program.stop().await?;
        ensure!(status.success(), "{status}; {}", program.log_tail());
    }
    Ok(())
}
