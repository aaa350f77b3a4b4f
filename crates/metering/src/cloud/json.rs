//! JSON of which a member that comes twice is told. Readers differ in which of the two they take (RFC 8259, 4), and what
//! decides about money is never guessed. An event of a batch that has one is wrong by itself, not the whole batch, so it
//! is noted instead of ending the reading.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The most that are told.
const TWICE_MAX: usize = 64;

/// A value, and what is there twice in it.
#[derive(Debug, Default)]
pub(crate) struct Json {
    pub(crate) value: Value,
    /// Paths such as `data.quantity`.
    pub(crate) twice: Vec<String>,
}

impl Json {
    /// All of the bytes; paths begin with `root`, where there is one.
    pub(super) fn read(bytes: &[u8], root: &str) -> Result<Self, serde_json::Error> {
        let mut found = Found::default();
        found.path.push(root.to_owned());
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let value = Reading(&mut found).deserialize(&mut reader)?;
        reader.end()?;
        Ok(Self { value, twice: found.twice })
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut found = Found::default();
        let value = Reading(&mut found).deserialize(from)?;
        Ok(Self { value, twice: found.twice })
    }
}

/// The values of a list, as many as may be; the others are counted and not kept.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Json>,
    pub(crate) count: usize,
}

impl Batch {
    /// All of the bytes, which hold one list.
    pub(crate) fn read(bytes: &[u8], max: usize) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        let batch = reader.deserialize_seq(AtMost(max))?;
        reader.end()?;
        Ok(batch)
    }
}

struct AtMost(usize);

impl<'de> Visitor<'de> for AtMost {
    type Value = Batch;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Batch, A::Error> {
        let mut events = Vec::new();
        while events.len() < self.0 {
            let Some(event) = entries.next_element()? else { break };
            events.push(event);
        }
        let mut count = events.len();
        while entries.next_element::<IgnoredAny>()?.is_some() {
            count = count.saturating_add(1);
        }
        Ok(Batch { events, count })
    }
}

#[derive(Default)]
struct Found {
    path: Vec<String>,
    twice: Vec<String>,
}

struct Reading<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut all = Vec::new();
        while let Some(entry) = entries.next_element_seed(Reading(&mut *self.0))? {
            all.push(entry);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let found = self.0;
        let mut all = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            found.path.push(name.clone());
            let value = members.next_value_seed(Reading(&mut *found))?;
            if all.insert(name, value).is_some() && found.twice.len() < TWICE_MAX {
                found.twice.push(found.path.join("."));
            }
            found.path.pop();
        }
        Ok(Value::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_every_reader_makes_of_it() {
        let text = r#" {"a": [null, true, -3, 18446744073709551615, 1.5, "x\"y"], "b": {"a": {}}} "#;
        let read: Json = serde_json::from_str(text).unwrap();
        assert_eq!(read.value, serde_json::from_str::<Value>(text).unwrap());
        assert!(read.twice.is_empty(), "the same name in another object is another member");
        assert!(Json::read(b"{} {}", "data").is_err());
    }

    #[test]
    fn a_list_with_more_than_may_be_is_counted_and_not_kept() {
        for (text, kept, count) in [("[]", 0, 0), ("[{},{}]", 2, 2), ("[{}, [1], 2, {\"a\":[]} ,{}]", 2, 5)] {
            let batch = Batch::read(text.as_bytes(), 2).unwrap();
            assert_eq!((batch.events.len(), batch.count), (kept, count), "{text}");
        }
        for broken in ["{}", "[{},{},{]", "[] []", "[{},{},{}"] {
            assert!(Batch::read(broken.as_bytes(), 2).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_is_there_twice_is_told_by_its_path() {
        let text = r#"{"a": {"b": 1, "b": 1, "c": [{"d": 1, "d": 2}]}, "a": 3}"#;
        let read: Json = serde_json::from_str(text).unwrap();
        assert_eq!(read.twice, ["a.b", "a.c.d", "a"]);
        assert_eq!(Json::read(br#"{"q":1,"q":2}"#, "data").unwrap().twice, ["data.q"]);
        let many = format!("[{}]", [r#"{"a":1,"a":1}"#; 100].join(","));
        assert_eq!(Json::read(many.as_bytes(), "data").unwrap().twice.len(), TWICE_MAX);
    }
}
