//! Which HTTP calls stand for which methods: the `google.api.http` annotations of the contracts, read once at start.
//!
//! Templates have literal segments, `{field}` and `{field.inner}` for one whole segment, and at most one `:verb` at the end.
//! Nothing else is used here, and anything else is refused at start rather than matched wrongly.

use http::Method;
use percent_encoding::percent_decode_str;
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, Value,
};

const EXTENSION: &str = "google.api.http";

/// An annotation that can not be served.
#[derive(Debug, thiserror::Error)]
#[error("{method}: {what}")]
pub struct BindingError {
    method: String,
    what: String,
}

/// What of a request is in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyRule {
    /// Nothing: what the path does not have are query parameters.
    Absent,
    /// Everything that the path does not have.
    Rest,
}

/// One HTTP call and the method that it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) http_method: Method,
    /// As annotated.
    pub(crate) template: String,
    segments: Vec<Segment>,
    verb: Option<String>,
    pub(crate) body: BodyRule,
    pub(crate) method: MethodDescriptor,
    /// `/package.Service/Method`.
    pub(crate) grpc_path: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Field(FieldPath),
}

/// The way to a field inside of a request, such as `query.client_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldPath {
    /// As annotated.
    pub(crate) name: String,
    pub(crate) fields: Vec<FieldDescriptor>,
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found {
    /// The place of a binding and what its template captured; an error names a value that is no UTF-8.
    Binding(usize, Vec<(FieldPath, Result<String, String>)>),
    /// The path is known, with these methods.
    Methods(Vec<Method>),
    /// Nothing.
    Nothing,
}

/// The bindings of some services.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bindings(Vec<Binding>);

// === impl Bindings ===

