//! Sleds, as inventory.

use crate::error::ApiError;
use crate::fresh::Arrived;
use crate::page::{Key, List, PageRequest, PageView, Place, SortBy};
use crate::query::Params;
use crate::selector::{self, RawPath};
use crate::views::SledView;
use axum::Json;
use lifecycle::SledId;
use projections::{Order, Scan, SledRow};

/// Sleds are listed by id only.
const SORTS: &[SortBy] = &[SortBy::IdAscending];

pub(super) async fn list(arrived: Arrived, params: Params) -> Result<Json<PageView<SledView>>, ApiError> {
    let PageRequest { resumed, limit } = PageRequest::read(List::Sleds, &params)?;
    let place = match resumed {
        Some(place) => place,
        None => Place::start(List::Sleds, None, SORTS, &params)?,
    };
    let after = match place.scan(SledId::new)? {
        Scan::ById { after, .. } => after,
        Scan::ByName { .. } => None,
    };
    let page = arrived.fresh().await?.read(|model| model.sleds(Order::Ascending, after, limit));
    let key = |row: &SledRow| Key { name: row.properties.name.clone(), id: row.id.uuid() };
    Ok(Json(place.page(page, key, SledView::from)))
}

pub(super) async fn view(arrived: Arrived, path: RawPath) -> Result<Json<SledView>, ApiError> {
    let id = selector::sled(path)?;
    let row = arrived.fresh().await?.read(|model| model.sled(id));
    row.map(|row| Json(row.into())).ok_or_else(|| ApiError::not_found("sled", &format!("id \"{id}\"")))
}
