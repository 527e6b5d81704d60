//! The few query parameters that the protocol has.

use sled_protocol::SledError;
use std::str::FromStr;

/// The number of this name; `None` if it is not given. One that is given twice, or is no number, is malformed.
pub(super) fn number(query: Option<&str>, name: &str) -> Result<Option<u64>, SledError> {
    parsed(query, name)
}

/// The value of this name, in a text that is the same in a query; `None` if it is not given. One that is given twice, or
/// is none of its kind, is malformed.
pub(super) fn parsed<T: FromStr>(query: Option<&str>, name: &str) -> Result<Option<T>, SledError> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value);
    let (first, second) = (values.next(), values.next());
    let malformed =
        || SledError::Malformed(format!("the query parameter `{name}` must be one value of its kind"));
    match (first, second) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(malformed()),
        (Some(text), None) => text.parse().map(Some).map_err(|_| malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_one_number_or_absent() {
        for (query, expected) in [
            (None, Some(None)),
            (Some(""), Some(None)),
            (Some("other=1"), Some(None)),
            (Some("xn=1"), Some(None)),
            (Some("n=7"), Some(Some(7))),
            (Some("a=b&n=18446744073709551615"), Some(Some(u64::MAX))),
            (Some("n="), None),
            (Some("n=-1"), None),
            (Some("n=18446744073709551616"), None),
            (Some("n=1&n=1"), None),
        ] {
            assert_eq!(number(query, "n").ok(), expected, "{query:?}");
        }
    }
}
