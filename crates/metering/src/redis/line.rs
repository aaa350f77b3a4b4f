//! One way to the server or servers: every call says by its key where it belongs.
//!
//! Shape: one server and the master that sentinels name get all calls of a question in one round trip; in a cluster each
//! key's calls go to its master, one after the other, those of different keys at once. A call to a cluster may be
//! carried out twice (the connection broke after it was sent): every function finds another state then and refuses.
//!
//! Life: after a time-out the connection is given up. A connection to the master of sentinels is given up after any
//! trouble, and the next call asks the sentinels anew. The library is loaded where it is missed: on an emptied server,
//! on a new master, on the master that a slot moved to. A master that came while we run is checked like those at start.

use std::sync::{Mutex, PoisonError};

use futures::future::join_all;
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike, ConnectionManager, MultiplexedConnection},
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, Route, RoutingInfo, SingleNodeRoutingInfo, SlotAddr},
    cmd,
    sentinel::SentinelClient,
};

use super::{
    safety::{self, StartError},
    scripts,
    settings::{self, Servers, Settings},
};

/// A command, with the key that it belongs to.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) key: String,
    pub(super) command: Cmd,
}

/// Who has to answer.
#[derive(Clone, Copy, Debug)]
enum Whom<'a> {
    /// Who has this key.
    Holder(&'a str),
    /// A node of the cluster; elsewhere the only one.
    Node(&'a str),
}

/// One way.
pub(super) struct Line {
    settings: Settings,
    way: Way,
}

enum Way {
    Single { client: Client, connection: Mutex<ConnectionManager> },
    Cluster { client: ClusterClient, connection: Mutex<ClusterConnection> },
    Sentinel { client: tokio::sync::Mutex<SentinelClient>, current: Mutex<Current> },
}

/// The connection to the master that the sentinels named last.
#[derive(Default)]
struct Current {
    /// Counts connections, so that late trouble of an old one does not end a newer one.
    number: u64,
    connection: Option<MultiplexedConnection>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

// === impl Line ===

impl Line {
    pub(super) async fn open(settings: &Settings) -> Result<Self, StartError> {
        let way = match &settings.servers {
            Servers::Single { url } => {
                let client = Client::open(url.expose()).map_err(StartError::Address)?;
                let connection = ConnectionManager::new_lazy_with_config(client.clone(), settings.manager());
                Way::Single { client, connection: Mutex::new(connection.map_err(StartError::Address)?) }
            }
            Servers::Cluster { urls } => {
                let client = settings.cluster(urls).map_err(StartError::Address)?;
                let connection = client.get_async_connection_with_config(cluster_config(settings)).await;
                let call = "CLUSTER SLOTS";
                let connection = connection.map_err(|source| StartError::Call { call, source })?;
                Way::Cluster { client, connection: Mutex::new(connection) }
            }
            Servers::Sentinel { urls, master, login } => {
                let client = settings::sentinel_client(urls, master, login).map_err(StartError::Address)?;
                Way::Sentinel { client: tokio::sync::Mutex::new(client), current: Mutex::default() }
            }
        };
        Ok(Self { settings: settings.clone(), way })
    }

    /// Refuses servers that could lose or evict what they hold, by name, and loads the library into all of them.
    pub(super) async fn prepare(&self) -> Result<(), StartError> {
        match &self.way {
            Way::Single { .. } => self.prepare_node("").await,
            // A new connection checks its master.
            Way::Sentinel { .. } => self.master().await.map(drop),
            Way::Cluster { .. } => {
                for node in self.masters().await? {
                    let prepared = self.prepare_node(&node).await;
                    prepared.map_err(|source| StartError::Node { node, source: Box::new(source) })?;
                }
                Ok(())
            }
        }
    }

    /// Answers of all calls, each in its place. Of an error nobody knows whether the call took, or will take, effect.
    pub(super) async fn run(&self, calls: &[Call]) -> Vec<Result<Value, RedisError>> {
        let answers = match &self.way {
            Way::Single { connection, .. } => pipeline(&mut copy(connection), calls).await,
            Way::Sentinel { .. } => match self.connected().await {
                Ok((number, mut connection)) => {
                    let answers = pipeline(&mut connection, calls).await;
                    if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
                        self.leave_master(number, error);
                    }
                    answers
                }
                Err(error) => calls.iter().map(|_| Err(error.clone())).collect(),
            },
            Way::Cluster { connection, .. } => by_key(copy(connection), calls).await,
        };
        if let Some(error) = answers.iter().find_map(|answer| answer.as_ref().err()) {
            self.give_up_after(error);
        }
        answers
    }

    /// Values of all calls, or the first error. The library is loaded and all are sent once more where a function
    /// was missing: such calls changed nothing.
    pub(super) async fn all(&self, calls: &[Call]) -> Result<Vec<Value>, RedisError> {
        let mut loaded = false;
        loop {
            let answers = self.run(calls).await;
            let failed = answers.iter().zip(calls).find_map(|(answer, call)| {
                answer.as_ref().err().map(|error| (error.clone(), call.key.as_str()))
            });
            let Some((failed, key)) = failed else { return answers.into_iter().collect() };
            if loaded || !is_of_server(&failed) || !self.ensure_library(key).await? {
                return Err(failed);
            }
            loaded = true;
        }
    }

    /// Loads the library for whoever has the key, where it is missing or older; says whether it did.
    pub(super) async fn ensure_library(&self, key: &str) -> Result<bool, RedisError> {
        let whom = Whom::Holder(key);
        let is_new = self.load_library(whom).await?;
        if is_new && matches!(self.way, Way::Cluster { .. }) {
            // It was not there at start, or was emptied since.
            let refused = self.check(whom).await;
            refused.map_err(|error| RedisError::from((ErrorKind::Client, "a master", error.to_string())))?;
        }
        Ok(is_new)
    }

    async fn load_library(&self, whom: Whom<'_>) -> Result<bool, RedisError> {
        if has_library(self.ask(whom, revision()).await)? {
            return Ok(false);
        }
        self.ask(whom, load()).await?;
        Ok(true)
    }

    async fn prepare_node(&self, node: &str) -> Result<(), StartError> {
        self.check(Whom::Node(node)).await?;
        self.load_library(Whom::Node(node)).await.map(drop).map_err(StartError::Library)
    }

    async fn check(&self, whom: Whom<'_>) -> Result<(), StartError> {
        let [info, settings] = safety::questions();
        let answers = [self.ask(whom, info).await, self.ask(whom, settings).await];
        safety::judge(answers, self.settings.allow_unsafe)
    }

    async fn ask(&self, whom: Whom<'_>, command: Cmd) -> Result<Value, RedisError> {
        let answer = match (&self.way, whom) {
            (Way::Single { connection, .. }, _) => command.query_async(&mut copy(connection)).await,
            (Way::Sentinel { .. }, _) => {
                let (number, mut connection) = self.connected().await?;
                let answer = command.query_async(&mut connection).await;
                answer.inspect_err(|error| self.leave_master(number, error))
            }
            (Way::Cluster { connection, .. }, whom) => {
                let route = match whom {
                    Whom::Holder(key) => holder(key),
                    Whom::Node(address) => node(address)?,
                };
                copy(connection).route_command(command, route).await.and_then(Value::extract_error)
            }
        };
        answer.inspect_err(|error| self.give_up_after(error))
    }

    /// Addresses of all masters of the cluster.
    async fn masters(&self) -> Result<Vec<String>, StartError> {
        let Way::Cluster { connection, .. } = &self.way else { return Ok(Vec::new()) };
        let failed = |source| StartError::Call { call: "PING", source };
        let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        match copy(connection).route_command(cmd("PING"), all).await.map_err(failed)? {
            Value::Map(answers) => {
                answers.into_iter().map(|(node, _)| read::<String>(node).map_err(failed)).collect()
            }
            other => Err(failed((ErrorKind::Parse, "no map of nodes", format!("{other:?}")).into())),
        }
    }

    /// A time-out says that nothing comes back over this connection.
    fn give_up_after(&self, error: &RedisError) {
        if !error.is_timeout() {
            return;
        }
        match &self.way {
            Way::Single { client, connection } => {
                let again = ConnectionManager::new_lazy_with_config(client.clone(), self.settings.manager());
                if let Ok(again) = again {
                    *connection.lock().unwrap_or_else(PoisonError::into_inner) = again;
                }
            }
            Way::Cluster { client, connection } => {
                let again = client.get_pending_async_connection_with_config(cluster_config(&self.settings));
                *connection.lock().unwrap_or_else(PoisonError::into_inner) = again;
            }
            Way::Sentinel { .. } => {}
        }
    }

    /// The master that the sentinels name: connected, checked, with the library.
    async fn connected(&self) -> Result<(u64, MultiplexedConnection), RedisError> {
        self.master().await.map_err(|error| match error {
            StartError::Call { source, .. } | StartError::Library(source) | StartError::Address(source) => {
                source
            }
            refused => (ErrorKind::Client, "the master of the sentinels", refused.to_string()).into(),
        })
    }

    async fn master(&self) -> Result<(u64, MultiplexedConnection), StartError> {
        let Way::Sentinel { client, current } = &self.way else {
            let source = (ErrorKind::InvalidClientConfig, "there are no sentinels").into();
            return Err(StartError::Address(source));
        };
        let known = || {
            let current = current.lock().unwrap_or_else(PoisonError::into_inner);
            current.connection.clone().map(|connection| (current.number, connection))
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let mut client = client.lock().await;
        // Another call may have been faster.
        if let Some(known) = known() {
            return Ok(known);
        }
        let failed = |source| StartError::Call { call: "SENTINEL MASTERS", source };
        let config = self.settings.connection();
        let connecting = client.get_async_connection_with_config(&config);
        let connecting = tokio::time::timeout(self.settings.connection_timeout, connecting).await;
        let late = || std::io::Error::from(std::io::ErrorKind::TimedOut);
        let mut connection = connecting.map_err(|_| failed(late().into()))?.map_err(failed)?;
        let [info, settings] = safety::questions();
        let answers = [info.query_async(&mut connection).await, settings.query_async(&mut connection).await];
        safety::judge(answers, self.settings.allow_unsafe)?;
        if !has_library(revision().query_async(&mut connection).await).map_err(StartError::Library)? {
            load().query_async::<()>(&mut connection).await.map_err(StartError::Library)?;
        }
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        current.number = current.number.wrapping_add(1);
        current.connection = Some(connection.clone());
        Ok((current.number, connection))
    }

    /// After trouble that may mean that another server is the master now.
    fn leave_master(&self, number: u64, error: &RedisError) {
        let Way::Sentinel { current, .. } = &self.way else { return };
        let stays = match error.kind() {
            ErrorKind::Server(kind) => {
                !matches!(kind, ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
            }
            _ => false,
        };
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if !stays && current.number == number {
            current.connection = None;
        }
    }
}

/// The server itself refused: a function that it does not have, say. It changed nothing.
pub(super) fn is_of_server(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(_))
}

fn copy<C: Clone>(connection: &Mutex<C>) -> C {
    connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, RedisError> {
    FromRedisValue::from_redis_value(value).map_err(RedisError::from)
}

fn cluster_config(settings: &Settings) -> ClusterConfig {
    ClusterConfig::new()
        .set_connection_timeout(settings.connection_timeout)
        .set_response_timeout(settings.response_timeout)
}

fn holder(key: &str) -> RoutingInfo {
    RoutingInfo::SingleNode(SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master)))
}

fn node(address: &str) -> Result<RoutingInfo, RedisError> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let (host, port) = parts.ok_or((ErrorKind::Parse, "the address of a node can not be read"))?;
    Ok(RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host: host.to_owned(), port }))
}

