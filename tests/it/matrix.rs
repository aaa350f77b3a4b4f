//! The authorisation matrix against the real services: every method of the contracts by every kind of credential, over
//! TLS, with identity on. Methods and requests are generated from the descriptors, what is expected from the table of
//! rules. A call that is admitted reaches the real handler, which may answer whatever it likes but a refusal of the gate.
//!
//! That each rule admits exactly the roles it names, also by tokens, and what a request that names another person gets, is
//! walked without handlers in `drawdown-service`; that it names the roles that were meant, is told there too.

pub(crate) mod credentials;
mod http;
mod tenants;

use std::{collections::BTreeMap, error::Error as _, path::Path};

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, BufMut as _, Bytes};
use drawdown_client::{Channel, ChannelOptions, TlsOptions, connect};
use drawdown_service::{
    identity::{Kind, Peer, RULES, Reach, Role, Rule, Who},
    reason,
};
use drawdown_tests::{
    process::{drawdown_binary, wait_until},
    up::{UP_LIMIT, Up, text},
};
use drawdown_tls::issue::{Authority, Profile};
use drawdown_types::{Clock as _, SystemClock};
use futures::{StreamExt as _, stream};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _, Value};
use tempfile::TempDir;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};
use tonic_types::StatusExt as _;

use self::{
    credentials::{AUDIENCE, Bad, ISSUER, Issuer, bad_keys, bad_tokens, bearer},
    tenants::{Desk, Extent, Tenant},
};

const SERVICES: [&str; 3] = ["metering", "ledger", "entitlement"];
/// Calls under way at once.
const CALLS_MAX: usize = 32;
/// Reasons of the gate. What a handler answers is none of them.
const REFUSALS: [&str; 9] = [
    reason::IDENTITY_NEEDED,
    reason::KEY_MALFORMED,
    reason::CREDENTIAL_REFUSED,
    reason::ATTEMPTS_EXHAUSTED,
    reason::IDENTITY_UNAVAILABLE,
    reason::ROLE_NEEDED,
    reason::NOT_IN_SCOPE,
    reason::ACTOR_DIFFERS,
    reason::REQUEST_UNREADABLE,
];

/// Messages as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What has to come of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The handler answers.
    Admitted,
    /// The gate refuses.
    Refused(Code, &'static str),
    /// There is no connection.
    NotConnected,
}

/// Channels to all services, with one certificate or none.
#[derive(Clone)]
struct Door(BTreeMap<&'static str, Channel>);

/// One call of the walk.
struct Walk {
    method: &'static str,
    what: String,
    door: Door,
    header: String,
    message: Bytes,
    expected: Expected,
}

/// All rules of methods that a service serves.
fn rules() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().copied().flatten()
}

/// The services that serve a method: its own, or all where it is of no contract of ours.
fn served_by(method: &str) -> Vec<&'static str> {
    let own = |service: &&&str| method.starts_with(&format!("drawdown.{service}."));
    match SERVICES.iter().find(own) {
        Some(service) => vec![service],
        None => SERVICES.to_vec(),
    }
}

// === impl Door ===

impl Door {
    /// `tls` names the files, all of which but the trust bundle may be empty.
    fn open(addresses: &serde_json::Value, tls: &TlsOptions) -> Result<Self> {
        let channel = |service: &'static str| {
            let endpoint = text(addresses, &format!("/services/{service}/grpc"))?;
            let tls = TlsOptions { peer: service.to_owned(), ..tls.clone() };
            Ok((service, connect(&ChannelOptions { tls, ..ChannelOptions::to(endpoint) })?))
        };
        Ok(Self(SERVICES.into_iter().map(channel).collect::<Result<_>>()?))
    }

    fn at(&self, service: &str) -> Result<&Channel> {
        self.0.get(service).with_context(|| format!("no channel to {service}"))
    }
}

