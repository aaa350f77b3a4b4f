//! More of Redis than one server, for tests: a server whose data and limits a test may touch, a cluster of masters, a
//! master with its replicas and sentinels. All of them have one password, as clients of a cluster expect.
//!
//! Shape: each server has a folder of its own below one place; readiness is asked of the servers themselves, in a
//! loop with a limit.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    Error, Source, find,
    place::Place,
    probe,
    process::wait_until,
    redis::{Plan, Redis, Role},
};

const SLOTS: usize = 16_384;
/// A cluster takes writes two seconds after its nodes met; sentinels find each other by messages every two seconds.
const MEET_LIMIT: Duration = Duration::from_secs(60);
/// The name under which sentinels know the master.
const MASTER: &str = "drawdown";

/// One private Redis. Dropping it stops it.
#[derive(Debug)]
pub struct RedisServer {
    server: Redis,
}

/// Private masters that share the slots evenly.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

/// A master with replicas, and three sentinels that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<RedisServer>,
}

impl RedisServer {
    /// Starts one, with these lines in its settings after ours.
    ///
    /// # Errors
    /// Where there is no program for it or it does not become ready.
    pub fn start_with(lines: &[&str], sources: &[Source]) -> Result<Self, Error> {
        let place = Arc::new(Place::open(None)?);
        let plan = Plan {
            name: "redis".to_owned(),
            program: find::redis(sources)?,
            secret: None,
            role: Role::Data,
            lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        };
        Self::start_as(place, &plan)
    }

    /// Starts this program, whatever its version. It is copied to where the user of the servers may run it.
    ///
    /// # Errors
    /// Where it can not be copied or does not become ready.
    pub fn start_program(program: &Path) -> Result<Self, Error> {
        let place = Arc::new(Place::open(None)?);
        let program = place.program(program)?;
        let (name, lines) = ("redis".to_owned(), Vec::new());
        Self::start_as(place, &Plan { name, program, secret: None, role: Role::Data, lines })
    }

    fn start_as(place: Arc<Place>, plan: &Plan) -> Result<Self, Error> {
        Ok(Self { server: Redis::start_as(place, plan)? })
    }

    /// `redis://…`; the same through kills and restarts.
    #[must_use]
    pub fn url(&self) -> &str {
        self.server.url()
    }

    /// What it answers to one command of words without spaces, as it comes.
    ///
    /// # Errors
    /// With its own words, where it answers with an error or not at all.
    pub fn command(&self, command: &str) -> Result<String, String> {
        let (port, secret) = (self.server.port(), self.server.secret());
        let port = port.map_err(|error| error.to_string())?;
        probe::redis_command(port, secret.map_err(|error| error.to_string())?, command)
    }

    /// The folder of its data.
    ///
    /// # Errors
    /// Never for a server that was started here.
    pub fn data_dir(&self) -> Result<PathBuf, Error> {
        self.server.data()
    }

    /// Lets it write no file above a size from its next start on, as a full disk would; `None` lifts it.
    ///
    /// # Errors
    /// Never for a server that was started here.
    pub fn limit_files(&self, bytes_max: Option<u64>) -> Result<(), Error> {
        self.server.limit_files(bytes_max)
    }

    /// Kills it as a power cut would; nothing where it does not run.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn kill9(&self) -> Result<(), Error> {
        self.server.kill9()
    }

    /// Stops it cleanly; nothing where it does not run.
    ///
    /// # Errors
    /// Where it does not end.
    pub fn stop(&self) -> Result<(), Error> {
        self.server.stop()
    }

    /// Starts it again, on the same port, with the data it had logged.
    ///
    /// # Errors
    /// Where it runs already or does not become ready.
    pub fn start(&self) -> Result<(), Error> {
        self.server.start()
    }

    fn port(&self) -> Result<u16, Error> {
        self.server.port()
    }

    fn must(&self, command: &str) -> Result<String, Error> {
        self.command(command).map_err(|output| Error::Program {
            program: format!("redis: {command}"),
            outcome: "refused".to_owned(),
            output,
        })
    }

    /// Whether its answer has all of these lines.
    fn reads(&self, command: &str, expected: &[&str]) -> Result<(), String> {
        let answer = self.command(command)?.replace("\r\n", "\n");
        match expected.iter().find(|line| !answer.contains(**line)) {
            None => Ok(()),
            Some(missing) => Err(format!("{command}: no {missing:?} in {answer:?}")),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // with its data gone there is nothing to end cleanly for
        if let Err(error) = self.server.kill9() {
            tracing::error!(%error, "cannot stop a redis");
        }
    }
}

impl RedisCluster {
    /// Starts so many masters, gives each its part of the slots and waits until all of them take writes.
    ///
    /// # Errors
    /// Where there is no program for them or they do not become ready.
    pub fn start_with(masters: usize, sources: &[Source]) -> Result<Self, Error> {
        let place = Arc::new(Place::open(None)?);
        let program = find::redis(sources)?;
        let secret = one_secret(&place)?;
        let mut nodes = Vec::with_capacity(masters);
        for number in 0..masters {
            let plan = Plan {
                name: format!("node-{number}"),
                program: program.clone(),
                secret: Some(secret.clone()),
                role: Role::Node,
                lines: vec!["cluster-node-timeout 2000".to_owned()],
            };
            nodes.push(RedisServer::start_as(Arc::clone(&place), &plan)?);
        }
        let cluster = Self { nodes };
        cluster.join()?;
        Ok(cluster)
    }

