//! The gate itself: from a call's head to its caller, and from a request's names to their owners.
//!
//! Cost of a call with a key that is remembered: one SHA-256 of 52 bytes and one look-up in memory. Of one that is
//! not: one call to entitlement, shared by everybody who asks about the same key meanwhile. Bad keys are not
//! remembered; what bounds them is the count of failures per address and the look-ups under way at once.
//! Where entitlement is away, what is remembered holds to its end and not longer: then calls with keys are
//! refused with UNAVAILABLE. Certificates need no look-up, so the services among themselves go on.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use drawdown_types::{Clock, Timestamp};
use http::{Extensions, HeaderMap, header::AUTHORIZATION};
use moka::future::Cache;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{
    Caller, Denied, IdentityConfig, Proof, RULES, Rule, Scope,
    failures::Failures,
    key::{ApiKey, KEY_PREFIX, KeyDigest},
    names::{Contracts, Found, Names},
    refused,
    source::{GoodKey, Keys, Named, Owner, Owners},
    token::{GoodToken, Tokens},
};
use crate::{
    Refusal,
    refusal::chain,
    tls::{Connection, Peer},
};

/// What a gate is made of, beside its settings.
pub struct Sources {
    /// Who knows the keys.
    pub keys: Arc<dyn Keys>,
    /// Who knows whose everything is.
    pub owners: Arc<dyn Owners>,
}

/// Decides who may call. Cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    config: IdentityConfig,
    clock: Arc<dyn Clock>,
    sources: Sources,
    rules: HashMap<&'static str, (Rule, Names)>,
    keys: Cache<KeyDigest, GoodKey>,
    tokens: Option<Arc<Tokens>>,
    /// Tokens that were found good, by their SHA-256: a signature costs more than a look-up.
    good_tokens: Cache<[u8; 32], GoodToken>,
    owners: Cache<Named, Arc<[Owner]>>,
    lookups: Semaphore,
    failures: Failures,
    judged: Counter<u64>,
}

/// What comes of a look-up that does not give an answer.
#[derive(Clone, Debug)]
enum Missed {
    /// There is no such key.
    Unknown,
    /// Nobody could say.
    Away(String),
}

/// What an attempt at a credential counts for.
#[derive(Clone, Copy)]
enum Attempt {
    /// A call: its failures count for its address.
    Call(Option<IpAddr>),
    /// A stream that asks again, with a credential that was good: whoever holds it guesses nothing, so it neither counts nor is
    /// it held up by what others guessed.
    Again,
}

impl Gate {
    /// A gate with these settings.
    #[must_use]
    pub fn new(config: &IdentityConfig, clock: Arc<dyn Clock>, meter: &Meter, sources: Sources) -> Self {
        let contracts = Contracts::load();
        let rules = RULES.iter().copied().flatten();
        // a rule whose fields do not exist admits nobody; a test says so before
        let rules = rules.filter_map(|rule| Some((rule.method, (*rule, contracts.names(rule)?))));
        let entries = u64::try_from(config.cache_entries_max).unwrap_or(u64::MAX);
        let judged = meter
            .u64_counter("rpc.server.identity")
            .with_description("calls by how their caller was known and what was judged")
            .build();
        Self(Arc::new(Inner {
            rules: rules.collect(),
            keys: Cache::builder().max_capacity(entries).time_to_live(config.key_cache).build(),
            tokens: config.tokens.clone().map(|tokens| Arc::new(Tokens::new(tokens))),
            good_tokens: Cache::builder().max_capacity(entries).time_to_live(config.key_cache).build(),
            owners: Cache::builder().max_capacity(entries).time_to_live(config.owner_cache).build(),
            lookups: Semaphore::new(config.lookups_max),
            failures: Failures::new(config.failures_per_second_max),
            config: config.clone(),
            clock,
            sources,
            judged,
        }))
    }

    /// Who makes a call, and that they may make it. `path` is that of gRPC: `/package.Service/Method`.
    ///
    /// # Errors
    /// A refusal that tells nothing but what the caller has to change.
    pub async fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Arc<Caller>, Refusal> {
        let judged = self.judge(path, headers, extensions).await;
        let (proof, outcome) = match &judged {
            Ok(caller) => (proof_name(&caller.proof), "admitted"),
            Err(refusal) => (claimed(headers, extensions), refusal.reason),
        };
        self.0.judged.add(1, &[KeyValue::new("proof", proof), KeyValue::new("outcome", outcome)]);
        judged.map(Arc::new)
    }

    async fn judge(
        &self,
        path: &str,
        headers: &HeaderMap,
        extensions: &Extensions,
    ) -> Result<Caller, Refusal> {
        let Some((rule, _)) = self.rule(path) else { return Err(refused::role()) };
        if rule.who == super::Who::Anyone {
            return Ok(Caller::anonymous());
        }
        let caller = self.caller(headers, extensions).await?;
        match rule.judge(&caller) {
            Ok(()) => Ok(caller),
            Err(Denied::Unknown) => Err(refused::anonymous()),
            Err(Denied::Role) => Err(refused::role()),
            Err(Denied::Scope) => Err(refused::scope()),
        }
    }