/// Files of a caller by this name in a folder of certificates.
fn files(certs: &Path, name: &str) -> TlsOptions {
    TlsOptions {
        trust_bundle: certs.join("trust-bundle.pem"),
        certificate: certs.join(format!("{name}.pem")),
        key: certs.join(format!("{name}.key")),
        peer: String::new(),
    }
}

/// Writes a certificate that an authority issues.
fn issue(authority: &Authority, profile: &Profile, certs: &Path, name: &str) -> Result<TlsOptions> {
    let issued = authority.issue(profile)?;
    let files = files(certs, name);
    std::fs::write(&files.certificate, issued.certificate_pem())?;
    std::fs::write(&files.key, issued.key_pem())?;
    Ok(files)
}

// === the walk ===

impl Walk {
    /// Makes the call at every service that has the method; a line for each answer that is another one.
    async fn go(self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for service in served_by(self.method) {
            let mut client = Grpc::new(self.door.at(service)?.unary());
            let mut request = Request::new(self.message.clone());
            if !self.header.is_empty() {
                request.metadata_mut().insert("authorization", self.header.parse()?);
            }
            let path = format!("/{}", self.method).parse()?;
            let ready = client.ready().await;
            // no stream is waited for: what counts is how it begins
            let answer = match ready {
                Ok(()) => client.server_streaming(request, path, Raw).await.map(drop),
                Err(error) => Err(Status::from_error(error.into())),
            };
            if !self.expected.is(&answer) {
                wrong.push(format!(
                    "{} at {service}, {}: {:?} expected, {answer:?}",
                    self.method, self.what, self.expected
                ));
            }
        }
        Ok(wrong)
    }
}

impl Expected {
    fn is(self, answer: &Result<(), Status>) -> bool {
        let told = |status: &Status| {
            status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
        };
        match (self, answer) {
            (Self::Admitted, Ok(())) => true,
            // said by the service, and not by its gate
            (Self::Admitted, Err(status)) => {
                let by_gate =
                    status.code() == Code::Unauthenticated || REFUSALS.contains(&told(status).as_str());
                status.source().is_none() && !by_gate
            }
            (Self::Refused(code, reason), Err(status)) => status.code() == code && told(status) == reason,
            // what broke on this side has a cause, whatever its code; an answer of a service has none
            (Self::NotConnected, Err(status)) => status.source().is_some() && told(status).is_empty(),
            (Self::Refused(..) | Self::NotConnected, Ok(())) => false,
        }
    }
}

/// A request that names what the tenant has in every field that the rule looks at, and acts for its person.
fn request(pool: &DescriptorPool, rule: &Rule, tenant: Option<&Tenant>) -> Result<Bytes> {
    let (service, method) = rule.method.split_once('/').context("no method")?;
    let Some(service) = pool.get_service_by_name(service) else { return Ok(Bytes::new()) };
    let method = service.methods().find(|found| found.name() == method).context("no such method")?;
    let mut message = DynamicMessage::new(method.input());
    if let (Reach::Named(fields), Some(tenant)) = (rule.reach, tenant) {
        for field in fields {
            set(&mut message, field.path, tenant.id(field.kind))?;
        }
    }
    if let (Some(path), Some(tenant)) = (rule.actor, tenant) {
        set(&mut message, path, &tenant.user_id)?;
    }
    Ok(message.encode_to_vec().into())
}

/// Sets a text by its path. Of a oneof the last one stays.
fn set(message: &mut DynamicMessage, path: &str, text: &str) -> Result<()> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    let field = message.descriptor().get_field_by_name(first).with_context(|| format!("no field {path}"))?;
    let single = match rest {
        None => Value::String(text.to_owned()),
        Some(rest) => {
            let present = message.get_field(&field).as_message().cloned();
            let kind = field.kind().as_message().context("no message")?.clone();
            let mut inner = present.unwrap_or_else(|| DynamicMessage::new(kind));
            set(&mut inner, rest, text)?;
            Value::Message(inner)
        }
    };
    message.set_field(&field, if field.is_list() { Value::List(vec![single]) } else { single });
    Ok(())
}