    /// The masters, in the order of their slots.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// Moves a slot with its keys. Between the steps, with the slot at neither place alone, `between` is called: before
    /// any key, and after each.
    ///
    /// # Errors
    /// Where a node refuses a step.
    pub fn move_slot(
        &self,
        slot: u16,
        from: usize,
        to: usize,
        mut between: impl FnMut(),
    ) -> Result<(), Error> {
        let outside = || Error::Url { what: "a node of the cluster" };
        let (from, to) = (self.nodes.get(from).ok_or_else(outside)?, self.nodes.get(to).ok_or_else(outside)?);
        let id = |node: &RedisServer| Ok::<_, Error>(bulk(&node.must("CLUSTER MYID")?));
        let (from_id, to_id) = (id(from)?, id(to)?);
        to.must(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"))?;
        from.must(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"))?;
        between();
        let (port, secret) = (to.port()?, to.server.secret()?);
        loop {
            let keys = from.must(&format!("CLUSTER GETKEYSINSLOT {slot} 1"))?;
            let Some(key) = keys.lines().nth(2) else { break };
            from.must(&format!("MIGRATE 127.0.0.1 {port} {key} 0 5000 AUTH {secret}"))?;
            between();
        }
        for node in [to, from].into_iter().chain(&self.nodes) {
            node.must(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"))?;
        }
        Ok(())
    }

    fn join(&self) -> Result<(), Error> {
        let count = self.nodes.len();
        for (number, node) in self.nodes.iter().enumerate() {
            let (first, last) = (number * SLOTS / count, (number + 1) * SLOTS / count - 1);
            node.must(&format!("CLUSTER ADDSLOTSRANGE {first} {last}"))?;
            node.must(&format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1))?;
        }
        let Some((first, others)) = self.nodes.split_first() else { return Ok(()) };
        for other in others {
            let (port, bus) = (other.port()?, other.server.bus_port()?);
            first.must(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"))?;
        }
        let nodes = format!("cluster_known_nodes:{count}\n");
        let expected = ["cluster_state:ok\n", "cluster_slots_ok:16384\n", nodes.as_str()];
        let ready = || {
            let mut nodes = self.nodes.iter();
            nodes.try_for_each(|node| node.reads("CLUSTER INFO", &expected))
        };
        wait("Redis Cluster", ready)
    }
}

impl RedisSentinels {
    /// Starts a master with one replica, and three sentinels of which two have to agree that it is gone.
    ///
    /// # Errors
    /// Where there is no program for them or they do not become ready.
    pub fn start_with(down_after: Duration, sources: &[Source]) -> Result<Self, Error> {
        let place = Arc::new(Place::open(None)?);
        let program = find::redis(sources)?;
        let secret = one_secret(&place)?;
        let start = |name: String, role, lines: Vec<String>| {
            let plan = Plan { name, program: program.clone(), secret: Some(secret.clone()), role, lines };
            RedisServer::start_as(Arc::clone(&place), &plan)
        };
        let login = || vec![format!("masterauth {secret}"), "repl-diskless-sync-delay 0".to_owned()];
        let master = start("master".to_owned(), Role::Data, login())?;
        let port = master.port()?;
        let mut lines = login();
        lines.push(format!("replicaof 127.0.0.1 {port}"));
        let replica = start("replica".to_owned(), Role::Data, lines)?;
        wait("the replica", || replica.reads("INFO replication", &["master_link_status:up\n"]))?;
        let mut sentinels = Vec::new();
        for number in 0..3 {
            let lines = vec![
                format!("sentinel monitor {MASTER} 127.0.0.1 {port} 2"),
                format!("sentinel auth-pass {MASTER} {secret}"),
                format!("sentinel down-after-milliseconds {MASTER} {}", down_after.as_millis()),
                format!("sentinel failover-timeout {MASTER} 3000"),
                format!("sentinel sentinel-pass {secret}"),
            ];
            sentinels.push(start(format!("sentinel-{number}"), Role::Sentinel, lines)?);
        }
        let known = ["num-slaves\n$1\n1\n", "num-other-sentinels\n$1\n2\n"];
        wait("the sentinels", || {
            let mut sentinels = sentinels.iter();
            sentinels.try_for_each(|one| one.reads(&format!("SENTINEL MASTER {MASTER}"), &known))
        })?;
        Ok(Self { servers: vec![master, replica], sentinels })
    }

    /// The name under which the sentinels know the master.
    #[must_use]
    pub const fn master_name(&self) -> &'static str {
        MASTER
    }

    /// The sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The first master, and its replica.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }
}

fn one_secret(place: &Place) -> Result<String, Error> {
    let folder = place.server("all")?;
    place.secret(&folder)
}

/// The text of a bulk answer.
fn bulk(answer: &str) -> String {
    answer.lines().nth(1).unwrap_or_default().to_owned()
}

fn wait(what: &'static str, ready: impl Fn() -> Result<(), String>) -> Result<(), Error> {
    let mut reason = String::new();
    let done = wait_until(MEET_LIMIT, || match ready() {
        Ok(()) => true,
        Err(answer) => {
            reason = answer;
            false
        }
    });
    if done {
        return Ok(());
    }
    Err(Error::NotReady { what, waited: MEET_LIMIT, reason, log: String::new() })
}
