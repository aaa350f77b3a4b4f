//! The whole life of private servers: start, data, drills, stop, and the death of the process that asked for them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use drawdown_sandbox::{Error, Options, Sandbox, Source};

/// Set in the process that starts a sandbox and is killed.
const PARENT: &str = "DRAWDOWN_SANDBOX_TEST_PARENT";

fn start(data_dir: Option<&Path>) -> Sandbox {
    // whatever a developer's environment names, these tests are about private servers
    Sandbox::start(Options { data_dir: data_dir.map(Path::to_owned), ..Options::default() }).unwrap()
}

fn port(url: &str) -> u16 {
    let address = url.rsplit('@').next().unwrap();
    address.split('/').next().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

fn is_free(url: &str) -> bool {
    TcpListener::bind(("127.0.0.1", port(url))).is_ok()
}

/// What Redis answers to an inline command, its two first lines.
fn redis(url: &str, command: &str) -> String {
    let password = url.split_once("://:").unwrap().1.split('@').next().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port(url))).unwrap();
    stream.write_all(format!("AUTH {password}\r\n{command}\r\nQUIT\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.strip_prefix("+OK\r\n").unwrap().strip_suffix("+OK\r\n").unwrap().trim().to_owned()
}

fn shut_down(url: &str) {
    let password = url.split_once("://:").unwrap().1.split('@').next().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port(url))).unwrap();
    stream.write_all(format!("AUTH {password}\r\nSHUTDOWN NOSAVE\r\n").as_bytes()).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    assert!(wait(Duration::from_secs(20), || is_free(url)));
}

