//! Keys and owners, asked of entitlement over gRPC: for every service but entitlement itself.

use drawdown_proto::{
    entitlement::v1::{
        self, AuthenticateKeyRequest, ResolveOwnersRequest, Thing, ThingKind,
        principal_service_client::PrincipalServiceClient,
    },
    scalar::timestamp_from_proto,
};
use drawdown_types::{AccountId, IdError};
use futures::future::BoxFuture;
use std::{fmt, sync::Arc};
use tonic::{
    body::Body,
    client::GrpcService,
    codegen::{Bytes, StdError},
};

use super::{
    Caller, Kind, Proof, Role, Roles, Scope, Sources,
    key::KeyDigest,
    source::{GoodKey, Keys, Named, Owner, Owners},
};

/// Entitlement, over a channel.
#[derive(Clone, Debug)]
struct Remote<T>(T);

impl Sources {
    /// From entitlement, over a channel whose calls carry the certificate of this service.
    pub fn remote<T>(channel: T) -> Self
    where
        T: GrpcService<Body> + Clone + Send + Sync + 'static,
        T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
        <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
        T::Error: Into<StdError>,
        T::Future: Send,
    {
        let remote = Arc::new(Remote(channel));
        Self { keys: Arc::clone(&remote) as Arc<dyn Keys>, owners: remote }
    }
}

impl<T> Keys for Remote<T>
where
    T: GrpcService<Body> + Clone + Send + Sync + 'static,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
    T::Error: Into<StdError>,
    T::Future: Send,
{
    fn look_up(&self, key: KeyDigest) -> BoxFuture<'_, anyhow::Result<Option<GoodKey>>> {
        Box::pin(async move {
            let request =
                AuthenticateKeyRequest { key_id: key.key_id.to_string(), secret_digest: key.digest.to_vec() };
            let answer = PrincipalServiceClient::new(self.0.clone()).authenticate_key(request).await?;
            let answer = answer.into_inner();
            let until = answer.ends_at.map(|at| timestamp_from_proto(&at)).transpose()?;
            let caller = answer.principal.map(|principal| caller(&key, &principal)).transpose()?;
            Ok(caller.map(|caller| GoodKey { caller, until }))
        })
    }
}

impl<T> Owners for Remote<T>
where
    T: GrpcService<Body> + Clone + Send + Sync + 'static,
    T::ResponseBody: tonic::codegen::Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
    T::Error: Into<StdError>,
    T::Future: Send,
{
    fn owners(&self, things: Vec<Named>) -> BoxFuture<'_, anyhow::Result<Vec<Vec<Owner>>>> {
        Box::pin(async move {
            let mut found: Vec<Vec<Owner>> = Vec::with_capacity(things.len());
            let mut asked = Vec::new();
            let mut places = Vec::new();
            for (index, (kind, id)) in things.into_iter().enumerate() {
                found.push(Vec::new());
                match thing_kind(kind) {
                    Some(kind) => {
                        asked.push(Thing { kind: kind.into(), id });
                        places.push(index);
                    }
                    // an account is its own owner, whether there is one or not
                    None if kind == Kind::Account => {
                        let owner = id.parse().ok().map(Owner::Account);
                        found.last_mut().into_iter().for_each(|of| of.extend(owner));
                    }
                    None => {}
                }
            }
            if asked.is_empty() {
                return Ok(found);
            }
            let request = ResolveOwnersRequest { things: asked };
            let answer = PrincipalServiceClient::new(self.0.clone()).resolve_owners(request).await?;
            let owners = answer.into_inner().owners;
            anyhow::ensure!(owners.len() == places.len(), "owners of some things are missing");
            for (index, owners) in places.into_iter().zip(owners) {
                let owners = owners.owners.iter().map(owner).collect::<Result<Vec<_>, _>>()?;
                if let Some(of) = found.get_mut(index) {
                    *of = owners;
                }
            }
            Ok(found)
        })
    }
}

const fn thing_kind(kind: Kind) -> Option<ThingKind> {
    match kind {
        Kind::Team => Some(ThingKind::Team),
        Kind::App => Some(ThingKind::App),
        Kind::Credential => Some(ThingKind::Credential),
        Kind::Client => Some(ThingKind::Client),
        Kind::Transfer => Some(ThingKind::Transfer),
        Kind::Hub => Some(ThingKind::Hub),
        Kind::Change => Some(ThingKind::Change),
        // the ledger's own
        Kind::Account | Kind::Budget => None,
    }
}

/// The owner that a message names.
fn owner(owner: &v1::Owner) -> Result<Owner, IdError> {
    let account_id = || owner.account_id.parse::<AccountId>();
    match (owner.account_id.as_str(), owner.team_id.as_str()) {
        ("", _) => Ok(Owner::User(owner.user_id.parse()?)),
        (_, "") => Ok(Owner::Account(account_id()?)),
        (_, team_id) => Ok(Owner::Team { account_id: account_id()?, team_id: team_id.parse()? }),
    }
}

/// A role of the other side that is not known here makes the key useless rather than weaker or stronger than it is.
fn caller(key: &KeyDigest, principal: &v1::Principal) -> anyhow::Result<Caller> {
    let roles = principal.roles.iter().map(|number| match v1::PrincipalRole::try_from(*number) {
        Ok(v1::PrincipalRole::Gateway) => Ok(Role::Gateway),
        Ok(v1::PrincipalRole::BillingReader) => Ok(Role::BillingReader),
        Ok(v1::PrincipalRole::TeamAdmin) => Ok(Role::TeamAdmin),
        Ok(v1::PrincipalRole::ContractManager) => Ok(Role::ContractManager),
        Ok(v1::PrincipalRole::Operator) => Ok(Role::Operator),
        Ok(v1::PrincipalRole::Unspecified) | Err(_) => Err(UnknownRole(*number)),
    });
    let scope = match (principal.account_id.as_str(), principal.team_id.as_str()) {
        ("", _) => Scope::Platform,
        (account_id, "") => Scope::Account(account_id.parse()?),
        (account_id, team_id) => Scope::Team { account_id: account_id.parse()?, team_id: team_id.parse()? },
    };
    let user_id = Some(principal.user_id.as_str()).filter(|text| !text.is_empty());
    Ok(Caller {
        proof: Proof::Key { principal_id: principal.principal_id.parse()?, key_id: key.key_id },
        roles: roles.collect::<Result<Roles, _>>()?,
        peer: None,
        scope,
        user_id: user_id.map(str::parse).transpose()?,
    })
}

/// A role that a newer entitlement knows.
#[derive(Debug)]
struct UnknownRole(i32);

impl fmt::Display for UnknownRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "role {} is not known here", self.0)
    }
}

impl std::error::Error for UnknownRole {}
