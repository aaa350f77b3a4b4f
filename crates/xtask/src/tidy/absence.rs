//! What must not be there: see "Invariants of absence" in `crates/ARCHITECTURE.md`.

use super::{Finding, Text};

/// Services with a schema of their own.
const SCHEMAS: [&str; 2] = ["ledger", "entitlement"];
/// Words before the name of a table.
const BEFORE_TABLE: [&str; 5] = ["from", "join", "into", "update", "table"];
/// Calls that give a key of Redis a time to live.
const TIME_TO_LIVE: [&str; 5] = ["EXPIRE", "PEXPIRE", "EXPIREAT", "SETEX", "PSETEX"];

/// A service reads its own schema and no other; the others are asked through their contracts.
pub(super) fn foreign_schemas(text: &Text) -> Vec<Finding> {
    if !["rs", "sql"].contains(&text.extension()) {
        return Vec::new();
    }
    let foreign = SCHEMAS.iter().filter(|schema| !text.path.starts_with(format!("crates/{schema}")));
    let of_service = SCHEMAS.iter().any(|schema| text.path.starts_with(format!("crates/{schema}")));
    if !of_service {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for schema in foreign {
        for (number, line) in text.lines() {
            let line = line.to_lowercase();
            let named = BEFORE_TABLE.iter().any(|word| line.contains(&format!("{word} {schema}.")));
            if named {
                let what = format!("a statement over the schema {schema}");
                findings.push(Finding::new(&text.path, number, what, "a call through its client"));
            }
        }
    }
    findings
}

/// Live data in Redis has no time to live: a key that goes by itself looks like damage.
pub(super) fn time_to_live(text: &Text) -> Vec<Finding> {
    if !text.path.starts_with("crates/metering") || !["rs", "lua"].contains(&text.extension()) {
        return Vec::new();
    }
    let calls = |line: &str| {
        TIME_TO_LIVE
            .iter()
            .any(|call| line.contains(&format!("'{call}'")) || line.contains(&format!("\"{call}\"")))
    };
    let lines = text.lines().filter(|(_, line)| calls(line));
    lines
        .map(|(number, _)| {
            Finding::new(&text.path, number, "a time to live", "a key that is retired by name")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_its_own_schema_only() {
        let cases = [
            ("crates/ledger/sql/a.sql", "select 1 from ledger.lot", 0),
            ("crates/ledger/sql/a.sql", "SELECT 1 FROM entitlement.team", 1),
            ("crates/entitlement/src/store/x.rs", "\"update ledger.balance set\"", 1),
            ("crates/entitlement/src/store/x.rs", "let ledger = self.ledger.ask();", 0),
            ("tests/src/x.rs", "select 1 from ledger.lot", 0),
        ];
        for (path, line, expected) in cases {
            assert_eq!(foreign_schemas(&Text::new(path, line)).len(), expected, "{path}: {line}");
        }
    }

    #[test]
    fn nothing_in_redis_goes_by_itself() {
        let cases = [
            ("crates/metering/lua/a.lua", "redis.call('EXPIRE', key, 60)", 1),
            ("crates/metering/src/redis/store.rs", "cmd(\"PSETEX\")", 1),
            ("crates/metering/lua/a.lua", "redis.call('UNLINK', key)", 0),
            ("crates/xtask/src/tidy/absence.rs", "\"EXPIRE\"", 0),
        ];
        for (path, line, expected) in cases {
            assert_eq!(time_to_live(&Text::new(path, line)).len(), expected, "{path}: {line}");
        }
    }
}
