//! Which client ids are known to have their newest window noted.
//!
//! Every batch would note a window for each of its client ids, and nearly all of them are noted already:
//! the probe of each costs a twentieth of a post. A note only ever grows, so what this process has
//! committed once need not be sent again. What is forgotten here, or noted by another process, is sent once
//! more and changes nothing.
//!
//! A database that was set back under this process knows less than was committed. It is put to use again by new
//! generations of its shards, so with the first batch of another generation everything is forgotten.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use drawdown_types::Timestamp;

/// The newest windows that are committed, by client id.
#[derive(Debug)]
pub struct SettledClients {
    noted: Mutex<Noted>,
    clients_max: usize,
}

#[derive(Debug, Default)]
struct Noted {
    newest: HashMap<Box<str>, Timestamp>,
    /// The generation of each shard that was posted under.
    generations: HashMap<i32, u64>,
}

// === impl SettledClients ===

impl SettledClients {
    /// Knows nothing yet, and never more than so many client ids: then it forgets all of them.
    #[must_use]
    pub fn new(clients_max: usize) -> Self {
        Self { noted: Mutex::default(), clients_max }
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch of this shard is posted under this generation.
    pub(super) fn under(&self, shard: i32, generation: u64) {
        let mut noted = self.noted();
        if noted.generations.insert(shard, generation).is_some_and(|before| before != generation) {
            noted.newest.clear();
        }
    }

    /// Those of `clients` whose window is not known to be noted.
    pub(super) fn retain_new(&self, clients: &mut Vec<(&str, Timestamp)>) {
        let noted = self.noted();
        clients.retain(|(client, window)| noted.newest.get(*client).is_none_or(|newest| newest < window));
    }

    /// The windows of `clients` are committed.
    pub(super) fn remember(&self, clients: &[(&str, Timestamp)]) {
        let newest = &mut self.noted().newest;
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
    fn another_generation_of_a_shard_makes_all_new_again() {
        let known = SettledClients::new(10);
        known.under(3, 7);
        known.remember(&[("a", at(60))]);
        known.under(4, 8);
        known.under(3, 7);
        assert_eq!(new_ones(&known, &[("a", 60)]), [""; 0]);
        known.under(4, 9);
        assert_eq!(new_ones(&known, &[("a", 60)]), ["a"]);
    }

    #[test]
    fn more_than_fit_are_forgotten_and_sent_again() {
        let known = SettledClients::new(2);
        known.remember(&[("a", at(60)), ("b", at(60))]);
        known.remember(&[("c", at(60))]);
        assert_eq!(new_ones(&known, &[("a", 60), ("b", 60), ("c", 60)]), ["a", "b"]);
    }
}