/// What the table says of a role that names what it has, or what another tenant has.
fn expected(rule: &Rule, role: Role, extent: Extent, own: bool) -> Expected {
    let has_role = match rule.who {
        Who::Anyone | Who::Known => true,
        Who::Some(roles, _) => roles.has(role),
    };
    let reaches = match (rule.reach, extent) {
        (Reach::Shared, _) | (_, Extent::Platform) => true,
        (Reach::Platform, _) => false,
        (Reach::Named(_), Extent::Account) => own,
        // something of the team has to be named beside what is of its account
        (Reach::Named(fields), Extent::Team) => {
            own && fields.iter().any(|field| !matches!(field.kind, Kind::Account | Kind::Hub))
        }
    };
    match (has_role, reaches) {
        (true, true) => Expected::Admitted,
        (false, _) => Expected::Refused(Code::PermissionDenied, reason::ROLE_NEEDED),
        (true, false) => Expected::Refused(Code::PermissionDenied, reason::NOT_IN_SCOPE),
    }
}

/// Everything that is set up, and what is walked with it.
struct Matrix {
    addresses: serde_json::Value,
    pool: DescriptorPool,
    /// Without a certificate: who calls proves itself by a header.
    door: Door,
    walks: Vec<Walk>,
}

impl Matrix {
    /// Every method through a door, with a header.
    fn every_method(
        &mut self,
        (what, door, header): (&str, &Door, &str),
        message: impl Fn(&DescriptorPool, &Rule) -> Result<Bytes>,
        expected: impl Fn(&Rule) -> Expected,
    ) -> Result<()> {
        for rule in rules() {
            self.walks.push(Walk {
                method: rule.method,
                what: what.to_owned(),
                door: door.clone(),
                header: header.to_owned(),
                message: message(&self.pool, rule)?,
                expected: expected(rule),
            });
        }
        Ok(())
    }

    /// No credential, and bad ones: at the handshake, and by a header.
    fn bad_credentials(&mut self, certs: &Path, tenant: &Tenant, bad: &[Bad]) -> Result<()> {
        let own = |pool: &DescriptorPool, rule: &Rule| request(pool, rule, Some(tenant));
        let stranger = Authority::new("another authority")?;
        let authority_key = std::fs::read_to_string(certs.join("authority.key"))?;
        // its certificate is the one in the trust bundle, made anew of its key
        let authority = Authority::of_key("drawdown development authority", &authority_key)?;
        let expired = Profile { begins_secs: -172_800, days: -1, ..Profile::client("operator") };
        for (what, tls) in [
            ("wrong CA", issue(&stranger, &Profile::client("operator"), certs, "stranger")?),
            ("expired certificate", issue(&authority, &expired, certs, "expired")?),
        ] {
            let door = Door::open(&self.addresses, &tls)?;
            self.every_method((what, &door, ""), own, |_| Expected::NotConnected)?;
        }
        let door = self.door.clone();
        let unknown = |reason| {
            move |rule: &Rule| match rule.who {
                Who::Anyone => Expected::Admitted,
                Who::Known | Who::Some(..) => Expected::Refused(Code::Unauthenticated, reason),
            }
        };
        self.every_method(("no credential", &door, ""), own, unknown(reason::IDENTITY_NEEDED))?;
        for (what, header, reason) in bad {
            self.every_method((what, &door, header), own, unknown(reason))?;
        }
        Ok(())
    }

    /// Certificates of the services, and of a caller without a role: whoever is in no rule is refused.
    fn certificates(&mut self, certs: &Path, tenant: &Tenant) -> Result<()> {
        let own = |pool: &DescriptorPool, rule: &Rule| request(pool, rule, Some(tenant));
        for name in ["metering", "ledger", "entitlement", "client"] {
            let door = Door::open(&self.addresses, &files(certs, name))?;
            let peer = Peer::ALL.into_iter().find(|peer| peer.name() == name);
            self.every_method((name, &door, ""), own, |rule| match rule.who {
                Who::Anyone | Who::Known => Expected::Admitted,
                Who::Some(_, peers) if peer.is_some_and(|peer| peers.has(peer)) => Expected::Admitted,
                Who::Some(..) => Expected::Refused(Code::PermissionDenied, reason::ROLE_NEEDED),
            })?;
        }
        Ok(())
    }