fn psql(sandbox: &Sandbox, statement: &str) -> String {
    let program = sandbox.postgres().programs().unwrap().join("psql");
    let output = Command::new(program)
        .args(["--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-qAt", "-c", statement, sandbox.postgres_url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn wait(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        if condition() {
            return true;
        }
        std::thread::yield_now();
    }
    condition()
}

#[test]
fn two_at_once_and_free_ports_afterwards() {
    let (first, second) = (start(None), start(None));
    let urls =
        [&first, &second].map(|sandbox| [sandbox.postgres_url(), sandbox.redis_url()].map(str::to_owned));
    for sandbox in [&first, &second] {
        assert_eq!(psql(sandbox, "select current_database()"), "drawdown");
        assert_eq!(redis(sandbox.redis_url(), "PING"), "+PONG");
    }
    let settings = psql(
        &first,
        "select string_agg(name || '=' || setting, ' ' order by lower(name)) from pg_settings where name in
         ('fsync', 'full_page_writes', 'synchronous_commit', 'listen_addresses', 'TimeZone')",
    );
    let expected =
        "fsync=on full_page_writes=on listen_addresses=127.0.0.1 synchronous_commit=on TimeZone=UTC";
    assert_eq!(settings, expected);
    let policy = redis(first.redis_url(), "CONFIG GET maxmemory-policy");
    assert!(policy.ends_with("noeviction"), "{policy}");
    let synced = redis(first.redis_url(), "CONFIG GET appendfsync");
    assert!(synced.ends_with("always"), "{synced}");

    first.stop().unwrap();
    drop(second);
    for url in urls.iter().flatten() {
        assert!(is_free(url), "{url}");
    }
}

#[test]
fn a_password_is_asked_for() {
    let sandbox = start(None);
    let mut stream = TcpStream::connect(("127.0.0.1", port(sandbox.redis_url()))).unwrap();
    stream.write_all(b"PING\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("-NOAUTH"), "{answer}");
    let without = format!("postgres://drawdown@127.0.0.1:{}/drawdown", port(sandbox.postgres_url()));
    let program = sandbox.postgres().programs().unwrap().join("psql");
    let output = Command::new(program).args(["--no-password", "-c", "select 1", &without]).output().unwrap();
    assert!(!output.status.success());
}

#[test]
fn a_data_folder_keeps_its_data_and_has_one_owner() {
    let folder = tempfile::Builder::new().prefix("drawdown-kept-").tempdir_in("/tmp").unwrap();
    open(folder.path());
    let data = folder.path().join("data");
    let sandbox = start(Some(&data));
    psql(&sandbox, "create table kept as select 42 as answer");
    assert_eq!(redis(sandbox.redis_url(), "SET kept 42"), "+OK");
    let again = Sandbox::start(Options { data_dir: Some(data.clone()), ..Options::default() });
    assert!(matches!(again, Err(Error::InUse { .. })), "{again:?}");
    sandbox.stop().unwrap();

    let sandbox = start(Some(&data));
    assert_eq!(psql(&sandbox, "select answer from kept"), "42");
    assert_eq!(redis(sandbox.redis_url(), "GET kept"), "$2\r\n42");
    drop(sandbox);
    assert!(data.join("postgres/data/PG_VERSION").is_file());
}

/// Lets the unprivileged user of the servers pass.
fn open(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn redis_is_killed_and_started_with_and_without_its_data() {
    let sandbox = start(None);
    let url = sandbox.redis_url().to_owned();
    assert_eq!(redis(&url, "SET answer 42"), "+OK");
    assert!(matches!(sandbox.redis().start(), Err(Error::Running { .. })));
    sandbox.redis().kill9().unwrap();
    assert!(is_free(&url));
    sandbox.redis().kill9().unwrap();
    sandbox.redis().start().unwrap();
    assert_eq!(redis(&url, "GET answer"), "$2\r\n42");
    sandbox.redis().kill9().unwrap();
    sandbox.redis().start_empty().unwrap();
    assert_eq!(redis(&url, "GET answer"), "$-1");
    sandbox.redis().restart().unwrap();
    assert_eq!(sandbox.redis_url(), url);

    // one that ends by itself is as good as stopped
    assert_eq!(redis(&url, "SET answer 43"), "+OK");
    shut_down(&url);
    // its port is free a little before it has ended
    assert!(wait(Duration::from_secs(20), || sandbox.redis().start().is_ok()));
    assert_eq!(redis(&url, "GET answer"), "$2\r\n43");
}

#[test]
fn postgres_is_killed_and_recovers() {
    let sandbox = start(None);
    psql(&sandbox, "create table kept as select 42 as answer");
    let url = sandbox.postgres_url().to_owned();
    sandbox.postgres().kill9().unwrap();
    assert!(is_free(&url));
    sandbox.postgres().start().unwrap();
    assert_eq!(psql(&sandbox, "select answer from kept"), "42");
    sandbox.postgres().restart().unwrap();
    assert_eq!(psql(&sandbox, "select answer from kept"), "42");
    assert_eq!(sandbox.postgres_url(), url);
}

#[test]
fn given_servers_are_used_and_left_alone() {
    let own = start(None);
    let given = Sandbox::start(Options {
        postgres_url: Some(own.postgres_url().to_owned()),
        redis_url: Some(own.redis_url().to_owned()),
        ..Options::default()
    })
    .unwrap();
    assert_eq!(given.postgres_url(), own.postgres_url());
    assert!(matches!(given.redis().kill9(), Err(Error::NotOurs { .. })));
    assert!(matches!(given.postgres().restart(), Err(Error::NotOurs { .. })));
    given.stop().unwrap();
    assert_eq!(redis(own.redis_url(), "PING"), "+PONG");
    let nobody = Options { redis_url: Some("redis://127.0.0.1:1".to_owned()), ..Options::default() };
    let error = Sandbox::start(nobody).unwrap_err().to_string();
    assert_eq!(error, "cannot reach the given Redis at 127.0.0.1:1");
}

#[test]
fn without_a_source_the_error_says_so() {
    let options = Options { sources: Vec::new(), ..Options::default() };
    assert!(matches!(Sandbox::start(options), Err(Error::NotFound { .. })));
    let _named = Source::ALL.map(Source::name);
}

/// The body of the process that [`servers_die_with_a_killed_parent`] kills; as a test of its own it has nothing to do.
#[test]
fn parent_process() {
    if std::env::var_os(PARENT).is_none() {
        return;
    }
    let sandbox = start(None);
    println!("urls {} {}", sandbox.postgres_url(), sandbox.redis_url());
    // until it is killed: nothing is ever written to its input
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn servers_die_with_a_killed_parent() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_process", "--nocapture"])
        .env(PARENT, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let line = lines.map(Result::unwrap).find(|line| line.contains("urls ")).unwrap();
    let urls: Vec<&str> = line.split_once("urls ").unwrap().1.split(' ').collect();
    assert_eq!(urls.len(), 2);
    parent.kill().unwrap();
    parent.wait().unwrap();
    for url in urls {
        assert!(wait(Duration::from_secs(20), || is_free(url)), "{url} is still served");
    }
}
