//! Rules: which line of an access log is whose usage of what.
//!
//! Shape: an ordered list read from TOML; the first rule whose conditions all hold decides; a line that no
//! rule takes is ignored. Everything is checked when the file is read, all faults at once, so that mapping a
//! line cannot fail but for a quantity that the line itself lacks.
//!
//! ```toml
//! format = "auto"                     # auto, combined or json
//!
//! [[rule]]
//! name = "health checks"
//! path = "/healthz"                   # exact; also path_prefix, path_pattern (a regular expression)
//! ignore = true
//!
//! [[rule]]
//! name = "downloads"
//! path_pattern = "^/files(/|$)"
//! methods = ["GET"]
//! status = { from = 200, to = 399 }   # inclusive
//! client_id = "client_01j2gv5gymfsfrn6rc3mq3yjjv"   # or { field = "consumer" } of a JSON line
//! meter = "web.egress"
//! quantity = "bytes"                  # one (default), bytes, or { field = "tokens" } of a JSON line
//! failed_from_status = 400            # this status and above count as failed; 400 is the default
//! dimensions = { region = "eu" }
//! ```

use std::collections::BTreeMap;

use drawdown_types::{ClientId, DimensionName, MeterSlug, Quantity};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::access_log::{Entry, Format};

/// Most rules of one file.
pub const RULES_MAX: usize = 1000;
const DIMENSIONS_MAX: usize = 8;
const DIMENSION_VALUE_BYTES_MAX: usize = 128;
const FAILED_FROM_STATUS: u16 = 400;

/// A checked set of rules.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How lines are written.
    pub format: Format,
    rules: Vec<Rule>,
}

/// One thing wrong with a file of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// Where, such as `rule[3].meter`.
    pub field: String,
    /// What is wrong and what would be right.
    pub description: String,
}

/// Why a file of rules was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Not TOML, or not of this shape.
    #[error("the rules are not readable: {0}")]
    Toml(String),
    /// Rules that make no sense, all of them.
    #[error("{} faults in the rules: {}", .0.len(), list(.0))]
    Faults(Vec<RuleFault>),
}

fn list(faults: &[RuleFault]) -> String {
    faults
        .iter()
        .map(|fault| format!("{}: {}", fault.field, fault.description))
        .collect::<Vec<_>>()
        .join("; ")
}

/// What the rules make of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mapped<'a> {
    /// Usage.
    Usage(MappedUsage<'a>),
    /// Not metered.
    Ignored,
    /// A rule took it, but a field of the line is missing or can not be used.
    Unusable {
        /// The field.
        field: &'a str,
        /// What it has to be.
        needed: &'static str,
    },
}

/// Usage that a line stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedUsage<'a> {
    /// Whose.
    pub client_id: &'a str,
    /// Of what.
    pub meter: &'a MeterSlug,
    /// How much, in the meter's base unit.
    pub quantity: u64,
    /// The request failed.
    pub failed: bool,
    /// Dimensions, sorted by name.
    pub dimensions: &'a [(DimensionName, String)],
}

#[derive(Debug, Clone)]
struct Rule {
    condition: Condition,
    action: Option<Action>,
}

#[derive(Debug, Clone, Default)]
struct Condition {
    path: Option<String>,
    path_prefix: Option<String>,
    path_pattern: Option<Regex>,
    methods: Vec<String>,
    status: Option<StatusRange>,
    host: Option<String>,
    user_agent_pattern: Option<Regex>,
    fields: BTreeMap<String, Value>,
}

#[derive(Debug, Clone)]
struct Action {
    client_id: Client,
    meter: MeterSlug,
    quantity: RawQuantity,
    failed_from_status: u16,
    dimensions: Vec<(DimensionName, String)>,
}

