//! Pages of lists: where a client is, carried in a token that holds the whole scan.
//!
//! Invariants:
//! * a token wins over every other parameter but `limit`: clients send those with the first page only;
//! * a token is only good for the list that gave it out;
//! * tokens are not secret and not trusted: whatever is in one was also possible without it.

use crate::error::ApiError;
use crate::query::Params;
use projections::{Order, PAGE_ROWS_MAX, Page, Scan};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::num::NonZeroU64;
use uuid::Uuid;

/// Rows of a page if the client does not say.
const LIMIT_DEFAULT: usize = 100;

/// Longest token, bytes: four times what the longest name needs.
const TOKEN_BYTES_MAX: usize = 1024;

/// One page, as clients of `/v1` know it.
#[derive(Serialize)]
pub(crate) struct PageView<T> {
    items: Vec<T>,
    next_page: Option<String>,
}

impl<T> PageView<T> {
    /// The whole of a list of one.
    pub(crate) fn one(item: T) -> Self {
        Self { items: vec![item], next_page: None }
    }

    /// The whole of an empty list.
    pub(crate) const fn empty() -> Self {
        Self { items: Vec::new(), next_page: None }
    }
}

/// Which list; part of every token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum List {
    Instances,
    Projects,
    Sleds,
    SledInstances,
}

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SortBy {
    NameAscending,
    NameDescending,
    IdAscending,
}

impl SortBy {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "name_ascending" => Some(Self::NameAscending),
            "name_descending" => Some(Self::NameDescending),
            "id_ascending" => Some(Self::IdAscending),
            _ => None,
        }
    }
}

/// A place in a list: which list, within what, in which order, behind which row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    list: List,
    /// The project whose instances are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) within: Option<Uuid>,
    sort: SortBy,
    /// Name or id of the last row seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

/// A row that a place can be behind.
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) id: Uuid,
}

/// What one request for a page asks.
pub(crate) struct PageRequest {
    /// Where to go on; none at the start of the list.
    pub(crate) resumed: Option<Place>,
    pub(crate) limit: usize,
}

impl PageRequest {
    /// Reads `page_token` and `limit`.
    pub(crate) fn read(list: List, params: &Params) -> Result<Self, ApiError> {
        let limit = match params.get("limit")? {
            None => LIMIT_DEFAULT,
            Some(text) => {
                // Digits beyond 64 bits are a large number all the same.
                let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                let wanted = is_number.then(|| text.parse().unwrap_or(u64::MAX)).and_then(NonZeroU64::new);
                let wanted = wanted.ok_or_else(|| {
                    ApiError::invalid_request(
                        "query parameter \"limit\" must be a whole number of at least 1",
                    )
                })?;
                usize::try_from(wanted.get()).unwrap_or(usize::MAX).min(PAGE_ROWS_MAX)
            }
        };
        let resumed = match params.get("page_token")? {
            None | Some("") => None,
            Some(token) => Some(Place::from_token(list, token)?),
        };
        Ok(Self { resumed, limit })
    }
}

impl Place {
    /// The start of a list. `sorts` are the orders it can be in; the first is the default.
    pub(crate) fn start(
        list: List,
        within: Option<Uuid>,
        sorts: &[SortBy],
        params: &Params,
    ) -> Result<Self, ApiError> {
        let sort = match params.get("sort_by")? {
            None => sorts[0],
            Some(text) => {
                let sort = SortBy::parse(text).filter(|sort| sorts.contains(sort));
                sort.ok_or_else(|| ApiError::invalid_request(unknown_sort(sorts)))?
            }
        };
        Ok(Self { list, within, sort, after: None })
    }

    /// The scan from here, over ids made by `make`; refused if the token's position is no id.
    pub(crate) fn scan<Id>(&self, make: impl FnOnce(Uuid) -> Id) -> Result<Scan<Id>, ApiError> {
        let by_name = |order| Scan::ByName { order, after: self.after.clone() };
        Ok(match self.sort {
            SortBy::NameAscending => by_name(Order::Ascending),
            SortBy::NameDescending => by_name(Order::Descending),
            SortBy::IdAscending => {
                let id = self.after.as_deref().map(Uuid::try_parse).transpose().map_err(|_| bad_token())?;
                Scan::ById { order: Order::Ascending, after: id.map(make) }
            }
        })
    }

