//! JSON bodies, read field by field: what is wanted is named and checked, everything else is skipped without
//! being kept.
//!
//! The content type is not looked at: clients send any, or one without a body. Derived deserialisers are not
//! used, because they take a list for an object and do not name the field whose type is wrong.

use crate::error::ApiError;
use lifecycle::spec::InvalidValue;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// A value of a field, as far as any field wants to know.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Null,
    Bool(bool),
    Text(String),
    /// A whole number of at least zero.
    Number(u64),
    /// Anything else, by what it is called.
    Other(&'static str),
}

/// The wanted fields of one object.
#[derive(Debug)]
pub(crate) struct Fields {
    values: BTreeMap<&'static str, Value>,
}

impl Fields {
    /// Reads an object, keeping the fields in `wanted` and skipping all others.
    pub(crate) fn parse(body: &[u8], wanted: &'static [&'static str]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Err(ApiError::invalid_request("the request body is empty; send a JSON object"));
        }
        if std::str::from_utf8(body).is_err() {
            return Err(ApiError::invalid_request(
                "the request body is not UTF-8; send a JSON object in UTF-8",
            ));
        }
        let mut json = serde_json::Deserializer::from_slice(body);
        let parsed = Wanted(wanted).deserialize(&mut json).and_then(|values| json.end().map(|()| values));
        let values = parsed.map_err(|error| {
            ApiError::invalid_request(format!("unable to parse the request body as JSON: {error}"))
        })?;
        Ok(Self { values })
    }

    fn get(&self, field: &'static str) -> &Value {
        self.values.get(field).unwrap_or(&Value::Null)
    }

    /// A text that must be there.
    pub(crate) fn text(&self, field: &'static str) -> Result<&str, ApiError> {
        self.optional_text(field)?.ok_or_else(|| self.missing(field))
    }

    /// A text that may be missing or null.
    pub(crate) fn optional_text(&self, field: &'static str) -> Result<Option<&str>, ApiError> {
        match self.get(field) {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            other => Err(wrong_type(field, "a string", other)),
        }
    }

    /// A whole number that must be there.
    pub(crate) fn number(&self, field: &'static str) -> Result<u64, ApiError> {
        match self.get(field) {
            Value::Null => Err(self.missing(field)),
            Value::Number(number) => Ok(*number),
            other => Err(wrong_type(field, "a whole number", other)),
        }
    }

    /// A whole number that may be missing or null.
    pub(crate) fn optional_number(&self, field: &'static str) -> Result<Option<u64>, ApiError> {
        match self.get(field) {
            Value::Null => Ok(None),
            Value::Number(number) => Ok(Some(*number)),
            other => Err(wrong_type(field, "a whole number", other)),
        }
    }

    /// True or false; `default` if it is missing or null.
    pub(crate) fn flag_or(&self, field: &'static str, default: bool) -> Result<bool, ApiError> {
        match self.get(field) {
            Value::Null => Ok(default),
            Value::Bool(flag) => Ok(*flag),
            other => Err(wrong_type(field, "true or false", other)),
        }
    }

    fn missing(&self, field: &'static str) -> ApiError {
        let how = if self.values.contains_key(field) { "must not be null" } else { "is missing" };
        ApiError::invalid_request(format!("unable to parse the request body: field \"{field}\" {how}"))
    }
}

/// That a value is not allowed, in the words of the rules.
pub(crate) fn not_allowed(field: &'static str, problem: impl Into<String>) -> ApiError {
    ApiError::invalid_value(InvalidValue { field, problem: problem.into() }.to_string())
}

fn wrong_type(field: &'static str, wanted: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Text(_) => "a string",
        Value::Number(_) => "a number",
        Value::Other(what) => what,
    };
    ApiError::invalid_request(format!(
        "unable to parse the request body: field \"{field}\" must be {wanted}, not {found}"
    ))
}

/// Reads an object into the fields that are wanted.
struct Wanted(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Wanted {
    type Value = BTreeMap<&'static str, Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted {
    type Value = BTreeMap<&'static str, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some(key) = object.next_key::<String>()? {
            let Some(field) = self.0.iter().copied().find(|wanted| *wanted == key) else {
                object.next_value::<IgnoredAny>()?;
                continue;
            };
            let value = object.next_value_seed(OneValue)?;
            if values.insert(field, value).is_some() {
                return Err(A::Error::custom(format_args!("field \"{field}\" is given more than once")));
            }
        }
        Ok(values)
    }
}

struct OneValue;

impl<'de> DeserializeSeed<'de> for OneValue {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Value, E> {
        Ok(Value::Other("a negative number"))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other("a fraction or a number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other("an object"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: &[&str] = &["name", "ncpus", "start"];

    #[test]
    fn wanted_fields_are_kept_and_others_skipped() {
        let body = br#"{"extra":{"deep":[1,{}]},"name":"web","ncpus":2,"start":null,"start2":7}"#;
        let fields = Fields::parse(body, WANTED).unwrap();
        assert_eq!(fields.text("name"), Ok("web"));
        assert_eq!(fields.number("ncpus"), Ok(2));
        assert_eq!(fields.flag_or("start", true), Ok(true));
        assert_eq!(fields.values.len(), 3, "nothing else is kept");
    }

    #[test]
    fn depth_costs_no_stack() {
        let (open, close) = ("[".repeat(200_000), "]".repeat(200_000));
        for field in ["unknown", "name"] {
            let body = format!("{{\"{field}\":{open}{close},\"ncpus\":2}}");
            let fields = Fields::parse(body.as_bytes(), WANTED).unwrap();
            assert_eq!(fields.number("ncpus"), Ok(2));
            assert_eq!(fields.optional_text("name").is_err(), field == "name");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, part) in [
            ("", "empty"),
            ("{", "EOF while parsing"),
            ("[]", "expected an object"),
            ("null", "expected an object"),
            ("\"x\"", "expected an object"),
            ("{} x", "trailing characters"),
            (r#"{"name":"a","name":"b"}"#, "field \"name\" is given more than once"),
        ] {
            let error = Fields::parse(body.as_bytes(), WANTED).unwrap_err();
            assert!(error.message.contains(part), "{body}: {}", error.message);
        }
        assert!(Fields::parse(b"{\"name\":\"\xff\"}", WANTED).unwrap_err().message.contains("not UTF-8"));
        for (value, part) in [
            ("\"2\"", "must be a whole number, not a string"),
            ("2.5", "must be a whole number, not a fraction"),
            ("-2", "must be a whole number, not a negative number"),
            ("[2]", "must be a whole number, not a list"),
            ("{}", "must be a whole number, not an object"),
            ("true", "must be a whole number, not true or false"),
            ("null", "must not be null"),
            ("1e400", "number out of range"),
        ] {
            let body = format!("{{\"ncpus\":{value}}}");
            let read = Fields::parse(body.as_bytes(), WANTED).and_then(|fields| fields.number("ncpus"));
            let error = read.unwrap_err();
            assert!(error.message.contains(part), "{value}: {}", error.message);
        }
        let fields = Fields::parse(b"{\"name\":5,\"start\":\"yes\"}", WANTED).unwrap();
        assert!(fields.text("name").unwrap_err().message.contains("must be a string, not a number"));
        assert!(fields.flag_or("start", true).unwrap_err().message.contains("must be true or false"));
        assert!(fields.number("ncpus").unwrap_err().message.contains("field \"ncpus\" is missing"));
    }
}