#[derive(Debug, Clone)]
enum Client {
    Fixed(ClientId),
    Field(String),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum RawClient {
    Fixed(String),
    Field { field: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRules {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    rule: Vec<RawRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRule {
    name: Option<String>,
    path: Option<String>,
    path_prefix: Option<String>,
    path_pattern: Option<String>,
    methods: Vec<String>,
    status: Option<StatusRange>,
    host: Option<String>,
    user_agent_pattern: Option<String>,
    fields: BTreeMap<String, Value>,
    ignore: bool,
    client_id: Option<RawClient>,
    meter: Option<String>,
    quantity: Option<RawQuantity>,
    failed_from_status: Option<u16>,
    dimensions: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusRange {
    from: u16,
    to: u16,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum RawQuantity {
    One,
    Bytes,
    #[serde(untagged)]
    Field {
        field: String,
    },
}

impl Rules {
    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// [`RulesError`], with every fault.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let raw: RawRules = toml::from_str(text).map_err(|error| RulesError::Toml(error.to_string()))?;
        let mut faults = Vec::new();
        if raw.rule.is_empty() || raw.rule.len() > RULES_MAX {
            let description = format!("has {} rules, 1 to {RULES_MAX} are needed", raw.rule.len());
            faults.push(RuleFault { field: "rule".to_owned(), description });
        }
        let mut rules = Vec::with_capacity(raw.rule.len());
        for (index, rule) in raw.rule.into_iter().enumerate() {
            let mut check = Check { at: place(index, rule.name.as_deref()), faults: &mut faults };
            rules.extend(check.rule(rule));
        }
        if faults.is_empty() {
            Ok(Self { format: raw.format, rules })
        } else {
            Err(RulesError::Faults(faults))
        }
    }

    /// What the first rule that takes `entry` makes of it.
    #[must_use]
    pub fn map<'a>(&'a self, entry: &'a Entry<'_>) -> Mapped<'a> {
        let Some(rule) = self.rules.iter().find(|rule| rule.condition.holds(entry)) else {
            return Mapped::Ignored;
        };
        let Some(action) = &rule.action else {
            return Mapped::Ignored;
        };
        let quantity = match &action.quantity {
            RawQuantity::One => 1,
            RawQuantity::Bytes if entry.bytes > Quantity::EVENT_MAX => {
                return Mapped::Unusable { field: "bytes", needed: "a whole number of at most 2^48" };
            }
            RawQuantity::Bytes => entry.bytes,
            RawQuantity::Field { field } => {
                let value = entry.fields.as_ref().and_then(|fields| fields.get(field));
                match value.and_then(Value::as_u64).filter(|units| *units <= Quantity::EVENT_MAX) {
                    Some(units) => units,
                    None => return Mapped::Unusable { field, needed: "a whole number of at most 2^48" },
                }
            }
        };
        let client_id = match &action.client_id {
            Client::Fixed(client_id) => client_id.as_str(),
            Client::Field(field) => {
                let value = entry.fields.as_ref().and_then(|fields| fields.get(field));
                match value.and_then(Value::as_str).filter(|text| ClientId::new(text).is_ok()) {
                    Some(text) => text,
                    None => return Mapped::Unusable { field, needed: "a client id" },
                }
            }
        };
        Mapped::Usage(MappedUsage {
            client_id,
            meter: &action.meter,
            quantity,
            failed: entry.status >= action.failed_from_status,
            dimensions: &action.dimensions,
        })
    }
}

fn place(index: usize, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("rule[{index}] ({name})"),
        None => format!("rule[{index}]"),
    }
}

impl Condition {
    fn holds(&self, entry: &Entry<'_>) -> bool {
        let field_is = |(name, value): (&String, &Value)| {
            entry.fields.as_ref().and_then(|fields| fields.get(name)) == Some(value)
        };
        self.path.as_deref().is_none_or(|path| entry.path == path)
            && self.path_prefix.as_deref().is_none_or(|prefix| entry.path.starts_with(prefix))
            && self.path_pattern.as_ref().is_none_or(|pattern| pattern.is_match(&entry.path))
            && (self.methods.is_empty() || self.methods.iter().any(|method| *method == entry.method))
            && self.status.is_none_or(|range| (range.from..=range.to).contains(&entry.status))
            && self.host.as_deref().is_none_or(|host| entry.host.as_deref() == Some(host))
            && self.user_agent_pattern.as_ref().is_none_or(|pattern| {
                entry.user_agent.as_deref().is_some_and(|agent| pattern.is_match(agent))
            })
            && self.fields.iter().all(field_is)
    }
}

/// Checks one rule, collecting what is wrong with it.
struct Check<'a> {
    at: String,
    faults: &'a mut Vec<RuleFault>,
}

impl Check<'_> {
    fn fault(&mut self, field: &str, description: impl Into<String>) {
        self.faults
            .push(RuleFault { field: format!("{}.{field}", self.at), description: description.into() });
    }

