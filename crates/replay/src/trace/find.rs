//! Finding a request in the log, newest first: who asks mostly asks about what has just happened.

use crate::error::Error;
use crate::source::{PAGE_RECORDS, Source, log_page};
use eventlog::{ReadError, Record};
use lifecycle::RequestId;

/// The first record of a request's append; none if what the log holds has none. Where the log is damaged or
/// archived it is passed over.
pub fn find_request(source: &dyn Source, request: RequestId) -> Result<Option<Record>, Error> {
    let wanted = request.uuid().into_bytes();
    let mut end = source.durable().get().saturating_add(1);
    while end > 1 {
        let begin = end.saturating_sub(PAGE_RECORDS as u64).max(1);
        let mut next = begin;
        while next < end {
            let page = match log_page(source, next, usize::try_from(end - next).unwrap_or(usize::MAX)) {
                Ok(page) => page,
                Err(Error::Read { source: ReadError::Damaged { last: Some(last), .. }, .. }) => {
                    next = last.next().get();
                    continue;
                }
                Err(Error::Read { source: ReadError::Archived { oldest, .. }, .. }) if oldest.get() < end => {
                    next = oldest.get();
                    continue;
                }
                Err(Error::Read { source: ReadError::Archived { .. }, .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let Some(last) = page.last() else {
                break;
            };
            next = last.position.next().get();
            let is_its =
                |it: &Record| it.context.as_ref().is_some_and(|context| context.request == Some(wanted));
            if let Some(found) = page.into_iter().find(is_its) {
                return Ok(Some(found));
            }
        }
        end = begin;
    }
    Ok(None)
}
