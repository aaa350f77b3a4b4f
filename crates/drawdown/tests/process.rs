//! The binary as a process: exit codes, and what it says before it does anything.

use std::{
    net::TcpListener,
    process::{Command, Output},
};

/// Runs the binary in a clean environment.
fn drawdown(arguments: &[&str], variables: &[(&str, &str)]) -> std::io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_drawdown"))
        .args(arguments)
        .env_clear()
        .envs(variables.iter().copied())
        .output()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const PEPPER: (&str, &str) = (
    "DRAWDOWN_ENTITLEMENT__CREDENTIAL_PEPPER",
    "abababababababababababababababababababababababababababababababab",
);

#[test]
fn a_bad_configuration_ends_with_64_and_binds_nothing() {
    // The port is taken, so that an attempt to bind it would be told as a failure of its own.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str]); 9] = [
        ("[server]\nlisten = 1\n", &["server: is no known section"]),
        ("[SERVICE]\nno_such_value = 1\n", &["SERVICE.no_such_value: is no known setting"]),
        ("[SERVICE.server]\ndrain_ms = 0\n", &["SERVICE.server.drain_ms: 0 ms is not between"]),
        ("[SERVICE.server]\ncalls_max = -1\n", &["SERVICE.server.calls_max: "]),
        (
            "[SERVICE.server]\nmetrics_listen = \"here\"\n",
            &["SERVICE.server.metrics_listen: \"here\" is not"],
        ),
        ("SERVICE = 1\n", &["SERVICE: has to be a section"]),
        ("[telemetry]\nlog_filter = \"=,=\"\n", &["telemetry.log_filter: "]),
        ("[telemetry\n", &["TOML parse error at line 1"]),
        (
            "[telemetry]\nlog_format = 1\n[SERVICE]\nx = 1\n[SERVICE.server]\ncalls_max = 0\n",
            &["telemetry.log_format: ", "SERVICE.x: ", "SERVICE.server.calls_max: 0 is not"],
        ),
    ];
    for service in ["metering", "ledger", "entitlement"] {
        let listen = format!("DRAWDOWN_{}__SERVER__LISTEN", service.to_ascii_uppercase());
        for (content, expected) in &cases {
            let path = dir.path().join("drawdown.toml");
            std::fs::write(&path, content.replace("SERVICE", service)).unwrap();
            let arguments = [service, "--config", path.to_str().unwrap()];
            let output = drawdown(&arguments, &[(&listen, &address), PEPPER]).unwrap();
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(64), "{service} {content}: {said}");
            for problem in *expected {
                assert!(said.contains(&problem.replace("SERVICE", service)), "{service} {content}: {said}");
            }
            assert!(!said.contains("can not listen"), "{said}");
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_a_bad_configuration() {
    let output = drawdown(&["config", "check", "--config", "/nowhere/drawdown.toml"], &[PEPPER]).unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("can not read /nowhere/drawdown.toml"), "{}", stderr(&output));
}

#[test]
fn the_printed_defaults_are_a_configuration() {
    let printed = drawdown(&["config", "defaults"], &[]).unwrap();
    assert!(printed.status.success());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drawdown.toml");
    std::fs::write(&path, printed.stdout).unwrap();
    let output = drawdown(&["config", "check", "--config", path.to_str().unwrap()], &[PEPPER]).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_bad_command_line_ends_with_64_and_help_with_0() {
    for (arguments, code) in [
        (&["no-such-command"][..], 64),
        (&["balance"][..], 64),
        (&["balance", "team_x", "--at", "soon"][..], 64),
        (&["balance", "team_x", "--ledger-endpoint", "nowhere"][..], 64),
        (&["--help"][..], 0),
        (&["--version"][..], 0),
        (&["ledger", "verify", "--help"][..], 0),
    ] {
        assert_eq!(drawdown(arguments, &[]).unwrap().status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_service_that_is_not_there_is_a_failure() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{nobody}");
    let output = drawdown(&["balance", "team_x", "--ledger-endpoint", &endpoint], &[]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let endpoints = ["METERING", "LEDGER", "ENTITLEMENT"].map(|name| format!("DRAWDOWN_{name}_ENDPOINT"));
    let variables: Vec<(&str, &str)> =
        endpoints.iter().map(|name| (name.as_str(), endpoint.as_str())).collect();
    let output = drawdown(&["status", "--json"], &variables).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("not serving: metering, ledger, entitlement"), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("unreachable"));
}