    /// The page that was found from here, with the token of the next.
    pub(crate) fn page<R, T>(
        self,
        page: Page<R>,
        key: impl FnOnce(&R) -> Key,
        view: impl FnMut(R) -> T,
    ) -> PageView<T> {
        let last = page.rows.last().filter(|_| !page.is_last);
        let next_page = last.map(|row| {
            let Key { name, id } = key(row);
            let after = match self.sort {
                SortBy::NameAscending | SortBy::NameDescending => name,
                SortBy::IdAscending => id.to_string(),
            };
            Self { after: Some(after), ..self.clone() }.token()
        });
        PageView { items: page.rows.into_iter().map(view).collect(), next_page }
    }

    fn token(&self) -> String {
        let json = serde_json::to_vec(self).expect("texts and names of variants become JSON");
        json.iter().fold(String::with_capacity(2 * json.len()), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a String takes everything");
            hex
        })
    }

    fn from_token(list: List, token: &str) -> Result<Self, ApiError> {
        let is_hex = token.len() <= TOKEN_BYTES_MAX
            && token.len().is_multiple_of(2)
            && token.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex {
            return Err(bad_token());
        }
        let pairs = (0..token.len()).step_by(2).map(|at| u8::from_str_radix(&token[at..at + 2], 16));
        let json: Vec<u8> = pairs.collect::<Result<_, _>>().map_err(|_| bad_token())?;
        let place: Self = serde_json::from_slice(&json).map_err(|_| bad_token())?;
        if place.list != list || place.within.is_some() != (list == List::Instances) {
            return Err(bad_token());
        }
        Ok(place)
    }
}

fn bad_token() -> ApiError {
    ApiError::invalid_request(
        "query parameter \"page_token\" is not a token of this list; start again without it",
    )
}

fn unknown_sort(sorts: &[SortBy]) -> String {
    let names = sorts.iter().map(|sort| match sort {
        SortBy::NameAscending => "name_ascending",
        SortBy::NameDescending => "name_descending",
        SortBy::IdAscending => "id_ascending",
    });
    format!("query parameter \"sort_by\" must be one of: {}", names.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(sort: SortBy) -> Place {
        Place { list: List::Instances, within: Some(Uuid::from_u128(7)), sort, after: Some("web".to_owned()) }
    }

    #[test]
    fn a_token_reads_back_and_is_good_for_its_list_only() {
        for sort in [SortBy::NameAscending, SortBy::NameDescending, SortBy::IdAscending] {
            let token = place(sort).token();
            assert_eq!(Place::from_token(List::Instances, &token), Ok(place(sort)));
            assert!(Place::from_token(List::Projects, &token).is_err());
            assert!(Place::from_token(List::Sleds, &token).is_err());
            let of_projects = Place { list: List::Projects, within: None, ..place(sort) }.token();
            assert!(Place::from_token(List::Projects, &of_projects).is_ok());
            assert!(Place::from_token(List::Sleds, &of_projects).is_err());
            assert!(Place::from_token(List::Instances, &of_projects).is_err());
        }
    }

    #[test]
    fn the_longest_name_fits_a_token() {
        let longest = Place {
            after: Some("a".repeat(lifecycle::spec::NAME_CHARS_MAX)),
            ..place(SortBy::NameDescending)
        };
        assert!(longest.token().len() <= TOKEN_BYTES_MAX);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let good = place(SortBy::IdAscending).token();
        let long = "7b".repeat(TOKEN_BYTES_MAX);
        for bad in ["x", "7", "7b", "7b7d", "é0", &good[2..], &good[..good.len() - 2], &long] {
            assert!(Place::from_token(List::Instances, bad).is_err(), "{bad}");
        }
        let not_an_id = Place::from_token(List::Instances, &good).unwrap();
        assert!(not_an_id.scan(lifecycle::InstanceId::new).is_err(), "its position is a name");
    }
}
