//! Files that change while calls are made.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

const USED: &str = "drawdown_tls_reloads_total{outcome=\"used\"}";
const BROKEN: &str = "drawdown_tls_reloads_total{outcome=\"broken\"}";
/// Callers that make a connection for each call, and such that keep theirs.
const CALLERS: usize = 4;

/// Callers that go on until they are told to stop; each failed call is kept.
struct Load {
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    async fn start(rig: &Arc<Rig>, files: &Files) -> Self {
        let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = Vec::new();
        for caller in 0..CALLERS {
            let (rig, stop, calls) = (Arc::clone(rig), Arc::clone(&stop), Arc::clone(&calls));
            let connector = connector(files.clone(), "127.0.0.1");
            let kept =
                if caller % 2 == 0 { None } else { Some(rig.channel(connector.clone()).await.unwrap()) };
            tasks.push(tokio::spawn(async move {
                let mut failed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let answer = match &kept {
                        Some(channel) => who(channel.clone()).await,
                        None => match rig.channel(connector.clone()).await {
                            Ok(channel) => who(channel).await,
                            Err(status) => Err(status),
                        },
                    };
                    match answer {
                        Ok(name) => assert_eq!(name, "metering"),
                        Err(status) => failed.push(status.to_string()),
                    }
                    calls.fetch_add(1, Ordering::SeqCst);
                }
                failed
            }));
        }
        Self { stop, calls, tasks }
    }

    /// Until every caller has made some calls more.
    async fn goes_on(&self) {
        let then = self.calls.load(Ordering::SeqCst) + 50;
        until(|| self.calls.load(Ordering::SeqCst) >= then).await;
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            assert_eq!(task.await.unwrap(), Vec::<String>::new());
        }
        self.calls.load(Ordering::SeqCst)
    }
}

/// As a deployment does it: whole or not at all.
fn replace(path: &Path, content: &str) {
    let half = path.with_extension("partial");
    std::fs::write(&half, content).unwrap();
    std::fs::rename(half, path).unwrap();
}

#[tokio::test]
async fn a_rotation_of_everything_fails_no_call() {
    let rig = Arc::new(Rig::new().await);
    let old = rig.client(&rig.authority, &Profile::client("old"));
    let files = rig.client(&rig.authority, &Profile::client("metering"));
    let load = Load::start(&rig, &files).await;
    let kept = rig.channel(connector(old.clone(), "127.0.0.1")).await.unwrap();
    assert_eq!(who(kept.clone()).await.unwrap(), "old");
    load.goes_on().await;

    // 1: both authorities are trusted, by both sides
    let bundle = rig.dir.path().join("bundle.pem");
    let next = Authority::new("next").unwrap();
    replace(&bundle, &format!("{}{}", rig.authority.certificate_pem(), next.certificate_pem()));
    until(|| rig.figure(USED) > 0.5).await;
    load.goes_on().await;
    // 2: certificates of the next one, key after certificate: for a while they do not fit
    for (name, profile) in [("server", Profile::service("ledger")), ("metering", Profile::client("metering"))]
    {
        let issued = next.issue(&profile).unwrap();
        replace(&rig.dir.path().join(format!("{name}.pem")), &issued.certificate_pem());
        if name == "server" {
            until(|| rig.figure(BROKEN) > 0.5).await;
            until(|| rig.figure("drawdown_tls_files_broken") > 0.5).await;
        }
        load.goes_on().await;
        replace(&rig.dir.path().join(format!("{name}.key")), issued.key_pem());
        load.goes_on().await;
    }
    until(|| rig.figure(USED) > 1.5 && rig.figure("drawdown_tls_files_broken") < 0.5).await;
    load.goes_on().await;
    // 3: the first authority is trusted no more
    replace(&bundle, next.certificate_pem());
    until(|| rig.figure(USED) > 2.5).await;
    load.goes_on().await;
    assert!(load.end().await > 300);

    // what it issued makes no new connection, and keeps the one it has
    rig.call(old).await.unwrap_err();
    until(|| rig.failed("unknown_issuer") > 0.5).await;
    assert_eq!(who(kept).await.unwrap(), "old");
}

#[tokio::test]
async fn a_broken_set_leaves_the_old_one_in_use() {
    let rig = Rig::new().await;
    let files = rig.client(&rig.authority, &Profile::client("metering"));
    let bundle = rig.dir.path().join("bundle.pem");
    for (broken, times) in
        [("", 1.0), ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 2.0)]
    {
        let ours = std::fs::read_to_string(&bundle).unwrap();
        let server_key = rig.dir.path().join("server.key");
        let key = std::fs::read_to_string(&server_key).unwrap();
        replace(&server_key, broken);
        until(|| rig.figure(BROKEN) >= times).await;
        assert_eq!(rig.call(files.clone()).await.unwrap(), "metering");
        replace(&server_key, &key);
        until(|| rig.figure("drawdown_tls_files_broken") < 0.5).await;
        assert_eq!(std::fs::read_to_string(&bundle).unwrap(), ours);
    }
}
