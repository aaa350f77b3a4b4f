//! The same reads as JSON over HTTP: every path of the OpenAPI document without a credential, with what another tenant
//! has, and with roles that do and do not admit to it. The layers are the same, and so is what is expected.

use anyhow::{Context as _, Result, ensure};
use drawdown_service::{
    identity::{Kind, Reach, Role, Rule, Who},
    reason,
};
use drawdown_tests::up::{Up, text};
use drawdown_tls::{ALPN_HTTP1, Connector, Files};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;

use super::{
    CALLS_MAX, Expected, REFUSALS, bearer, expected, rules, set,
    tenants::{Desk, Extent, Tenant},
};

/// What stands in a path for what no rule looks at.
const INSIDE: &str = "inside";
/// The head of an answer is not longer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// One path of the contracts.
struct Path {
    rule: &'static Rule,
    address: String,
    verb: String,
    template: String,
}

/// Who asks, and what has to come of it.
struct Case<'a> {
    what: &'static str,
    header: &'a str,
    tenant: &'a Tenant,
    expected: &'a (dyn Fn(&Rule) -> Expected + Sync),
}

/// `filter.account_id` as JSON has it.
fn camel(path: &str) -> String {
    let mut out = String::new();
    let mut upper = false;
    for letter in path.chars() {
        match letter {
            '_' => upper = true,
            _ if std::mem::take(&mut upper) => out.push(letter.to_ascii_uppercase()),
            _ => out.push(letter),
        }
    }
    out
}

/// All paths of the printed contract, and the one that metering reads in a form of its own.
fn paths(up: &Up, addresses: &Value) -> Result<Vec<Path>> {
    let printed = up.cli(&["openapi"])?;
    ensure!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let document: Value = serde_json::from_slice(&printed.stdout)?;
    let mut operations = vec![("drawdown.metering.v1.RecordService/RecordCloudEvents", "post", "/v1/events")];
    for (template, verbs) in document["paths"].as_object().context("no paths")? {
        for (verb, operation) in verbs.as_object().context("no operations")? {
            operations.push((text(operation, "/x-grpc-method")?, verb, template));
        }
    }
    let path = |(method, verb, template): (&str, &str, &str)| {
        let rule =
            rules().find(|rule| rule.method == method).with_context(|| format!("no rule of {method}"))?;
        let service = method.split('.').nth(1).context("no service")?;
        let address = text(addresses, &format!("/services/{service}/grpc"))?.replace("https://", "");
        Ok(Path { rule, address, verb: verb.to_uppercase(), template: template.to_owned() })
    };
    operations.into_iter().map(path).collect()
}

impl Path {
    /// The target and the body that name what a tenant has.
    fn request(&self, pool: &DescriptorPool, tenant: &Tenant) -> Result<(String, String)> {
        let mut fields: Vec<(&str, Kind)> = match self.rule.reach {
            Reach::Named(fields) => fields.iter().map(|field| (field.path, field.kind)).collect(),
            Reach::Platform | Reach::Shared => Vec::new(),
        };
        let mut target = self.template.clone();
        while let Some((before, rest)) = target.split_once('{') {
            let (name, after) = rest.split_once('}').context("a name without its end")?;
            let found = fields.iter().position(|(path, _)| camel(path) == name);
            let value = found.map_or(INSIDE, |at| tenant.id(fields.remove(at).1));
            target = format!("{before}{value}{after}");
        }
        if self.verb == "POST" {
            let (service, method) = self.rule.method.split_once('/').context("no method")?;
            let service = pool.get_service_by_name(service).context("no such service")?;
            let method = service.methods().find(|found| found.name() == method).context("no such method")?;
            let mut message = DynamicMessage::new(method.input());
            for (path, kind) in fields {
                set(&mut message, path, tenant.id(kind))?;
            }
            return Ok((target, serde_json::to_string(&message)?));
        }
        let query: Vec<_> =
            fields.iter().map(|(path, kind)| format!("{}={}", camel(path), tenant.id(*kind))).collect();
        Ok((if query.is_empty() { target } else { format!("{target}?{}", query.join("&")) }, String::new()))
    }