impl Bindings {
    /// Of the services of these names.
    pub(crate) fn of(pool: &DescriptorPool, names: &[&str]) -> Result<Self, BindingError> {
        let Some(extension) = pool.get_extension_by_name(EXTENSION) else { return Ok(Self::default()) };
        let mut bindings = Vec::new();
        for service in pool.services().filter(|service| names.contains(&service.full_name())) {
            for method in service.methods() {
                bindings.extend(of_method(&method, &extension)?);
            }
        }
        Ok(Self(bindings))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.0.iter()
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Binding> {
        self.0.get(place)
    }

    /// Of several templates that fit, the one with the most literal text.
    pub(crate) fn find(&self, http_method: &Method, path: &str) -> Found {
        let fitting = self.0.iter().enumerate().filter_map(|(place, binding)| {
            binding.captures(path).map(|captures| (binding.literals(), place, captures))
        });
        let mut fitting: Vec<_> = fitting.collect();
        let most = fitting.iter().map(|(literals, ..)| *literals).max();
        fitting.retain(|(literals, ..)| Some(*literals) == most);
        let methods: Vec<Method> = fitting
            .iter()
            .filter_map(|(_, place, _)| self.get(*place))
            .map(|found| found.http_method.clone())
            .collect();
        let of_method = fitting
            .into_iter()
            .find(|(_, place, _)| self.get(*place).is_some_and(|found| found.http_method == *http_method));
        match of_method {
            Some((_, place, captures)) => Found::Binding(place, captures),
            None if methods.is_empty() => Found::Nothing,
            None => Found::Methods(methods),
        }
    }
}

fn of_method(
    method: &MethodDescriptor,
    extension: &ExtensionDescriptor,
) -> Result<Vec<Binding>, BindingError> {
    let options = method.options();
    if !options.has_extension(extension) {
        return Ok(Vec::new());
    }
    let fault = |what: String| BindingError { method: method.full_name().to_owned(), what };
    let value = options.get_extension(extension);
    let rule = value.as_message().ok_or_else(|| fault("its rule is no message".to_owned()))?;
    let more = rule.get_field_by_name("additional_bindings");
    let more = more.as_deref().and_then(Value::as_list).unwrap_or_default();
    let rules = std::iter::once(rule).chain(more.iter().filter_map(Value::as_message));
    rules.map(|rule| of_rule(method, rule).map_err(fault)).collect()
}

fn of_rule(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<Binding, String> {
    let text = |name: &str| {
        rule.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let (http_method, template) = match (text("get"), text("post")) {
        (get, post) if post.is_empty() && !get.is_empty() => (Method::GET, get),
        (get, post) if get.is_empty() && !post.is_empty() => (Method::POST, post),
        _ => return Err("only get and post are served".to_owned()),
    };
    let body = match (text("body").as_str(), &http_method) {
        ("", &Method::GET) => BodyRule::Absent,
        ("*", &Method::POST) => BodyRule::Rest,
        (body, http_method) => return Err(format!("body {body:?} of {http_method} is not served")),
    };
    if !text("response_body").is_empty() {
        return Err("a response_body is not served".to_owned());
    }
    let (segments, verb) = parse(&template, &method.input())?;
    let grpc_path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    Ok(Binding { http_method, template, segments, verb, body, method: method.clone(), grpc_path })
}

fn parse(template: &str, input: &MessageDescriptor) -> Result<(Vec<Segment>, Option<String>), String> {
    let path = template.strip_prefix('/').ok_or("a template begins with /")?;
    let (path, verb) = match path.rsplit_once(':') {
        Some((path, verb)) if !verb.contains(['/', '}']) => (path, Some(verb.to_owned())),
        _ => (path, None),
    };
    let segment = |text: &str| match text.strip_prefix('{').map(|rest| rest.strip_suffix('}')) {
        Some(Some(name)) => FieldPath::of(input, name).map(Segment::Field),
        None if !text.is_empty() && !text.contains(['*', '{', '}', ':']) => {
            Ok(Segment::Literal(text.to_owned()))
        }
        _ => Err(format!("segment {text:?} is not served")),
    };
    Ok((path.split('/').map(segment).collect::<Result<_, _>>()?, verb))
}

// === impl FieldPath ===

impl FieldPath {
    /// A singular field of text that can be in a path.
    fn of(input: &MessageDescriptor, name: &str) -> Result<Self, String> {
        let path = Self::find(input, name).map_err(|unknown| format!("{unknown} is no field"))?;
        match path.fields.last() {
            Some(last) if last.kind() == Kind::String && !last.is_list() && !last.is_map() => Ok(path),
            _ => Err(format!("{name} is no text")),
        }
    }

    /// Any field, by its name in JSON or in the contract; else the part of the name that is not known.
    pub(crate) fn find(input: &MessageDescriptor, name: &str) -> Result<Self, String> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        for part in name.split('.') {
            let inside = match fields.last() {
                None => Some(input.clone()),
                Some(outer) if outer.is_list() || outer.is_map() => None,
                Some(outer) => outer.kind().as_message().cloned(),
            };
            let field = inside.and_then(|message| {
                message.get_field_by_json_name(part).or_else(|| message.get_field_by_name(part))
            });
            fields.push(field.ok_or_else(|| part.to_owned())?);
        }
        Ok(Self { name: name.to_owned(), fields })
    }

    /// As in JSON, such as `query.clientId`.
    pub(crate) fn json_name(&self) -> String {
        self.fields.iter().map(FieldDescriptor::json_name).collect::<Vec<_>>().join(".")
    }
}

// === impl Binding ===

impl Binding {
    /// Fields that the path has.
    pub(crate) fn path_fields(&self) -> impl Iterator<Item = &FieldPath> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Field(path) => Some(path),
            Segment::Literal(_) => None,
        })
    }

    /// The template with names as in JSON.
    pub(crate) fn json_template(&self) -> String {
        let segment = |segment: &Segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Field(path) => format!("/{{{}}}", path.json_name()),
        };
        let path: String = self.segments.iter().map(segment).collect();
        self.verb.as_ref().map_or_else(|| path.clone(), |verb| format!("{path}:{verb}"))
    }

    fn literals(&self) -> usize {
        let of = |segment: &Segment| match segment {
            Segment::Literal(text) => text.len(),
            Segment::Field(_) => 0,
        };
        self.segments.iter().map(of).sum::<usize>() + self.verb.as_ref().map_or(0, String::len)
    }

    fn captures(&self, path: &str) -> Option<Vec<(FieldPath, Result<String, String>)>> {
        // A colon inside of a value is percent-encoded where a verb could be meant.
        let path = match &self.verb {
            Some(verb) => path.strip_suffix(verb.as_str())?.strip_suffix(':')?,
            None => path,
        };
        let mut given = path.strip_prefix('/')?.split('/');
        let mut captures = Vec::new();
        for segment in &self.segments {
            match (segment, given.next()?) {
                (_, "") => return None,
                (Segment::Literal(literal), text) if literal == text => {}
                (Segment::Literal(_), _) => return None,
                (Segment::Field(field), text) => captures.push((field.clone(), decoded(text))),
            }
        }
        given.next().is_none().then_some(captures)
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let value = percent_decode_str(text).decode_utf8();
    value.map(std::borrow::Cow::into_owned).map_err(|_| "is no UTF-8 when percent-decoded".to_owned())
}

#[cfg(test)]
mod tests;
