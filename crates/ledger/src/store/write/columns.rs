//! Columns of a statement: an array for each, unnested in step. A shorter one ends in nulls, so one without values is not
//! sent at all.

use rustc_hash::FxHashMap;

/// Texts that are named by their places. The server walks a list of them for each row, so it stays short.
const KNOWN_MAX: usize = 32;

/// One value of each row.
pub(super) fn col<'a, R, T>(rows: &'a [R], value: impl FnMut(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A column that most batches have no value of.
pub(super) fn rare<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> Option<T>) -> Vec<Option<T>> {
    if rows.iter().all(|row| value(row).is_none()) { Vec::new() } else { rows.iter().map(value).collect() }
}

/// A column that most batches have one value of: either that, or the value of each row.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Common<T> {
    pub(super) all: Option<T>,
    pub(super) each: Vec<T>,
}

impl<T: Copy + PartialEq> Common<T> {
    pub(super) fn of<'a, R>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Self {
        let first = rows.first().map(&value);
        if rows.iter().all(|row| Some(value(row)) == first) {
            return Self { all: first, each: Vec::new() };
        }
        Self { all: None, each: rows.iter().map(value).collect() }
    }
}

/// A column of texts of which most come again: the first ones are sent once, and named from then on by their places.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated<'a> {
    pub(super) known: Vec<&'a str>,
    /// From 1, as the server counts.
    pub(super) places: Vec<Option<i32>>,
    /// Texts of rows that have no place.
    pub(super) others: Vec<Option<&'a str>>,
}

impl<'a> Repeated<'a> {
    pub(super) fn of<R>(rows: &'a [R], text: impl Fn(&'a R) -> &'a str) -> Self {
        let mut known: Vec<&str> = Vec::new();
        let mut found: FxHashMap<&str, i32> = FxHashMap::default();
        let place = |row| {
            let text = text(row);
            if let Some(place) = found.get(text) {
                return Some(*place);
            }
            if known.len() >= KNOWN_MAX {
                return None;
            }
            known.push(text);
            let place = i32::try_from(known.len()).ok()?;
            found.insert(text, place);
            Some(place)
        };
        let places: Vec<Option<i32>> = rows.iter().map(place).collect();
        let others = if places.iter().all(Option::is_some) {
            Vec::new()
        } else {
            let own = |(row, place): (&'a R, &Option<i32>)| place.is_none().then(|| text(row));
            rows.iter().zip(&places).map(own).collect()
        };
        Self { known, places, others }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_rows_have_is_said_once() {
        let of = |rows: &[i32]| Common::of(rows, |row| *row);
        assert_eq!(of(&[7, 7, 7]), Common { all: Some(7), each: vec![] });
        assert_eq!(of(&[7, 7, 8]), Common { all: None, each: vec![7, 7, 8] });
        assert_eq!(of(&[]), Common { all: None, each: vec![] });
    }

    #[test]
    fn texts_that_come_again_are_named_by_their_places() {
        let rows = ["a", "b", "a", "a", "b"];
        let places = vec![Some(1), Some(2), Some(1), Some(1), Some(2)];
        assert_eq!(
            Repeated::of(&rows, |row| row),
            Repeated { known: vec!["a", "b"], places, others: vec![] }
        );
    }

    #[test]
    fn texts_beyond_the_known_ones_are_sent_with_their_rows() {
        let rows: Vec<String> = (0..KNOWN_MAX + 2).map(|text| format!("{{\"a\": \"{text}\"}}")).collect();
        let of = Repeated::of(&rows, |row| row.as_str());
        assert_eq!(of.known.len(), KNOWN_MAX);
        let told = of.places.iter().zip(&of.others).map(|(place, own)| match (place, own) {
            (Some(place), None) => of.known[usize::try_from(*place).unwrap() - 1],
            (None, Some(own)) => own,
            both => panic!("{both:?}"),
        });
        assert!(told.eq(rows.iter().map(String::as_str)));
    }
}