    fn rule(&self, path: &str) -> Option<&(Rule, Names)> {
        self.0.rules.get(path.strip_prefix('/')?)
    }

    /// Who makes a call: by the key that it carries, else by the certificate of its connection, else nobody.
    ///
    /// # Errors
    /// Where a credential is there and no good, or can not be looked up.
    pub async fn caller(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Refusal> {
        let attempt = Attempt::Call(address(extensions));
        self.known(headers, extensions.get::<Peer>(), attempt).await
    }

    /// Whether `caller`, who was known by a key or a token in these headers, still is. Yes, while nobody can say.
    pub(crate) async fn is_still(&self, caller: &Caller, headers: &HeaderMap) -> bool {
        match self.known(headers, None, Attempt::Again).await {
            Ok(now) => now == *caller,
            Err(refusal) => refusal.code != crate::Code::Unauthenticated,
        }
    }

    async fn known(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        attempt: Attempt,
    ) -> Result<Caller, Refusal> {
        if headers.get_all(AUTHORIZATION).iter().count() > 1 {
            return Err(refused::credential());
        }
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(peer.map_or_else(Caller::anonymous, |peer| Caller::certified(peer.name.as_str())));
        };
        let found = match bearer(header.as_bytes()) {
            Some(text) if text.starts_with(KEY_PREFIX) => match ApiKey::parse(text) {
                Ok(key) => self.by_key(key.digest(), attempt).await,
                Err(_) => Err(refused::malformed()),
            },
            Some(text) => self.by_token(text, attempt).await,
            None => Err(refused::credential()),
        };
        if let Attempt::Call(address) = attempt
            && found.as_ref().is_err_and(refused::is_failed_attempt)
        {
            self.0.failures.note(address, self.0.clock.now());
        }
        found
    }

    fn is_spent(&self, attempt: Attempt) -> bool {
        match attempt {
            Attempt::Call(address) => self.0.failures.is_spent(address, self.0.clock.now()),
            Attempt::Again => false,
        }
    }

    async fn by_token(&self, text: &str, attempt: Attempt) -> Result<Caller, Refusal> {
        let inner = &*self.0;
        let Some(tokens) = &inner.tokens else { return Err(refused::credential()) };
        let (now, digest) = (inner.clock.now(), Sha256::digest(text.as_bytes()).into());
        if let Some(good) = inner.good_tokens.get(&digest).await.filter(|good| tokens.holds(good, now)) {
            return Ok(good.caller);
        }
        if self.is_spent(attempt) {
            return Err(refused::attempts());
        }
        let good = tokens.verify(text, now).map_err(|_| refused::credential())?;
        inner.good_tokens.insert(digest, good.clone()).await;
        Ok(good.caller)
    }

    /// Looks at the keys of tokens again and again, until the signal to stop.
    pub(crate) fn keep_tokens(&self, stop: CancellationToken) {
        if let Some(tokens) = &self.0.tokens {
            tokio::spawn(Arc::clone(tokens).reload(stop));
        }
    }

    async fn by_key(&self, key: KeyDigest, attempt: Attempt) -> Result<Caller, Refusal> {
        let inner = &*self.0;
        let good = match inner.keys.get(&key).await {
            Some(good) => good,
            None if self.is_spent(attempt) => return Err(refused::attempts()),
            None => {
                let found = inner.keys.try_get_with(key, self.look_up(key)).await;
                found.map_err(|missed| match &*missed {
                    Missed::Unknown => refused::credential(),
                    Missed::Away(why) => {
                        tracing::warn!(error.chain = %why, "keys can not be looked up");
                        refused::unavailable()
                    }
                })?
            }
        };
        let now: Timestamp = inner.clock.now();
        if good.until.is_some_and(|until| until <= now) {
            inner.keys.invalidate(&key).await;
            return Err(refused::credential());
        }
        Ok(good.caller)
    }

    async fn look_up(&self, key: KeyDigest) -> Result<GoodKey, Missed> {
        let found = self.within(async { self.0.sources.keys.look_up(key).await }).await;
        found.map_err(Missed::Away)?.ok_or(Missed::Unknown)
    }

