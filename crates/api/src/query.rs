//! Query parameters, read strictly: what is known is given at most once and is UTF-8; what is unknown is
//! ignored, because clients of the field send more than we read.

use crate::error::{ApiError, echo};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;

/// The parameters of one request, in order.
#[derive(Debug, Default)]
pub(crate) struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// The parameters of a query string.
    pub(crate) fn parse(query: &str) -> Result<Self, ApiError> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decoded(key)?, decoded(value)?))
        });
        Ok(Self { pairs: pairs.collect::<Result<_, ApiError>>()? })
    }

    /// The value of a parameter; refused if it is given twice.
    pub(crate) fn get(&self, key: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.pairs.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            return Err(ApiError::invalid_request(format!(
                "query parameter \"{key}\" is given more than once; give it once"
            )));
        }
        Ok(value)
    }

    /// A whole number; refused if it is none.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let Some(text) = self.get(key)? else {
            return Ok(None);
        };
        let number = Some(text).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        number.and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
            let problem = format!("\"{}\" is not a whole number that fits 64 bits", echo(text));
            ApiError::invalid_request(format!("query parameter \"{key}\": {problem}"))
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

/// Decodes one component of a form-encoded query.
fn decoded(text: &str) -> Result<String, ApiError> {
    let malformed = || {
        let shown = echo(text);
        ApiError::invalid_request(format!("the query is malformed: \"{shown}\" is not percent-encoded UTF-8"))
    };
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (bytes.next().and_then(digit), bytes.next().and_then(digit));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(malformed());
                };
                high << 4 | low
            }
            other => other,
        });
    }
    String::from_utf8(out).map_err(|_| malformed())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_the_unknown_ignored() {
        let params = Params::parse("project=a%2Db+c&&limit=7&x&x=1").unwrap();
        assert_eq!(params.get("project"), Ok(Some("a-b c")));
        assert_eq!(params.number("limit"), Ok(Some(7)));
        assert_eq!(params.get("sort_by"), Ok(None));
    }

    #[test]
    fn what_is_given_twice_or_malformed_is_refused() {
        assert!(Params::parse("a=1&a=1").unwrap().get("a").is_err());
        for query in ["a=%", "a=%f", "a=%zz", "a=%ff", "%80=1"] {
            assert!(Params::parse(query).is_err(), "{query}");
        }
        for number in ["", "-1", "+1", "1.0", "0x1", "18446744073709551616", "%31%20"] {
            assert!(Params::parse(&format!("n={number}")).unwrap().number("n").is_err(), "{number}");
        }
    }
}
