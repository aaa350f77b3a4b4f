//! Migrations expand first and contract later: while one runs, and after it, the version before still serves.
//!
//! Shape: Squawk's parser and rules, those of them that lock a table for long or take away what an older version
//! uses; its rules of taste are left out. They bind every migration of a crate but its first, which meets no data.
//! A statement that is meant to contract says why in a comment above it: `-- contract: <reason>`. What `do` and
//! functions run as text is not seen by a parser, so a `do` needs the same words.

use std::{collections::BTreeMap, path::Path};

use squawk_linter::{Linter, Rule};
use squawk_syntax::{
    Parse, SourceFile,
    ast::{self, AstNode as _},
};

use super::{Finding, Text};

/// What locks a table for long, or breaks who still works by the schema as it was.
const RULES: [Rule; 43] = [
    Rule::AddingFieldWithDefault,
    Rule::AddingForeignKeyConstraint,
    Rule::AddingNotNullableField,
    Rule::AddingRequiredField,
    Rule::AddingSerialPrimaryKeyField,
    Rule::BanAddEnumValue,
    Rule::BanAlterDomainWithAddConstraint,
    Rule::BanAlterGeneratedExpression,
    Rule::BanAlterIdentity,
    Rule::BanAlterPolicyCondition,
    Rule::BanAlterPolicyRoles,
    Rule::BanAlterSystemOptions,
    Rule::BanDetachInheritance,
    Rule::BanDisableTrigger,
    Rule::BanDropColumn,
    Rule::BanDropConstraint,
    Rule::BanDropDatabase,
    Rule::BanDropDefault,
    Rule::BanDropDomain,
    Rule::BanDropExtension,
    Rule::BanDropFunction,
    Rule::BanDropGeneratedExpression,
    Rule::BanDropIndex,
    Rule::BanDropNotNull,
    Rule::BanDropPolicy,
    Rule::BanDropSchema,
    Rule::BanDropSequence,
    Rule::BanDropTable,
    Rule::BanDropTrigger,
    Rule::BanDropType,
    Rule::BanDropView,
    Rule::BanSetSchema,
    Rule::BanTruncateCascade,
    Rule::ChangingColumnType,
    Rule::ConstraintMissingNotValid,
    Rule::DisallowedUniqueConstraint,
    Rule::RenamingColumn,
    Rule::RenamingObject,
    Rule::RenamingTable,
    Rule::RequireConcurrentIndexCreation,
    Rule::RequireConcurrentIndexDeletion,
    Rule::RequireConcurrentPartitionDetach,
    Rule::RequireConcurrentReindex,
];
const CONTRACT: &str = "-- contract: ";
/// How sqlx is told that a migration is no transaction; it must be the first line.
const NO_TRANSACTION: &str = "-- no-transaction";
const RIGHT: &str =
    "a step that the version before can live with, or `-- contract: <reason>` above the statement";

pub(super) fn check(texts: &[Text]) -> Vec<Finding> {
    let mut folders: BTreeMap<&Path, Vec<&Text>> = BTreeMap::new();
    for text in texts.iter().filter(|text| text.extension() == "sql") {
        let folder = text.path.parent().filter(|folder| folder.ends_with("migrations"));
        if let Some(folder) = folder {
            folders.entry(folder).or_default().push(text);
        }
    }
    for migrations in folders.values_mut() {
        migrations.sort_by(|a, b| a.path.cmp(&b.path));
    }
    folders.into_values().flat_map(|migrations| migrations.into_iter().skip(1).flat_map(lint)).collect()
}

fn lint(text: &Text) -> Vec<Finding> {
    let parsed = SourceFile::parse(&text.content);
    if let Some(error) = parsed.errors().first() {
        let line = line_of(&text.content, error.range().start().into());
        let right = "a statement that Postgres takes";
        return vec![Finding::new(&text.path, line, format!("can not be read: {}", error.message()), right)];
    }
    let mut linter = Linter::from(RULES);
    let in_transaction = !text.content.starts_with(NO_TRANSACTION);
    linter.settings.assume_in_transaction = in_transaction;
    let statements = statements(&parsed, in_transaction);
    let found = linter.lint(&parsed, &text.content).into_iter().map(|violation| {
        let at: usize = violation.text_range.start().into();
        (at, format!("{}: {}", violation.code, violation.message.trim_end_matches('.')))
    });
    // its own way to look away gives no reason
    let away = text.content.match_indices("squawk-ignore").map(|(at, _)| (at, "looks away".to_owned()));
    let ours = statements.iter().filter_map(|(at, _, fault)| Some((*at, (*fault)?.to_owned())));
    let mut all: Vec<_> = found.chain(ours).collect();
    all.retain(|(at, _)| {
        let start = statements.iter().find(|(from, to, _)| (*from..*to).contains(at)).map_or(*at, |s| s.0);
        !is_contract(&text.content, start)
    });
    all.extend(away);
    all.into_iter()
        .map(|(at, what)| Finding::new(&text.path, line_of(&text.content, at), what, RIGHT))
        .collect()
}

