//! Which client ids are known to have their newest window noted.
//!
//! Every batch would note a window for each of its client ids, and nearly all of them are noted already:
//! the probe of each costs a twentieth of a post. A note only ever grows, so what this process has
//! committed once need not be sent again. What is forgotten here, or noted by another process, is sent once
//! more and changes nothing.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use drawdown_types::Timestamp;

/// The newest windows that are committed, by client id.
#[derive(Debug)]
pub struct SettledClients {
    newest: Mutex<HashMap<Box<str>, Timestamp>>,
    clients_max: usize,
}

// === impl SettledClients ===

impl SettledClients {
    /// Knows nothing yet, and never more than so many client ids: then it forgets all of them.
    #[must_use]
    pub fn new(clients_max: usize) -> Self {
        Self { newest: Mutex::default(), clients_max }
    }

    /// Those of `clients` whose window is not known to be noted.
    pub(super) fn retain_new(&self, clients: &mut Vec<(&str, Timestamp)>) {
        let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|(client, window)| newest.get(*client).is_none_or(|noted| noted < window));
    }

    /// The windows of `clients` are committed.
    pub(super) fn remember(&self, clients: &[(&str, Timestamp)]) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.len().saturating_add(clients.len()) > self.clients_max {
            newest.clear();
        }
        for (client, window) in clients.iter().take(self.clients_max) {
            match newest.get_mut(*client) {
                Some(noted) => *noted = (*noted).max(*window),
                None => {
                    newest.insert((*client).into(), *window);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs).unwrap()
    }

    fn new_ones<'a>(known: &SettledClients, clients: &[(&'a str, i64)]) -> Vec<&'a str> {
        let mut clients: Vec<_> = clients.iter().map(|(client, secs)| (*client, at(*secs))).collect();
        known.retain_new(&mut clients);
        clients.into_iter().map(|(client, _)| client).collect()
    }

    #[test]
    fn only_a_newer_window_is_new() {
        let known = SettledClients::new(10);
        known.remember(&[("a", at(60)), ("b", at(120))]);
        known.remember(&[("b", at(60))]);
        assert_eq!(new_ones(&known, &[("a", 60), ("b", 120), ("c", 0)]), ["c"]);
        assert_eq!(new_ones(&known, &[("a", 120), ("b", 60)]), ["a"]);
    }

    #[test]
    fn more_than_fit_are_forgotten_and_sent_again() {
        let known = SettledClients::new(2);
        known.remember(&[("a", at(60)), ("b", at(60))]);
        known.remember(&[("c", at(60))]);
        assert_eq!(new_ones(&known, &[("a", 60), ("b", 60), ("c", 60)]), ["a", "b"]);
    }
}
