//! The files of `deploy/` and the shell scripts, each read by the tool that its users have.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::{
    machine::{Workspace, on_path, output, run},
    pip,
    tidy::tree,
};

/// Those of `deploy/.env.example`.
const SECRETS: [&str; 5] = [
    "DRAWDOWN_POSTGRES_PASSWORD",
    "DRAWDOWN_LEDGER_POSTGRES_PASSWORD",
    "DRAWDOWN_ENTITLEMENT_POSTGRES_PASSWORD",
    "DRAWDOWN_REDIS_PASSWORD",
    "DRAWDOWN_CREDENTIAL_PEPPER",
];
const PINS: &str = "tests/pip/requirements.txt";

pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let tools = pip::install(workspace, "deploy-tools", PINS)?;
    let tool = |name: &str| workspace.command(tools.join("bin").join(name));
    run(tool("hadolint").arg("deploy/Dockerfile"))?;
    let mut compose = tool("docker-compose");
    // it resolves nothing without them; nothing is started
    compose.envs(SECRETS.map(|name| (name, "ab".repeat(32))));
    compose.args(["--file", "deploy/compose.yaml", "--profile", "observe", "config", "--format", "json"]);
    check_settings(workspace, &output(&mut compose)?)?;
    let scripts = tree::files(&workspace.root)?.into_iter().filter(|path| is_shell(&workspace.root, path));
    run(tool("shellcheck").args(["--shell", "bash", "--severity", "style"]).args(scripts))?;
    run(workspace.command(promtool()?).args(["check", "config", "deploy/prometheus.yaml"]))?;
    println!("deploy: Dockerfile, compose.yaml, prometheus.yaml and the shell scripts are clean");
    Ok(ExitCode::SUCCESS)
}

/// What compose.yaml sets is what the binary knows: a misspelt variable would leave a default in its place.
fn check_settings(workspace: &Workspace, resolved: &str) -> anyhow::Result<()> {
    let variables = settings(resolved)?;
    ensure!(!variables.is_empty(), "compose.yaml sets nothing for a service of drawdown");
    run(workspace.cargo().args(["build", "--quiet", "--workspace", "--bin", "drawdown"]))?;
    let mut drawdown = workspace.command(workspace.program("debug", "drawdown"));
    run(drawdown.env_clear().envs(variables).args(["config", "check"])).context("settings of compose.yaml")
}

/// Every variable `DRAWDOWN_…` of every service.
fn settings(resolved: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let resolved: Value = serde_json::from_str(resolved).context("resolved compose.yaml")?;
    let services =
        resolved.get("services").and_then(Value::as_object).context("compose.yaml has no services")?;
    let environments = services.values().filter_map(|service| service.get("environment")?.as_object());
    let ours = environments.flatten().filter(|(name, _)| name.starts_with("DRAWDOWN_"));
    Ok(ours.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect())
}

fn is_shell(root: &Path, path: &Path) -> bool {
    let first =
        || fs::read_to_string(root.join(path)).is_ok_and(|text| text.starts_with("#!/usr/bin/env bash"));
    path.extension().map_or_else(first, |extension| extension == "sh")
}

/// Prometheus' own checker; Debian has it in the package of the server.
fn promtool() -> anyhow::Result<PathBuf> {
    if let Some(found) = on_path("promtool") {
        return Ok(found);
    }
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        run(command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1"))
    };
    apt(&["update"])?;
    apt(&["install", "--yes", "--no-install-recommends", "prometheus"])?;
    on_path("promtool").context("no promtool after the installation of prometheus")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_all_services() {
        let resolved = r#"{"services": {
            "ledger": {"environment": {"DRAWDOWN_LEDGER__X": "1", "PATH": "/bin"}},
            "metering": {"environment": {"DRAWDOWN_METERING__Y": "2"}},
            "redis": {"image": "redis"}}}"#;
        let found: Vec<_> = settings(resolved).unwrap().into_iter().collect();
        let expected = [("DRAWDOWN_LEDGER__X", "1"), ("DRAWDOWN_METERING__Y", "2")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(settings("{}").is_err());
    }

    #[test]
    fn shell_scripts_by_name_and_by_first_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("run"), "#!/usr/bin/env bash\n").unwrap();
        fs::write(folder.path().join("LICENSE"), "Apache License\n").unwrap();
        let cases = [("run", true), ("LICENSE", false), ("watch.sh", true), ("lib.rs", false)];
        for (name, expected) in cases {
            assert_eq!(is_shell(folder.path(), Path::new(name)), expected, "{name}");
        }
    }
}