/// Where each statement begins and ends, and what is wrong with it that no rule of the linter says.
fn statements(parsed: &Parse<SourceFile>, in_transaction: bool) -> Vec<(usize, usize, Option<&'static str>)> {
    let fault = |statement: &ast::Stmt| match statement {
        ast::Stmt::Do(_) => Some("do: what it runs is not seen"),
        ast::Stmt::CreateIndex(index) if in_transaction && index.concurrently_token().is_some() => {
            Some("concurrently in a transaction: the file has to begin with -- no-transaction")
        }
        _ => None,
    };
    let place = |statement: ast::Stmt| {
        let node = statement.syntax();
        let words = node.children_with_tokens().find(|part| !part.kind().is_trivia());
        let from = words.map_or_else(|| node.text_range().start(), |part| part.text_range().start());
        (from.into(), node.text_range().end().into(), fault(&statement))
    };
    parsed.tree().stmts().map(place).collect()
}

/// Whether a comment right above the statement at `start` says why it contracts.
fn is_contract(content: &str, start: usize) -> bool {
    let above = content.get(..start).unwrap_or_default();
    let above = above.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let comments = above.lines().rev().map(str::trim).take_while(|line| line.starts_with("--"));
    comments.filter_map(|line| line.strip_prefix(CONTRACT)).any(|reason| !reason.trim().is_empty())
}

fn line_of(content: &str, at: usize) -> usize {
    content.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(sql: &str) -> Vec<Finding> {
        check(&[
            Text::new("crates/a/migrations/0001_a.sql", "drop table x.y;"),
            Text::new("crates/a/migrations/0002_b.sql", sql),
            Text::new("crates/a/sql/other.sql", "drop table x.y;"),
        ])
    }

    #[test]
    fn steps_that_an_older_version_lives_with() {
        for sql in [
            "create table a.t (id uuid primary key, n bigint not null default 0); create index on a.t (n);
             alter table a.t add constraint positive check (n > 0);",
            "alter table a.t add column n bigint;",
            "alter table a.t add column n bigint not null default 0;",
            "alter table a.t add constraint positive check (n > 0) not valid;",
            "alter table a.t validate constraint positive;",
            "alter table a.t validate constraint n_is_there; alter table a.t alter column n set not null;",
            "-- no-transaction\ncreate index concurrently t_n on a.t (n);",
            "comment on table a.t is 'drop table a.t';",
            "create function a.f() returns trigger language plpgsql as $$ begin return new; end $$;",
            "create trigger t before update or delete or truncate on a.t for each statement execute function a.f();",
            "create policy p on a.t for select to r using (true); grant select on a.t to r;",
            "-- contract: nobody has read it since the last release\ndrop table a.t;",
            "-- contract: the only row is ours\n-- and small\nalter table a.t\n    drop column n;",
            "-- contract: makes roles, touches no table\ndo $$ begin end $$;",
        ] {
            assert_eq!(second(sql), [], "{sql}");
        }
    }

    #[test]
    fn steps_that_lock_or_break() {
        for (sql, what) in [
            ("drop table a.t;", "ban-drop-table"),
            ("alter table a.t drop column n;", "ban-drop-column"),
            ("alter table a.t rename column n to m;", "renaming-column"),
            ("alter table a.t rename to s;", "renaming-table"),
            ("alter table a.t alter column n type text;", "changing-column-type"),
            ("alter table a.t alter column n set not null;", "adding-not-nullable-field"),
            ("alter table a.t add column n bigint not null;", "adding-required-field"),
            (
                "alter table a.t add column n timestamptz default clock_timestamp();",
                "adding-field-with-default",
            ),
            ("alter table a.t add constraint positive check (n > 0);", "constraint-missing-not-valid"),
            ("alter table a.t add constraint one unique (n);", "disallowed-unique-constraint"),
            (
                "alter table a.t add constraint f foreign key (n) references a.s (n);",
                "adding-foreign-key-constraint",
            ),
            ("alter table a.t drop constraint positive;", "ban-drop-constraint"),
            ("create index t_n on a.t (n);", "require-concurrent-index-creation"),
            ("create index concurrently t_n on a.t (n);", "concurrently in a transaction"),
            (
                "alter table a.t add constraint n_is_there check (n is not null) not valid;
                 alter table a.t validate constraint n_is_there;",
                "constraint-missing-not-valid",
            ),
            ("drop function a.f();", "ban-drop-function"),
            ("drop trigger t on a.t;", "ban-drop-trigger"),
            ("alter table a.t disable trigger all;", "ban-disable-trigger"),
            ("drop policy p on a.t;", "ban-drop-policy"),
            ("truncate a.t cascade;", "ban-truncate-cascade"),
            ("do $$ begin end $$;", "do: what it runs is not seen"),
            ("-- contract:\ndrop table a.t;", "ban-drop-table"),
            ("-- contract: another statement\nselect 1;\ndrop table a.t;", "ban-drop-table"),
            ("-- squawk-ignore ban-drop-table\ndrop table a.t;", "looks away"),
            ("create tabel a.t ();", "can not be read"),
        ] {
            let found = second(sql);
            assert!(found.iter().any(|finding| finding.what.starts_with(what)), "{sql}: {found:?}");
        }
    }

    #[test]
    fn a_finding_names_the_line() {
        let found = second("-- first\nselect 1;\n\n-- about\nalter table a.t\n    drop column n;\n");
        assert!(matches!(found[..], [ref one] if (5..=6).contains(&one.line)), "{found:?}");
    }
}