/// All calls in one round trip.
async fn pipeline(connection: &mut impl ConnectionLike, calls: &[Call]) -> Vec<Result<Value, RedisError>> {
    let mut pipeline = Pipeline::with_capacity(calls.len());
    for call in calls {
        pipeline.add_command(call.command.clone());
    }
    match connection.req_packed_commands(&pipeline, 0, calls.len()).await {
        Ok(values) if values.len() == calls.len() => values.into_iter().map(Value::extract_error).collect(),
        Ok(_) => {
            let error = RedisError::from((ErrorKind::Parse, "another number of answers than of calls"));
            calls.iter().map(|_| Err(error.clone())).collect()
        }
        Err(error) => calls.iter().map(|_| Err(error.clone())).collect(),
    }
}

/// Calls of one key one after the other, of different keys at once.
async fn by_key(connection: ClusterConnection, calls: &[Call]) -> Vec<Result<Value, RedisError>> {
    let mut keys: Vec<(&str, Vec<(usize, Cmd)>)> = Vec::new();
    for (place, call) in calls.iter().enumerate() {
        let command = (place, call.command.clone());
        match keys.iter_mut().find(|(key, _)| *key == call.key) {
            Some((_, commands)) => commands.push(command),
            None => keys.push((&call.key, vec![command])),
        }
    }
    let runs = keys.into_iter().map(|(key, commands)| in_turn(connection.clone(), holder(key), commands));
    let mut answers: Vec<_> = join_all(runs).await.into_iter().flatten().collect();
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

async fn in_turn(
    mut connection: ClusterConnection,
    route: RoutingInfo,
    commands: Vec<(usize, Cmd)>,
) -> Vec<(usize, Result<Value, RedisError>)> {
    let mut answers = Vec::with_capacity(commands.len());
    for (place, command) in commands {
        let answer = connection.route_command(command, route.clone()).await;
        answers.push((place, answer.and_then(Value::extract_error)));
    }
    answers
}

/// Asks for the revision of the library.
fn revision() -> Cmd {
    let mut revision = cmd("FCALL_RO");
    revision.arg(scripts::REVISION_OF).arg(0);
    revision
}

/// Whether the answer tells of a library that is new enough.
fn has_library(revision: Result<Value, RedisError>) -> Result<bool, RedisError> {
    match revision.and_then(read::<u64>) {
        Ok(revision) => Ok(revision >= scripts::REVISION),
        Err(error) if is_of_server(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Loads the library in place of an older one.
fn load() -> Cmd {
    let mut load = cmd("FUNCTION");
    load.arg("LOAD").arg("REPLACE").arg(scripts::LIBRARY);
    load
}
