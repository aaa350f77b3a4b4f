//! What a request names, read from its bytes by the numbers of the fields that a rule looks at.
//!
//! Every occurrence counts: a field that may occur once and occurs twice makes the request unreadable, because
//! which of them a decoder takes must not decide about rights. Empty texts name nothing, as in proto3.
//! Cost: one pass over the fields of the messages on the way; contents of others are stepped over.

use std::collections::HashMap;

use prost::Message as _;
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use super::{Kind, Reach, Rule};

/// A request that can not be read, or not in one way only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// What a request names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Things of somebody's, in the order of the rule's fields.
    pub(crate) named: Vec<(Kind, String)>,
    /// The person who acts, where one is named.
    pub(crate) actor: Option<String>,
}

/// The fields of one method's requests, by their numbers.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    fields: Vec<(Vec<Step>, Kind)>,
    actor: Option<Vec<Step>>,
    streams: bool,
}

/// A field on the way to a text.
#[derive(Clone, Copy, Debug)]
struct Step {
    number: u64,
    repeated: bool,
}

/// The messages of the contracts.
pub(crate) struct Contracts {
    messages: HashMap<String, DescriptorProto>,
    methods: HashMap<String, Method>,
}

/// A method, by `package.Service/Method`.
struct Method {
    /// The type of the request.
    request: String,
    /// The answer is a stream.
    streams: bool,
    /// The request is one.
    #[cfg(test)]
    takes_stream: bool,
}

impl Contracts {
    /// From the descriptors that all servers have.
    pub(crate) fn load() -> Self {
        let mut contracts = Self { messages: HashMap::new(), methods: HashMap::new() };
        for bytes in crate::server::descriptor_sets() {
            for file in FileDescriptorSet::decode(bytes).map(|set| set.file).unwrap_or_default() {
                let package = format!(".{}", file.package());
                for service in &file.service {
                    for method in &service.method {
                        let name = format!("{}.{}/{}", file.package(), service.name(), method.name());
                        let method = Method {
                            request: method.input_type().to_owned(),
                            streams: method.server_streaming(),
                            #[cfg(test)]
                            takes_stream: method.client_streaming(),
                        };
                        contracts.methods.insert(name, method);
                    }
                }
                for message in file.message_type {
                    contracts.add(&package, message);
                }
            }
        }
        contracts
    }

    fn add(&mut self, outer: &str, message: DescriptorProto) {
        let name = format!("{outer}.{}", message.name());
        for nested in message.nested_type.clone() {
            self.add(&name, nested);
        }
        self.messages.insert(name, message);
    }

    /// Names of all methods, such as `drawdown.ledger.v1.TokenService/GetBalance`.
    #[cfg(test)]
    pub(crate) fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.keys().map(String::as_str)
    }

    /// Whether a method takes a stream.
    #[cfg(test)]
    pub(crate) fn takes_stream(&self, method: &str) -> bool {
        self.methods.get(method).is_some_and(|method| method.takes_stream)
    }

    /// Paths of all texts in a method's request.
    #[cfg(test)]
    pub(crate) fn texts(&self, method: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(Method { request, .. }) = self.methods.get(method) {
            self.texts_in(request, "", 0, &mut found);
        }
        found
    }

    #[cfg(test)]
    fn texts_in(&self, message: &str, outer: &str, depth: usize, found: &mut Vec<String>) {
        assert!(depth < 12, "messages nest too deep: {outer}");
        let Some(message) = self.messages.get(message) else { return };
        for field in &message.field {
            let path = format!("{outer}{}", field.name());
            match field.r#type() {
                Type::String => found.push(path),
                Type::Message => self.texts_in(field.type_name(), &format!("{path}."), depth + 1, found),
                _ => {}
            }
        }
    }

    /// What to read of a rule's requests; `None` where a field does not exist or is no text.
    pub(crate) fn names(&self, rule: &Rule) -> Option<Names> {
        let Method { request, streams, .. } = self.methods.get(rule.method)?;
        let fields = match rule.reach {
            Reach::Named(fields) => fields,
            Reach::Shared | Reach::Platform => &[],
        };
        let fields = fields.iter().map(|field| Some((self.steps(request, field.path)?, field.kind)));
        let actor = match rule.actor {
            Some(path) => Some(self.steps(request, path)?),
            None => None,
        };
        Some(Names { fields: fields.collect::<Option<Vec<_>>>()?, actor, streams: *streams })
    }

    fn steps(&self, request: &str, path: &str) -> Option<Vec<Step>> {
        let mut message = self.messages.get(request);
        let mut kind = Type::Message;
        let mut steps = Vec::new();
        for name in path.split('.') {
            let field = message?.field.iter().find(|field| field.name() == name)?;
            let repeated = field.label() == Label::Repeated;
            steps.push(Step { number: u64::try_from(field.number()).ok()?, repeated });
            kind = field.r#type();
            message = self.messages.get(field.type_name());
        }
        (kind == Type::String).then_some(steps)
    }
}

impl Names {
    /// Whether the method answers with a stream.
    pub(crate) const fn streams(&self) -> bool {
        self.streams
    }

    /// What a request names, at most `max` things.
    ///
    /// # Errors
    /// [`Unreadable`], also where it names more.
    pub(crate) fn read(&self, message: &[u8], max: usize) -> Result<Found, Unreadable> {
        let mut found = Found::default();
        for (steps, kind) in &self.fields {
            let mut texts = Vec::new();
            collect(message, steps, max, &mut texts)?;
            found.named.extend(texts.into_iter().filter(|text| !text.is_empty()).map(|text| (*kind, text)));
        }
        if let Some(steps) = &self.actor {
            let mut texts = Vec::new();
            collect(message, steps, max, &mut texts)?;
            found.actor = texts.into_iter().find(|text| !text.is_empty());
        }
        if found.named.len() > max { Err(Unreadable) } else { Ok(found) }
    }
}

fn collect(message: &[u8], steps: &[Step], max: usize, texts: &mut Vec<String>) -> Result<(), Unreadable> {
    let Some((step, inner)) = steps.split_first() else { return Err(Unreadable) };
    let mut rest = message;
    let mut seen = false;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = skip(&mut rest, tag & 7)?;
        if tag >> 3 != step.number {
            continue;
        }
        // a text and a message are both bytes with their length before them
        let value = value.ok_or(Unreadable)?;
        if std::mem::replace(&mut seen, true) && !step.repeated {
            return Err(Unreadable);
        }
        if !inner.is_empty() {
            collect(value, inner, max, texts)?;
        } else if texts.len() < max {
            texts.push(std::str::from_utf8(value).map_err(|_| Unreadable)?.to_owned());
        } else {
            return Err(Unreadable);
        }
    }
    Ok(())
}

/// Steps over a field; its bytes where it has a length. Groups are in none of the contracts.
fn skip<'a>(rest: &mut &'a [u8], wire_type: u64) -> Result<Option<&'a [u8]>, Unreadable> {
    let length = match wire_type {
        0 => {
            varint(rest)?;
            return Ok(None);
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).map_err(|_| Unreadable)?,
        5 => 4,
        _ => return Err(Unreadable),
    };
    let (value, after) = rest.split_at_checked(length).ok_or(Unreadable)?;
    *rest = after;
    Ok((wire_type == 2).then_some(value))
}

fn varint(rest: &mut &[u8]) -> Result<u64, Unreadable> {
    prost::encoding::decode_varint(rest).map_err(|_| Unreadable)
}

#[cfg(test)]
mod tests;