    fn rule(&mut self, mut raw: RawRule) -> Option<Rule> {
        let condition = Condition {
            path: raw.path.take(),
            path_prefix: raw.path_prefix.take(),
            path_pattern: self.pattern("path_pattern", raw.path_pattern.as_deref()),
            methods: std::mem::take(&mut raw.methods),
            status: raw.status,
            host: raw.host.take(),
            user_agent_pattern: self.pattern("user_agent_pattern", raw.user_agent_pattern.as_deref()),
            fields: std::mem::take(&mut raw.fields),
        };
        if raw.status.is_some_and(|range| range.from > range.to) {
            self.fault("status", "begins after it ends");
        }
        if raw.ignore {
            if raw.client_id.is_some() || raw.meter.is_some() || raw.quantity.is_some() {
                self.fault("ignore", "is true beside client_id, meter or quantity; keep one or the other");
            }
            return Some(Rule { condition, action: None });
        }
        let action = self.action(raw)?;
        Some(Rule { condition, action: Some(action) })
    }

    fn pattern(&mut self, field: &str, text: Option<&str>) -> Option<Regex> {
        let compiled = Regex::new(text?);
        compiled.map_err(|error| self.fault(field, format!("is no regular expression: {error}"))).ok()
    }

    fn action(&mut self, raw: RawRule) -> Option<Action> {
        let client_id = match raw.client_id {
            Some(RawClient::Field { field }) => Some(Client::Field(field)),
            Some(RawClient::Fixed(text)) => {
                self.name("client_id", Some(&text), ClientId::new).map(Client::Fixed)
            }
            None => self.name("client_id", None, ClientId::new).map(Client::Fixed),
        };
        let meter = self.name("meter", raw.meter.as_deref(), MeterSlug::new);
        if raw.dimensions.len() > DIMENSIONS_MAX {
            self.fault("dimensions", format!("are {}, at most {DIMENSIONS_MAX}", raw.dimensions.len()));
        }
        let mut dimensions = Vec::with_capacity(raw.dimensions.len());
        for (name, value) in raw.dimensions {
            let field = format!("dimensions.{name}");
            if value.len() > DIMENSION_VALUE_BYTES_MAX {
                self.fault(&field, format!("has {} bytes, at most {DIMENSION_VALUE_BYTES_MAX}", value.len()));
            }
            if let Some((at, _)) = value.char_indices().find(|(_, c)| c.is_control()) {
                self.fault(&field, format!("has a control character at byte {at}"));
            }
            match DimensionName::new(&name) {
                Ok(name) => dimensions.push((name, value)),
                Err(error) => self.fault(&field, error.to_string()),
            }
        }
        Some(Action {
            client_id: client_id?,
            meter: meter?,
            quantity: raw.quantity.unwrap_or(RawQuantity::One),
            failed_from_status: raw.failed_from_status.unwrap_or(FAILED_FROM_STATUS),
            dimensions,
        })
    }