    /// Every role by a key of its own: with what it has, and what another tenant has, with what nobody has, and cut short.
    async fn roles(&mut self, desk: &Desk, mine: &Tenant, other: &Tenant) -> Result<()> {
        for (role, extent) in [
            (Role::Gateway, Extent::Platform),
            (Role::BillingReader, Extent::Platform),
            (Role::BillingReader, Extent::Account),
            (Role::BillingReader, Extent::Team),
            (Role::TeamAdmin, Extent::Team),
            (Role::ContractManager, Extent::Account),
            (Role::Operator, Extent::Platform),
        ] {
            let door = self.door.clone();
            let header = bearer(&desk.key(role, extent, mine).await?);
            let what = |with: &str| format!("{role} of {extent:?} with {with}");
            if extent == Extent::Platform {
                // what is admitted does something: nothing named is least of it
                let empty = |pool: &DescriptorPool, rule: &Rule| request(pool, rule, None);
                let told = |rule: &Rule| expected(rule, role, extent, true);
                self.every_method((&what("nothing"), &door, &header), empty, told)?;
                continue;
            }
            for (with, tenant, own) in [
                ("its own", mine, true),
                ("another tenant's", other, false),
                ("nobody's", &other.nobody(), false),
            ] {
                // the person stays: what differs is whose things are named
                let tenant = Tenant { user_id: mine.user_id.clone(), ..tenant.clone() };
                let named = |pool: &DescriptorPool, rule: &Rule| request(pool, rule, Some(&tenant));
                let told = |rule: &Rule| expected(rule, role, extent, own);
                self.every_method((&what(with), &door, &header), named, told)?;
            }
            let cut = |pool: &DescriptorPool, rule: &Rule| {
                let whole = request(pool, rule, Some(mine))?;
                Ok(whole.slice(..whole.len().saturating_sub(1)))
            };
            self.every_method((&what("a request cut short"), &door, &header), cut, |rule| {
                match (expected(rule, role, extent, true), rule.reach) {
                    // what can not be read is refused before it is asked whose it is
                    (Expected::Admitted | Expected::Refused(_, reason::NOT_IN_SCOPE), Reach::Named(_)) => {
                        Expected::Refused(Code::InvalidArgument, reason::REQUEST_UNREADABLE)
                    }
                    (told, _) => told,
                }
            })?;
        }
        Ok(())
    }

    /// Makes all calls; how many of them were to be refused.
    async fn walk(self) -> Result<usize> {
        let refused = self.walks.iter().filter(|walk| walk.expected != Expected::Admitted).count();
        let walked = stream::iter(self.walks).map(Walk::go).buffer_unordered(CALLS_MAX);
        let answers: Vec<Result<Vec<String>>> = walked.collect().await;
        let wrong = answers.into_iter().collect::<Result<Vec<_>>>()?.concat();
        ensure!(wrong.is_empty(), "{} wrong answers:\n{}", wrong.len(), wrong.join("\n"));
        Ok(refused)
    }
}

/// Every method of the contracts has a rule, so whoever walks the rules walks the methods.
fn every_method_has_a_rule(pool: &DescriptorPool) -> Result<()> {
    for service in pool.services().filter(|service| service.full_name().starts_with("drawdown.")) {
        for method in service.methods() {
            let name = format!("{}/{}", service.full_name(), method.name());
            ensure!(rules().any(|rule| rule.method == name), "{name} has no rule");
        }
    }
    Ok(())
}

