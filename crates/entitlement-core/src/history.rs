//! A history: who held a link when, as sorted half-open links `[from, to)` without gaps.
//!
//! Shape: only the instants of change are kept; a link ends where the next one begins. So two
//! links can never overlap, whatever is stored, and looking up an instant is one binary search.

use drawdown_types::Timestamp;

/// From an instant on, a value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<T> {
    /// The first instant at which it holds.
    pub from: Timestamp,
    /// What holds.
    pub value: T,
}

/// One link of a history: the value holds in `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a, T> {
    /// The first instant.
    pub from: Timestamp,
    /// The first instant after it; `None` while the link is open.
    pub to: Option<Timestamp>,
    /// What holds.
    pub value: &'a T,
}

/// Two changes at one instant: nobody can say which of them holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two changes of one history at {0}")]
pub struct Conflict(pub Timestamp);

/// All links of one thing, oldest first. It may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History<T> {
    // many histories of one link lie in memory: no room to grow
    changes: Box<[Change<T>]>,
}

impl<T> Default for History<T> {
    fn default() -> Self {
        Self { changes: Box::default() }
    }
}

impl<T> History<T> {
    /// From changes in any order.
    ///
    /// # Errors
    /// [`Conflict`] where two of them share an instant.
    pub fn from_changes(changes: impl IntoIterator<Item = Change<T>>) -> Result<Self, Conflict> {
        let mut changes: Vec<Change<T>> = changes.into_iter().collect();
        changes.sort_by_key(|change| change.from);
        let twice = changes.windows(2).find_map(|pair| match pair {
            [a, b] if a.from == b.from => Some(a.from),
            _ => None,
        });
        twice.map_or_else(|| Ok(Self { changes: changes.into() }), |at| Err(Conflict(at)))
    }

    /// What holds at `at`.
    #[must_use]
    pub fn at(&self, at: Timestamp) -> Option<&T> {
        let begun = self.changes.partition_point(|change| change.from <= at);
        self.changes.get(begun.checked_sub(1)?).map(|change| &change.value)
    }

    /// The first instant after `at` from which on another value holds.
    #[must_use]
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let begun = self.changes.partition_point(|change| change.from <= at);
        self.changes.get(begun).map(|change| change.from)
    }

    /// The link that holds at `at`.
    #[must_use]
    pub fn link_at(&self, at: Timestamp) -> Option<Link<'_, T>> {
        self.links().take_while(|link| link.from <= at).last()
    }

    /// The open link: the one that nothing ends.
    #[must_use]
    pub fn last(&self) -> Option<&Change<T>> {
        self.changes.last()
    }

    /// The same links with what `value` makes of what they hold.
    #[must_use]
    pub fn map<U>(&self, value: impl Fn(&T) -> U) -> History<U> {
        let changed = |change: &Change<T>| Change { from: change.from, value: value(&change.value) };
        History { changes: self.changes.iter().map(changed).collect() }
    }

    /// All links, oldest first.
    pub fn links(&self) -> impl Iterator<Item = Link<'_, T>> {
        let ends = self.changes.iter().skip(1).map(|next| Some(next.from)).chain([None]);
        self.changes.iter().zip(ends).map(|(change, to)| Link { from: change.from, to, value: &change.value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn history(changes: &[(i64, char)]) -> Result<History<char>, Conflict> {
        History::from_changes(changes.iter().map(|(from, value)| Change { from: at(*from), value: *value }))
    }

    #[test]
    fn a_link_holds_from_its_first_instant_to_just_before_the_next() {
        let history = history(&[(20, 'b'), (10, 'a')]).unwrap();
        for (instant, value) in
            [(9, None), (10, Some('a')), (19, Some('a')), (20, Some('b')), (99, Some('b'))]
        {
            assert_eq!(history.at(at(instant)).copied(), value, "{instant}");
            assert_eq!(history.link_at(at(instant)).map(|link| *link.value), value, "{instant}");
            let next = [10, 20].into_iter().find(|from| *from > instant);
            assert_eq!(history.next_after(at(instant)), next.map(at), "{instant}");
        }
        let links: Vec<_> = history.links().map(|link| (link.from, link.to, *link.value)).collect();
        assert_eq!(links, [(at(10), Some(at(20)), 'a'), (at(20), None, 'b')]);
    }

    #[test]
    fn an_empty_history_holds_nothing() {
        let empty = History::<char>::default();
        assert_eq!((empty.at(at(0)), empty.last(), empty.links().count()), (None, None, 0));
    }

    #[test]
    fn two_changes_at_one_instant_are_a_conflict() {
        assert_eq!(history(&[(5, 'a'), (5, 'b')]), Err(Conflict(at(5))));
    }
}