    fn name<T, E: ToString>(
        &mut self,
        field: &str,
        text: Option<&str>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Some(text) = text else {
            self.fault(field, "is missing; a rule has client_id and meter, or ignore = true");
            return None;
        };
        parse(text).map_err(|error| self.fault(field, error.to_string())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &[u8] = br#"{"time":"2015-05-17T10:05:03Z","method":"GET","path":"/a/b","status":500,"bytes":7,"tier":"gold","tokens":42}"#;

    fn mapped(rules: &str) -> String {
        let rules = Rules::parse(rules).unwrap();
        let entry = rules.format.read(JSON).unwrap();
        match rules.map(&entry) {
            Mapped::Usage(usage) => {
                format!("{} {} {} {}", usage.client_id, usage.meter, usage.quantity, usage.failed)
            }
            Mapped::Ignored => "ignored".to_owned(),
            Mapped::Unusable { field, .. } => format!("no {field}"),
        }
    }

    #[test]
    fn the_first_rule_that_holds_decides() {
        let action = "client_id = 'c'\nmeter = 'm'";
        let cases = [
            (format!("[[rule]]\npath_prefix = '/a'\n{action}"), "c m 1 true"),
            (format!("[[rule]]\npath = '/a'\n{action}"), "ignored"),
            (format!("[[rule]]\npath = '/a/b'\nignore = true\n[[rule]]\n{action}"), "ignored"),
            (format!("[[rule]]\npath_pattern = '^/a(/|$)'\nquantity = 'bytes'\n{action}"), "c m 7 true"),
            (
                format!("[[rule]]\nquantity = {{ field = 'tokens' }}\nfailed_from_status = 501\n{action}"),
                "c m 42 false",
            ),
            (format!("[[rule]]\nquantity = {{ field = 'tier' }}\n{action}"), "no tier"),
            ("[[rule]]\nclient_id = { field = 'tier' }\nmeter = 'm'".to_owned(), "gold m 1 true"),
            ("[[rule]]\nclient_id = { field = 'path' }\nmeter = 'm'".to_owned(), "no path"),
            ("[[rule]]\nclient_id = { field = 'none' }\nmeter = 'm'".to_owned(), "no none"),
            (format!("[[rule]]\nfields = {{ tier = 'silver' }}\n{action}"), "ignored"),
            (format!("[[rule]]\nfields = {{ tier = 'gold' }}\n{action}"), "c m 1 true"),
            (format!("[[rule]]\nmethods = ['POST']\n{action}"), "ignored"),
            (format!("[[rule]]\nstatus = {{ from = 500, to = 500 }}\n{action}"), "c m 1 true"),
            (format!("[[rule]]\nuser_agent_pattern = 'x'\n{action}"), "ignored"),
            (format!("[[rule]]\nhost = 'h'\n{action}"), "ignored"),
        ];
        for (rules, expected) in cases {
            assert_eq!(mapped(&rules), expected, "{rules}");
        }
    }

    #[test]
    fn the_rules_of_the_readme_hold() {
        let readme = include_str!("../README.md");
        let (_, rest) = readme.split_once("```toml\n").unwrap();
        let (rules, _) = rest.split_once("```").unwrap();
        assert_eq!(Rules::parse(rules).unwrap().rules.len(), 4);
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let text = "[[rule]]\nname = 'x'\npath_pattern = '('\nmeter = 'Web'\n\
                    [[rule]]\nignore = true\nclient_id = 'c'\nstatus = { from = 2, to = 1 }";
        let Err(RulesError::Faults(faults)) = Rules::parse(text) else { panic!("taken") };
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        let expected = [
            "rule[0] (x).path_pattern",
            "rule[0] (x).client_id",
            "rule[0] (x).meter",
            "rule[1].status",
            "rule[1].ignore",
        ];
        assert_eq!(fields, expected);
        assert!(matches!(Rules::parse(""), Err(RulesError::Faults(_))));
        assert!(matches!(Rules::parse("[[rule]]\ncolour = 1"), Err(RulesError::Toml(_))));
    }
}