    /// Asks; a line where the answer is another one than expected.
    async fn ask(
        &self,
        connector: &Connector,
        pool: &DescriptorPool,
        case: &Case<'_>,
    ) -> Result<Option<String>> {
        let (target, body) = self.request(pool, case.tenant)?;
        let header = match case.header {
            "" => String::new(),
            header => format!("authorization: {header}\r\n"),
        };
        let kind =
            if self.template == "/v1/events" { "application/cloudevents+json" } else { "application/json" };
        let mut stream = connector.connect(TcpStream::connect(&self.address).await?).await?;
        let request = format!(
            "{} {target} HTTP/1.1\r\nhost: x\r\n{header}content-type: {kind}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            self.verb,
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let (mut answer, mut part) = (Vec::new(), [0; 4_096]);
        let status = loop {
            let read = stream.read(&mut part).await?;
            answer.extend_from_slice(part.get(..read).unwrap_or_default());
            let head = String::from_utf8_lossy(&answer);
            let status = head.split(' ').nth(1).and_then(|status| status.parse::<u16>().ok());
            // a stream that is admitted may never end
            if let Some(status) =
                status.filter(|status| head.contains("\r\n\r\n") && *status < 300 || read == 0)
            {
                break status;
            }
            ensure!(read > 0 && answer.len() < HEAD_BYTES_MAX, "{target}: {head}");
        };
        let said = String::from_utf8_lossy(&answer);
        let names = |reason: &str| said.contains(&format!("\"{reason}\""));
        let expected = (case.expected)(self.rule);
        let fits = match expected {
            // said by the service: also that there is no such thing
            Expected::Admitted => {
                status != 401 && !names(reason::PATH_UNKNOWN) && !REFUSALS.into_iter().any(names)
            }
            Expected::Refused(Code::Unauthenticated, reason) => status == 401 && names(reason),
            Expected::Refused(_, reason) => status == 403 && names(reason),
            Expected::NotConnected => false,
        };
        Ok((!fits).then(|| format!("{} {target}, {}: {expected:?} expected, {said}", self.verb, case.what)))
    }
}

/// Asks everything by every kind of caller; how many calls were to be refused.
pub(super) async fn walk(
    (up, addresses, pool): (&Up, &Value, &DescriptorPool),
    desk: &Desk,
    (mine, other): (&Tenant, &Tenant),
    bundle: std::path::PathBuf,
) -> Result<usize> {
    let files = Files { trust_bundle: Some(bundle), ..Files::default() };
    let connector = Connector::new(files, "127.0.0.1".try_into()?, None, &[ALPN_HTTP1])?;
    let key = async |role, extent| Ok::<_, anyhow::Error>(bearer(&desk.key(role, extent, mine).await?));
    let manager = key(Role::ContractManager, Extent::Account).await?;
    let reader = key(Role::BillingReader, Extent::Account).await?;
    let admin = key(Role::TeamAdmin, Extent::Team).await?;
    let gateway = key(Role::Gateway, Extent::Platform).await?;
    let stranger = Tenant { user_id: mine.user_id.clone(), ..other.clone() };
    let nobody = |rule: &Rule| match rule.who {
        Who::Anyone => Expected::Admitted,
        _ => Expected::Refused(Code::Unauthenticated, reason::IDENTITY_NEEDED),
    };
    let of = |role, extent, own| move |rule: &Rule| expected(rule, role, extent, own);
    let mine_all = of(Role::ContractManager, Extent::Account, true);
    let theirs_all = of(Role::ContractManager, Extent::Account, false);
    let reads = of(Role::BillingReader, Extent::Account, true);
    let of_team = of(Role::TeamAdmin, Extent::Team, true);
    let of_gateway = of(Role::Gateway, Extent::Platform, true);
    let cases: [Case<'_>; 6] = [
        Case { what: "no credential", header: "", tenant: mine, expected: &nobody },
        Case { what: "a manager with its own", header: &manager, tenant: mine, expected: &mine_all },
        Case { what: "a manager with another's", header: &manager, tenant: &stranger, expected: &theirs_all },
        Case { what: "a reader with its own", header: &reader, tenant: mine, expected: &reads },
        Case { what: "an admin of a team", header: &admin, tenant: mine, expected: &of_team },
        Case { what: "a gateway", header: &gateway, tenant: mine, expected: &of_gateway },
    ];
    let paths = paths(up, addresses)?;
    ensure!(paths.len() > 40, "{} paths are few", paths.len());
    let calls = paths.iter().flat_map(|path| cases.iter().map(move |case| (path, case)));
    let refused =
        calls.clone().filter(|(path, case)| (case.expected)(path.rule) != Expected::Admitted).count();
    let asked = stream::iter(calls).map(|(path, case)| path.ask(&connector, pool, case));
    let wrong: Vec<Option<String>> = asked.buffer_unordered(CALLS_MAX).try_collect().await?;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    ensure!(wrong.is_empty(), "{} wrong answers over HTTP:\n{}", wrong.len(), wrong.join("\n"));
    Ok(refused)
}