/// Three services by TLS with identity on, which take keys, tokens of this issuer, and certificates.
async fn start(dir: &Path, issuer: &Issuer) -> Result<Up> {
    let certs = dir.join("certs");
    let mut command = std::process::Command::new(drawdown_binary()?);
    command.args(["certs", "dev", "--client", "operator", "--out"]).arg(&certs);
    ensure!(command.status()?.success(), "no certificates");
    let key_set = dir.join("jwks.json");
    std::fs::write(&key_set, issuer.key_set())?;
    let key_set = key_set.to_string_lossy().into_owned();
    let mut settings = Vec::new();
    for service in SERVICES {
        for (name, value) in [
            ("IDENTITY__MODE", "on"),
            ("IDENTITY__KEY_CACHE_MS", "10000"),
            ("IDENTITY__FAILURES_PER_SECOND_MAX", "1000000"),
            // a machine that is busy answers late, and a refusal for that is not what is walked for
            ("IDENTITY__LOOKUP_TIMEOUT_MS", "60000"),
            ("IDENTITY__TOKENS__JWKS_FILE", &key_set),
            ("IDENTITY__TOKENS__ISSUER", ISSUER),
            ("IDENTITY__TOKENS__AUDIENCE", AUDIENCE),
            ("TLS__CLIENT_CERTIFICATES", "optional"),
        ] {
            settings.push((format!("DRAWDOWN_{}__SERVER__{name}", service.to_uppercase()), value));
        }
    }
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    Up::start_secured(dir, &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_of_the_real_services_refuses_every_bad_credential() -> Result<()> {
    let dir = TempDir::with_prefix("drawdown-matrix-")?;
    let certs = dir.path().join("certs");
    let issuer = Issuer::new()?;
    let up = start(dir.path(), &issuer).await?;
    let addresses = up.addresses()?;
    let pool = DescriptorPool::decode(drawdown_proto::FILE_DESCRIPTOR_SET)?;
    every_method_has_a_rule(&pool)?;

    let operator = Door::open(&addresses, &files(&certs, "operator"))?;
    let desk =
        Desk { entitlement: operator.at("entitlement")?.clone(), ledger: operator.at("ledger")?.clone() };
    let (mine, other) = (desk.tenant("mine").await?, desk.tenant("other").await?);
    let (expired, expired_at) = (desk.key_for(2, &mine).await?, SystemClock.now().as_micros() + 2_000_000);
    let revoked = desk.revoked_key(&mine).await?;
    let good = desk.key(Role::Operator, Extent::Platform, &mine).await?;
    let mut bad = bad_keys(&good, &revoked, &expired)?;
    bad.extend(bad_tokens(&issuer)?);

    let bundle = TlsOptions { trust_bundle: certs.join("trust-bundle.pem"), ..TlsOptions::default() };
    let door = Door::open(&addresses, &bundle)?;
    let by_http =
        http::walk((&up, &addresses, &pool), &desk, (&mine, &other), certs.join("trust-bundle.pem"));
    let by_http = by_http.await?;
    ensure!(by_http > 100, "{by_http} calls over HTTP were to be refused");
    let mut matrix = Matrix { addresses, pool, door, walks: Vec::new() };
    matrix.bad_credentials(&certs, &mine, &bad)?;
    matrix.certificates(&certs, &mine)?;
    matrix.roles(&desk, &mine, &other).await?;
    // the bad tokens are bad for what is wrong with them, and for nothing else
    let empty = |pool: &DescriptorPool, rule: &Rule| request(pool, rule, None);
    let (door, token) = (matrix.door.clone(), bearer(&issuer.good()));
    let told = |rule: &Rule| expected(rule, Role::Operator, Extent::Platform, true);
    matrix.every_method(("a good token", &door, &token), empty, told)?;
    wait_until("a key to expire", UP_LIMIT, || async { Ok(SystemClock.now().as_micros() > expired_at) })
        .await?;
    let refused = matrix.walk().await?;
    ensure!(refused > 3_000, "{refused} calls were to be refused");
    up.stop().await
}