    /// Runs one look-up, when it is its turn and as long as it may take.
    async fn within<T>(&self, lookup: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
        let limit: Duration = self.0.config.lookup_timeout;
        let turn = async {
            let _permit = self.0.lookups.acquire().await?;
            lookup.await
        };
        match tokio::time::timeout(limit, turn).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err(format!("nothing was found within {} ms", limit.as_millis())),
        }
    }

    /// Whether the request of this caller has to be read before its method is called.
    #[must_use]
    pub fn looks_at_names(&self, path: &str, caller: &Caller) -> bool {
        self.rule(path).is_some_and(|(rule, _)| rule.looks_at_names(caller))
    }

    /// That everything which a request names is the caller's own, and that the person it names as acting is.
    ///
    /// # Errors
    /// A refusal that is the same for what is another's and for what does not exist.
    pub async fn check_names(&self, path: &str, caller: &Caller, message: &[u8]) -> Result<(), Refusal> {
        let Some((rule, names)) = self.rule(path) else { return Err(refused::role()) };
        let read = names.read(message, self.0.config.names_max);
        let found = read.map_err(|_| refused::unreadable())?;
        check_actor(rule, caller, &found)?;
        if caller.scope == Scope::Platform || !matches!(rule.reach, super::Reach::Named(_)) {
            return Ok(());
        }
        let owners = self.owners(found.named).await?;
        if is_own(caller, &owners) { Ok(()) } else { Err(refused::scope()) }
    }

    async fn owners(&self, named: Vec<Named>) -> Result<Vec<Arc<[Owner]>>, Refusal> {
        let mut owners: Vec<Option<Arc<[Owner]>>> = Vec::with_capacity(named.len());
        let mut asked = Vec::new();
        for thing in &named {
            let known = self.0.owners.get(thing).await;
            if known.is_none() {
                asked.push(thing.clone());
            }
            owners.push(known);
        }
        if !asked.is_empty() {
            let lookup = async { self.0.sources.owners.owners(asked.clone()).await };
            let found = self.within(lookup).await.map_err(|why| {
                tracing::warn!(error.chain = %why, "owners can not be looked up");
                refused::unavailable()
            })?;
            let mut fresh = asked.into_iter().zip(found);
            for slot in owners.iter_mut().filter(|slot| slot.is_none()) {
                let Some((thing, found)) = fresh.next() else { return Err(refused::unavailable()) };
                let found: Arc<[Owner]> = found.into();
                self.0.owners.insert(thing, Arc::clone(&found)).await;
                *slot = Some(found);
            }
        }
        Ok(owners.into_iter().flatten().collect())
    }

    /// Whether the method answers with a stream.
    pub(crate) fn is_stream(&self, path: &str) -> bool {
        self.rule(path).is_some_and(|(_, names)| names.streams())
    }

    /// How often a stream asks again whether its caller is still admitted.
    pub(crate) fn recheck_interval(&self) -> Duration {
        self.0.config.key_cache
    }
}

/// A person acts for nobody else: where the caller is somebody's, the request names that person. Who acts for an account or
/// a team acts as a person, or not at all.
fn check_actor(rule: &Rule, caller: &Caller, found: &Found) -> Result<(), Refusal> {
    if rule.actor.is_none() {
        return Ok(());
    }
    let named = found.actor.as_deref();
    let fits = match caller.user_id {
        Some(user_id) => named.map_or(caller.scope == Scope::Platform, |named| named == user_id.to_string()),
        None => caller.scope == Scope::Platform,
    };
    if fits { Ok(()) } else { Err(refused::actor()) }
}

/// Everything named is the caller's, and for a team something is that very team's.
fn is_own(caller: &Caller, owners: &[Arc<[Owner]>]) -> bool {
    let own = |owner: &Owner| match (owner, caller.scope) {
        (_, Scope::Platform) => true,
        (Owner::User(user_id), _) => caller.user_id == Some(*user_id),
        (Owner::Account(account_id), scope) => scope.account() == Some(*account_id),
        (Owner::Team { account_id, .. }, Scope::Account(mine)) => mine == *account_id,
        (Owner::Team { team_id, .. }, Scope::Team { team_id: mine, .. }) => mine == *team_id,
    };
    let inside = |owner: &Owner| match caller.scope {
        Scope::Team { .. } => !matches!(owner, Owner::Account(_)) && own(owner),
        Scope::Platform | Scope::Account(_) => own(owner),
    };
    owners.iter().all(|of| of.iter().any(own)) && owners.iter().any(|of| of.iter().any(inside))
}

/// The text after `Bearer `.
fn bearer(header: &[u8]) -> Option<&str> {
    let (scheme, text) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}

fn address(extensions: &Extensions) -> Option<IpAddr> {
    extensions.get::<Connection>().map(|connection| connection.remote.ip())
}

const fn proof_name(proof: &Proof) -> &'static str {
    match proof {
        Proof::Nothing => "none",
        Proof::Local => "local",
        Proof::Process => "process",
        Proof::Certificate(_) => "certificate",
        Proof::Key { .. } => "key",
        Proof::Token { .. } => "token",
    }
}

/// What a refused call tried to be known by.
fn claimed(headers: &HeaderMap, extensions: &Extensions) -> &'static str {
    match headers.get(AUTHORIZATION).map(|header| bearer(header.as_bytes())) {
        Some(Some(text)) if text.starts_with(KEY_PREFIX) => "key",
        Some(Some(_)) => "token",
        Some(None) => "other",
        None if extensions.get::<Peer>().is_some() => "certificate",
        None => "none",
    }
}
